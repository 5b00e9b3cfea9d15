"""CIDEr-D: how much of what people agree on about a photo a caption says."""

import math
from collections import Counter

from captioner.metrics.ngrams import MAX_ORDER, count_ngrams


class CiderD:
    """CIDEr-D (Vedantam, Zitnick and Parikh, CVPR 2015).

    This is the figure that papers and `pycocoevalcap` call "CIDEr". The paper
    defines two: plain CIDEr, the mean cosine similarity of tf-idf weighted n-grams,
    and CIDEr-D, which clips repeated n-grams and adds a Gaussian penalty on the
    difference in length, so that it is harder to game. `pycocoevalcap`'s `Cider`
    computes the second one, and so does this class.

    An n-gram weighs the more the fewer images have it in any of their references;
    the references given are the corpus on which this is counted, so a score depends
    on the whole split and not on its own image only (with a single image every
    score is 0). Weights are prepared once; scoring is then quick.

    Args:
        references: for each image, the list of its references, each a list of str
            tokens.
        sigma: float, the width in tokens of the length penalty.

    Example:

    >>> references = [[["a", "dog"]], [["two", "cats"]]]
    >>> CiderD(references).score_each([["a", "dog"], ["a", "dog"]])
    [5.0, 0.0]
    """

    def __init__(self, references, sigma=6.0):
        self.sigma = sigma
        counted = [[count_ngrams(tokens) for tokens in refs] for refs in references]
        frequencies = Counter()
        for counts in counted:
            frequencies.update(set().union(*counts))
        log_images = math.log(len(counted)) if counted else 0.0
        self._idf = {
            ngram: log_images - math.log(count) for ngram, count in frequencies.items()
        }
        # An n-gram of no reference is treated like one that a single image has.
        self._unseen_idf = log_images
        self._images = [self._prepare(counts) for counts in counted]

    def _weigh(self, counts):
        """Returns tf-idf weights, their norm for each n, and the length."""
        weights = {}
        squares = [0.0] * MAX_ORDER
        length = 0
        for ngram, count in counts.items():
            weight = count * self._idf.get(ngram, self._unseen_idf)
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight * weight
            # The original counts bigrams here, one less than the tokens.
            if len(ngram) == 2:
                length += count
        return weights, [math.sqrt(square) for square in squares], length

    def _prepare(self, counts):
        """Turns the references of one image into {ngram: [(reference, weight)]}."""
        postings, norms, lengths = {}, [], []
        for index, reference in enumerate(counts):
            weights, reference_norms, length = self._weigh(reference)
            norms.append(reference_norms)
            lengths.append(length)
            for ngram, weight in weights.items():
                postings.setdefault(ngram, []).append((index, weight))
        return postings, norms, lengths

    def _score_one(self, tokens, image):
        postings, norms, lengths = image
        weights, candidate_norms, length = self._weigh(count_ngrams(tokens))
        products = [[0.0] * len(norms) for _ in range(MAX_ORDER)]
        for ngram, weight in weights.items():
            row = products[len(ngram) - 1]
            for index, reference_weight in postings.get(ngram, ()):
                row[index] += min(weight, reference_weight) * reference_weight
        total = 0.0
        for index, reference_norms in enumerate(norms):
            similarity = 0.0
            for order in range(MAX_ORDER):
                norm = candidate_norms[order] * reference_norms[order]
                if norm:
                    similarity += products[order][index] / norm
            delta = length - lengths[index]
            total += similarity * math.exp(-(delta**2) / (2 * self.sigma**2))
        return 10.0 * total / (MAX_ORDER * len(norms))

    def score_each(self, candidates):
        """Scores one candidate per image.

        Args:
            candidates: for each image, in the order of the references, a list of
                str tokens.

        Returns:
            A list of floats in 0..10, one per image.
        """
        return [
            self._score_one(tokens, image)
            for tokens, image in zip(candidates, self._images, strict=True)
        ]

    def score(self, candidates):
        """Returns the mean of `score_each()`, a float in 0..10."""
        scores = self.score_each(candidates)
        return sum(scores) / len(scores)
