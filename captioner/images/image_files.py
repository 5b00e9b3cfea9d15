"""Image files, bytes and arrays to pixels, with OpenCV and, where that fails, Pillow.

Upright by the EXIF orientation, 16 bits scaled to 8, alpha laid over white; and one
clear error for whatever is no picture. `image_decoder.py` gives the same pixels
inside a graph. TensorFlow is never loaded, so that a process that decodes starts at
once and stays small.
"""

import ctypes
import os
import re
import stat
import threading
import zlib

# OpenCV reads this once, when it is imported. Unless it is set, a picture may have as
# many pixels as for Pillow, which calls one with more a decompression bomb.
MAX_PIXELS = int(os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from captioner.images import pillow_formats  # noqa: E402

if "OPENCV_LOG_LEVEL" not in os.environ:  # a bad picture is an `ImageError` here
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_FILE_BYTES = 2**30
TOO_LARGE = f"the picture has more than {MAX_PIXELS:,} pixels"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    PNG_SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"#?": "HDR",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"\x76\x2f\x31\x01": "EXR",
    b"DDS ": "DDS",
    b"8BPS": "PSD",
    b"qoif": "QOI",
    b"\0\0\1\0": "ICO",
}
# Brands of the `ftyp` box that AVIF and HEIC begin with.
AVIF_BRANDS = (b"avif", b"avis")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
ORIENTATION_TAG = 0x0112
SHORT = 3  # the TIFF type of the orientation: an unsigned 16-bit number


class ImageError(ValueError):
    """A picture that cannot be used.

    Its message is one line that names the file.

    Attributes:
        name: the path, or "image bytes" or "image array".
        reason: the message without the name.
        kind: "empty", "truncated", "not_an_image", "too_large", "unsupported" (HEIC
            without its extra), "unreadable" or "missing". Damaged files of a known
            format, and those of a kind that is not read, are "truncated".
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


def jpeg_scale(height, width, image_size, as_int=int):
    """How much smaller a JPEG is decoded: 1, 2, 4 or 8, which its decoder does at once.

    It is the largest of these that leaves each side at least twice as long as a model
    wants it, so that resizing still has more pixels than it needs. This is the one rule
    for all ways in which a photo reaches a model.

    Args:
        height, width: of the upright picture, in pixels; ints or integer tensors.
        image_size: the height and width that the model takes.
        as_int: makes an integer of the truth of a comparison, as `tf.cast` does it.

    Example:

    >>> jpeg_scale(3000, 4000, (320, 320)), jpeg_scale(480, 640, (320, 320))
    (4, 1)
    """
    scale = 1
    for step in (2, 4, 8):
        is_enough = (height >= 2 * step * image_size[0]) & (
            width >= 2 * step * image_size[1]
        )
        scale += step // 2 * as_int(is_enough)
    return scale


def load_image(source, image_size=None):
    """Read a picture as upright RGB.

    Its first bytes say its format, not its name: JPEG (the first of an MPO), PNG, GIF,
    WebP, AVIF, HEIC (with `captioner[heic]`), TIFF, BMP, JPEG 2000, PNM, Radiance HDR,
    Sun raster, TGA, DDS, PSD (its composite), ICO and CUR (the largest), QOI and PCX.
    Grey becomes RGB, alpha is laid over white, CMYK is converted and 16 bits are
    scaled to 8. Of an animation it is the first frame. Floating-point pictures
    count from 0 to the first of 1, 255 and 65535 that holds all of their values,
    or else to their largest; Radiance HDR is clipped at 1 and gets the sRGB curve.

    Args:
        source: path of a file, the bytes of one, or an array of shape `(H, W)` or
            `(H, W, C)` that is grey, grey and alpha, RGB, or RGB and alpha. Or an
            object with a `name`, whose `read()` returns one of the latter two: a
            `Photo`, an open file, an image of a dataset.
        image_size: the height and width that a model will resize the picture to. A
            JPEG that is much larger is then decoded at a half, a quarter or an eighth
            of its size, see `jpeg_scale`, which takes less time and memory.

    Returns:
        uint8 array of shape `(H, W, 3)`.

    Raises:
        ImageError: the picture cannot be used; `kind` says why.

    Example:

    >>> load_image(np.zeros((480, 640), "uint8")).shape
    (480, 640, 3)
    """
    name = "image bytes"
    if hasattr(source, "read"):
        name, source = str(getattr(source, "name", name)), source.read()
    if isinstance(source, np.ndarray):
        return _to_rgb(source, "image array")
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
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
    return _to_rgb(_decode_file(data, name, image_size), name)


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


def _decode_file(data, name, image_size):
    """Image file -> upright array, grey or RGB, with or without alpha."""
    format_name = _format_name(data)
    if format_name == "HEIC":
        return _decode_heic(data, name)
    if format_name == "PNM" and data[1:2] == b"7":
        return _decode_pam(data, name)
    if pillow_formats.is_needed(data, format_name):
        return _decode_with_pillow(data, format_name, name)
    exif, num_channels, transparent_grey, pnm_maximum, scale = b"", 0, None, None, 1
    if format_name == "JPEG":
        exif, num_channels, size = _read_jpeg_header(data, name)
        if image_size is not None:
            is_turned = _orientation(exif) >= 5
            scale = jpeg_scale(*(size[::-1] if is_turned else size), image_size)
    elif format_name == "PNG":
        data, exif, transparent_grey = _read_png_chunks(data, name)
    elif format_name == "PNM":
        pnm_maximum = _pnm_maximum(data)
        data += b"\n"  # OpenCV wants something after the last number
    try:
        with _muted_decoders:
            if num_channels == 4:
                # OpenCV takes every CMYK JPEG for an inverted one. BGR, as its own.
                pixels = pillow_formats.read_cmyk_jpeg(data, scale)[..., ::-1]
                kinds = blocks = ()
            else:
                pixels, kinds, blocks = cv2.imdecodeWithMetadata(
                    np.frombuffer(data, np.uint8), _READ_FLAGS[scale]
                )
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem or "MAX_IMAGE" in str(error):
            raise _too_large(name) from error
        pixels = None
    except MemoryError as error:
        raise _too_large(name) from error
    except Exception as error:  # Pillow's, see `_decode_with_pillow`
        raise _damaged(name, format_name) from error
    if pixels is None and format_name in pillow_formats.SHARED_FORMATS:
        return _decode_with_pillow(data, format_name, name)
    if pixels is None and format_name is None:
        raise ImageError(name, "not_an_image", "not an image of a known format")
    if pixels is None:
        raise _damaged(name, format_name)
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise _too_large(name)
    if format_name == "TIFF":
        pixels = _turned_grey(pixels, data)
    if pnm_maximum is not None:
        pixels = _scaled(pixels, pnm_maximum)
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
    if format_name == "AVIF":
        turns, mirror = _avif_transform(data)
        if turns or mirror is not None:  # they count, and EXIF then does not
            pixels = np.rot90(pixels, turns)
            return pixels if mirror is None else np.flip(pixels, mirror)
    return _upright(pixels, _orientation(exif))


# The other flags would turn the picture upright, which is done here for all formats.
_READ_FLAGS = {
    1: cv2.IMREAD_UNCHANGED,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


def _format_name(data):
    """What a file says that it is, or None."""
    if data[4:8] == b"ftyp":
        size = int.from_bytes(data[:4], "big")
        brands = [
            data[8:12],
            *(data[at : at + 4] for at in range(16, min(size, 256), 4)),
        ]
        if any(brand in AVIF_BRANDS for brand in brands):
            return "AVIF"
        return "HEIC" if any(brand in HEIC_BRANDS for brand in brands) else None
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return "PNM"
    format_name = next((f for s, f in SIGNATURES.items() if data.startswith(s)), None)
    if format_name == "WebP" and data[8:12] != b"WEBP":  # sound and video are RIFF, too
        return None
    return format_name or pillow_formats.format_without_signature(data)


def _decode_with_pillow(data, format_name, name):
    try:
        with _muted_decoders:
            pixels = pillow_formats.read_with_pillow(data, format_name, MAX_PIXELS)
        return _turned_grey(pixels, data) if format_name == "TIFF" else pixels
    except (pillow_formats.PixelLimitError, MemoryError) as error:
        raise _too_large(name) from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise _damaged(name, format_name) from error


def _turned_grey(pixels, data):
    """Black on white, where a TIFF file says so, for which none of both cares if there
    are more than 8 bits."""
    if pixels.dtype.kind == "u" and pixels.itemsize > 1:
        if pillow_formats.is_white_zero(data):
            return np.iinfo(pixels.dtype).max - pixels
    return pixels


def _pnm_maximum(data):
    """The number that stands for white in a PNM file, where OpenCV does not scale it.

    It does scale the numbers of text that are below 256.
    """
    gap = rb"(?>(?:\s|#[^\r\n]*)+)"
    number = rb"\d{1,9}" + gap
    found = re.match(rb"P[2356]" + gap + number + number + rb"(\d{1,5})\s", data)
    maximum = int(found[1]) if found else 255
    is_scaled = data[1:2] in b"23" and maximum < 256
    return None if is_scaled or maximum in (0, 255, 65535) else maximum


def _scaled(pixels, maximum):
    white = np.iinfo(pixels.dtype).max
    scaled = (pixels.astype(np.uint32) * white + maximum // 2) // maximum
    return np.minimum(scaled, white).astype(pixels.dtype)


def _decode_pam(data, name):
    """The pixels of a PAM file, which OpenCV 5.0 reads with wrong colours."""
    head, _, body = data.partition(b"\nENDHDR\n")
    fields = dict(
        re.findall(rb"^(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,9})\s*$", head, re.M)
    )
    try:
        height, width, depth, maximum = (
            int(fields[field]) for field in (b"HEIGHT", b"WIDTH", b"DEPTH", b"MAXVAL")
        )
        if height * width > MAX_PIXELS:
            raise _too_large(name)
        pixels = np.frombuffer(
            body, ">u2" if maximum > 255 else "u1", height * width * depth
        )
        pixels = pixels.reshape(height, width, depth).astype(
            pixels.dtype.newbyteorder("=")
        )
    except (KeyError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise _damaged(name, "PAM") from error
    return _to_uint8(_scaled(pixels, max(maximum, 1)))


def _decode_heic(data, name):
    """The pixels of a HEIC file, upright, with `captioner[heic]`."""
    try:
        import pillow_heif
    except ImportError as error:
        reason = "a HEIC file; `pip install captioner[heic]` reads those"
        raise ImageError(name, "unsupported", reason) from error
    try:
        heif = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        if heif.size[0] * heif.size[1] > MAX_PIXELS:
            raise _too_large(name)
        return np.asarray(heif)  # libheif has turned it upright
    except MemoryError as error:
        raise _too_large(name) from error
    except (ValueError, RuntimeError, OSError, EOFError, SyntaxError) as error:
        if isinstance(error, ImageError):
            raise
        raise _damaged(name, "HEIC") from error


def _boxes(data, start, end):
    """The boxes between two places of an ISO media file: (type, start, end)."""
    while start + 8 <= end:
        size, begin = int.from_bytes(data[start : start + 4], "big"), 8
        kind = data[start + 4 : start + 8]
        if size == 1:
            size, begin = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        size = size or end - start
        if size < begin or start + size > end:
            return
        yield kind, start + begin, start + size
        start += size


def _avif_transform(data):
    """How an AVIF is to be shown: anticlockwise quarter turns, and then the axis along
    which it is mirrored, or None (ISO 23008-12, `irot` and `imir`)."""

    def box(name, start, end):
        boxes = ((b, e) for kind, b, e in _boxes(data, start, end) if kind == name)
        return next(boxes, (end, end))

    def number(at, size):
        return int.from_bytes(data[at : at + size], "big")

    start, end = box(b"meta", 0, len(data))
    meta = start + 4, end
    at, _ = box(b"pitm", *meta)
    primary = number(at + 4, 4 if number(at, 1) else 2)
    properties = box(b"iprp", *meta)
    known = list(_boxes(data, *box(b"ipco", *properties)))
    at, end = box(b"ipma", *properties)
    id_size, index_size = 4 if number(at, 1) else 2, 1 + (number(at + 3, 1) & 1)
    turns, mirror, at = 0, None, at + 8
    while at < end:
        item, count = number(at, id_size), number(at + id_size, 1)
        at += id_size + 1
        for at in range(at, at + count * index_size, index_size):
            # The highest bit only says that it is essential.
            index = number(at, index_size) & (1 << 8 * index_size - 1) - 1
            if item == primary and 0 < index <= len(known):
                kind, start, _ = known[index - 1]
                if kind == b"irot":
                    turns = number(start, 1) & 3
                elif kind == b"imir":
                    mirror = number(start, 1) & 1
        at += index_size if count else 0
    return turns, mirror


def _damaged(name, format_name):
    reason = f"truncated, damaged or unsupported {format_name} file"
    return ImageError(name, "truncated", reason)


def _too_large(name):
    return ImageError(name, "too_large", TOO_LARGE)


def _read_jpeg_header(data, name):
    """The EXIF block, the number of colour channels, and the height and width."""
    exif, num_channels, height, width, at = b"", 0, 0, 0, 2
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
    return exif, num_channels, (height, width)


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
