"""`photo.xmp` beside `photo.jpg`, as Lightroom, digiKam and others read it."""

import os

from captioner.captioning.writers.xmp import read_description, write_description


class XmpSidecar:
    """Writes the best caption as the description in an XMP file; what else such a file
    holds, as ratings and edits, stays in it."""

    name = "xmp"
    suffix = ".xmp"

    def read(self, path):
        """The description in the file; "" where it is no XMP; None where it has none or
        is not there."""
        try:
            return read_description(path.read_bytes())
        except (OSError, ValueError):
            return "" if os.path.lexists(path) else None

    def content(self, photo, path, text):
        """The file's bytes.

        Raises:
            ValueError: there is a file that is no XMP; it is left as it is.
        """
        try:
            packet = path.read_bytes()
        except FileNotFoundError:
            packet = None
        return write_description(text, packet)
