"""Reads the small files beside photos, whatever they really are.

Under the name of a sidecar there may be a pipe, a link to a device, a file of any size
or a link to somebody's private file. The process that reads sidecars is the one that
runs everything else, so it looks before it reads.
"""

import errno
import os
import stat

# A caption is shorter, and so is an XMP file with the history of many edits.
MAX_SIDECAR_BYTES = 2**22


def read_sidecar(path):
    """The bytes of a file beside a photo, or None if there is no file.

    A link is followed only to a file in the same folder or below it.

    Args:
        path: `pathlib.Path`.

    Raises:
        ValueError: it is no regular file, it is larger than `MAX_SIDECAR_BYTES`, it is
            a link to elsewhere, or it cannot be read.

    Example:

    >>> read_sidecar(pathlib.Path("data/samples/no_such_file.txt"))
    """
    try:
        real = path
        if path.is_symlink():
            real, folder = os.path.realpath(path), os.path.realpath(path.parent)
            if os.path.commonpath([real, folder]) != folder:
                raise ValueError(f"{path.name} is a link to another folder")
        # A pipe does not block, and a link that appears just now is not followed.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(real, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path.name} is not a file")
            data = file.read(MAX_SIDECAR_BYTES + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(f"{path.name} is a link to nothing") from None
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a suffix is added to the longest name
            return None
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > MAX_SIDECAR_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_SIDECAR_BYTES:,} bytes")
    return data
