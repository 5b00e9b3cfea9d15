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


def reliability(confidences, is_right):
    """Whether confidences are what they say: of all captions with 0.7, 70 % are right.

    Args:
        confidences: floats (N,), 0 to 1.
        is_right: bools (N,).

    Returns:
        A dict: `expected_calibration_error`, the mean distance between the confidence
        and the share of right captions over ten groups (Naeini et al., AAAI 2015);
        `auroc`, how well right and wrong are told apart (None where all are alike);
        `right`, the share of right captions; and `deciles`, ten dicts of `confidence`,
        `right` and `images`, from the least confident tenth to the most confident.

    Example:

    >>> found = reliability([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    >>> found["auroc"], found["right"]
    (1.0, 0.5)
    """
    confidences = np.asarray(confidences, float)
    is_right = np.asarray(is_right, bool)
    order = np.argsort(confidences, kind="stable")
    groups = [group for group in np.array_split(order, 10) if len(group)]
    deciles = [
        {
            "confidence": float(confidences[group].mean()),
            "right": float(is_right[group].mean()),
            "images": len(group),
        }
        for group in groups
    ]
    error = sum(
        group["images"] * abs(group["confidence"] - group["right"]) for group in deciles
    )
    return {
        "expected_calibration_error": error / len(confidences),
        "auroc": auroc(confidences[is_right], confidences[~is_right]),
        "right": float(is_right.mean()),
        "deciles": deciles,
    }


def auroc(positives, negatives):
    """The probability that one of the positives has the higher value, or None.

    Args:
        positives, negatives: floats (N,) and (M,).

    Example:

    >>> auroc([2, 3], [1, 2])
    0.875
    """
    positives, negatives = np.asarray(positives), np.asarray(negatives)
    if not len(positives) or not len(negatives):
        return None
    values, inverse, counts = np.unique(
        np.concatenate([positives, negatives]), return_inverse=True, return_counts=True
    )
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = ranks[inverse[: len(positives)]].sum()
    least = len(positives) * (len(positives) + 1) / 2
    return float((total - least) / (len(positives) * len(negatives)))
