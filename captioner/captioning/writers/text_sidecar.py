"""`photo.txt` beside `photo.jpg`: a caption a line, the best first."""

import os


class TextSidecar:
    """Writes captions into a text file.

    Args:
        suffix: of the file, as ".txt" or ".caption".
    """

    name = "text"

    def __init__(self, suffix=".txt"):
        self.suffix = suffix

    def read(self, path):
        """What the file says; "" where it cannot be read; None if there is none, or if
        it is empty."""
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return "" if os.path.lexists(path) else None
        return text.rstrip("\n") or None

    def content(self, photo, path, text):
        """The file's bytes."""
        return (text + "\n").encode("utf-8", "surrogateescape")
