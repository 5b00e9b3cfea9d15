"""How captions are written: lengths, words, endings, and how much they repeat."""

from collections import Counter

import numpy as np

from captioner.metrics.bleu import Bleu
from captioner.metrics.ngrams import MAX_ORDER

# No sentence ends with these: the list of ruotianluo/ImageCaptioning.pytorch.
BAD_ENDINGS = frozenset(
    "a an the in for at of with before after on upon near to is are am".split()
)


def diversity(captions, training=None):
    """Describes one caption for each image.

    Args:
        captions: list of lists of str tokens, one or more.
        training: the same of the captions that were trained on, where known.

    Returns:
        A dict: `distinct`, the number of different captions; `copied`, the share of
        captions that are one of `training` word for word, or None; `vocabulary`, the
        number of different words; `mean_length` and `lengths`, a dict of the number
        of tokens to the number of captions; `empty`, the number without a token;
        `bad_endings`, the share that ends with a word such as "a" or "of";
        `repeated_words`, the share with the same word twice in a row;
        `repeated_phrases`, the share with the same three words twice; and
        `self_bleu_4`, BLEU-4 of a caption against all others, the mean.

    Example:

    >>> found = diversity([["a", "dog"], ["a", "dog"], ["a", "cat", "on", "a"]])
    >>> found["distinct"], found["vocabulary"], round(found["bad_endings"], 3)
    (2, 4, 0.333)
    """
    known = None if training is None else set(map(tuple, training))
    trigrams = [list(zip(c, c[1:], c[2:])) for c in captions]
    lengths = Counter(map(len, captions))

    def share(hits):
        return sum(hits) / len(captions)

    return {
        "distinct": len(set(map(tuple, captions))),
        "copied": None if known is None else share(tuple(c) in known for c in captions),
        "vocabulary": len({token for c in captions for token in c}),
        "mean_length": share(map(len, captions)),
        "lengths": dict(sorted(lengths.items())),
        "empty": lengths[0],
        "bad_endings": share(c[-1] in BAD_ENDINGS for c in captions if c),
        "repeated_words": share(any(map(str.__eq__, c, c[1:])) for c in captions),
        "repeated_phrases": share(len(set(t)) < len(t) for t in trigrams),
        "self_bleu_4": self_bleu(captions),
    }


def self_bleu(captions):
    """BLEU-4 of each caption with all others as its references, the mean.

    The more captions resemble each other, the higher (Zhu et al., "Texygen", SIGIR
    2018).

    Args:
        captions: list of lists of str tokens.

    Returns:
        A float in 0..1; None for fewer than two captions.

    Example:

    >>> round(self_bleu([["two", "cats", "on", "grass"]] * 2), 6)
    1.0
    """
    if len(captions) < 2:
        return None
    counted = [
        Counter(
            tuple(tokens[start : start + order])
            for order in range(1, MAX_ORDER + 1)
            for start in range(len(tokens) - order + 1)
        )
        for tokens in captions
    ]
    # The two highest counts of each n-gram: without a caption itself, the highest of
    # the others is one of them.
    highest, second = Counter(), Counter()
    for counts in counted:
        for ngram, count in counts.items():
            if count > highest[ngram]:
                highest[ngram], second[ngram] = count, highest[ngram]
            elif count > second[ngram]:
                second[ngram] = count
    lengths = Counter(map(len, captions))
    statistics = np.zeros((len(captions), 10))
    for row, tokens, counts in zip(statistics, captions, counted):
        for ngram, count in counts.items():
            others = highest[ngram] if count < highest[ngram] else second[ngram]
            row[len(ngram) - 1] += min(count, others)
        length = len(tokens)
        row[MAX_ORDER:-2] = np.maximum(length - np.arange(MAX_ORDER), 0)
        of_others = (n for n in lengths if n != length or lengths[n] > 1)
        closest = min((abs(n - length), n) for n in of_others)[1]
        row[-2:] = length, closest
    return float(Bleu.from_statistics(statistics)[:, 3].mean())
