"""CIDEr and CIDEr-D: how much of what people agree on about a photo a caption says."""

import numpy as np

from captioner.metrics.ngrams import MAX_ORDER, ReferenceNgrams

_SIGMA = 6.0  # the width in tokens of CIDEr-D's penalty on the length


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
        references: for each image, the list of its references, each a list of
            tokens (str, or ints such as token ids); or their `ReferenceNgrams`.

    Example:

    >>> references = [[["a", "dog"]], [["two", "cats"]]]
    >>> CiderD(references).score_each([["a", "dog"], ["a", "dog"]]).tolist()
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
            candidates: list of C lists of tokens, without an end token or padding.
            images: int (C,), which image of the references each is of, from 0; by
                default there is one candidate for each, in their order.

        Returns:
            float array (C,) in 0..10.

        Raises:
            ValueError: there are not as many candidates as images, or no such image.

        Example:

        >>> cider_d = CiderD([[["a", "dog"]], [["two", "cats"]]])
        >>> cider_d.score_each([["cats"], ["two", "cats"]], images=[1, 1]).round(2)
        array([1.74, 5.  ])
        """
        return self.score_both(candidates, images)[1]

    def score(self, candidates):
        """Returns the mean of `score_each()`, a float in 0..10."""
        return float(self.score_each(candidates).mean())

    def score_both(self, candidates, images=None):
        """Plain CIDEr and CIDEr-D of each candidate, which take hardly longer than
        one of them: two float arrays (C,). Takes and raises what `score_each` does."""
        ngrams = self._ngrams
        counts = ngrams.count(candidates)
        images = np.asarray(
            range(ngrams.num_images) if images is None else images, dtype=int
        )
        if images.shape != counts.lengths.shape:
            raise ValueError(
                "Each candidate must have its image. "
                f"Received: {counts.lengths.size} candidates, images of shape "
                f"{images.shape}"
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
        scale = norms[candidate] * self._norms[reference]
        # The n-grams that both have, each with its two weights.
        rows, places = ngrams.join(counts, images)
        index, reference_rows = ngrams.spread(places)
        rows = rows[index]
        of = counts.caption[rows]
        pair = first_pair[of] + ngrams.counts.caption[reference_rows]
        pair -= ngrams.first_reference[images[of]]
        pair_and_order = pair * MAX_ORDER + counts.order[rows]
        weights, reference_weights = weights[rows], self._weights[reference_rows]

        def cosines(weights):
            products = np.zeros(scale.shape)
            products += np.bincount(
                pair_and_order, weights * reference_weights, scale.size
            ).reshape(scale.shape)
            np.divide(products, scale, products, where=scale > 0)
            return products.sum(axis=1)

        # The original takes the number of bigrams for the length.
        length = np.maximum(counts.lengths[candidate] - 1, 0)
        delta = length - np.maximum(ngrams.counts.lengths[reference] - 1, 0)
        penalty = np.exp(-(delta**2) / (2 * _SIGMA**2))
        plain = cosines(weights)
        clipped = cosines(np.minimum(weights, reference_weights)) * penalty
        return tuple(
            10.0
            * np.bincount(candidate, similarity, images.size)
            / (MAX_ORDER * num_pairs)
            for similarity in (plain, clipped)
        )

    def _weigh(self, counts):
        """tf-idf weights (R,) of n-grams, and their norms (C, 4) for each order."""
        weights = counts.count * self._idf.take(counts.ngram, mode="clip")
        squares = np.bincount(
            counts.caption * MAX_ORDER + counts.order,
            weights**2,
            counts.lengths.size * MAX_ORDER,
        )
        return weights, np.sqrt(squares).reshape(-1, MAX_ORDER)


class Cider(CiderD):
    """Plain CIDEr of the same paper, which is seldom what is reported.

    The mean over 1 to 4 tokens of the cosine similarity of tf-idf weighted n-grams
    with each reference, times 10. It is what the authors' own `pyciderevalcap.cider`
    computes: the factor is that of the released code, which also does without the
    stemming of the paper. Made and used like `CiderD`.

    Example:

    >>> references = [[["a", "dog"]], [["two", "cats"]]]
    >>> Cider(references).score_each([["a", "a", "dog"], ["cats"]]).round(2).tolist()
    [4.14, 1.77]
    """

    def score_each(self, candidates, images=None):
        """As `CiderD.score_each`."""
        return self.score_both(candidates, images)[0]
