"""Captions in EXIF: ImageDescription, and the comments of Windows and of EXIF itself.

CIPA DC-008 (EXIF), which uses the structure of TIFF 6.0. These few functions do what
no library does: they change three values and leave every other byte where it is, since
notes of camera makers hold positions that nobody can correct. They follow two
directories at most, do not recurse, and read only what lies within the block.
"""

import contextlib
import struct

from captioner.captioning.writers.camera_texts import is_camera_text
from captioner.captioning.writers.existing import plain

MAX_VALUE_BYTES = 2**22
IMAGE_DESCRIPTION, XP_COMMENT = 0x010E, 0x9C9C
EXIF_DIRECTORY, USER_COMMENT = 0x8769, 0x9286
_BYTE, _ASCII, _UNDEFINED = 1, 2, 7
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 129: 1}  # of one element, by its type
_EMPTY = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"  # a directory without entries


class ExifBlock:
    """An EXIF block, which is a TIFF file in itself.

    Args:
        data: bytes, or anything with a length of which slices are bytes.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, data):
        self.data = data
        self.order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
        if self.order is None:
            raise ValueError("the EXIF data is damaged")
        (self.first,) = self.unpack("I", 4)
        self.entries = self._directory(self.first)

    def unpack(self, layout, at):
        """Numbers at a position."""
        size = struct.calcsize(self.order + layout)
        part = self.data[at : at + size]
        if len(part) < size:
            raise ValueError("the EXIF data is damaged")
        return struct.unpack(self.order + layout, part)

    def _directory(self, at):
        """dict of tag to (position of the entry, position of the value, its size)."""
        (count,) = self.unpack("H", at)
        table, entries = self.data[at + 2 : at + 2 + 12 * count], {}
        if len(table) < 12 * count:
            raise ValueError("the EXIF data is damaged")
        fields = struct.iter_unpack(self.order + "HHII", table)
        for entry, (tag, kind, number, value) in zip(range(at + 2, 2**33, 12), fields):
            size = number * _SIZES.get(kind, 0)
            # A short value is in the entry itself.
            entries.setdefault(tag, (entry, value if size > 4 else entry + 8, size))
        return entries

    def value(self, entry):
        """The bytes of an entry, or None."""
        if entry is None:
            return None
        _, at, size = entry
        if size > MAX_VALUE_BYTES or at + size > len(self.data):
            raise ValueError("the EXIF data is damaged")
        return bytes(self.data[at : at + size])

    def texts(self):
        """dict of tag to (entry, text) of the captions that can be read."""
        entries = {
            tag: self.entries.get(tag) for tag in (IMAGE_DESCRIPTION, XP_COMMENT)
        }
        with contextlib.suppress(ValueError, struct.error):
            value = self.value(self.entries.get(EXIF_DIRECTORY))
            (at,) = struct.unpack(self.order + "I", value or b"")
            entries[USER_COMMENT] = self._directory(at).get(USER_COMMENT)
        decoders = _from_ascii, _from_utf16, self._comment
        texts = {}
        for (tag, entry), decode in zip(entries.items(), decoders):
            with contextlib.suppress(ValueError):
                text = plain(decode(self.value(entry) or b"")).rstrip()
                if text:
                    texts[tag] = entry, text
        return texts

    def _comment(self, value):
        code, value = value[:8], value[8:]
        if code != b"UNICODE\0":
            return _from_ascii(value)
        orders = ("be", "le") if self.order == ">" else ("le", "be")
        texts = [value.decode(f"utf-16-{order}", "replace") for order in orders]
        # Some programs always write the same order; the wrong one gives rare letters.
        return max(texts, key=lambda t: sum(c < "\u0250" for c in t)).split("\0")[0]


def read_exif_texts(data):
    """All captions in an EXIF block or a TIFF file.

    Args:
        data: bytes, or anything with a length of which slices are bytes.

    Returns:
        A list of str: ImageDescription, XPComment and UserComment, as far as they are
        there.

    Raises:
        ValueError: it is damaged.
    """
    return [text for _, text in ExifBlock(data).texts().values()]


def write_exif_text(text, data=None):
    """An EXIF block with this caption as ImageDescription, and as XPComment and
    UserComment where it has a caption there; all else stays where it is.

    Args:
        text: str.
        data: bytes of the block to change, or None for a new one.

    Returns:
        bytes.

    Raises:
        ValueError: `data` is damaged.
    """
    text = plain(text)
    block = ExifBlock(data or _EMPTY)
    found = {
        tag: entry
        for tag, (entry, old) in block.texts().items()
        if not is_camera_text(old)
    }
    changed = bytearray(block.data)
    description = text.encode() + b"\0"
    if IMAGE_DESCRIPTION not in block.entries:
        _add_entry(changed, block)
        block = ExifBlock(bytes(changed))
    entry = block.entries[IMAGE_DESCRIPTION]
    _set(changed, block, entry, _ASCII, description)
    if XP_COMMENT in found:
        value = (text + "\0").encode("utf-16-le")
        _set(changed, block, found[XP_COMMENT], _BYTE, value)
    if USER_COMMENT in found:
        if text.isascii():
            value = b"ASCII\0\0\0" + text.encode()
        else:
            order = "be" if block.order == ">" else "le"
            value = b"UNICODE\0" + text.encode(f"utf-16-{order}")
        _set(changed, block, found[USER_COMMENT], _UNDEFINED, value)
    changed = bytes(changed)
    if text.strip() and read_exif_texts(changed)[:1] != [text.rstrip()]:
        raise ValueError("the EXIF data is damaged")  # its parts overlap
    return changed


def _add_entry(changed, block):
    """Move the first directory to the end, with an empty ImageDescription in it."""
    (count,) = block.unpack("H", block.first)
    if count == 0xFFFF:
        raise ValueError("the EXIF data is damaged")
    start, end = block.first + 2, block.first + 2 + 12 * count
    entries = [changed[at : at + 12] for at in range(start, end, 12)]
    entries.append(struct.pack(block.order + "HHI4x", IMAGE_DESCRIPTION, _ASCII, 1))
    entries.sort(key=lambda entry: struct.unpack(block.order + "H", entry[:2]))
    next_directory = changed[end : end + 4].ljust(4, b"\0")
    changed += bytes(len(changed) % 2)
    changed[4:8] = struct.pack(block.order + "I", len(changed))
    changed += struct.pack(block.order + "H", count + 1)
    changed += b"".join(entries) + next_directory


def _set(changed, block, entry, kind, value):
    """Write a value where the old one is, or at the end where it does not fit."""
    at, old, size = entry
    block.value(entry)  # raises where it does not lie in the block
    changed[old : old + size] = bytes(size)
    if len(value) > max(size, 4):
        changed += bytes(len(changed) % 2)
        old = len(changed)
        changed += value
    elif len(value) > 4:
        changed[old : old + len(value)] = value
    changed[at + 2 : at + 8] = struct.pack(block.order + "HI", kind, len(value))
    changed[at + 8 : at + 12] = (
        struct.pack(block.order + "I", old) if len(value) > 4 else value.ljust(4, b"\0")
    )


def _from_ascii(value):
    # EXIF says ASCII; programs write UTF-8, old ones what Windows has.
    value = value.split(b"\0")[0]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")


def _from_utf16(value):
    return value.decode("utf-16-le", "replace").split("\0")[0]
