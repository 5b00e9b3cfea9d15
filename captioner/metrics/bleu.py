"""BLEU-1 to BLEU-4 of a corpus, the figures that captioning papers print."""

import math

from captioner.metrics.ngrams import MAX_ORDER, count_ngrams

# The constants of coco-caption. `_TINY` over `_SMALL` keeps a caption without any
# n-gram from dividing by zero, and its score at zero for practical purposes.
_TINY = 1e-15
_SMALL = 1e-9


class Bleu:
    """Corpus BLEU (Papineni et al., ACL 2002), as `pycocoevalcap` computes it.

    Matches are clipped by the highest count in any one reference of the image, and
    counts and lengths are added over the corpus before precisions are formed: corpus
    BLEU is not the mean of the BLEU of its captions. The brevity penalty compares
    with the reference of the closest length, the shorter one where two are equally
    close.

    The references are counted once; `score()` may then be called often, as it is
    after each epoch of training.

    Args:
        references: for each image, the list of its references, each a list of str
            tokens.

    Example:

    >>> references = [[["a", "dog", "runs", "on", "grass"]]]
    >>> bleu_1, bleu_2, bleu_3, bleu_4 = Bleu(references).score(
    ...     [["a", "dog", "runs", "on", "sand"]]
    ... )
    >>> round(bleu_1, 3), round(bleu_4, 3)
    (0.8, 0.669)
    """

    def __init__(self, references):
        self._lengths = []
        self._max_counts = []
        for captions in references:
            max_counts = {}
            for tokens in captions:
                for ngram, count in count_ngrams(tokens).items():
                    if count > max_counts.get(ngram, 0):
                        max_counts[ngram] = count
            self._lengths.append([len(tokens) for tokens in captions])
            self._max_counts.append(max_counts)

    def score(self, candidates):
        """Scores one candidate per image.

        Args:
            candidates: for each image, in the order of the references, a list of
                str tokens.

        Returns:
            A list of four floats in 0..1, BLEU-1 to BLEU-4.
        """
        correct = [0] * MAX_ORDER
        guessed = [0] * MAX_ORDER
        length = reference_length = 0
        for tokens, lengths, max_counts in zip(
            candidates, self._lengths, self._max_counts, strict=True
        ):
            for ngram, count in count_ngrams(tokens).items():
                if ngram in max_counts:
                    correct[len(ngram) - 1] += min(count, max_counts[ngram])
            for order in range(MAX_ORDER):
                guessed[order] += max(0, len(tokens) - order)
            length += len(tokens)
            reference_length += min((abs(n - len(tokens)), n) for n in lengths)[1]

        ratio = (length + _TINY) / (reference_length + _SMALL)
        brevity_penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        scores = []
        product = 1.0
        for order in range(MAX_ORDER):
            product *= (correct[order] + _TINY) / (guessed[order] + _SMALL)
            scores.append(product ** (1 / (order + 1)) * brevity_penalty)
        return scores
