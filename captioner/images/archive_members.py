"""What the readers of tar and zip archives share: members, limits, the one error.

Archives are foreign bytes, and they are parsed in the process that runs. So
`tar_archive.py` and `zip_archive.py` are small readers of our own that are bounded by
construction, which `tarfile` and `zipfile` are not: they go over the archive once, from
its beginning to its end, hold one header at a time, and each number that they find is
checked before it is used. A header costs the same whatever it says, so the time is
linear in the size of the file, and that of an inflated file is limited by `MAX_RATIO`.
"""

import dataclasses
import os
import stat

from captioner.images.image_files import ImageError

# A member is read before it is known what it is; no photo has more bytes.
MAX_MEMBER_BYTES = 2**28
MAX_MEMBERS = 2**23
MAX_NAME_BYTES = 4_096  # of a path, on Linux
MAX_HEADER_BYTES = 2**20  # of one extended header of a tar
# An archive of photos hardly gets smaller. At most this is inflated of one:
# MAX_RATIO times its size, and FREE_BYTES, which any archive may have.
MAX_RATIO = 200
FREE_BYTES = 2**28


class ArchiveError(ValueError):
    """An archive that cannot be read, or not any further."""


@dataclasses.dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive.

    Attributes:
        name: str, its path as the archive has it.
        stamp: str, what changes when the member does.
        content: where it is (a `TarSlice` or a `ZipSlice`); or its bytes, of a
            compressed tar; or None where there is a `problem` or it was not wanted.
        problem: (kind, reason) of an `ImageError`, or None.
    """

    name: str
    stamp: str
    content: object = None
    problem: tuple | None = None


def open_archive(path):
    """Open a file that holds an archive; nothing else is opened, or waited for.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(None, "it is not a file")
    return file


def too_large(max_bytes):
    """The problem of a member with more bytes than are read."""
    reason = f"the file is too large: more than {max_bytes:,} bytes in an archive"
    return "too_large", reason


def after(number):
    """Where an archive is damaged, by the number of files before the damage."""
    return f"after file {number:,}" if number else "at its beginning"


def member_name(name):
    """(name, problem) of the bytes of a member's name."""
    if len(name) <= MAX_NAME_BYTES:
        return name, None
    # Its end tells what kind of file it is.
    return name[:100] + b"..." + name[-100:], ("unreadable", "its name is too long")


def unreadable(name, error):
    """The `ImageError` of an error that reading a file raised."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError(name, "unreadable", f"cannot be read: {' '.join(reason.split())}")
