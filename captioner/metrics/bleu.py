"""BLEU-1 to BLEU-4 of a corpus, the figures that captioning papers print."""

import numpy as np

from captioner.metrics.ngrams import MAX_ORDER, ReferenceNgrams

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
        references: for each image, the list of its references, each a list of
            tokens; or their `ReferenceNgrams`.

    Example:

    >>> references = [[["a", "dog", "runs", "on", "grass"]]]
    >>> bleu_1, bleu_2, bleu_3, bleu_4 = Bleu(references).score(
    ...     [["a", "dog", "runs", "on", "sand"]]
    ... )
    >>> round(bleu_1, 3), round(bleu_4, 3)
    (0.8, 0.669)
    """

    def __init__(self, references):
        self._ngrams = ReferenceNgrams.of(references)
        self._largest_counts = self._ngrams.largest_counts()

    def statistics(self, candidates):
        """What BLEU adds up over a corpus, for each image by itself.

        Args:
            candidates: for each image, in the order of the references, a list of
                tokens.

        Returns:
            int array (N, 10): matches of 1 to 4 tokens, n-grams of 1 to 4 tokens,
            the length, and the length of the closest reference.
        """
        ngrams = self._ngrams
        counts = ngrams.count(candidates)
        lengths = counts.lengths
        if lengths.size != ngrams.num_images:
            raise ValueError(
                f"There are references of {ngrams.num_images} images. "
                f"Received: {lengths.size} candidates"
            )
        rows, places = ngrams.join(counts, np.arange(lengths.size))
        matches = np.bincount(
            counts.caption[rows] * MAX_ORDER + counts.order[rows],
            np.minimum(counts.count[rows], self._largest_counts[places]),
            lengths.size * MAX_ORDER,
        ).reshape(-1, MAX_ORDER)
        guesses = np.maximum(lengths[:, None] - np.arange(MAX_ORDER), 0)
        # The closest length, the shorter of two, is the least in this order.
        of_references = ngrams.counts.lengths
        away = np.abs(of_references - np.repeat(lengths, ngrams.num_references))
        radix = of_references.max(initial=0) + 1
        closest = np.zeros(0, int)
        if lengths.size:
            closest = np.minimum.reduceat(
                away * radix + of_references, ngrams.first_reference
            )
        return np.column_stack([matches.astype(int), guesses, lengths, closest % radix])

    @staticmethod
    def from_statistics(statistics):
        """BLEU of what `statistics` returns: of an image, or of sums over many.

        Args:
            statistics: array (..., 10).

        Returns:
            float array (..., 4) in 0..1, BLEU-1 to BLEU-4.
        """
        statistics = np.asarray(statistics, float)
        matches, guesses = statistics[..., :MAX_ORDER], statistics[..., MAX_ORDER:-2]
        ratio = (statistics[..., -2] + _TINY) / (statistics[..., -1] + _SMALL)
        brevity_penalty = np.exp(np.minimum(1 - 1 / ratio, 0))
        precisions = np.cumprod((matches + _TINY) / (guesses + _SMALL), axis=-1)
        roots = 1 / np.arange(1, MAX_ORDER + 1)
        return precisions**roots * brevity_penalty[..., None]

    def score_each(self, candidates):
        """Scores each candidate by itself: float array (N, 4) in 0..1.

        Their mean is not `score()`: see above.
        """
        return self.from_statistics(self.statistics(candidates))

    def score(self, candidates):
        """Scores one candidate per image.

        Args:
            candidates: for each image, in the order of the references, a list of
                tokens.

        Returns:
            A list of four floats in 0..1, BLEU-1 to BLEU-4.

        Raises:
            ValueError: there are not as many candidates as images.
        """
        return self.from_statistics(self.statistics(candidates).sum(axis=0)).tolist()
