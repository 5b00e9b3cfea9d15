"""What captions carry that is no caption: start and end markers; and missing spaces.

Many tutorials write "startseq a dog runs endseq" into their captions. A model that is
trained on that learns to write the markers, and its scores are too good.
"""

import collections
import re

# Markers that are no English words; `evaluating/predictions.py` cuts
# these from single captions.
START = re.compile(
    r"\A\s*(?:<(?:start|bos|s|sos|cls|startseq|startofseq)>|<\|startoftext\|>"
    r"|\[(?:cls|start|bos|sos)\]|(?:startseq|startofseq)\b)",
    re.IGNORECASE,
)
END = re.compile(
    r"\s*(?:<(?:end|eos|/s|pad|sep|endseq|endofseq)>|<\|endoftext\|>"
    r"|\[(?:sep|end|eos|pad)\]|\b(?:endseq|endofseq)\b)",
    re.IGNORECASE,
)
_TO_THE_END = re.compile(f"{END.pattern}.*\\Z", re.IGNORECASE | re.DOTALL)
# These may be words of a caption, so they count only where captions have both.
_PLAIN_START = re.compile(r"\A\s*(?:start|begin|bos|sos)\s", re.IGNORECASE)
_PLAIN_END = re.compile(r"\s(?:end|stop|eos)\s*\Z", re.IGNORECASE)
_SHARE = 0.95  # of the captions must have a marker

# Scripts that are written without spaces between words: Thai, Lao, Myanmar, Khmer,
# Japanese kana, Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff]{7}"  # longer than nearly all words
)


def cut_markers(examples):
    """Cuts start and end markers that (nearly) all captions have.

    Args:
        examples: list of examples; their lists `"captions"` are changed in place. A
            caption that has nothing but markers becomes empty.

    Returns:
        str, one line for the summary; None if there are no such markers.

    Example:

    >>> examples = [{"captions": ["startseq a dog runs endseq"]}]
    >>> cut_markers(examples)
    'start and end markers cut from captions (1): startseq, endseq'
    >>> examples
    [{'captions': ['a dog runs']}]
    """
    texts = [text for example in examples for text in example["captions"]]
    patterns = [pattern for pattern in (START, _TO_THE_END) if _have(texts, pattern)]
    plain = [_PLAIN_START, _PLAIN_END]
    if not patterns and all(_have(texts, pattern) for pattern in plain):
        patterns = plain
    if not patterns:
        return None
    seen, number = collections.Counter(), 0
    for example in examples:
        for index, text in enumerate(example["captions"]):
            rest = text
            for pattern in patterns:
                match = pattern.search(rest)
                if match:
                    seen[(match.group().split() or [""])[0].lower()] += 1
                    rest = rest[: match.start()] + rest[match.end() :]
            example["captions"][index] = rest.strip()
            number += rest != text
    markers = ", ".join(marker for marker, _ in seen.most_common(4))
    return f"start and end markers cut from captions ({number}): {markers}"


def _have(texts, pattern):
    # The first hundred tell of most datasets that they have no markers.
    return any(pattern.search(text) for text in texts[:100]) and (
        sum(bool(pattern.search(text)) for text in texts) >= _SHARE * len(texts)
    )


def lacks_spaces(caption) -> bool:
    """Whether a caption is written without spaces between its words.

    Chinese, Japanese, Thai, Lao, Khmer and Burmese are, unless somebody put spaces
    between the words. A tokenizer that splits at spaces takes such a caption for a
    single word.

    >>> lacks_spaces("一个女孩在草地上跳舞"), lacks_spaces("一个 女孩 在 草地 上 跳舞")
    (True, False)
    """
    return not caption.isascii() and bool(_UNSPACED.search(caption))
