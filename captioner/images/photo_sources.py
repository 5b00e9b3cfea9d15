"""Where photos come from: files, folders, globs, lists of paths, zip and tar archives.

They come one at a time and in the same order each time, whatever there are: of a folder
with a million entries no more than some thousand names are held at once.
"""

import contextlib
import dataclasses
import functools
import glob
import hashlib
import heapq
import itertools
import lzma
import os
import pathlib
import posixpath
import sqlite3
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib

from captioner.images.image_files import ImageError, read_image_file
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# A member is read before it is known what it is; so much no photo has.
MAX_MEMBER_BYTES = 2**28
NAMES_IN_MEMORY = 20_000


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo that is there to be read.

    Attributes:
        name: str, its path as given or found; in an archive, that of the archive and
            then the member's.
        relative: str, its path below the folder that was given, with "/". A file named
            outright has its own name; a member its path after the archive's name.
        stamp: str, what changes when the photo does (size and time), "" where unknown.
        path: str, the file or the archive that it is read from.
        member: the name of a member in a zip, the (offset, size) of one in a tar, or
            the bytes of one in a compressed tar.
        error: `ImageError`, where it is known already that it cannot be read.
    """

    name: str
    relative: str
    stamp: str
    path: str
    member: str | tuple | bytes | None = None
    error: ImageError | None = None

    def read(self):
        """Its bytes.

        Raises:
            ImageError: it cannot be read.
        """
        if self.error is not None:
            raise self.error
        if self.member is None:
            return read_image_file(self.path)
        if isinstance(self.member, bytes):
            return self.member
        try:
            if isinstance(self.member, tuple):
                offset, size = self.member
                with open(self.path, "rb") as file:
                    file.seek(offset)
                    data = file.read(size)
                if len(data) < size:
                    raise EOFError("the archive ends in the midst of it")
                return data
            with _open_zip(self.path, self.stamp).open(self.member) as file:
                return file.read(MAX_MEMBER_BYTES)
        except _ARCHIVE_ERRORS as error:
            raise _unreadable(self.name, error) from error


_ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # a password is needed
    NotImplementedError,
    ValueError,
    KeyError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def find_photos(paths=(), files_from=None):
    """All photos, each once, in a fixed order; what cannot be read has its `error`.

    Args:
        paths: a path or an iterable of them: files; folders, which are searched to the
            bottom, sorted by name, without hidden files and without following links
            to other folders; globs as "photos/**/*.jpg"; zip and tar archives.
        files_from: a file that lists more of them, one a line or separated by null
            bytes, as `find -print0` writes; "-" is standard input.

    Yields:
        `Photo`.

    Raises:
        ValueError: a path that was given is not there.

    Example:

    >>> names = [photo.name for photo in find_photos("data/samples")]
    >>> len(names)
    10
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    given = ((path, True) for path in paths)
    if files_from is not None:
        listed = ((path, False) for path in _listed(files_from))
        given = itertools.chain(given, listed)
    first = list(itertools.islice(given, 2))
    given = itertools.chain(first, given)
    # What one folder or archive holds is there once.
    several = len(first) > 1 or glob.has_magic(os.fspath(first[0][0]) if first else "")
    with contextlib.closing(SeenNames()) as seen:
        for path, must_exist in given:
            for photo in _photos_of(os.fspath(path), must_exist):
                if not several or seen.add(_identity(photo)):
                    yield photo


def count_photos(paths):
    """How many photos there are in files and folders, or None where only reading them
    all would tell."""
    count = 0
    for path in paths:
        path = str(pathlib.Path(path))
        if os.path.isdir(path):
            for _, folders, files in os.walk(path):
                folders[:] = [name for name in folders if name[0] != "."]
                count += sum(map(_is_photo_name, files))
        elif os.path.lexists(path) and not _is_archive(path):
            count += 1
        else:
            return None
    return count


def _photos_of(path, must_exist):
    path = str(pathlib.Path(path))  # also of "", the folder where we are
    if os.path.isdir(path):
        yield from _walk(path)
    elif os.path.lexists(path):
        if path.lower().endswith(ZIP_SUFFIXES):
            yield from _archive(path, _zip_members)
        elif path.lower().endswith(TAR_SUFFIXES):
            yield from _archive(path, _tar_members)
        else:
            yield _file(path, os.path.basename(path))
    elif glob.has_magic(path):
        found = False
        with _sorted_names(glob.iglob(path, recursive=True)) as names:
            for name in names:
                found = True
                yield from _photos_of(name, must_exist)
        if not found and must_exist:
            raise ValueError(f"Nothing matches {path}")
    elif must_exist:
        raise ValueError(f"No such file or folder: {path}")
    else:  # a line of a long list is no reason to stop
        error = ImageError(path, "missing", "no such file")
        yield Photo(path, os.path.basename(path), "", path, error=error)


def _listed(files_from):
    """The paths in a list, one after the other."""
    with contextlib.ExitStack() as stack:
        if os.fspath(files_from) == "-":
            file = sys.stdin.buffer
        else:
            file = stack.enter_context(open(files_from, "rb"))
        for path in _split(file):
            # Lists that Windows wrote have a carriage return at the end of a line.
            yield path if os.path.lexists(path) else path.removesuffix("\r")


def _split(file):
    rest, separator = b"", None
    while chunk := file.read1(2**16):
        rest += chunk
        if separator is None and (b"\0" in rest or b"\n" in rest):
            separator = b"\0" if b"\0" in rest else b"\n"
        if separator:
            *whole, rest = rest.split(separator)
            yield from (os.fsdecode(name) for name in whole if name)
    yield from [os.fsdecode(rest)] if rest else []


# Folders ----------------------------------------------------------------------------


def _walk(root):
    """The photos in a folder, and then those in its folders."""
    with contextlib.ExitStack() as stack:
        levels = [iter([root])]
        while levels:
            folder = next(levels[-1], None)
            if folder is None:
                levels.pop()
                continue
            try:
                files, folders = _sorted_entries(folder, stack)
            except OSError as error:
                error = _unreadable(folder, error)
                yield Photo(folder, _relative(folder, root), "", folder, error=error)
                continue
            for name in files:
                path = _join(folder, name)
                yield _file(path, _relative(path, root))
            levels.append(map(functools.partial(_join, folder), folders))


def _sorted_entries(folder, stack):
    """The names of a folder's photos and folders, sorted, neither of them hidden."""
    files, folders = _NameSorter(stack), _NameSorter(stack)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads round in a circle
                is_folder = False
            if is_folder:
                if not entry.is_symlink():
                    folders.add(entry.name)
            elif _is_photo_name(entry.name):
                files.add(entry.name)
    return files, folders


def _is_photo_name(name):
    return name[:1] != "." and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def _is_archive(path):
    return path.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


class _NameSorter:
    """Sorts more names than are held in memory."""

    def __init__(self, stack):
        self.stack, self.names, self.files = stack, [], []

    def add(self, name):
        self.names.append(os.fsencode(name))
        if len(self.names) >= NAMES_IN_MEMORY:
            # No name holds a null byte.
            file = self.stack.enter_context(tempfile.TemporaryFile())
            file.write(b"\0".join(sorted(self.names)) + b"\0")
            self.files.append(file)
            self.names = []

    def __iter__(self):
        for file in self.files:
            file.seek(0)
        runs = [_split(file) for file in self.files]
        own = [os.fsdecode(name) for name in sorted(self.names)]
        yield from heapq.merge(*runs, own, key=os.fsencode)


@contextlib.contextmanager
def _sorted_names(names):
    with contextlib.ExitStack() as stack:
        sorter = _NameSorter(stack)
        for name in names:
            sorter.add(name)
        yield sorter


def _file(path, relative):
    try:
        status = os.stat(path)
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
    except (OSError, ValueError):
        stamp = ""  # reading it will say what is wrong
    return Photo(path, relative, stamp, path)


def _join(folder, name):
    return name if folder == os.curdir else os.path.join(folder, name)


def _relative(path, root):
    return path if root == os.curdir else path[len(root) :].lstrip(os.sep)


def _unreadable(name, error):
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError(name, "unreadable", f"cannot be read: {' '.join(reason.split())}")


# Archives ---------------------------------------------------------------------------


def _archive(path, members):
    """The photos of an archive; it is never unpacked, so no name leads anywhere."""
    folder = os.path.basename(path)
    suffix = next(s for s in ZIP_SUFFIXES + TAR_SUFFIXES if folder.lower().endswith(s))
    folder = folder[: -len(suffix)] or folder
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "it is not a file")
        with contextlib.closing(SeenNames()) as seen:
            for member_name, stamp, member, reason in members(path):
                base = posixpath.basename(member_name)
                if base.startswith(".") or not _is_photo_name(base):
                    continue
                name, relative = f"{path}/{member_name}", f"{folder}/{member_name}"
                error = None
                if ".." in member_name.split("/") or member_name.startswith("/"):
                    error = ImageError(
                        name, "unsafe", "its name leads out of the archive"
                    )
                elif reason:
                    error = ImageError(name, *reason)
                number = 1
                while not seen.add(name):
                    number += 1
                    name = f"{path}/{member_name} ({number})"
                    reason = "the archive has another file of this name before it"
                    error = ImageError(name, "clash", reason)
                yield Photo(name, relative, stamp, path, member, error)
    except _ARCHIVE_ERRORS as error:
        yield Photo(path, folder, "", path, error=_unreadable(path, error))


_TOO_LARGE = (
    "too_large",
    f"the file is too large: more than {MAX_MEMBER_BYTES:,} bytes in an archive",
)


def _zip_members(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                too_large = info.file_size >= MAX_MEMBER_BYTES
                stamp = f"{info.file_size}:{info.CRC:08x}"
                # ZipFile has cut the name at a null byte already.
                yield info.filename, stamp, info.filename, too_large and _TOO_LARGE


@functools.lru_cache(maxsize=1)
def _open_zip(path, _):
    return zipfile.ZipFile(path)


def _tar_members(path):
    changed = os.stat(path).st_mtime_ns
    plain = path.lower().endswith(".tar")
    # As a stream: a compressed one cannot be read in any other order.
    with tarfile.open(path, "r:" if plain else "r|*") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # or it would keep them all
            if info.isdir():
                continue
            stamp = f"{info.size}:{info.mtime}:{changed}"
            reason = member = None
            if not info.isreg() or info.sparse is not None:
                reason = "unreadable", "cannot be read: it is a link or no plain file"
            elif info.size >= MAX_MEMBER_BYTES:
                reason = _TOO_LARGE
            elif plain:
                member = info.offset_data, info.size
            elif _is_photo_name(posixpath.basename(info.name)):
                member = archive.extractfile(info).read()
            yield info.name, stamp, member, reason


# Each once --------------------------------------------------------------------------


def _identity(photo):
    """What is the same for two spellings of one photo."""
    folder, name = os.path.split(photo.path)
    member = photo.name.removeprefix(photo.path)
    return os.path.join(_real_folder(folder), name) + member


@functools.lru_cache(maxsize=64)
def _real_folder(folder):
    return os.path.realpath(folder or ".")


class SeenNames:
    """Names that were seen, in a temporary file once they are many."""

    def __init__(self):
        # The empty name: a database that lives in memory until it grows, and that
        # nobody else can see.
        self.database = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )
        self.database.execute("PRAGMA journal_mode=OFF")
        self.database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY)")
        self.database.execute("BEGIN")

    def add(self, name):
        """Whether it is new."""
        digest = hashlib.blake2b(os.fsencode(name), digest_size=16).digest()
        added = self.database.execute(
            "INSERT OR IGNORE INTO seen VALUES (?)", (digest,)
        )
        return added.rowcount == 1

    def close(self):
        self.database.close()
