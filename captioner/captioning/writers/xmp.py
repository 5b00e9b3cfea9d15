"""XMP, the metadata that photo programs read: the description in a packet.

Adobe, "XMP Specification Part 1" (ISO 16684-1) and "Part 3: Storage in Files". Standard
XML parsers are all that is needed to read and change a packet, and few lines to lay one
into a JPEG, PNG or WebP file, whose pixels and other metadata stay what they are.
"""

import struct
import zlib
from xml.etree import ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
XML = "http://www.w3.org/XML/1998/namespace"
META = "adobe:ns:meta/"
# Names that programs expect to see; others get ns0, ns1, ..., which means the same.
for _prefix, _space in {
    "x": META,
    "rdf": RDF,
    "dc": DC,
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "darktable": "http://darktable.sf.net/",
}.items():
    ElementTree.register_namespace(_prefix, _space)

_JPEG_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_HEADER = b"XML:com.adobe.xmp\0\0\0\0\0"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_PACKET_BYTES = 2**24


def read_description(packet):
    """The default text of dc:description in an XMP packet, or None.

    Raises:
        ValueError: the packet is no XMP.
    """
    alternatives = _description(_parse(packet))
    if alternatives is None:
        return None
    items = alternatives.findall(f"{{{RDF}}}Alt/{{{RDF}}}li")
    default = [i for i in items if i.get(f"{{{XML}}}lang") == "x-default"] or items
    return (default[0].text if default else alternatives.text) or None


def write_description(text, packet=None):
    """An XMP packet with this description; all else in `packet` stays as it is.

    Raises:
        ValueError: `packet` is no XMP.
    """
    root = _parse(packet or _EMPTY)
    alternatives = _description(root)
    if alternatives is None:
        where = next(root.iter(f"{{{RDF}}}Description"), None)
        if where is None:
            rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f"{{{RDF}}}RDF")
            where = ElementTree.SubElement(rdf, f"{{{RDF}}}Description")
            where.set(f"{{{RDF}}}about", "")
        alternatives = ElementTree.SubElement(where, f"{{{DC}}}description")
    alternatives.clear()
    item = ElementTree.SubElement(
        ElementTree.SubElement(alternatives, f"{{{RDF}}}Alt"), f"{{{RDF}}}li"
    )
    item.set(f"{{{XML}}}lang", "x-default")
    item.text = "".join(c for c in text if c >= " " or c in "\t\n")
    body = ElementTree.tostring(root, encoding="unicode")
    body = body.encode("utf-8", "backslashreplace")
    head = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'.encode()
    return head + body + b'\n<?xpacket end="w"?>\n'


_EMPTY = (
    f'<x:xmpmeta xmlns:x="{META}"><rdf:RDF xmlns:rdf="{RDF}">'
    '<rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'
).encode()


def _parse(packet):
    try:
        root = ElementTree.fromstring(packet.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"not XMP: {error}") from error
    if root.tag != f"{{{RDF}}}RDF" and root.find(f"{{{RDF}}}RDF") is None:
        raise ValueError("not XMP: no rdf:RDF in it")
    for where in list(root.iter(f"{{{RDF}}}Description")):
        # A property may be written short, as an attribute.
        text = where.attrib.pop(f"{{{DC}}}description", None)
        if text is not None:
            ElementTree.SubElement(where, f"{{{DC}}}description").text = text
    return root


def _description(root):
    return next(root.iter(f"{{{DC}}}description"), None)


# In image files ---------------------------------------------------------------------


def read_packet(data):
    """The XMP packet in a JPEG, PNG or WebP file, or None.

    Raises:
        ValueError: it is none of these, or its parts do not fit together.
    """
    for kind, _, _, body in _parts(data):
        if kind == "xmp":
            return body
    return None


def embed_packet(data, packet):
    """The JPEG, PNG or WebP file with this XMP packet in place of its own.

    Raises:
        ValueError: it is none of these, or its parts do not fit together; or the packet
            is larger than the format allows.
    """
    kept, at = [], 0
    for kind, start, end, _ in _parts(data):
        if kind == "xmp":
            kept.append(data[at:start])
            at = end
    data = b"".join([*kept, data[at:]])
    parts = list(_parts(data))
    if data.startswith(b"\xff\xd8"):
        if len(packet) > 65_000:
            raise ValueError("the XMP packet is too large for a JPEG")
        body = _JPEG_HEADER + packet
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        # After JFIF and EXIF, which have to be first.
        at = next((s for kind, s, _, _ in parts if kind == "other"), len(data))
        return data[:at] + segment + data[at:]
    if data.startswith(_PNG_SIGNATURE):
        body = b"iTXt" + _PNG_HEADER + packet
        chunk = struct.pack(">I", len(body) - 4) + body
        chunk += struct.pack(">I", zlib.crc32(body))
        at = parts[0][2]  # after the header
        return data[:at] + chunk + data[at:]
    return _embed_webp(data, packet)


def _embed_webp(data, packet):
    chunks = data[12 : 8 + int.from_bytes(data[4:8], "little")]
    if chunks[:4] != b"VP8X":  # the simple form has no room for metadata
        width, height, alpha = _webp_size(chunks)
        extended = bytes((0x10 if alpha else 0, 0, 0, 0))
        for side in (width, height):
            extended += (side - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<I", 10) + extended + chunks
    chunks = chunks[:8] + bytes((chunks[8] | 0x04,)) + chunks[9:]
    chunks += b"XMP " + struct.pack("<I", len(packet)) + packet
    chunks += b"\0" * (len(packet) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _webp_size(chunks):
    if chunks[:4] == b"VP8L":  # lossless
        bits = int.from_bytes(chunks[9:13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    if chunks[:4] != b"VP8 ":
        raise ValueError("not a WebP file")
    width, height = struct.unpack("<HH", chunks[14:18])
    return width & 0x3FFF, height & 0x3FFF, 0


def _parts(data):
    """The parts of a file: (kind, start, end, packet). The kind is "xmp", "first"
    (what has to come before an XMP packet) or "other"."""
    try:
        if data.startswith(b"\xff\xd8"):
            yield from _jpeg_parts(data)
        elif data.startswith(_PNG_SIGNATURE):
            yield from _png_parts(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            yield from _webp_parts(data)
        else:
            raise ValueError("neither a JPEG nor a PNG nor a WebP file")
    except (IndexError, struct.error) as error:
        raise ValueError("the file is damaged") from error


def _jpeg_parts(data):
    at = 2
    while data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):
        if data[at + 1] == 0xFF:
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if data[at + 1] == 0xE1 and body.startswith(_JPEG_HEADER):
            yield "xmp", at, end, body[len(_JPEG_HEADER) :]
        elif data[at + 1] == 0xE0 or body.startswith(b"Exif\0\0"):
            yield "first", at, end, None
        else:
            yield "other", at, end, None
        at = end
    yield "other", at, len(data), None


def _png_parts(data):
    at = len(_PNG_SIGNATURE)
    while at < len(data):
        end = at + 12 + struct.unpack(">I", data[at : at + 4])[0]
        tag, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        if tag == b"iTXt" and body.startswith(_PNG_HEADER[:18]):
            yield "xmp", at, end, _png_text(body)
        else:
            yield "other", at, end, None
        at = end


def _png_text(body):
    compressed = body[18]
    text = body[20:].split(b"\0", 2)[2]
    if not compressed:
        return text
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(text, _MAX_PACKET_BYTES)
    except zlib.error as error:
        raise ValueError("the file is damaged") from error
    if not inflate.eof:  # 2 MB may inflate to 2 GB
        raise ValueError("the XMP packet is cut short or too large")
    return text


def _webp_parts(data):
    at = 12
    while at + 8 <= len(data):
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        end = at + 8 + size + size % 2
        body = data[at + 8 : at + 8 + size]
        if data[at : at + 4] == b"XMP ":
            yield "xmp", at, end, body
        else:
            yield "other", at, end, None
        at = end
