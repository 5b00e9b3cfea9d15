"""Whether a captioner knows how good its captions are."""

import numpy as np

_NUM_BINS = 5


def calibration(scores, quality):
    """Compares a captioner's own scores with how good its captions are.

    Args:
        scores: floats (N,), the captioner's, as log-probabilities.
        quality: floats (N,), such as the CIDEr of each caption.

    Returns:
        A dict: `spearman`, the rank correlation in -1..1 (None where all are
        equal);
        and `bins`, a list of five dicts of as many captions, from the lowest score
        to the highest, each with the number of `images` and the means `score` and
        `quality`. Fewer captions give fewer bins.

    Example:

    >>> calibration([-3.0, -2.0, -1.0], [0.1, 0.5, 0.4])["spearman"]
    0.5
    """
    scores, quality = np.asarray(scores, float), np.asarray(quality, float)
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, min(_NUM_BINS, len(order)))
    ranks = np.stack([_ranks(scores), _ranks(quality)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.prod((ranks**2).sum(axis=1)))
    return {
        "spearman": float(np.prod(ranks, axis=0).sum() / scale) if scale else None,
        "bins": [
            {
                "images": len(rows),
                "score": float(scores[rows].mean()),
                "quality": float(quality[rows].mean()),
            }
            for rows in bins
        ],
    }


def _ranks(values):
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[index]
