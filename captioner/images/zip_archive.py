"""Zip archives, with Zip64. See `archive_members.py`.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import bz2
import dataclasses
import lzma
import os
import stat
import struct
import zlib

from captioner.images.archive_members import (
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    ArchiveError,
    ArchiveMember,
    after,
    member_name,
    open_archive,
    too_large,
)

_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_MAX_COMMENT = 2**16
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_ENCRYPTED, _UTF8 = 0x1, 0x800
MAX_DICTIONARY_BYTES = 2**27  # that inflating LZMA may hold
_CHUNK = 2**16


@dataclasses.dataclass(frozen=True)
class ZipSlice:
    """Where a member of a zip is, and how it is compressed."""

    offset: int
    compressed_size: int
    size: int
    method: int
    crc: int

    def read(self, path):
        """Its bytes.

        Raises:
            ArchiveError, EOFError, OSError, zlib.error, lzma.LZMAError: it is damaged.
        """
        with open_archive(path) as file:
            file.seek(self.offset)
            mark, *_, name_size, extra_size = _LOCAL.unpack(_all(file, _LOCAL.size))
            if mark != b"PK\3\4":
                raise ArchiveError("its header is damaged")
            file.seek(name_size + extra_size, os.SEEK_CUR)
            data = b"".join(self._pieces(file))
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise ArchiveError("it is damaged")
        return data

    def _pieces(self, file):
        """Its bytes, and no more than one in addition to those that it has."""
        left = self.compressed_size
        if self.method == _STORED:
            yield _all(file, min(left, self.size + 1))
            return
        if self.method == _DEFLATED:
            inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        elif self.method == _BZIP2:
            inflater = bz2.BZ2Decompressor()
        else:
            left -= 9
            inflater = _lzma_inflater(_all(file, 9))
        missing = self.size + 1
        while left > 0 and missing > 0 and not inflater.eof:
            chunk = _all(file, min(left, _CHUNK))
            left -= len(chunk)
            while missing > 0 and not inflater.eof:
                piece = inflater.decompress(chunk, missing)
                missing -= len(piece)
                yield piece
                chunk = getattr(inflater, "unconsumed_tail", b"")
                if not (piece or chunk):
                    break


def _lzma_inflater(header):
    """The inflater for the bytes after an LZMA header (section 5.8)."""
    (dictionary_size,) = struct.unpack("<L", header[5:])
    if header[2:4] != b"\5\0" or dictionary_size > MAX_DICTIONARY_BYTES:
        raise ArchiveError("its compression needs too much memory or is damaged")
    rest, context_bits = divmod(header[4], 9)
    position_bits, literal_bits = divmod(rest, 5)
    options = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": dictionary_size,
        "lc": context_bits,
        "lp": literal_bits,
        "pb": position_bits,
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])


def read_zip(path):
    """Goes over the members of a zip archive, without its folders.

    Yields:
        `ArchiveMember`, in the order of the archive's directory.

    Raises:
        ArchiveError, OSError, EOFError: the archive is damaged.

    Example:

    ```python
    for member in read_zip("photos.zip"):
        print(member.name, member.problem or len(member.content.read("photos.zip")))
    ```
    """
    with open_archive(path) as file:
        at, end, count, shift = _directory(file)
        file.seek(at)
        left = at  # Compressed bytes cannot be more than there are before it.
        number = 0
        while file.tell() < end:
            entry = _ENTRY.unpack(_all(file, _ENTRY.size))
            if entry[0] != b"PK\1\2":
                raise ArchiveError(f"its directory is damaged {after(number)}")
            number += 1
            if number > MAX_MEMBERS:
                raise ArchiveError(f"it has more than {MAX_MEMBERS:,} files")
            member, compressed_size = _member(file, entry, shift, at)
            left -= compressed_size
            if left < 0:
                raise ArchiveError(f"it is damaged: files overlap {after(number - 1)}")
            if member is not None:
                yield member
        if file.tell() != end or number % 2**16 != count % 2**16:
            raise ArchiveError(
                f"its directory is damaged: {number:,} files of {count:,}"
            )


def _directory(file):
    """(begin, end, count, shift) of the directory: its place, how many entries, and how
    many bytes there are before the archive, as of a program that unpacks itself."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - _MAX_COMMENT)
    file.seek(tail_at)
    tail = file.read(size - tail_at)
    found = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if found < 0:
        raise ArchiveError("it is not a zip archive, or its end is missing")
    end = tail_at + found
    _, disk, _, _, count, length, offset, _ = _END.unpack_from(tail, found)
    locator_at = end - _END_64_LOCATOR.size
    if locator_at >= 0:
        file.seek(locator_at)
        mark, _, _, disks = _END_64_LOCATOR.unpack(_all(file, _END_64_LOCATOR.size))
        record_at = locator_at - _END_64.size
        if mark == b"PK\6\7" and record_at >= 0:
            file.seek(record_at)
            record = _END_64.unpack(_all(file, _END_64.size))
            if record[0] != b"PK\6\6" or disks > 1:
                raise ArchiveError("its end is damaged")
            end, disk = record_at, record[4]
            count, length, offset = record[7:]
    if disk:
        raise ArchiveError("it is one part of several")
    begin = end - length
    if begin < 0 or offset > begin:
        raise ArchiveError("its directory is damaged, or bytes of it are missing")
    return begin, end, count, begin - offset


def _member(file, entry, shift, end):
    """(member or None, compressed size); reads what comes after an entry. The content
    of members ends at `end`."""
    _, _, system, _, _, flags, method, _, _, crc, compressed, size, *entry = entry
    name_size, extra_size, comment_size, _, _, attributes, offset = entry
    name, extra = _all(file, name_size), _all(file, extra_size)
    file.seek(comment_size, os.SEEK_CUR)
    size, compressed, offset = _zip64(extra, size, compressed, offset)
    name, problem = member_name(name.partition(b"\0")[0])
    if name.endswith(b"/"):
        return None, compressed
    # Unix modes are in the upper half.
    if problem is None and stat.S_ISLNK(attributes >> 16) and system == 3:
        problem = "unreadable", "cannot be read: it is a link"
    elif problem is None and flags & _ENCRYPTED:
        problem = "unreadable", "cannot be read: it needs a password"
    elif problem is None and method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        problem = "unreadable", f"cannot be read: compression method {method}"
    elif problem is None and size >= MAX_MEMBER_BYTES:
        problem = too_large(MAX_MEMBER_BYTES)
    elif problem is None and offset + shift + compressed > end:
        problem = "unreadable", "cannot be read: it is not where the archive says"
    slice = ZipSlice(offset + shift, compressed, size, method, crc)
    return (
        ArchiveMember(
            _decoded(name, flags),
            f"{size}:{crc:08x}",
            None if problem else slice,
            problem,
        ),
        compressed,
    )


def _zip64(extra, *numbers):
    """Those numbers that are too large for their field, from the extra one."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        data, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1:
            found = []
            for number in numbers:
                if number == 2**32 - 1:
                    if len(data) < 8:
                        raise ArchiveError("its directory is damaged")
                    (number,), data = struct.unpack("<Q", data[:8]), data[8:]
                found.append(number)
            return found
    return numbers


def _decoded(name, flags):
    """A name as text. macOS writes UTF-8 and does not say so."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        if flags & _UTF8:
            return name.decode("utf-8", "surrogateescape")
        return name.decode("cp437")


def _all(file, count):
    data = file.read(count)
    if len(data) < count:
        raise EOFError("the archive is cut off")
    return data
