"""Where photos come from: files, folders, globs, lists of paths, zip and tar archives.

They come one at a time and in the same order each time, whatever there are: of a folder
with a million entries no more than some thousand names are held at once.
"""

import contextlib
import functools
import glob
import itertools
import os
import pathlib
import posixpath

from captioner.images.archive_members import unreadable
from captioner.images.folder_walk import (
    join,
    scan_folder,
    sorted_names,
    system_folder,
    walk_folder,
)
from captioner.images.image_files import ImageError
from captioner.images.left_aside import LeftAside
from captioner.images.path_list import read_path_list
from captioner.images.path_pattern import matching_paths
from captioner.images.photo import ARCHIVE_ERRORS, Photo
from captioner.images.photo_suffixes import PHOTO_SUFFIXES
from captioner.images.seen_names import SeenNames
from captioner.images.tar_archive import read_tar
from captioner.images.zip_archive import read_zip

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def find_photos(paths=(), files_from=None, trust_list=False, left_aside=None):
    """All photos, each once, in a fixed order; what cannot be read has its `error`.

    Args:
        paths: a path or an iterable of them: files; folders, which are searched to the
            bottom, sorted by name, without hidden files and without following links
            to other folders; globs as "photos/**/*.jpg"; zip and tar archives.
        files_from: a file that lists more files, folders and archives, see
            `read_path_list`; "-" is standard input. It is checked at once.
        trust_list: allow a list to name a folder that contains the working folder.
        left_aside: a `LeftAside`, which counts the files that are not photos.

    Returns:
        An iterator of `Photo`.

    Raises:
        ValueError: a path that was given is not there, or is in /proc, /sys or /dev; or
            the list cannot be used.
        OSError: the list cannot be read.

    Example:

    >>> names = [photo.name for photo in find_photos("data/samples")]
    >>> len(names)
    10
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if left_aside is None:
        left_aside = LeftAside()
    given = ((path, True) for path in paths)
    if files_from is not None:
        listed = ((path, False) for path in read_path_list(files_from, trust_list))
        given = itertools.chain(given, listed)
    return _each_once(given, left_aside)


def _each_once(given, left_aside):
    first = list(itertools.islice(given, 2))
    given = itertools.chain(first, given)
    # What one folder or archive holds is there once.
    several = len(first) > 1 or glob.has_magic(os.fspath(first[0][0]) if first else "")
    with contextlib.closing(SeenNames()) as seen:
        for path, is_argument in given:
            for photo in _photos_of(os.fspath(path), is_argument, left_aside):
                if not several or seen.add(_identity(photo)):
                    yield photo


def count_photos(paths):
    """How many photos there are in files and folders, or None where only reading them
    all would tell."""
    count = 0
    for path in paths:
        path = str(pathlib.Path(path))
        if not os.path.isdir(path):
            if not os.path.lexists(path) or _is_archive(path):
                return None
            count += 1
            continue
        folders = [path]
        while folders:
            folder = folders.pop()
            with contextlib.suppress(OSError):
                for name, kind in scan_folder(folder):
                    if kind == "folder":
                        folders.append(join(folder, name))
                    count += kind == "file" and _is_photo_name(name)
    return count


def check_path(path):
    """Refuse a path that is not there, or that leads to what is not for reading.

    Raises:
        ValueError: it is missing, or in a folder of the system.
    """
    path = os.fspath(path) or os.curdir
    if not (os.path.lexists(path) or glob.has_magic(path)):
        raise ValueError(f"No such file or folder: {path}")
    if (folder := system_folder(path)) is not None:
        raise ValueError(f"{path} {_reason(folder)}.")


def _reason(folder):
    return f"is in {folder}, a folder of the system, which is not read"


def _photos_of(path, is_argument, left_aside):
    path = str(pathlib.Path(path))  # also of "", the folder where we are
    if is_argument:
        check_path(path)
    elif not os.path.lexists(path):  # a line of a long list is no reason to stop
        error = ImageError(path, "missing", "no such file")
        yield Photo(path, os.path.basename(path), "", path, error=error)
        return
    elif error := _system_error(path):
        yield Photo(path, os.path.basename(path), "", path, error=error)
        return
    if os.path.isdir(path):
        yield from _folder(path, left_aside)
    elif not os.path.lexists(path):
        found = False
        with sorted_names(matching_paths(path)) as names:
            for name in names:
                found = True
                yield from _photos_of(name, False, left_aside)
        if not found:
            raise ValueError(f"Nothing matches {path}")
    elif path.lower().endswith(ZIP_SUFFIXES):
        yield from _archive(path, read_zip(path), left_aside)
    elif path.lower().endswith(TAR_SUFFIXES):
        yield from _archive(path, read_tar(path, _is_photo_name), left_aside)
    else:
        yield _file(path, os.path.basename(path))


def _folder(root, left_aside):
    """The photos in a folder, and then those in its folders."""
    for visit in walk_folder(root, _is_photo_name, left_aside):
        folder = visit.folder
        if visit.error is not None:
            error = unreadable(folder, visit.error)
            yield Photo(folder, _relative(folder, root), "", folder, error=error)
        for name in visit.names:
            path = join(folder, name)
            yield _file(path, _relative(path, root))


def _file(path, relative):
    try:
        status = os.stat(path)
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
    except (OSError, ValueError):
        stamp = ""  # reading it will say what is wrong
    # A file of a folder is in none of the system, unless it is a link to there.
    error = _system_error(path) if stamp and os.path.islink(path) else None
    return Photo(path, relative, stamp, path, error=error)


def _system_error(path):
    folder = system_folder(path)
    return folder and ImageError(path, "unsafe", f"it {_reason(folder)}")


def _relative(path, root):
    return path if root == os.curdir else path[len(root) :].lstrip(os.sep)


def _is_photo_name(name):
    """Whether a file in a folder or an archive is taken for a photo."""
    name = posixpath.basename(name)
    return name[:1] != "." and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def _is_archive(path):
    return path.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def _archive(path, members, left_aside):
    """The photos of an archive; it is never unpacked, so no name leads anywhere."""
    base = os.path.basename(path)
    suffix = next(s for s in ZIP_SUFFIXES + TAR_SUFFIXES if base.lower().endswith(s))
    folder = base.removesuffix(base[-len(suffix) :])
    if folder in ("", ".", ".."):  # an archive may have such a name, its folder may not
        folder = base
    try:
        with contextlib.closing(SeenNames()) as seen:
            for member in members:
                if not _is_photo_name(member.name):
                    left_aside.add(posixpath.basename(member.name))
                    continue
                name, error = f"{path}/{member.name}", None
                if ".." in member.name.split("/") or member.name.startswith("/"):
                    reason = "its name leads out of the archive"
                    error = ImageError(name, "unsafe", reason)
                elif member.problem is not None:
                    error = ImageError(name, *member.problem)
                if (number := seen.count(name)) > 1:
                    name = f"{name} ({number})"
                    reason = "the archive has another file of this name before it"
                    error = ImageError(name, "clash", reason)
                relative = f"{folder}/{member.name}"
                content = None if error else member.content
                yield Photo(name, relative, member.stamp, path, content, error)
    except ARCHIVE_ERRORS as error:
        yield Photo(path, folder, "", path, error=unreadable(path, error))


def _identity(photo):
    """What is the same for two spellings of one photo."""
    folder, name = os.path.split(photo.path)
    member = photo.name.removeprefix(photo.path)
    return os.path.join(_real_folder(folder), name) + member


@functools.lru_cache(maxsize=64)
def _real_folder(folder):
    return os.path.realpath(folder or ".")
