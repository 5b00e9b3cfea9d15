"""The n-grams of a caption, which BLEU and CIDEr both compare."""

from collections import Counter

MAX_ORDER = 4


def count_ngrams(tokens):
    """Counts the n-grams of 1 to 4 tokens: a Counter with tuples as keys."""
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(tokens) - order + 1)
    )
