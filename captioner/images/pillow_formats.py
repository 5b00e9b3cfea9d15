"""The formats that OpenCV does not read, or reads with wrong pixels, with Pillow.

Only the plugins in `_plugins` are ever used, and they are called by name, since
`PIL.Image.open` also tries those that start other programs (EPS starts Ghostscript).
"""

import contextlib
import io
import struct
import threading
import warnings

import numpy as np

# OpenCV reads these, but not all of their kinds.
SHARED_FORMATS = frozenset(("BMP", "Sun raster", "TIFF"))
_ONLY_HERE = frozenset(
    ("CUR", "DDS", "GIF", "ICO", "JPEG 2000", "PCX", "PSD", "QOI", "TGA")
)
_TGA_KINDS = {  # image type without its compression flag, and bits: has a colour map
    (1, 8): (1,),
    (3, 1): (0,),
    (3, 8): (0,),
    (3, 16): (0,),
    (2, 16): (0, 1),
    (2, 24): (0, 1),
    (2, 32): (0, 1),
}
_lock = threading.Lock()


class PixelLimitError(Exception):
    """The header asks for more pixels than are allowed."""


def format_without_signature(data):
    """ "PCX", "CUR" or "TGA", where the header makes sense for one of them, or None."""
    if data[:1] == b"\n" and data[1:2] in b"\0\2\3\5" and data[2:3] == b"\1":
        return "PCX" if data[3:4] in b"\1\2\4\x08" else None
    if data[:4] == b"\0\0\2\0" and data[4:6] != b"\0\0":
        return "CUR"
    return "TGA" if _is_tga(data) else None


def _is_tga(data):
    if len(data) < 18:
        return False
    kind = data[2] & ~8, data[16]
    width, height = struct.unpack_from("<HH", data, 12)
    return (
        data[2] in (1, 2, 3, 9, 10, 11)
        and data[1] in _TGA_KINDS.get(kind, ())
        and bool(width and height)
        and data[17] & 0xC0 == 0
    )


def is_needed(data, format_name):
    """Whether OpenCV does not read this format, or gives wrong pixels of this file."""
    if format_name == "BMP":
        return _opencv_misreads_bmp(data)
    if format_name == "TIFF":
        return _opencv_misreads_tiff(_tiff_fields(data)[1])
    return format_name in _ONLY_HERE


def _plugins():
    from PIL import (
        BmpImagePlugin,
        CurImagePlugin,
        DdsImagePlugin,
        GifImagePlugin,
        IcoImagePlugin,
        Jpeg2KImagePlugin,
        PcxImagePlugin,
        PsdImagePlugin,
        QoiImagePlugin,
        SunImagePlugin,
        TgaImagePlugin,
        TiffImagePlugin,
    )

    return {
        "BMP": BmpImagePlugin.BmpImageFile,
        "CUR": CurImagePlugin.CurImageFile,
        "DDS": DdsImagePlugin.DdsImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "ICO": IcoImagePlugin.IcoImageFile,
        "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
        "PCX": PcxImagePlugin.PcxImageFile,
        "PSD": PsdImagePlugin.PsdImageFile,
        "QOI": QoiImagePlugin.QoiImageFile,
        "Sun raster": SunImagePlugin.SunImageFile,
        "TGA": TgaImagePlugin.TgaImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
    }


def is_white_zero(data):
    """Whether 0 is white in a TIFF file.

    For more than 8 bits neither OpenCV nor Pillow takes any notice of it.
    """
    return _tiff_fields(data)[1].get(_PHOTOMETRIC) == (0,)


def read_with_pillow(data, format_name, max_pixels):
    """The pixels of a file, upright.

    Args:
        data: bytes of the file.
        format_name: one for which `is_needed`, or of `SHARED_FORMATS`.
        max_pixels: int; it is compared with the header before anything is decoded.

    Returns:
        Array of shape `(H, W)`, or `(H, W, C)` with the channels grey, RGB or RGBA, of
        any type that holds numbers.

    Raises:
        PixelLimitError: there are more than `max_pixels`.
        Exception: of any kind, if the file is damaged.
    """
    if format_name == "TIFF":
        data = _only_the_first_page(data)
    elif format_name in ("ICO", "CUR"):
        _check_icon(data, max_pixels)
    with _settings(), _plugins()[format_name](io.BytesIO(data)) as image:
        if image.width * image.height > max_pixels:
            raise PixelLimitError
        image.load()
        return _pixels(image, data, format_name)


def read_cmyk_jpeg(data, scale):
    """The pixels of a JPEG with four inks; it may raise any exception.

    Args:
        data: bytes of the file.
        scale: 1, 2, 4 or 8; how much smaller it is decoded.

    Returns:
        uint8 array `(H, W, 3)`, RGB as TensorFlow makes it.
    """
    from PIL import JpegImagePlugin

    with _settings(), JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        light = 255 - np.asarray(image).astype(np.uint16)
        # Adobe's programs store 255 for "no ink". Pillow takes all files for theirs.
        if "adobe" not in image.info:
            light = 255 - light
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)


@contextlib.contextmanager
def _settings():
    """Pillow as it is wanted here; one thread at a time, as they belong to all."""
    from PIL import TiffImagePlugin

    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, and about large pictures
        before = TiffImagePlugin.READ_LIBTIFF
        # Pillow's own reader takes 16-bit planes for 8-bit ones.
        TiffImagePlugin.READ_LIBTIFF = True
        try:
            yield
        finally:
            TiffImagePlugin.READ_LIBTIFF = before


def _pixels(image, data, format_name):
    if format_name == "TGA" and image.mode == "RGBA" and data[16:18][1] & 15 == 0:
        # Its header says that the fourth byte is not alpha.
        return np.asarray(image.convert("RGB"))
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        bits = 16
        if format_name == "TIFF":
            bits = image.tag_v2.get(_BITS, (16,))[0]
        return pixels << (16 - bits) | pixels >> max(2 * bits - 16, 0)
    if image.mode == "La":  # Pillow has no way from it to RGBA
        image = image.convert("LA")
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


# Bitmaps ----------------------------------------------------------------------------


def _opencv_misreads_bmp(data):
    header_size, bits = _number(data, 14, 4, "little"), _number(data, 28, 2, "little")
    compression = _number(data, 30, 4, "little")
    if header_size < 40:  # OS/2: a palette of three bytes a colour
        return True
    # It does not scale 5 bits to 8, and knows no masks but the usual ones.
    return bits == 16 or compression in (3, 6)


def _check_icon(data, max_pixels):
    """Pillow looks at the size in the directory, not at those of the pictures."""
    for at in range(6, 6 + 16 * _number(data, 4, 2, "little"), 16):
        start = _number(data, at + 12, 4, "little")
        if data[start : start + 4] == b"\x89PNG":
            sizes = (_number(data, start + at, 4, "big") for at in (16, 20))
        else:
            sizes = (_number(data, start + at, 4, "little") for at in (4, 8))
        width, height = sizes
        if width * height > 2 * max_pixels:  # a bitmap's height counts its mask, too
            raise PixelLimitError


# TIFF -------------------------------------------------------------------------------

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 258, 259, 262, 277, 284
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
# What the pixels depend on, and the orientation. Pillow would read all others, too:
# many may name the same bytes, so that a small file would take all memory.
_TIFF_TAGS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320)
    + (322, 323, 324, 325, 332, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520)
    + (521, 529, 530, 531, 532)
)
_TIFF_TYPE_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)


def _tiff_fields(data):
    """The fields of the first page that `_TIFF_TAGS` names.

    Returns:
        The fields as they are in the file, list of bytes; and a dict of tag to tuple of
        int, of those fields that are short lists of 16 or 32-bit integers.
    """
    order = {b"II": "little", b"MM": "big"}[data[:2]]
    big = data[2:4] in (b"+\0", b"\0+")
    word, entry = (8, 20) if big else (4, 12)
    first = _number(data, 8 if big else 4, word, order)
    count = _number(data, first, 8 if big else 2, order)
    start = first + (8 if big else 2)
    fields, values, total = [], {}, 0
    end = min(start + min(count, 65535) * entry, len(data) - entry + 1)
    for at in range(start, end, entry):
        tag, kind = _number(data, at, 2, order), _number(data, at + 2, 2, order)
        if tag not in _TIFF_TAGS or kind >= len(_TIFF_TYPE_SIZES):
            continue
        length = _number(data, at + 4, word, order)
        size = length * _TIFF_TYPE_SIZES[kind]
        total += size
        fields.append(data[at : at + entry])
        if kind in (3, 4) and 1 <= length <= 16:
            place = at + 4 + word
            if size > word:
                place = _number(data, place, word, order)
            step = _TIFF_TYPE_SIZES[kind]
            values[tag] = tuple(
                _number(data, place + i * step, step, order) for i in range(length)
            )
    if total > len(data) + entry * len(fields):  # they overlap
        return [], {}
    return fields, values


def _opencv_misreads_tiff(values):
    bits = values.get(_BITS, (1,))[0]
    photometric = values.get(_PHOTOMETRIC, (0,))[0]
    samples = values.get(_SAMPLES, (1,))[0]
    planar = values.get(_PLANAR, (1,))[0]
    extra = values.get(_EXTRA_SAMPLES, ())[:1]
    if values.get(_SAMPLE_FORMAT, (1,))[0] != 1:
        return False  # Pillow does not read these
    return (
        (photometric == 3 and bits < 8)  # a palette: its colours are lost
        or photometric == 8  # CIE Lab: another white
        or (bits == 16 and planar == 2 and samples > 1)  # noise
        # Grey and alpha: alpha is lost. (Pillow refuses those of 16 bits.)
        or (samples == 2 and (bits == 8 or extra != (0,)))
        # An extra channel that is not alpha is taken for it, and premultiplied
        # alpha of 16 bits for another kind.
        or (samples == 4 and extra == (0,))
        or (samples == 4 and extra == (1,) and (bits == 16 or planar == 2))
    )


def _only_the_first_page(data):
    """The same file with one page, of which only `_TIFF_TAGS` are left."""
    fields, _ = _tiff_fields(data)
    little, big = data[:2] == b"II", data[2:4] in (b"+\0", b"\0+")
    sign = "<" if little else ">"
    data += b"\0" * (-len(data) % 8)
    if big:
        header = data[:8] + struct.pack(sign + "Q", len(data))
        table = struct.pack(sign + "Q", len(fields)) + b"".join(fields) + bytes(8)
    else:
        header = data[:4] + struct.pack(sign + "I", len(data))
        table = struct.pack(sign + "H", len(fields)) + b"".join(fields) + bytes(4)
    return header + data[len(header) :] + table


def _number(data, at, size, order):
    return int.from_bytes(data[at : at + size], order)
