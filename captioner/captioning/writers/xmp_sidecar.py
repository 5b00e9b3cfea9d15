"""`photo.xmp` beside `photo.jpg`, as Lightroom reads it, or `photo.jpg.xmp`, as
digiKam and darktable do."""

import os

from captioner.captioning.writers.camera_texts import is_camera_text
from captioner.captioning.writers.sidecar_file import read_sidecar
from captioner.captioning.writers.xmp import read_description, write_description

XMP_NAMES = ("photo.xmp", "photo.jpg.xmp")


class XmpSidecar:
    """Writes the best caption as the description in an XMP file; everything else in
    such a file, such as ratings and edits, stays in it.

    Args:
        existing: what to do with an existing description, see `joined`.
        pattern: which name a new file gets, one of `XMP_NAMES`. A `photo.jpg.xmp` that
            exists is used in any case, since it can belong to no other photo.
    """

    name = "xmp"

    def __init__(self, existing="skip", pattern="photo.xmp"):
        self.existing, self.pattern = existing, pattern
        self.suffix = ".xmp" if pattern == "photo.xmp" else pattern

    def path(self, photo_path):
        """The file's path for the path of a photo."""
        by_name, by_stem = xmp_paths(photo_path)[:2], xmp_paths(photo_path)[2:]
        found = by_name if self.pattern == "photo.jpg.xmp" else by_name + by_stem
        new = by_name if self.pattern == "photo.jpg.xmp" else by_stem
        return next(filter(os.path.lexists, found), new[0])

    def read(self, path):
        """The description in the file; None if there is none, or no file.

        Raises:
            ValueError: the file cannot be read, or is no XMP.
        """
        return read_xmp_sidecar(path)

    def content(self, photo, path, text):
        """The bytes of the file.

        Raises:
            ValueError: there is a file that is no XMP; it is left as it is.
        """
        packet, keep = read_sidecar(path), self.existing != "overwrite"
        try:
            return write_description(text, packet, keep_translations=keep)
        except ValueError as error:
            raise ValueError(f"{path.name} is {error}") from error


def xmp_paths(photo_path):
    """All names that a photo's XMP file may have, the surest first.

    Args:
        photo_path: `pathlib.Path`.

    Example:

    >>> [path.name for path in xmp_paths(pathlib.Path("photos/1.jpg"))]
    ['1.jpg.xmp', '1.jpg.XMP', '1.xmp', '1.XMP']
    """
    names = photo_path.name, photo_path.stem
    suffixes = ".xmp", ".XMP"
    return [photo_path.with_name(n + suffix) for n in names for suffix in suffixes]


def read_xmp_sidecar(path):
    """The description in an XMP file, or None if there is none, only a camera's
    default text, or no file.

    Args:
        path: `pathlib.Path`.

    Raises:
        ValueError: the file cannot be read, or is no XMP.
    """
    packet = read_sidecar(path)
    if packet is None:
        return None
    try:
        text = read_description(packet)
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}") from error
    return None if text is None or is_camera_text(text) else text
