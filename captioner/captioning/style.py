"""The final form of captions, for those who make datasets."""

import dataclasses

CASES = ("keep", "lower", "upper", "sentence", "title")
FINAL_DOTS = ("keep", "add", "remove")


@dataclasses.dataclass(frozen=True)
class CaptionStyle:
    """Changes the case and the final dot of a caption, and adds text around it.

    Args:
        text_prefix, text_suffix: text to write before and after the caption.
        trigger_word: a word to write first, followed by a comma: "sks, a dog".
        case: "keep", "lower", "upper", "sentence" (a capital first letter) or "title".
        final_dot: "keep", "add" (if the caption does not end with a mark) or "remove".

    Raises:
        ValueError: `case` or `final_dot` is not one of these.

    Example:

    >>> CaptionStyle(trigger_word="sks", case="sentence", final_dot="add")("a dog")
    'sks, A dog.'
    """

    text_prefix: str = ""
    text_suffix: str = ""
    trigger_word: str = ""
    case: str = "keep"
    final_dot: str = "keep"

    def __post_init__(self):
        for name, allowed in (("case", CASES), ("final_dot", FINAL_DOTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}. "
                    f"Received: {name}={getattr(self, name)}"
                )

    def __call__(self, text):
        if self.case == "sentence":
            text = text[:1].upper() + text[1:]
        elif self.case != "keep":
            text = getattr(text, self.case)()
        if self.final_dot == "remove":
            text = text.rstrip(". ")
        elif self.final_dot == "add" and text and text[-1] not in ".!?…":
            text += "."
        text = f"{self.text_prefix}{text}{self.text_suffix}"
        return f"{self.trigger_word}, {text}" if self.trigger_word else text
