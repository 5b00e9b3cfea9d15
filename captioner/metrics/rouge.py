"""ROUGE-L: the longest common subsequence of a caption and what people wrote."""

import numpy as np


class RougeL:
    """ROUGE-L (Lin, 2004), as `pycocoevalcap` computes it.

    The F-score, with beta 1.2, of the best precision and the best recall over the
    references of an image, which may be those of two different references. The score
    of a corpus is the mean over its images.

    Args:
        references: for each image, the list of its references, each a list of
            tokens.

    Example:

    >>> references = [[["a", "dog", "runs", "on", "grass"], ["the", "dog"]]]
    >>> RougeL(references).score_each([["a", "dog", "on", "grass"]]).round(3)
    array([0.871])
    """

    def __init__(self, references):
        self._references = [list(map(_words, captions)) for captions in references]

    def score_each(self, candidates):
        """Scores one candidate per image.

        Args:
            candidates: for each image, in the order of the references, a list of
                tokens.

        Returns:
            float array (N,) in 0..1.
        """
        scores = []
        for tokens, references in zip(candidates, self._references, strict=True):
            tokens = _words(tokens)
            # Where each token stands in the candidate, as the bits of an integer.
            places = {}
            for position, token in enumerate(tokens):
                places[token] = places.get(token, 0) | 1 << position
            everywhere = (1 << len(tokens)) - 1
            longest = recall = 0
            for reference in references:
                # Hyyro's bit-parallel algorithm (2004): a row of the usual table in
                # a few operations on integers; each zero is a step of the sequence.
                row = everywhere
                for matches in filter(None, map(places.get, reference)):
                    matches &= row
                    row = (row + matches) | (row - matches)
                length = len(tokens) - (row & everywhere).bit_count()
                longest = max(longest, length)
                recall = max(recall, length / len(reference))
            scores.append((longest / len(tokens), recall))
        precision, recall = np.array(scores).reshape(-1, 2).T
        beta = 1.2
        weighed = recall + beta**2 * precision
        product = (1 + beta**2) * precision * recall
        return np.divide(product, weighed, np.zeros_like(weighed), where=weighed > 0)

    def score(self, candidates):
        """Returns the mean of `score_each()`, a float in 0..1."""
        return float(self.score_each(candidates).mean())


def _words(tokens):
    # The original splits at spaces, so that to it an empty caption is one empty word.
    return tokens or [""]
