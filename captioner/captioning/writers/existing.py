"""What becomes of captions that are there already."""

EXISTING = ("skip", "overwrite", "append", "prepend")


def joined(existing, before, text):
    """The text to write where `before` was.

    Args:
        existing: "skip" leaves what was there, "overwrite" replaces it, "append" and
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
