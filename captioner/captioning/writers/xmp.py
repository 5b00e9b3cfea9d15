"""XMP, the metadata that photo programs read: the description in a packet.

Adobe, "XMP Specification Part 1" (ISO 16684-1). Packets come with photos from anywhere
and are read in the process that runs everything else. So a packet is read by expat,
which does not recurse, is refused beyond a size and a depth that no program writes, and
may declare no document type: nothing of it is expanded and nothing is loaded.
"""

import codecs
from xml.etree import ElementTree

from captioner.captioning.writers.existing import plain

MAX_PACKET_BYTES = 2**22
MAX_ELEMENTS = 100_000
MAX_DEPTH = 100  # programs stay below 20
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
TIFF = "http://ns.adobe.com/tiff/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"
XML = "http://www.w3.org/XML/1998/namespace"
META = "adobe:ns:meta/"
# Names that programs expect to see; others get ns0, ns1, ..., which means the same.
for _prefix, _space in {
    "x": META,
    "rdf": RDF,
    "dc": DC,
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "tiff": TIFF,
    "exif": EXIF,
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "darktable": "http://darktable.sf.net/",
}.items():
    ElementTree.register_namespace(_prefix, _space)

_DESCRIPTION = f"{{{DC}}}description"
# The description, and the two other names that programs store it under, too.
_NAMES = (_DESCRIPTION, f"{{{TIFF}}}ImageDescription", f"{{{EXIF}}}UserComment")
_NODE, _ITEM = f"{{{RDF}}}Description", f"{{{RDF}}}li"
_LANGUAGE = f"{{{XML}}}lang"
_EMPTY = (
    f'<x:xmpmeta xmlns:x="{META}"><rdf:RDF xmlns:rdf="{RDF}">'
    '<rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'
).encode()


def read_description(packet):
    """The description in an XMP packet, in its default language, or None.

    Args:
        packet: bytes.

    Raises:
        ValueError: the packet is no XMP, or beyond the limits of this module.
    """
    root = _parse(packet)
    for name in _NAMES:
        for _, element in _properties(root, name):
            items = list(element.iter(_ITEM))
            default = [i for i in items if i.get(_LANGUAGE) == "x-default"]
            for each in [*default, *items, element]:
                text = plain(each.text or each.findtext(f"{{{RDF}}}value") or "")
                if text.strip():
                    return text
    return None


def write_description(text, packet=None, keep_translations=False):
    """An XMP packet with this description; everything else in `packet` stays.

    Args:
        text: str; what XML cannot hold is left out, see `plain`.
        packet: bytes of the packet to change, or None for a new one.
        keep_translations: keep the descriptions in other languages.

    Returns:
        bytes.

    Raises:
        ValueError: `packet` is no XMP, or beyond the limits of this module.
    """
    root = _parse(packet or _EMPTY)
    for name in _NAMES:
        found = _properties(root, name)
        for parent, element in found[1:]:
            parent.remove(element)
        if found:
            _set(found[0][1], text, keep_translations)
        elif name == _DESCRIPTION:
            rdf = _rdf(root)
            where = rdf.find(_NODE)
            if where is None:
                where = ElementTree.SubElement(rdf, _NODE, {f"{{{RDF}}}about": ""})
            _set(ElementTree.SubElement(where, name), text)
    body = ElementTree.tostring(root, encoding="unicode").encode()
    head = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'.encode()
    return head + body + b'\n<?xpacket end="w"?>\n'


def _set(element, text, keep_translations=False):
    kept = []
    if keep_translations:
        items = element.iter(_ITEM)
        kept = [i for i in items if i.get(_LANGUAGE, "x-default") != "x-default"]
    tail = element.tail
    element.clear()
    element.tail = tail
    alternatives = ElementTree.SubElement(element, f"{{{RDF}}}Alt")
    item = ElementTree.SubElement(alternatives, _ITEM, {_LANGUAGE: "x-default"})
    item.text = plain(text)
    alternatives.extend(kept)


class _BoundedBuilder(ElementTree.TreeBuilder):
    """Builds a tree that is safe to write, which is done by recursion."""

    depth = count = 0

    def start(self, tag, attributes):
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if self.count > MAX_ELEMENTS:
            raise ValueError(f"it has more than {MAX_ELEMENTS:,} elements")
        return super().start(tag, attributes)

    def end(self, tag):
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name, public, system):
        raise ValueError("it declares a document type")


def _parse(packet):
    if len(packet) > MAX_PACKET_BYTES:
        raise ValueError(f"not XMP: it is larger than {MAX_PACKET_BYTES:,} bytes")
    try:
        if packet.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            packet = packet.decode("utf-16").encode()
        packet = packet.removeprefix(codecs.BOM_UTF8).strip(b"\0 \r\n\t")
        parser = ElementTree.XMLParser(target=_BoundedBuilder())
        parser.feed(packet)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"not XMP: {error}") from error
    if _rdf(root) is None:
        raise ValueError("not XMP: no rdf:RDF in it")
    for where in _rdf(root).findall(_NODE):
        for name in _NAMES:  # a property may be written short, as an attribute
            text = where.attrib.pop(name, None)
            if text is not None:
                ElementTree.SubElement(where, name).text = text
    return root


def _rdf(root):
    return root if root.tag == f"{{{RDF}}}RDF" else root.find(f"{{{RDF}}}RDF")


def _properties(root, name):
    """The (parent, element) of a property of the photo itself. A photo made of others
    has theirs as well, further down."""
    nodes = _rdf(root).findall(_NODE)
    return [(node, element) for node in nodes for element in node.findall(name)]
