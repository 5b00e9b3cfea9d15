"""Image files, bytes or arrays in; float32 RGB pictures of one size out.

`load_image` reads files with OpenCV, `ImageConverter.decode` reads encoded bytes
inside a graph with TensorFlow ops, and both give the same pixels: upright by the
EXIF orientation, 16 bits scaled to 8, alpha laid over white. `ImageConverter` then
resizes with the same ops wherever it runs. Shape letters: B batch, H W pixels.
"""

import ctypes
import operator
import os
import stat
import threading
import zlib

MAX_PIXELS = 178_956_970  # where Pillow, too, calls a file a decompression bomb
# OpenCV reads this once, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

if "OPENCV_LOG_LEVEL" not in os.environ:  # a bad picture is an `ImageError` here
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_FILE_BYTES = 2**30
RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES = {  # only to say "damaged JPEG" rather than "not an image"
    b"\xff\xd8\xff": "JPEG",
    PNG_SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"#?": "HDR",
}
ORIENTATION_TAG = 0x0112
SHORT = 3  # the TIFF type of the orientation: an unsigned 16-bit number


class ImageError(ValueError):
    """A picture that cannot be used.

    Its message is one line that names the file.

    Attributes:
        name: the path, or "image bytes" or "image array".
        reason: the message without the name.
        kind: "empty", "truncated", "not_an_image", "too_large", "unreadable" or
            "missing". Damaged and unsupported files of a known format are
            "truncated".
    """

    def __init__(self, name, kind, reason):
        # A file name may hold anything, a line break too.
        name = name if name.isprintable() else repr(name)
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.kind = kind
        self.reason = reason

    def __reduce__(self):  # so that it comes back from a worker process
        return ImageError, (self.name, self.kind, self.reason)


@keras.saving.register_keras_serializable(package="captioner")
class ImageConverter(keras.layers.Layer):
    """Resizes RGB pictures to one size, with TensorFlow ops only.

    The same picture gives exactly the same floats eagerly, in `tf.data` and in an
    exported graph. A picture that has the size already comes out unchanged.

    Args:
        image_size: pair of ints, the height and width that come out, in pixels.
        resize_mode: "squash" stretches to the size; "crop" scales until the
            picture covers the size and cuts out the centre; "pad" scales until
            it fits inside and centres it on black.
        interpolation: "nearest", "bilinear" or "bicubic". Shrinking is
            antialiased, except with "nearest".
        **kwargs: passed to `keras.layers.Layer`.

    Call arguments:
        images: `(H, W, 3)` or `(B, H, W, 3)`, any real dtype, RGB of 0 to 255.

    Returns:
        float32 tensor of the same rank, RGB of 0 to 255.

    Raises:
        ValueError: an argument is not one of the above.

    Example:

    >>> converter = ImageConverter(image_size=(224, 224), resize_mode="crop")
    >>> converter(np.zeros((480, 640, 3), "uint8")).shape
    TensorShape([224, 224, 3])
    """

    def __init__(
        self,
        image_size=(224, 224),
        resize_mode="squash",
        interpolation="bilinear",
        **kwargs,
    ):
        # Pixels stay float32 under a global policy of mixed precision.
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        try:
            height, width = (operator.index(side) for side in image_size)
        except (TypeError, ValueError):
            height = width = 0
        if height < 1 or width < 1:
            raise ValueError(
                "`image_size` must be two positive integers, (height, width). "
                f"Received: image_size={image_size}"
            )
        if resize_mode not in RESIZE_MODES:
            raise ValueError(
                f"`resize_mode` must be one of {RESIZE_MODES}. "
                f"Received: resize_mode={resize_mode}"
            )
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {INTERPOLATIONS}. "
                f"Received: interpolation={interpolation}"
            )
        self.image_size = (height, width)
        self.resize_mode = resize_mode
        self.interpolation = interpolation

    def call(self, images):
        if len(images.shape) not in (3, 4) or images.shape[-1] not in (3, None):
            raise ValueError(
                "`images` must have shape (H, W, 3) or (B, H, W, 3). "
                f"Received: images.shape={tuple(images.shape)}"
            )
        images = tf.cast(images, tf.float32)
        if self.resize_mode == "squash":
            size = self.image_size
        else:
            size = self._scaled_size(tf.shape(images, out_type=tf.int64))
        images = tf.image.resize(images, size, self.interpolation, antialias=True)
        if self.resize_mode != "squash":
            images = tf.image.resize_with_crop_or_pad(images, *self.image_size)
        # Bicubic overshoots at edges.
        images = tf.clip_by_value(images, 0.0, 255.0)
        return tf.ensure_shape(images, (*images.shape[:-3], *self.image_size, 3))

    def _scaled_size(self, shape):
        """The size that covers (crop) or fits inside (pad) the image size."""
        from_height, from_width = shape[-3], shape[-2]
        height, width = (tf.constant(side, tf.int64) for side in self.image_size)
        # Rounded in whole numbers, which are the same eagerly and in every graph.
        by_width = (2 * from_height * width + from_width) // (2 * from_width)
        by_height = (2 * from_width * height + from_height) // (2 * from_height)
        tall = from_height * width >= from_width * height
        fill_width = tall if self.resize_mode == "crop" else ~tall
        size = (
            tf.where(fill_width, tf.maximum(by_width, 1), height),
            tf.where(fill_width, width, tf.maximum(by_height, 1)),
        )
        return tf.cast(tf.stack(size), tf.int32)

    @tf.autograph.experimental.do_not_convert
    def decode(self, image_bytes):
        """Decodes an image file inside a graph, with core TensorFlow ops only.

        Reads JPEG, PNG, BMP, the first frame of a GIF and, where TensorFlow
        does, a still WebP. The pixels are those of `load_image`.

        Args:
            image_bytes: scalar string tensor, a whole image file.

        Returns:
            uint8 tensor of shape `(H, W, 3)`, RGB, upright.

        Raises:
            tf.errors.InvalidArgumentError: the bytes are not such a file.

        Example:

        >>> converter = ImageConverter()
        >>> images = converter(converter.decode(tf.io.read_file("photo.jpg")))
        """
        image_bytes = tf.convert_to_tensor(image_bytes, tf.string)

        def starts_with(signature):
            return tf.strings.substr(image_bytes, 0, len(signature)) == signature

        image = tf.case(
            [
                (starts_with(b"\xff\xd8\xff"), lambda: _decode_jpeg(image_bytes)),
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

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], *self.image_size, 3)

    def get_config(self):
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "resize_mode": self.resize_mode,
            "interpolation": self.interpolation,
        }


# Files, with OpenCV -----------------------------------------------------------------


def load_image(source):
    """Reads a picture of any format that OpenCV knows, as upright RGB.

    Grey becomes RGB, alpha is laid over white, CMYK is converted and 16 bits are
    scaled to 8. Of an animation it is the first frame. Floating-point pictures
    count from 0 to the first of 1, 255 and 65535 that holds all of their values,
    or else to their largest; Radiance HDR is clipped at 1 and gets the sRGB curve.

    Args:
        source: path of a file, the bytes of one, or an array of shape `(H, W)` or
            `(H, W, C)` that is grey, grey and alpha, RGB, or RGB and alpha.

    Returns:
        uint8 array of shape `(H, W, 3)`.

    Raises:
        ImageError: the picture cannot be used; `kind` says why.

    Example:

    >>> load_image(np.zeros((480, 640), "uint8")).shape
    (480, 640, 3)
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(source, "image array")
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "image bytes", bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        data = read_image_file(name)
    else:
        raise ValueError(
            "`source` must be a path, bytes or a NumPy array. "
            f"Received: source={source!r}"
        )
    if not data:
        raise ImageError(name, "empty", "the file is empty")
    return _to_rgb(_decode_file(data, name), name)


class _MutedDecoders:
    """Mutes C's stderr, to which libjpeg and libpng print without being asked.

    Python writes to the terminal by another way, so nothing of a progress bar in
    another thread is lost. Where C's stderr cannot be replaced, nothing is muted.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.users = 0
        try:
            libc = ctypes.CDLL(None)
            self.stream = ctypes.c_void_p.in_dll(libc, "stderr")
            libc.fopen.restype = ctypes.c_void_p
            self.nowhere = libc.fopen(os.devnull.encode(), b"w")
        except (AttributeError, OSError, TypeError, ValueError):
            self.nowhere = None

    def __enter__(self):
        with self.lock:
            self.users += 1
            if self.users == 1 and self.nowhere:
                self.terminal, self.stream.value = self.stream.value, self.nowhere

    def __exit__(self, *error):
        with self.lock:
            self.users -= 1
            if not self.users and self.nowhere:
                self.stream.value = self.terminal


_muted_decoders = _MutedDecoders()


def read_image_file(name):
    """The bytes of a file, of a size that a picture may have.

    Raises:
        ImageError: it is missing, not a file, too large, or cannot be read.
    """
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
            raise ImageError(name, "unreadable", f"cannot be read: it is {what}")
        if status.st_size > MAX_FILE_BYTES:
            reason = f"{status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}"
            raise ImageError(name, "too_large", f"the file is too large: {reason}")
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ImageError(name, "missing", "no such file") from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageError(name, "unreadable", f"cannot be read: {reason}") from error


def _decode_file(data, name):
    """Image file -> upright array, grey or RGB, with or without alpha."""
    format_name = next((f for s, f in SIGNATURES.items() if data.startswith(s)), None)
    if format_name == "WebP" and data[8:12] != b"WEBP":  # sound and video are RIFF, too
        format_name = None
    exif, num_channels, transparent_grey = b"", 0, None
    if format_name == "JPEG":
        exif, num_channels = _read_jpeg_header(data, name)
    elif format_name == "PNG":
        data, exif, transparent_grey = _read_png_chunks(data, name)
    try:
        with _muted_decoders:
            if num_channels == 4:
                # OpenCV takes every CMYK JPEG for an inverted one. BGR, as its own.
                pixels = _decode_jpeg_pixels(data).numpy()[..., ::-1]
                kinds = blocks = ()
            else:
                pixels, kinds, blocks = cv2.imdecodeWithMetadata(
                    np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
                )
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem or "MAX_IMAGE" in str(error):
            raise _too_large(name) from error
        pixels = None
    except tf.errors.InvalidArgumentError:
        pixels = None
    if pixels is None and format_name is None:
        raise ImageError(name, "not_an_image", "not an image of a known format")
    if pixels is None:
        raise _damaged(name, format_name)
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise _too_large(name)
    if transparent_grey is not None and pixels.ndim == 2:
        alpha = np.where(pixels == transparent_grey, 0, np.iinfo(pixels.dtype).max)
        pixels = np.stack((pixels, alpha.astype(pixels.dtype)), axis=-1)
    if format_name == "HDR":
        pixels = _srgb_curve(np.clip(np.nan_to_num(pixels), 0.0, 1.0))
    premultiplied = format_name == "TIFF" and pixels.dtype == np.uint8
    pixels = _to_uint8(pixels)
    if pixels.ndim == 3 and pixels.shape[-1] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
        if format_name == "BMP":  # its fourth byte is padding
            pixels = pixels[..., :3]
        elif premultiplied:  # libtiff has multiplied by alpha already
            pixels = cv2.add(pixels[..., :3], 255 - pixels[..., 3:].repeat(3, -1))
    elif pixels.ndim == 3 and pixels.shape[-1] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if cv2.IMAGE_METADATA_EXIF in kinds and not exif:
        exif = blocks[list(kinds).index(cv2.IMAGE_METADATA_EXIF)].tobytes()
    return _upright(pixels, _orientation(exif))


def _damaged(name, format_name):
    reason = f"truncated, damaged or unsupported {format_name} file"
    return ImageError(name, "truncated", reason)


def _too_large(name):
    return ImageError(
        name, "too_large", f"the picture has more than {MAX_PIXELS:,} pixels"
    )


def _read_jpeg_header(data, name):
    """The EXIF block, and the number of colour channels."""
    exif, num_channels, at = b"", 0, 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):
        if data[at + 1] == 0xFF:  # padding between segments
            at += 1
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + size]
        if data[at + 1] == 0xE1 and body.startswith(b"Exif\0\0") and not exif:
            exif = body
        elif 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
            if height * width > MAX_PIXELS:
                raise _too_large(name)
            num_channels = body[5] if len(body) > 5 else 0
        at += 2 + size
    return exif, num_channels


def _read_png_chunks(data, name):
    """The file without what is not its pixels, the EXIF block, the grey that is clear.

    libpng writes its warnings and errors straight to the terminal. Most of them are
    about chunks that do not matter here, or come with a wrong checksum.
    """
    kept, exif, transparent_grey, at, tag = [PNG_SIGNATURE], b"", None, 8, b""
    depth = colour_type = None
    while tag != b"IEND":
        size, tag = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data):
            raise _damaged(name, "PNG")
        body = data[at + 8 : end - 4]
        if tag in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(
                data[end - 4 : end], "big"
            ):
                raise _damaged(name, "PNG")
            # OpenCV ignores the clear grey, and libpng may complain about it.
            if tag != b"tRNS" or colour_type != 0:
                kept.append(data[at:end])
        if tag == b"IHDR" and size == 13:
            width, height = (int.from_bytes(body[i : i + 4], "big") for i in (0, 4))
            if width * height > MAX_PIXELS or max(width, height) > 1_000_000:
                raise _too_large(name)
            depth, colour_type = body[8], body[9]
        elif tag == b"tRNS" and colour_type == 0 and depth in (1, 2, 4, 8, 16):
            most = 2**depth - 1
            transparent_grey = (int.from_bytes(body[:2], "big") & most) * (
                (65535 if depth == 16 else 255) // most
            )
        elif tag == b"eXIf":
            exif = body
        at = end
    return b"".join(kept), exif, transparent_grey


def _orientation(exif):
    """The orientation, 1 to 8, in an EXIF block; 1 if it holds none."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])

    def number(at, size):
        return int.from_bytes(exif[at : at + size].ljust(size, b"\0"), order)

    if order:
        first = number(4, 4)
        end = min(first + 2 + 12 * number(first, 2), len(exif) - 9)
        for at in range(first + 2, end, 12):
            if number(at, 2) == ORIENTATION_TAG and number(at + 2, 2) == SHORT:
                return number(at + 8, 2) if 1 <= number(at + 8, 2) <= 8 else 1
    return 1


def _upright(image, orientation):
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    return image[
        :: -1 if orientation in (3, 4, 7, 8) else 1,
        :: -1 if orientation in (2, 3, 6, 7) else 1,
    ]


def _srgb_curve(linear):
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )


def _to_uint8(pixels):
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
        top = pixels.max()
        white = next((white for white in (1, 255, 65535) if top <= white), top)
    else:
        white = 1 if pixels.dtype.kind == "b" else np.iinfo(pixels.dtype).max
    return np.rint(np.clip(pixels / white, 0.0, 1.0) * 255).astype(np.uint8)


def _to_rgb(pixels, name):
    """Grey, grey and alpha, RGB, or RGB and alpha -> uint8 RGB."""
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if (
        pixels.ndim != 3
        or not 1 <= pixels.shape[-1] <= 4
        or pixels.dtype.kind not in ("buif")
    ):
        reason = f"no picture has shape {pixels.shape} and dtype {pixels.dtype}"
        raise ImageError(name, "not_an_image", reason)
    if not pixels.size:
        raise ImageError(name, "empty", f"no pixels in shape {pixels.shape}")
    pixels = _to_uint8(pixels)
    if pixels.shape[-1] in (2, 4):
        alpha = pixels[..., -1:].astype(np.uint16)
        over_white = pixels[..., :-1] * alpha + 255 * (255 - alpha)
        pixels = ((over_white + 127) // 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, axis=-1)
    return np.ascontiguousarray(pixels)


# Bytes in a graph, with TensorFlow ops ----------------------------------------------


def _decode_jpeg_pixels(image_bytes):
    # TensorFlow's default DCT is a faster one, and off by up to 3 from OpenCV's.
    return tf.io.decode_jpeg(image_bytes, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_jpeg(image_bytes):
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

    image = _decode_jpeg_pixels(image_bytes)
    return _upright_in_graph(image, _find_segment(image_bytes, 2, step))


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
    big = tf.constant([256**place for place in reversed(range(size))], tf.int64)
    return tf.reduce_sum(raw * tf.where(little, big[::-1], big))


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
