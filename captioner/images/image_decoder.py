"""Encoded pictures to pixels inside a graph, with core TensorFlow ops only.

Gives the pixels that `image_files.py` gives, so that an exported model sees a photo
as the command line does.
"""

import functools

import tensorflow as tf

from captioner.images.image_files import (
    ORIENTATION_TAG,
    PNG_SIGNATURE,
    SHORT,
    decode_jpeg_pixels,
    jpeg_scale,
)


@tf.autograph.experimental.do_not_convert
def decode_image(image_bytes, image_size=None):
    """Encoded bytes, a scalar string, -> uint8 RGB `(H, W, 3)`, upright.

    `ImageConverter.decode` says which formats, and what is raised; `load_image` says
    what `image_size` does.
    """
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)

    def starts_with(signature):
        return tf.strings.substr(image_bytes, 0, len(signature)) == signature

    image = tf.case(
        [
            (
                starts_with(b"\xff\xd8\xff"),
                lambda: _decode_jpeg(image_bytes, image_size),
            ),
            (starts_with(PNG_SIGNATURE), lambda: _decode_png(image_bytes)),
            (starts_with(b"GIF8"), lambda: _decode_gif(image_bytes)),
            (starts_with(b"BM"), lambda: _decode_bmp(image_bytes)),
            (starts_with(b"RIFF"), lambda: _decode_webp(image_bytes)),
        ],
        default=lambda: tf.io.decode_image(
            image_bytes, channels=3, expand_animations=False
        ),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_jpeg(image_bytes, image_size):
    def step(at):
        marker, size = _number(image_bytes, at, 2), _number(image_bytes, at + 2, 2)
        name = tf.strings.substr(image_bytes, at + 4, 6)
        is_exif = (marker == 0xFFE1) & (name == b"Exif\0\0")
        # 0xFFFF is padding; the pixels follow 0xFFDA.
        after = at + tf.where(marker == 0xFFFF, tf.constant(1, tf.int64), 2 + size)
        end = (marker < 0xFF00) | (marker == 0xFFDA) | (marker == 0xFFD9)
        return (
            is_exif,
            at + 4,
            size - 2,
            tf.where(end, _length(image_bytes), after),
        )

    exif = _find_segment(image_bytes, 2, step)
    if image_size is None:
        return _upright_in_graph(decode_jpeg_pixels(image_bytes), exif)
    size = tf.image.extract_jpeg_shape(image_bytes)[:2]
    size = tf.where(_orientation_in_graph(exif) >= 5, size[::-1], size)
    scale = jpeg_scale(size[0], size[1], image_size, lambda x: tf.cast(x, tf.int32))
    image = tf.case(
        [
            (scale == each, functools.partial(decode_jpeg_pixels, image_bytes, each))
            for each in (2, 4, 8)
        ],
        default=lambda: decode_jpeg_pixels(image_bytes),
    )
    return _upright_in_graph(image, exif)


def _decode_png(image_bytes):
    def step_to(wanted):
        def step(at):
            size = _number(image_bytes, at, 4)
            tag = tf.strings.substr(image_bytes, at + 4, 4)
            return tag == wanted, at + 8, size, at + 12 + size

        return step

    def decode(channels):
        return tf.cond(
            _number(image_bytes, 24, 1) == 16,
            lambda: _scale_to_8_bits(
                tf.io.decode_png(image_bytes, channels=channels, dtype=tf.uint16)
            ),
            lambda: tf.io.decode_png(image_bytes, channels=channels),
        )

    # Four channels are asked for only where there are: of a picture with less than 8
    # bits and without transparency, TensorFlow gives a wrong alpha.
    colour_type = _number(image_bytes, 25, 1)
    has_alpha = (colour_type == 4) | (colour_type == 6)
    has_alpha |= _find_segment(image_bytes, 8, step_to(b"tRNS")) != b""
    image = tf.cond(
        has_alpha, lambda: _over_white_in_graph(decode(4)), lambda: decode(3)
    )
    return _upright_in_graph(image, _find_segment(image_bytes, 8, step_to(b"eXIf")))


def _scale_to_8_bits(image):
    return tf.cast((tf.cast(image, tf.int32) + 128) // 257, tf.uint8)


def _decode_bmp(image_bytes):
    def decode_palette():
        start = 14 + _number(image_bytes, 14, 4, little=True)
        size = tf.maximum(_number(image_bytes, 10, 4, little=True) - start, 0) // 4 * 4
        palette = tf.reshape(_raw(image_bytes, start, size), (-1, 4))[:256, 2::-1]
        palette = tf.pad(palette, [[0, 256 - tf.shape(palette)[0]], [0, 0]])
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    image = tf.io.decode_bmp(image_bytes)
    # TensorFlow takes a palette index for a grey.
    is_palette = _number(image_bytes, 28, 2, little=True) == 8
    return tf.cond(is_palette, decode_palette, lambda: image[..., :3])


def _decode_webp(image_bytes):
    def step(at):
        size = _number(image_bytes, at + 4, 4, little=True)
        is_exif = tf.strings.substr(image_bytes, at, 4) == b"EXIF"
        return is_exif, at + 8, size, at + 8 + size + size % 2

    # TensorFlow 2.21 writes outside its memory when it decodes an animated WebP with
    # four channels; asked for three, it refuses.
    is_animated = (tf.strings.substr(image_bytes, 12, 4) == b"VP8X") & (
        _number(image_bytes, 20, 1) // 2 % 2 == 1
    )
    image = tf.cond(
        is_animated,
        lambda: tf.io.decode_image(image_bytes, channels=3, expand_animations=False),
        lambda: tf.io.decode_image(image_bytes, expand_animations=False),
    )
    return _upright_in_graph(
        _over_white_in_graph(image), _find_segment(image_bytes, 12, step)
    )


def _raw(data, start, size):
    """Up to `size` bytes from `start` on, fewer at the end of the data."""
    start = tf.minimum(tf.cast(start, tf.int64), _length(data))
    part = tf.strings.substr(data, start, tf.cast(size, tf.int64))
    return tf.io.decode_raw(part, tf.uint8)


def _length(data):
    return tf.cast(tf.strings.length(data), tf.int64)


def _number(data, start, size, little=False):
    """The unsigned number in `size` bytes, int64; bytes past the end count as 0."""
    raw = tf.cast(_raw(data, start, size), tf.int64)
    raw = tf.pad(raw, [[0, size - tf.size(raw)]])
    places = [256**place for place in range(size)]
    # Both constants: of a reversed slice TensorFlow's optimizer complains aloud.
    weights = tf.where(little, places, places[::-1])
    return tf.reduce_sum(raw * tf.cast(weights, tf.int64))


def _over_white_in_graph(image):
    """RGB with or without alpha -> RGB."""
    image = tf.cast(image, tf.int32)
    alpha = tf.pad(image, [[0, 0], [0, 0], [0, 1]], constant_values=255)[..., 3:4]
    image = (image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return tf.cast(image, tf.uint8)


def _upright_in_graph(image, exif):
    orientation = _orientation_in_graph(exif)

    def step(*flipped):
        return 1 - 2 * tf.reduce_max(tf.cast(orientation == flipped, tf.int32))

    axes = tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2])
    image = tf.transpose(image, axes)
    return image[:: step(3, 4, 7, 8), :: step(2, 3, 6, 7)]


def _decode_gif(image_bytes):
    """The first frame, its clear pixels white.

    TensorFlow shows them black. So their colour becomes white in the palette, and is
    no longer marked as clear.
    """

    def byte(at):
        return _number(image_bytes, at, 1)

    def replace(data, at, new):
        head = tf.strings.substr(data, tf.zeros_like(at), at)
        tail = tf.strings.substr(data, at + len(new), _length(data))
        return tf.strings.join([head, new, tail])

    def make_white():
        white = replace(image_bytes, palette + 3 * clear, b"\xff\xff\xff")
        return replace(white, control + 3, b"\0")

    def skip_extension(at, control):
        control = tf.where(byte(at + 1) == 0xF9, at, control)
        (at,) = tf.while_loop(
            lambda at: byte(at) != 0, lambda at: (at + 1 + byte(at),), (at + 2,)
        )
        return at + 1, control

    def palette_size(flags):
        sizes = tf.constant([2 << bits for bits in range(8)], tf.int64)
        return tf.where(flags >= 128, tf.gather(sizes, flags % 8), 0)

    frame, control = tf.while_loop(
        lambda at, control: byte(at) == 0x21,
        skip_extension,
        (13 + 3 * palette_size(byte(10)), tf.constant(0, tf.int64)),
    )
    has_own_palette = byte(frame + 9) >= 128
    palette = tf.where(has_own_palette, frame + 10, 13)
    size = palette_size(tf.where(has_own_palette, byte(frame + 9), byte(10)))
    clear = byte(control + 6)
    has_clear = (control > 0) & (byte(control + 3) % 2 == 1) & (clear < size)
    has_clear &= palette + 3 * size <= _length(image_bytes)
    image_bytes = tf.cond(has_clear, make_white, lambda: image_bytes)
    return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)


def _find_segment(image_bytes, start, step):
    """Walks the segments of a file until the wanted one; its content, or "".

    `step` maps the position of a segment to: whether it is wanted, the start and the
    size of its content, the position of the next one.
    """
    total = _length(image_bytes)

    def keep_looking(at, content):
        return (content == b"") & (at <= total - 12)

    def look(at, content):
        is_wanted, begin, size, after = step(at)
        size = tf.where(is_wanted, tf.maximum(size, 0), 0)
        return after, tf.strings.substr(image_bytes, tf.minimum(begin, total), size)

    start = tf.constant(start, tf.int64)
    return tf.while_loop(keep_looking, look, (start, tf.constant(b"")))[1]


def _orientation_in_graph(exif):
    """As `_orientation`."""
    skip = tf.where(tf.strings.substr(exif, 0, 6) == b"Exif\0\0", 6, 0)
    exif = tf.strings.substr(exif, skip, tf.strings.length(exif))
    little = tf.strings.substr(exif, 0, 4) == b"II*\0"
    known = little | (tf.strings.substr(exif, 0, 4) == b"MM\0*")
    first = _number(exif, 4, 4, little)
    size = 12 * _number(exif, first, 2, little)
    entries = _raw(exif, first + 2, size)
    # The last entry may lack the two bytes that a SHORT does not use.
    entries = tf.pad(entries, [[0, 2]])
    entries = tf.cast(
        tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12)), tf.int64
    )

    def numbers(column):
        pair = entries[:, column], entries[:, column + 1]
        return tf.where(little, pair[0] + 256 * pair[1], 256 * pair[0] + pair[1])

    is_orientation = (numbers(0) == ORIENTATION_TAG) & (numbers(2) == SHORT)
    found = tf.boolean_mask(numbers(8), is_orientation & known)
    orientation = tf.concat([found, tf.ones(1, tf.int64)], axis=0)[0]
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, 1)
