"""The one way through folders, for photos and for datasets.

It is in the same order each time, leads round in no circle, and holds no more than some
thousand names at once, whatever the folder holds. This module loads nothing heavy.
"""

import collections
import contextlib
import functools
import heapq
import os
import tempfile

# The system shows its processes and devices as files there: they may be endless, or
# wait for ever, or act when they are read.
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")
SHARED_MEMORY = "/dev/shm"  # which people use as a fast disk
NAMES_IN_MEMORY = 20_000

# The names of the files in a folder; `error` is an `OSError` if it cannot be read.
Visit = collections.namedtuple("Visit", "folder names error")


def walk_folder(root, is_wanted, left_aside=None):
    """Visits a folder and then its folders, each sorted by name, down to the bottom.

    Hidden files and folders are left out, links to folders are not followed, and
    `SYSTEM_FOLDERS` are not entered.

    Args:
        root: path of a folder.
        is_wanted: function of a file's name, whether it is among the `names`.
        left_aside: a `LeftAside`, which counts the other files.

    Yields:
        `Visit`: the folder's path, an iterable of the names of its files (all that are
        not folders; read it before the next visit), and None or the `OSError` that
        reading the folder raised.

    Example:

    >>> for visit in walk_folder("data/samples", lambda name: name.endswith(".jpg")):
    ...     print(len(list(visit.names)))
    10
    """
    levels = [iter([os.fspath(root)])]
    with contextlib.ExitStack() as stack:
        while levels:
            folder = next(levels[-1], None)
            if folder is None:
                levels.pop()
                continue
            files, folders = _NameSorter(stack), _NameSorter(stack)
            try:
                for name, kind in scan_folder(folder):
                    if kind == "folder":
                        folders.add(name)
                    elif kind == "file" and is_wanted(name):
                        files.add(name)
                    elif left_aside is not None and kind == "file":
                        left_aside.add(name)
                    elif left_aside is not None:
                        left_aside.add_linked_folder()
            except OSError as error:
                yield Visit(folder, (), error)
                continue
            yield Visit(folder, files, None)
            levels.append(map(functools.partial(join, folder), folders))


def scan_folder(folder):
    """What is not hidden in a folder, in no order.

    Yields:
        (name, kind); the kind is "folder", "linked folder" or, of all else, "file".

    Raises:
        OSError: the folder cannot be read.
    """
    is_top = os.path.samefile(folder, os.sep)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads round in a circle
                is_folder = False
            if not is_folder:
                yield entry.name, "file"
            elif entry.is_symlink():
                yield entry.name, "linked folder"
            elif not (is_top and os.sep + entry.name in SYSTEM_FOLDERS):
                yield entry.name, "folder"


def system_folder(path):
    """The one of `SYSTEM_FOLDERS` that a path leads into, through links too, or None.

    Example:

    >>> system_folder("/proc/self/mem")
    '/proc'
    """
    real = os.path.realpath(path)
    if os.path.commonpath((real, SHARED_MEMORY)) == SHARED_MEMORY:
        return None
    return next((f for f in SYSTEM_FOLDERS if os.path.commonpath((real, f)) == f), None)


def join(folder, name):
    """The path of a file in a folder; in the folder where we are, its name."""
    return name if folder == os.curdir else os.path.join(folder, name)


@contextlib.contextmanager
def sorted_names(names):
    """Names sorted, more of them than are held in memory, in a `with` block."""
    with contextlib.ExitStack() as stack:
        sorter = _NameSorter(stack)
        for name in names:
            sorter.add(name)
        yield sorter


class _NameSorter:
    def __init__(self, stack):
        self.stack, self.names, self.files = stack, [], []

    def add(self, name):
        self.names.append(os.fsencode(name))
        if len(self.names) >= NAMES_IN_MEMORY:
            # No name holds a null byte.
            file = self.stack.enter_context(tempfile.TemporaryFile())
            file.write(b"".join(name + b"\0" for name in sorted(self.names)))
            self.files.append(file)
            self.names = []

    def __iter__(self):
        for file in self.files:
            file.seek(0)
        runs = [_names_in(file) for file in self.files]
        own = [os.fsdecode(name) for name in sorted(self.names)]
        yield from heapq.merge(*runs, own, key=os.fsencode)


def _names_in(file):
    rest = b""
    while chunk := file.read(2**16):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from map(os.fsdecode, whole)
