"""The blocks of metadata in JPEG, PNG, WebP and TIFF files.

Adobe, "XMP Specification Part 3: Storage in Files"; CIPA DC-008; W3C, "PNG"; Google,
"WebP Container". Photos come from anywhere and this runs in the process that runs
everything else, because what it finds decides whether a photo is captioned at all. So
it takes no more than a bounded number of steps from part to part by their lengths,
reads only the blocks that it looks for, and those only up to a size.

The kinds of blocks are "xmp" (a packet), "exif" (a TIFF structure), "photoshop"
(resources, with IPTC data among them) and "iptc" (IPTC data alone, in TIFF files).
"""

import itertools
import os
import struct
import zlib

from captioner.captioning.writers.exif import ExifBlock
from captioner.captioning.writers.xmp import MAX_PACKET_BYTES

MAX_BLOCK_BYTES = MAX_PACKET_BYTES
MAX_PARTS = 2**18  # a PNG of 2 GB in the usual parts of 8 KB has as many
_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_IN_JPEG = b"Exif\0\0"
_PHOTOSHOP_IN_JPEG = b"Photoshop 3.0\0"
_MOST_PADDING = 1_000  # bytes before a JPEG segment
_MOST_IN_SEGMENT = 65_533  # bytes of a JPEG segment
_XMP_IN_PNG = b"XML:com.adobe.xmp\0"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_TAGS = {700: "xmp", 33723: "iptc", 34377: "photoshop"}


class FileBytes:
    """A file as a sequence of bytes; only the slices that are asked for are read.

    Args:
        descriptor: of an open file.
    """

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def __len__(self):
        return self.size

    def __getitem__(self, part):
        start, stop, _ = part.indices(self.size)
        return os.pread(self.descriptor, max(0, stop - start), start)


def find_blocks(data):
    """The blocks of metadata in an image file.

    Args:
        data: bytes, or anything with a length of which slices are bytes.

    Yields:
        (kind, block), see the module. A JPEG's or TIFF's "photoshop" may come in
        several.

    Raises:
        ValueError: it is no JPEG, PNG, WebP or TIFF file, or is damaged from here on.
    """
    if data[:4] in (b"II*\0", b"MM\0*"):
        block = ExifBlock(data)
        yield "exif", data
        for tag, kind in _TIFF_TAGS.items():
            value = block.value(block.entries.get(tag))
            if value:
                yield kind, value
        return
    for kind, start, end in _parts(data):
        if kind is not None:
            yield kind, _block(data, start, end)


def replace_blocks(data, blocks):
    """An image file with other blocks of metadata; its pixels and all else stay.

    Args:
        data: bytes of a JPEG, PNG or WebP file.
        blocks: dict of kind to bytes. PNG and WebP files have no "photoshop".

    Returns:
        bytes.

    Raises:
        ValueError: it is none of these files, or is damaged; or a block is larger than
            the format allows.
    """
    if data.startswith(b"RIFF"):  # what follows belongs to no part
        data = data[: 8 + int.from_bytes(data[4:8], "little")]
    parts = list(_parts(data))
    cuts = [(start, end) for kind, start, end in parts if kind in blocks]
    if data.startswith(b"RIFF"):
        return _embed_in_webp(b"".join(_between(data, cuts)), blocks)
    if not parts:
        raise ValueError("the file is damaged")
    if data.startswith(_PNG_SIGNATURE):
        new, place = _png_chunks(blocks), parts[0][2]  # after the header
    else:
        new, place = _jpeg_segments(blocks), 2
        for kind, start, end in parts:
            if kind not in blocks and data[start : start + 2] != b"\xff\xe0":
                break
            place = place if kind in blocks else end  # after JFIF
    before = [cut for cut in cuts if cut[0] < place]
    pieces = _between(data[:place], before), [new], _between(data, cuts, place)
    return b"".join(itertools.chain(*pieces))


def _between(data, cuts, at=0):
    """The pieces of data between the cuts. They are views, as photos may be large."""
    for start, end in cuts:
        if start >= at:
            yield memoryview(data)[at:start]
            at = end
    yield memoryview(data)[at:]


def _parts(data):
    """(kind, start, end) of each part of a file; the kind is None for those without
    metadata."""
    signature = data[:12]
    if signature.startswith(b"\xff\xd8"):
        parts = _jpeg_parts(data)
    elif signature.startswith(_PNG_SIGNATURE):
        parts = _png_parts(data)
    elif signature[:4] == b"RIFF" and signature[8:] == b"WEBP":
        parts = _webp_parts(data)
    else:
        raise ValueError("it is not a JPEG, PNG or WebP file")
    for number, part in enumerate(parts):
        if number == MAX_PARTS or part[2] > len(data):
            raise ValueError("the file is damaged")
        yield part


def _block(data, start, end):
    """The metadata in a part of a file."""
    if end - start > MAX_BLOCK_BYTES:
        raise ValueError("its metadata is too large")
    part = data[start:end]
    if data[:2] == b"\xff\xd8":
        body = part.lstrip(b"\xff")[3:]  # after the marker and the length
        for head in (_XMP_IN_JPEG, _EXIF_IN_JPEG, _PHOTOSHOP_IN_JPEG):
            body = body.removeprefix(head)
        return body
    if data[:4] == b"RIFF":
        size = int.from_bytes(part[4:8], "little")
        return part[8 : 8 + size].removeprefix(_EXIF_IN_JPEG)
    body = part[8:-4]
    return _png_text(body) if part[4:8] == b"iTXt" else body


# JPEG -------------------------------------------------------------------------------


def _jpeg_parts(data):
    at = 2
    while True:
        start = at
        while (marker := data[at : at + 2]) == b"\xff\xff":  # padding
            at += 1
            if at - start > _MOST_PADDING:
                raise ValueError("the file is damaged")
        # The end, or where pixels begin; or no marker at all.
        if marker[:1] != b"\xff" or marker[1:] in (b"\xd9", b"\xda"):
            return
        head = data[at + 2 : at + 4 + len(_XMP_IN_JPEG)]
        size = int.from_bytes(head[:2], "big")
        if len(head) < 2 or size < 2:
            raise ValueError("the file is damaged")
        kind = None
        if marker == b"\xff\xe1" and head[2:] == _XMP_IN_JPEG:
            kind = "xmp"
        elif marker == b"\xff\xe1" and head[2:].startswith(_EXIF_IN_JPEG):
            kind = "exif"
        elif marker == b"\xff\xed" and head[2:].startswith(_PHOTOSHOP_IN_JPEG):
            kind = "photoshop"
        yield kind, start, at + 2 + size
        at += 2 + size


def _jpeg_segments(blocks):
    new = b""
    for kind, marker, head in (  # EXIF has to be first
        ("exif", 0xE1, _EXIF_IN_JPEG),
        ("xmp", 0xE1, _XMP_IN_JPEG),
        ("photoshop", 0xED, _PHOTOSHOP_IN_JPEG),
    ):
        block, most = blocks.get(kind, b""), _MOST_IN_SEGMENT - len(head)
        if len(block) > most and kind != "photoshop":  # which alone may go on
            raise ValueError(f"the {kind.upper()} data is too large for a JPEG file")
        for at in range(0, len(block), most):
            body = head + block[at : at + most]
            new += struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    return new


# PNG --------------------------------------------------------------------------------


def _png_parts(data):
    at = len(_PNG_SIGNATURE)
    while at < len(data):
        head = data[at : at + 8 + len(_XMP_IN_PNG)]
        if len(head) < 8:
            raise ValueError("the file is damaged")
        kind, end = None, at + 12 + int.from_bytes(head[:4], "big")
        if head[4:8] == b"eXIf":
            kind = "exif"
        elif head[4:8] == b"iTXt" and head[8:] == _XMP_IN_PNG:
            kind = "xmp"
        yield kind, at, end
        at = end


def _png_text(body):
    """The text of an iTXt chunk."""
    at = len(_XMP_IN_PNG)
    compressed = body[at : at + 1] == b"\1"
    text = body[at + 2 :].split(b"\0", 2)[-1]
    if not compressed:
        return text
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(text, MAX_BLOCK_BYTES)
    except zlib.error as error:
        raise ValueError("the file is damaged") from error
    if not inflate.eof:  # 2 MB may inflate to 2 GB
        raise ValueError("its metadata is cut short or too large")
    return text


def _png_chunks(blocks):
    new = b""
    for kind, head in (("exif", b"eXIf"), ("xmp", b"iTXt" + _XMP_IN_PNG + bytes(4))):
        if kind in blocks:
            body = head + blocks[kind]
            new += struct.pack(">I", len(body) - 4) + body
            new += struct.pack(">I", zlib.crc32(body))
    return new


# WebP -------------------------------------------------------------------------------


def _webp_parts(data):
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        head = data[at : at + 8]
        size = int.from_bytes(head[4:8], "little")
        kind = {b"XMP ": "xmp", b"EXIF": "exif"}.get(head[:4])
        # The padding of the last part is missing at times.
        yield kind, at, min(at + 8 + size + size % 2, max(end, at + 8 + size))
        at += 8 + size + size % 2
    if at < end:
        raise ValueError("the file is damaged")


def _embed_in_webp(data, blocks):
    chunks = data[12:]
    if chunks[:4] != b"VP8X":  # the simple form has no room for metadata
        width, height, alpha = _webp_size(chunks)
        extended = bytes((0x10 if alpha else 0, 0, 0, 0))
        for side in (width, height):
            extended += (side - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<I", 10) + extended + chunks
    if len(chunks) < 18:
        raise ValueError("the file is damaged")
    flags = chunks[8]
    for kind, name, flag in (("exif", b"EXIF", 0x08), ("xmp", b"XMP ", 0x04)):
        if kind in blocks:
            block, flags = blocks[kind], flags | flag
            chunks += bytes(len(chunks) % 2)
            chunks += name + struct.pack("<I", len(block)) + block
    chunks += bytes(len(chunks) % 2)
    chunks = chunks[:8] + bytes((flags,)) + chunks[9:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _webp_size(chunks):
    if chunks[:4] == b"VP8L" and len(chunks) >= 13:  # lossless
        bits = int.from_bytes(chunks[9:13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    if chunks[:4] != b"VP8 " or len(chunks) < 18:
        raise ValueError("the file is damaged")
    width, height = struct.unpack("<HH", chunks[14:18])
    return width & 0x3FFF, height & 0x3FFF, 0
