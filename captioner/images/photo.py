"""One photo that is there to be read: a file, or a member of an archive."""

import dataclasses
import lzma
import zlib

from captioner.images.archive_members import unreadable
from captioner.images.image_files import ImageError, read_image_file

# What reading an archive raises, if it is damaged.
ARCHIVE_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo that is there to be read.

    Attributes:
        name: str, its path as given or found; in an archive, that of the archive and
            then the member's.
        relative: str, its path below the folder that was given, with "/". A file named
            outright has its own name; a member its path after the archive's name. No
            part of it is empty, "." or "..", so it leads out of no folder.
        stamp: str, what changes when the photo does (size and time), "" where unknown.
        path: str, the file or the archive that it is read from.
        member: where it is in an archive (a `TarSlice` or a `ZipSlice`); its bytes, if
            the archive is a compressed tar; None for a file.
        error: `ImageError`, where it is known already that it cannot be read.
    """

    name: str
    relative: str
    stamp: str
    path: str
    member: object = None
    error: ImageError | None = None

    def __post_init__(self):
        object.__setattr__(self, "relative", safe_path(self.relative))

    @property
    def num_bytes_held(self):
        """How many bytes of it are in memory."""
        return len(self.member) if isinstance(self.member, bytes) else 0

    def without_bytes(self):
        """The photo without the bytes that it holds; for lists, not for reading."""
        return dataclasses.replace(self, member=None) if self.num_bytes_held else self

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
            return self.member.read(self.path)
        except ARCHIVE_ERRORS as error:
            raise unreadable(self.name, error) from error


def safe_path(path):
    """A relative path of the parts that name something.

    Example:

    >>> safe_path("../a/./b//c.jpg")
    'a/b/c.jpg'
    """
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
