"""Tar archives, plain and compressed: ustar, GNU and pax. See `archive_members.py`.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import bz2
import dataclasses
import lzma
import os
import re
import struct
import zlib

from captioner.images.archive_members import (
    FREE_BYTES,
    MAX_HEADER_BYTES,
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    MAX_RATIO,
    ArchiveError,
    ArchiveMember,
    after,
    member_name,
    open_archive,
    too_large,
)

BLOCK = 512
RECORD = 20 * BLOCK  # to which tar fills up an archive
# The bytes of a member of a compressed tar are held until it is captioned.
MAX_INFLATED_MEMBER_BYTES = 2**26
MAX_ZEROS = 2**30  # bytes after the end mark; tar itself fills up some thousand
MAX_DICTIONARY_BYTES = 2**27  # that inflating xz may hold; `xz -9` needs the half
# Headers shrink to nearly nothing, and each is a row: in one of 10 MB, four million.
MIN_MEMBER_BYTES = 32  # compressed, on average,
FREE_MEMBERS = 10_000  # any archive may have these as well
_INFLATED_AT_ONCE = 2**20
_CHUNK = 2**14

_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_SPARSE = b"S"
_FOLDER = b"5"
_PAX, _GLOBAL_PAX = (b"x", b"X"), b"g"
_LONG_NAME, _LONG_LINK = b"L", b"K"


@dataclasses.dataclass(frozen=True)
class TarSlice:
    """Where a member of a plain tar is."""

    offset: int
    size: int

    def read(self, path):
        """Its bytes."""
        with open_archive(path) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise EOFError("the archive ends in the middle of it")
        return data


def read_tar(path, is_wanted=lambda name: True):
    """Goes over the members of a tar archive, without its folders.

    What it is compressed with, if it is, its first bytes say.

    Args:
        path: of a file.
        is_wanted: function of a name, whether a member's content is of use. Of the
            others nothing is held.

    Yields:
        `ArchiveMember`, in their order.

    Raises:
        ArchiveError, OSError, EOFError, zlib.error, lzma.LZMAError: the archive is
            damaged, or cannot be read any further.

    Example:

    ```python
    for member in read_tar("photos.tar"):
        print(member.name, member.problem or len(member.content.read("photos.tar")))
    ```
    """
    with open_archive(path) as file:
        status = os.fstat(file.fileno())
        begin = file.read(6)
        file.seek(0)
        if begin.startswith(b"\x28\xb5\x2f\xfd"):
            raise ArchiveError("tar archives compressed with zstd are not read")
        new = next((new for mark, new in _INFLATERS if begin.startswith(mark)), None)
        stream = _Plain(file, status.st_size)
        if new is not None:
            stream = _Inflated(file, status.st_size, new)
        limit = min(MAX_MEMBERS, FREE_MEMBERS + status.st_size // MIN_MEMBER_BYTES)
        yield from _members(stream, is_wanted, status.st_mtime_ns, limit)


def _members(stream, is_wanted, changed, limit):
    max_bytes = MAX_MEMBER_BYTES if stream.is_plain else MAX_INFLATED_MEMBER_BYTES
    number, zeros = 0, 0
    extended = _Extended()
    while block := stream.read(BLOCK):
        if not block.strip(b"\0"):
            # Archives that were joined by `cat` go on at the next record.
            zeros += len(block)
            if zeros > MAX_ZEROS:
                raise ArchiveError(f"more than {MAX_ZEROS:,} null bytes in a row")
            continue
        if zeros and (stream.at - BLOCK) % RECORD:
            raise ArchiveError(f"null bytes in the middle, {after(number)}")
        zeros = 0
        try:
            header = _header(block)
        except ArchiveError as error:
            raise ArchiveError(f"{error} {after(number)}") from None
        if header.kind in (*_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_LINK):
            extended.add(header, stream)
            continue
        if header.kind == _SPARSE and header.is_extended:
            while stream.read_all(BLOCK)[504]:  # the rest of the list of its pieces
                pass
        name, size, is_sparse, problem = extended.of(header)
        extended = _Extended()
        is_folder = header.kind == _FOLDER or name.endswith(b"/")
        padded = 0 if header.kind in _WITHOUT_DATA else -(-size // BLOCK) * BLOCK
        if is_folder:
            stream.skip(padded)
            continue
        number += 1
        if number > limit:
            raise ArchiveError(f"it has more than {limit:,} files")
        if problem is None and (header.kind not in _REGULAR or is_sparse):
            problem = "unreadable", "cannot be read: it is a link or no plain file"
        elif problem is None and size >= max_bytes:
            problem = too_large(max_bytes)
        name, name_problem = member_name(name)
        name = name.decode("utf-8", "surrogateescape")
        problem = problem or name_problem
        content = None
        try:
            if problem is None and stream.is_plain:
                content = TarSlice(stream.at, size)
                stream.check(size)
            elif problem is None and is_wanted(name):
                content = stream.read_all(size)
                padded -= size
        except EOFError as error:
            raise EOFError(f"{error} {after(number - 1)}") from error
        yield ArchiveMember(name, f"{size}:{header.time}:{changed}", content, problem)
        stream.skip(padded)
    if not zeros:
        raise ArchiveError(
            f"it has no end mark {after(number)}: some files may be missing"
        )


# Headers ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Header:
    name: bytes
    size: int
    time: str
    kind: bytes
    is_extended: bool  # of a sparse file, where more such blocks follow


def _header(block):
    if len(block) < BLOCK:
        raise ArchiveError("the archive is cut off")
    # Some old programs took bytes as signed numbers.
    sums = 256 + sum(block[:148]) + sum(block[156:])
    signed = 256 + sum(struct.unpack("148b8x356b", block))
    if _number(block[148:156]) not in (sums, signed):
        raise ArchiveError("no tar header, or a damaged one,")
    name = _until_null(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _until_null(block[345:500])):
        name = prefix + b"/" + name
    try:
        time = str(_number(block[136:148]))
    except ArchiveError:  # before 1970
        time = block[136:148].hex()
    size, kind = _number(block[124:136]), block[156:157]
    return _Header(name, size, time, kind, bool(block[482]))


def _number(field):
    """A number in octal digits, or in binary if the first bit is set."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise ArchiveError("a header with a negative number")
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    digits = _until_null(field).strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ArchiveError("a damaged header")
    return int(digits or b"0", 8)


def _until_null(field):
    return field.partition(b"\0")[0]


class _Extended:
    """What the headers before a member's own say of it."""

    def __init__(self):
        self.name = self.size = self.problem = None
        self.is_sparse = False

    def add(self, header, stream):
        padded = -(-header.size // BLOCK) * BLOCK
        if header.kind in (_GLOBAL_PAX, _LONG_LINK):  # nothing in them matters here
            stream.skip(padded)
        elif header.size > MAX_HEADER_BYTES:
            self.problem = "unreadable", "cannot be read: its header is too large"
            stream.skip(padded)
        else:
            data = stream.read_all(header.size)
            stream.skip(padded - header.size)
            if header.kind == _LONG_NAME:
                self.name = _until_null(data)
            else:
                self._add_pax(data)

    def _add_pax(self, data):
        for key, value in _pax_records(data):
            if key == b"path":
                self.name = _until_null(value)
            elif key == b"size":
                if not re.fullmatch(rb"[0-9]{1,20}", value):
                    raise ArchiveError("a header with a damaged size")
                self.size = int(value)
            elif key.startswith(b"GNU.sparse."):
                self.is_sparse = True
                if key == b"GNU.sparse.name":
                    self.name = _until_null(value)

    def of(self, header):
        """(name, size, is_sparse, problem) of the member with this header."""
        name = header.name if self.name is None else self.name
        size = header.size if self.size is None else self.size
        return name, size, self.is_sparse or header.kind == _SPARSE, self.problem


def _pax_records(data):
    """(key, value) of each record: b"<length> <key>=<value>\\n"."""
    at = 0
    while at < len(data):
        digits = data[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = data[at + len(digits) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(data) or not equals or record[-1:] != b"\n":
            raise ArchiveError("a damaged header")
        yield key, value
        at += length


# Bytes in their order ---------------------------------------------------------------


class _Stream:
    """Bytes in their order. `at` is the number of those that have been read."""

    is_plain = False

    def read_all(self, count):
        """So many bytes."""
        data = self.read(count)
        if len(data) < count:
            raise EOFError("the archive is cut off")
        return data


class _Plain(_Stream):
    is_plain = True

    def __init__(self, file, size):
        self.file, self.size, self.at = file, size, 0

    def read(self, count):
        data = self.file.read(count)
        self.at += len(data)
        return data

    def check(self, count):
        """Refuse to read more bytes than the archive has."""
        if self.at + count > self.size:
            raise EOFError("the archive is cut off")

    def skip(self, count):
        self.check(count)
        self.at += count
        self.file.seek(self.at)


class _Inflated(_Stream):
    """What a compressed file holds, never inflated further than it is read."""

    def __init__(self, file, size, new):
        self.file, self.new, self.inflater = file, new, new()
        self.at, self.limit = 0, FREE_BYTES + MAX_RATIO * size

    def read(self, count):
        pieces = []
        while count:
            piece = self._piece(min(count, _INFLATED_AT_ONCE))
            if piece is None:
                break
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def skip(self, count):
        while count:
            piece = self._piece(min(count, _INFLATED_AT_ONCE))
            if piece is None:
                raise EOFError("the archive is cut off")
            count -= len(piece)

    def _piece(self, most):
        """At most `most` bytes, perhaps none; None at the end."""
        data = b""
        if self.inflater.eof:  # several may follow each other, and null bytes
            data = self.inflater.unused_data.lstrip(b"\0")
            while not data and (chunk := self.file.read(_CHUNK)):
                data = chunk.lstrip(b"\0")
            if not data:
                return None
            self.inflater = self.new()
        elif self.inflater.needs_input:
            data = self.file.read(_CHUNK)
            if not data:
                raise EOFError("the archive is cut off")
        piece = self.inflater.decompress(data, most)
        self.at += len(piece)
        if self.at > self.limit:
            raise ArchiveError(f"it inflates to more than {self.limit:,} bytes")
        return piece


class _GzipInflater:
    """zlib's inflater with the interface that those of bz2 and lzma have."""

    def __init__(self):
        self._inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self):
        return self._inflater.eof

    @property
    def unused_data(self):
        return self._inflater.unused_data

    def decompress(self, data, max_length):
        piece = self._inflater.decompress(
            self._inflater.unconsumed_tail + data, max_length
        )
        self.needs_input = (
            len(piece) < max_length and not self._inflater.unconsumed_tail
        )
        return piece


def _new_xz():
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY_BYTES)


_INFLATERS = (
    (b"\x1f\x8b", _GzipInflater),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", _new_xz),
)
