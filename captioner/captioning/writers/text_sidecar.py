"""`photo.txt` beside `photo.jpg`: one caption a line, the best first."""

from captioner.captioning.writers.existing import plain
from captioner.captioning.writers.sidecar_file import read_sidecar
from captioner.files import text_encoding


class TextSidecar:
    """Writes captions into a text file, always as UTF-8.

    Args:
        suffix: of the file, as ".txt" or ".caption".
    """

    name = "text"

    def __init__(self, suffix=".txt"):
        self.suffix = suffix

    def path(self, photo_path):
        """The file's path for the path of a photo."""
        return photo_path.with_suffix(self.suffix)

    def read(self, path):
        """The text of the file; None if there is no file, or only white space in it.

        Raises:
            ValueError: it cannot be read, or it is neither UTF-8 nor begins with the
                byte order mark of UTF-16 or UTF-32.
        """
        data = read_sidecar(path)
        return None if data is None else decoded(data, path.name)

    def content(self, photo, path, text):
        """The bytes of the file."""
        return (plain(text) + "\n").encode()


def decoded(data, name):
    """The text of a file, or None if there is only white space in it.

    Args:
        data: bytes in UTF-8, or in the encoding that their byte order mark names.
        name: of the file, for the message.

    Raises:
        ValueError: they are in another encoding.

    Example:

    >>> decoded("ein Hund läuft\\r\\n".encode("utf-16"), "photo.txt")
    'ein Hund läuft'
    """
    encoding = text_encoding(data[:4])
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        reason = "not UTF-8 text" if encoding == "utf-8" else "damaged text"
        raise ValueError(f"{name} is {reason}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{name} is not UTF-8 text; save it as UTF-8")
    text = plain(text).rstrip("\n")
    return text if text.strip() else None
