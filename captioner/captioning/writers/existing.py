"""What to do with existing captions."""

import re

EXISTING = ("skip", "overwrite", "append", "prepend")

# XML 1.0 cannot hold these, not even escaped. A terminal acts on some of them, and
# surrogates are no valid Unicode. A byte order mark is none of a caption's letters.
_NOT_PLAIN = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff\ufeff\ufffe\uffff]")


def plain(text):
    """The text as every kind of caption file can hold it: without control characters
    and unpaired surrogates, its lines separated by a line feed.

    Example:

    >>> plain("a dog\\r\\nand\\x00 a cat")
    'a dog\\nand a cat'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_PLAIN.sub("", text)


def joined(existing, before, text):
    """The text to write where `before` was.

    Args:
        existing: "skip" keeps the existing text, "overwrite" replaces it, "append" and
            "prepend" put the new text on a line after or before it.
        before: str, or None or "" where there was nothing.
        text: str, the new text.

    Example:

    >>> joined("append", "a dog", "an animal")
    'a dog\\nan animal'
    """
    if not before or existing == "overwrite":
        return text
    return {
        "skip": before,
        "append": f"{before}\n{text}",
        "prepend": f"{text}\n{before}",
    }[existing]
