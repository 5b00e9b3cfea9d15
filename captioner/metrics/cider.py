"""CIDEr and CIDEr-D: how much of what people agree on about a photo a caption says."""

import numpy as np

from captioner.metrics.ngrams import MAX_ORDER, ReferenceNgrams


class Cider:
    """Plain CIDEr (Vedantam, Zitnick and Parikh, CVPR 2015): seldom what is reported.

    The mean over 1 to 4 tokens of the cosine similarity of tf-idf weighted n-grams
    with each reference, times 10. It is what the authors' own `pyciderevalcap.cider`
    computes: the factor is that of the released code, which also does without the
    stemming of the paper. What papers and `pycocoevalcap` call CIDEr is `CiderD`.

    An n-gram weighs the more the fewer images have it in any of their references;
    the references given are the corpus on which this is counted, so a score depends
    on the whole split and not on its own image only (with a single image every
    score is 0). Weights are prepared once; scoring is then quick.

    Args:
        references: for each image, the list of its references, each a list of
            tokens (str, or ints such as token ids); or their `ReferenceNgrams`.

    Example:

    >>> references = [[["a", "dog"]], [["two", "cats"]]]
    >>> Cider(references).score_each([["a", "dog"], ["a", "dog"]]).tolist()
    [5.0, 0.0]
    """

    def __init__(self, references):
        self._ngrams = ngrams = ReferenceNgrams.of(references)
        # An n-gram of no reference is treated like one that a single image has: the
        # last weight is for all those.
        frequencies = np.maximum(np.append(ngrams.document_frequencies(), 1), 1)
        self._idf = np.log(max(ngrams.num_images, 1)) - np.log(frequencies)
        self._weights, self._norms = self._weigh(ngrams.counts)

    def score_each(self, candidates, images=None):
        """Scores each candidate by itself.

        This is also the reward of CIDEr optimisation: prepared once from the
        training split, it scores any batch of its images, each image as often as
        there are samples of it.

        Args:
            candidates: list of C lists of tokens.
            images: int (C,), which image of the references each is of, from 0; by
                default there is one candidate for each, in their order.

        Returns:
            float array (C,) in 0..10.

        Raises:
            ValueError: there are not as many candidates as images, or no such image.

        Example:

        >>> cider_d = CiderD([[["a", "dog"]], [["two", "cats"]]])
        >>> cider_d.score_each([["cats"], ["two", "cats"]], images=[1, 1]).round(2)
        array([2.47, 5.  ])
        """
        ngrams = self._ngrams
        counts = ngrams.count(candidates)
        images = np.arange(ngrams.num_images) if images is None else np.asarray(images)
        if images.shape != counts.lengths.shape:
            raise ValueError(
                "Each candidate must have its image. "
                f"Received: {counts.lengths.size} candidates of {len(images)} images"
            )
        if images.size and not 0 <= images.min() <= images.max() < ngrams.num_images:
            raise ValueError(
                f"Images are numbered 0 to {ngrams.num_images - 1}. "
                f"Received: images from {images.min()} to {images.max()}"
            )
        weights, norms = self._weigh(counts)
        # A pair is a candidate and one of the references of its image.
        num_pairs = ngrams.num_references[images]
        first_pair = np.cumsum(num_pairs) - num_pairs
        candidate = np.repeat(np.arange(images.size), num_pairs)
        within = np.arange(candidate.size) - first_pair[candidate]
        reference = ngrams.first_reference[images][candidate] + within
        # The n-grams that both have, each with its two weights.
        rows, places = ngrams.join(counts, images)
        index, reference_rows = ngrams.spread(places)
        rows = rows[index]
        of = counts.caption[rows]
        pair = first_pair[of] + ngrams.counts.caption[reference_rows]
        pair -= ngrams.first_reference[images[of]]
        products = np.bincount(
            pair * MAX_ORDER + counts.order[rows],
            self._product(weights[rows], self._weights[reference_rows]),
            candidate.size * MAX_ORDER,
        ).reshape(-1, MAX_ORDER)
        scale = norms[candidate] * self._norms[reference]
        cosines = np.divide(products, scale, np.zeros_like(products), where=scale > 0)
        similarity = cosines.sum(axis=1) * self._penalty(
            counts.lengths[candidate], ngrams.counts.lengths[reference]
        )
        totals = np.bincount(candidate, similarity, images.size)
        return 10.0 * totals / (MAX_ORDER * num_pairs)

    def score(self, candidates):
        """Returns the mean of `score_each()`, a float in 0..10."""
        return float(self.score_each(candidates).mean())

    def _weigh(self, counts):
        """tf-idf weights (R,) of n-grams, and their norms (C, 4) for each order."""
        weights = counts.count * self._idf.take(counts.ngram, mode="clip")
        squares = np.bincount(
            counts.caption * MAX_ORDER + counts.order,
            weights**2,
            counts.lengths.size * MAX_ORDER,
        )
        return weights, np.sqrt(squares).reshape(-1, MAX_ORDER)

    def _product(self, weights, reference_weights):
        return weights * reference_weights

    def _penalty(self, lengths, reference_lengths):
        return 1.0


class CiderD(Cider):
    """CIDEr-D (Vedantam, Zitnick and Parikh, CVPR 2015).

    This is the figure that papers and `pycocoevalcap` call "CIDEr". The paper
    defines two: plain CIDEr, and CIDEr-D, which clips repeated n-grams and adds a
    Gaussian penalty on the difference in length, so that it is harder to game.
    `pycocoevalcap`'s `Cider` computes the second one, and so does this class.

    Args:
        references: as for `Cider`.
        sigma: float, the width in tokens of the length penalty.

    Example:

    >>> references = [[["a", "dog"]], [["two", "cats"]]]
    >>> CiderD(references).score_each([["a", "dog"], ["a", "dog"]]).tolist()
    [5.0, 0.0]
    """

    def __init__(self, references, sigma=6.0):
        super().__init__(references)
        self.sigma = sigma

    def _product(self, weights, reference_weights):
        return np.minimum(weights, reference_weights) * reference_weights

    def _penalty(self, lengths, reference_lengths):
        # The original takes the number of bigrams for the length.
        delta = np.maximum(lengths - 1, 0) - np.maximum(reference_lengths - 1, 0)
        return np.exp(-(delta**2) / (2 * self.sigma**2))
