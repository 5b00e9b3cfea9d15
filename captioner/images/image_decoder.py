"""Encoded pictures to pixels inside a graph, with core TensorFlow ops only.

Gives the pixels that `image_files.py` gives, so that an exported model sees a photo
as the command line does.
"""

import functools

import tensorflow as tf

from captioner.images.image_files import (
    MAX_PIXELS,
    ORIENTATION_TAG,
    PNG_SIGNATURE,
    SHORT,
    TOO_LARGE,
    jpeg_scale,
)


@tf.autograph.experimental.do_not_convert
def decode_image(image_bytes, image_size=None):
    """Encoded bytes, a scalar string, -> uint8 RGB `(H, W, 3)`, upright.

    `ImageConverter.decode` says which formats, and what is raised; `load_image` says
    what `image_size` does.
    """
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)
    # The other formats that TensorFlow knows begin alike.
    known = tf.debugging.assert_greater(
        _format_index(image_bytes), -1, "not an image of a known format"
    )
    with tf.control_dependencies([known]):
        image_bytes = tf.identity(image_bytes)
    image = tf.switch_case(
        _format_index(image_bytes),
        [
            lambda: _decode_jpeg(image_bytes, image_size),
            lambda: _decode_png(image_bytes),
            lambda: _decode_gif(image_bytes),
            lambda: _decode_bmp(image_bytes),
            lambda: _decode_webp(image_bytes),
        ],
    )
    return tf.ensure_shape(image, (None, None, 3))


@tf.autograph.experimental.do_not_convert
def why_not_decoded(image_bytes):
    """Encoded bytes, a scalar string, that `decode_image` fails on -> the reason, a
    scalar string in the words of `ImageError`."""
    height, width = tf.switch_case(
        tf.maximum(_format_index(image_bytes), 0),
        [
            functools.partial(size, image_bytes)
            for size in (_jpeg_size, _png_size, _gif_size, _bmp_size, _webp_size)
        ],
    )
    format_names = ["", *_SIGNATURES.values()]
    format_name = tf.gather(format_names, _format_index(image_bytes) + 1)
    damaged = tf.strings.join(
        ["truncated, damaged or unsupported ", format_name, " file"]
    )
    return tf.case(
        [
            (tf.equal(image_bytes, b""), lambda: tf.constant("the file is empty")),
            (
                tf.equal(format_name, b""),
                lambda: tf.constant("not a JPEG, PNG, GIF, BMP or WebP file"),
            ),
            (height * width > MAX_PIXELS, lambda: tf.constant(TOO_LARGE)),
        ],
        default=lambda: damaged,
    )


_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    PNG_SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}


def _format_index(image_bytes):
    """The place in `_SIGNATURES`, or -1, int32."""
    index = tf.constant(-1)
    for place, signature in enumerate(_SIGNATURES):
        start = tf.strings.substr(image_bytes, 0, len(signature))
        index = tf.where(tf.equal(start, signature), place, index)
    return index


def _within_limit(image_bytes, height, width):
    """The same bytes; what is made of them waits for the check of the header."""
    check = tf.debugging.assert_less_equal(
        tf.cast(height, tf.int64) * tf.cast(width, tf.int64),
        tf.constant(MAX_PIXELS, tf.int64),
        TOO_LARGE,
    )
    with tf.control_dependencies([check]):
        return tf.identity(image_bytes)


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
    size = tf.image.extract_jpeg_shape(image_bytes)[:2]
    image_bytes = _within_limit(image_bytes, size[0], size[1])
    if image_size is None:
        return _upright_in_graph(_decode_jpeg_pixels(image_bytes), exif)
    size = tf.where(_orientation_in_graph(exif) >= 5, size[::-1], size)
    scale = jpeg_scale(size[0], size[1], image_size, lambda x: tf.cast(x, tf.int32))
    image = tf.case(
        [
            (scale == each, functools.partial(_decode_jpeg_pixels, image_bytes, each))
            for each in (2, 4, 8)
        ],
        default=lambda: _decode_jpeg_pixels(image_bytes),
    )
    return _upright_in_graph(image, exif)


def _jpeg_size(image_bytes):
    def step(at):
        marker, size = _number(image_bytes, at, 2), _number(image_bytes, at + 2, 2)
        is_frame = (marker >= 0xFFC0) & (marker <= 0xFFCF)
        is_frame &= (marker != 0xFFC4) & (marker != 0xFFC8) & (marker != 0xFFCC)
        after = at + tf.where(marker == 0xFFFF, tf.constant(1, tf.int64), 2 + size)
        return (
            is_frame,
            at + 5,
            tf.constant(4, tf.int64),
            tf.where(marker < 0xFF00, _length(image_bytes), after),
        )

    sides = _find_segment(image_bytes, 2, step)
    return _number(sides, 0, 2), _number(sides, 2, 2)


def _decode_jpeg_pixels(image_bytes, scale=1):
    # TensorFlow's default DCT is a faster one, and off by up to 3 from OpenCV's.
    return tf.io.decode_jpeg(
        image_bytes, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE"
    )


def _decode_png(image_bytes):
    def look(at, exif, has_alpha, num_texts):
        size = _number(image_bytes, at, 4)
        tag = tf.strings.substr(image_bytes, at + 4, 4)
        exif = tf.cond(
            tf.equal(tag, b"eXIf"),
            lambda: tf.strings.substr(image_bytes, at + 8, size),
            lambda: exif,
        )
        has_alpha |= tf.equal(tag, b"tRNS")
        is_text = tf.equal(tag, b"zTXt") | tf.equal(tag, b"iTXt")
        return at + 12 + size, exif, has_alpha, num_texts + tf.cast(is_text, tf.int32)

    colour_type = _number(image_bytes, 25, 1)
    _, exif, has_alpha, num_texts = tf.while_loop(
        lambda at, *_: at <= _length(image_bytes) - 12,
        look,
        (
            tf.constant(8, tf.int64),
            tf.constant(b""),
            (colour_type == 4) | (colour_type == 6),
            0,
        ),
        maximum_iterations=_MAX_SEGMENTS,
    )
    # libpng inflates each of them to 8 MB at most, but a thousand of them. By another
    # name it skips them.
    plain = tf.cond(
        num_texts > 8,
        lambda: tf.strings.regex_replace(image_bytes, "[zi]TXt", "skIp"),
        lambda: image_bytes,
    )
    plain = _within_limit(plain, *_png_size(image_bytes))

    def decode(channels):
        return tf.cond(
            _number(image_bytes, 24, 1) == 16,
            lambda: _scale_to_8_bits(
                tf.io.decode_png(plain, channels=channels, dtype=tf.uint16)
            ),
            lambda: tf.io.decode_png(plain, channels=channels),
        )

    # Four channels are asked for only where there are: of a picture with less than 8
    # bits and without transparency, TensorFlow gives a wrong alpha.
    image = tf.cond(
        has_alpha, lambda: _over_white_in_graph(decode(4)), lambda: decode(3)
    )
    return _upright_in_graph(image, exif)


def _png_size(image_bytes):
    return _number(image_bytes, 20, 4), _number(image_bytes, 16, 4)


def _scale_to_8_bits(image):
    return tf.cast((tf.cast(image, tf.int32) + 128) // 257, tf.uint8)


def _decode_bmp(image_bytes):
    def decode_palette():
        start = 14 + _number(image_bytes, 14, 4, little=True)
        size = tf.maximum(_number(image_bytes, 10, 4, little=True) - start, 0) // 4 * 4
        palette = tf.reshape(_raw(image_bytes, start, size), (-1, 4))[:256, 2::-1]
        palette = tf.pad(palette, [[0, 256 - tf.shape(palette)[0]], [0, 0]])
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    def number(at, size=4):
        return _number(image_bytes, at, size, little=True)

    bits, compression = number(28, 2), number(30)
    usual_masks = (number(54) == 0xFF0000) & (number(58) == 0xFF00)
    usual_masks &= (number(62) == 0xFF) & (bits == 32) & (compression == 3)
    # TensorFlow looks at none of these, and would give wrong pixels.
    is_read = (bits == 8) | (bits == 24) | (bits == 32)
    is_read &= (number(14) >= 40) & ((compression == 0) | usual_masks)
    check = tf.debugging.Assert(is_read, ["a kind of BMP that is not read"])
    with tf.control_dependencies([check]):
        image = tf.io.decode_bmp(_within_limit(image_bytes, *_bmp_size(image_bytes)))
    has_alpha = usual_masks & (number(14) >= 56) & (number(66) == 0xFF000000)
    # TensorFlow takes a palette index for a grey.
    return tf.case(
        [(bits == 8, decode_palette), (has_alpha, lambda: _over_white_in_graph(image))],
        default=lambda: image[..., :3],
    )


def _bmp_size(image_bytes):
    # Rows from the top to the bottom have a negative height.
    height = _number(image_bytes, 22, 4, little=True)
    height = tf.minimum(height, 2**32 - height)
    return height, _number(image_bytes, 18, 4, little=True)


def _decode_webp(image_bytes):
    def step(at):
        size = _number(image_bytes, at + 4, 4, little=True)
        is_exif = tf.strings.substr(image_bytes, at, 4) == b"EXIF"
        return is_exif, at + 8, size, at + 8 + size + size % 2

    # TensorFlow 2.21 writes outside its memory when it decodes an animated WebP with
    # four channels; asked for three, it refuses.
    is_animated = (_part(image_bytes, 12, 4) == b"VP8X") & (
        _number(image_bytes, 20, 1) // 2 % 2 == 1
    )
    file = _within_limit(image_bytes, *_webp_size(image_bytes))
    image = tf.cond(
        is_animated,
        lambda: tf.io.decode_image(file, channels=3, expand_animations=False),
        lambda: tf.io.decode_image(file, expand_animations=False),
    )
    return _upright_in_graph(
        _over_white_in_graph(image), _find_segment(image_bytes, 12, step)
    )


def _webp_size(image_bytes):
    def sides(first, second, size, bits=24):
        width = _number(image_bytes, first, size, little=True) % 2**bits
        height = _number(image_bytes, second, size, little=True) % 2**bits
        return height, width

    def lossless():
        both = _number(image_bytes, 21, 4, little=True)
        return 1 + both // 2**14 % 2**14, 1 + both % 2**14

    def extended():
        height, width = sides(24, 27, 3)
        return 1 + height, 1 + width

    form = _part(image_bytes, 12, 4)
    return tf.case(
        [(tf.equal(form, b"VP8X"), extended), (tf.equal(form, b"VP8L"), lossless)],
        default=lambda: sides(26, 28, 2, bits=14),
    )


def _raw(data, start, size):
    """The numbers of a `_part`."""
    return tf.io.decode_raw(_part(data, start, size), tf.uint8)


def _part(data, start, size):
    """Up to `size` bytes from `start` on, fewer at the end of the data, where
    `tf.strings.substr` fails."""
    start = tf.minimum(tf.cast(start, tf.int64), _length(data))
    return tf.strings.substr(data, start, tf.cast(size, tf.int64))


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
    # All sums are below 65,536, and a large picture takes half the memory of int32.
    image = tf.cast(image, tf.uint16)
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
    no longer marked as clear. What follows the first frame is cut off, since
    TensorFlow would decode all of it.
    """

    def byte(at):
        return _number(image_bytes, at, 1)

    def side(at):
        return _number(image_bytes, at, 2, little=True)

    def replace(data, at, new):
        head = tf.strings.substr(data, tf.zeros_like(at), at)
        tail = tf.strings.substr(data, at + len(new), _length(data))
        return tf.strings.join([head, new, tail])

    def make_white(data):
        white = replace(data, palette + 3 * clear, b"\xff\xff\xff")
        return replace(white, control + 3, b"\0")

    def after_blocks(at):
        (at,) = tf.while_loop(
            lambda at: byte(at) != 0,
            lambda at: (at + 1 + byte(at),),
            (at,),
            maximum_iterations=_MAX_SEGMENTS,
        )
        return at + 1

    def skip_extension(at, control):
        control = tf.where(byte(at + 1) == 0xF9, at, control)
        return after_blocks(at + 2), control

    def palette_size(flags):
        sizes = tf.constant([2 << bits for bits in range(8)], tf.int64)
        return tf.where(flags >= 128, tf.gather(sizes, flags % 8), 0)

    frame, control = tf.while_loop(
        lambda at, control: byte(at) == 0x21,
        skip_extension,
        (13 + 3 * palette_size(byte(10)), tf.constant(0, tf.int64)),
        maximum_iterations=1000,
    )
    has_own_palette = byte(frame + 9) >= 128
    palette = tf.where(has_own_palette, frame + 10, 13)
    size = palette_size(tf.where(has_own_palette, byte(frame + 9), byte(10)))
    clear = byte(control + 6)
    has_clear = (control > 0) & (byte(control + 3) % 2 == 1) & (clear < size)
    has_clear &= palette + 3 * size <= _length(image_bytes)
    end = after_blocks(frame + 11 + 3 * palette_size(byte(frame + 9)))
    end = tf.minimum(end, _length(image_bytes))
    data = tf.strings.substr(image_bytes, tf.zeros_like(end), end)
    data = tf.strings.join([data, b";"])
    data = tf.cond(has_clear, lambda: make_white(data), lambda: data)
    left, top, width, height = (side(frame + at) for at in (1, 3, 5, 7))
    canvas_height, canvas_width = _gif_size(image_bytes)
    data = _within_limit(data, height, width)
    data = _within_limit(data, canvas_height, canvas_width)
    # TensorFlow takes the size of the frame for that of the picture, but moves it.
    data = replace(data, frame + 1, bytes(4))
    image = tf.io.decode_image(data, channels=3, expand_animations=False)

    def in_canvas():
        bottom, right = canvas_height - top - height, canvas_width - left - width
        margins = [[top, bottom], [left, right], [0, 0]]
        inside = tf.pad(tf.ones_like(image, tf.bool), margins)
        around = tf.where(has_clear, 255, tf.cast(_raw(data, palette, 3), tf.int32))
        return tf.where(inside, tf.pad(image, margins), tf.cast(around, tf.uint8))

    is_smaller = (height != canvas_height) | (width != canvas_width)
    return tf.cond(is_smaller, in_canvas, lambda: image)


def _gif_size(image_bytes):
    height = _number(image_bytes, 8, 2, little=True)
    return height, _number(image_bytes, 6, 2, little=True)


# The most parts of a file to look at, so that a bad one cannot take hours.
_MAX_SEGMENTS = 100_000


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
    return tf.while_loop(
        keep_looking,
        look,
        (start, tf.constant(b"")),
        maximum_iterations=_MAX_SEGMENTS,
    )[1]


def _orientation_in_graph(exif):
    """As `_orientation`."""
    skip = tf.where(tf.strings.substr(exif, 0, 6) == b"Exif\0\0", 6, 0)
    exif = _part(exif, skip, tf.strings.length(exif))
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
