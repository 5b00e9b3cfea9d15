"""How large a picture is, from the first bytes of its file."""

import struct


def picture_size(data):
    """The height and width that an image file says to have, or None where that is not
    known. It is an estimate, of how much memory decoding takes; a decoder may differ.

    Args:
        data: bytes, a JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000, AVIF or HEIC file.

    Returns:
        pair of ints, or None.

    Example:

    >>> picture_size(open("data/samples/coffee.jpg", "rb").read())
    (400, 600)
    """
    try:
        size = _size(data)
    except (struct.error, IndexError):  # it ends before that
        return None
    return size if size and min(size) > 0 else None


def _size(data):
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", data, 16)
    elif data.startswith(b"GIF8"):
        width, height = struct.unpack_from("<HH", data, 6)
    elif data.startswith(b"BM"):
        if data[14] == 12:  # the header of OS/2
            width, height = struct.unpack_from("<HH", data, 18)
        else:
            width, height = struct.unpack_from("<ii", data, 18)
            height = abs(height)  # below 0 where the first row is the upper one
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    elif data[4:8] == b"ftyp":  # AVIF and HEIC
        # Of several pictures, as the tiles of one, it is the whole that is largest.
        return max(_after(data, b"ispe", 4, slice(None, None, -1)), default=None)
    elif data[4:8] == b"jP  " or data.startswith(b"\xff\x4f\xff\x51"):
        return next(_after(data, b"ihdr", 0, slice(None)), None)
    else:
        return None
    return height, width


def _jpeg_size(data):
    at = 2
    while data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # padding between segments
            at += 1
        elif 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            return struct.unpack_from(">HH", data, at + 5)
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp_size(data):
    if data[12:16] == b"VP8X":
        width, height = (
            1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27)
        )
    elif data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return height, width


def _tiff_size(data):
    order = "<" if data.startswith(b"II") else ">"
    (first,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, first)
    sides = {}
    for at in range(first + 2, first + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        # A number of 16 bits is at the beginning of its four bytes.
        form = order + ("H" if kind == 3 else "I")
        sides[tag] = struct.unpack_from(form, data, at + 8)[0]
    return (sides[257], sides[256]) if {256, 257} <= sides.keys() else None


def _after(data, name, skip, order):
    """The pairs of numbers after the boxes of a name, all of which are in the first
    part of a file."""
    at = data.find(name, 0, 2**16)
    while at >= 0:
        yield struct.unpack_from(">II", data, at + 4 + skip)[order]
        at = data.find(name, at + 4, 2**16)
