"""How far a score would move on other photos: the bootstrap over images."""

import numpy as np

NUM_RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 2**24  # numbers at a time


def bootstrap(statistics, from_statistics, num_resamples=NUM_RESAMPLES, seed=0):
    """Scores of as many images drawn with replacement, again and again.

    A score of a corpus is computed anew from the sums of each resample (Koehn,
    "Statistical significance tests for machine translation evaluation", EMNLP 2004).
    The same seed draws the same images for every captioner of N images, which
    `compare` relies on.

    Args:
        statistics: float array (N, S), as of `CaptionScorer.statistics`.
        from_statistics: function of sums (num_resamples, S) that returns a dict of
            arrays (num_resamples,).
        num_resamples: int.
        seed: int.

    Returns:
        A dict of float arrays (num_resamples,).

    Example:

    >>> from captioner.metrics import CaptionScorer
    >>> scorer = CaptionScorer({"1": ["A dog runs."], "2": ["Two cats."]})
    >>> statistics = scorer.statistics({"1": "a dog runs", "2": "a cat"})
    >>> resampled = bootstrap(statistics, scorer.from_statistics)
    >>> low, high = interval(resampled["cider"])
    """
    random = np.random.default_rng(seed)
    N = len(statistics)
    # Enough at a time to be quick, few enough for the splits of COCO.
    rows = max(1, _CHUNK // N)
    sums = [
        random.multinomial(N, np.full(N, 1 / N), min(rows, num_resamples - done))
        @ statistics
        for done in range(0, num_resamples, rows)
    ]
    return from_statistics(np.concatenate(sums))


def interval(values, level=LEVEL):
    """The percentile interval of resampled scores: two floats."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(statistics, other, from_statistics):
    """Paired bootstrap: is one captioner better than another on the same images?

    Args:
        statistics, other: float arrays (N, S) of the two, for the same images.
        from_statistics: as of `bootstrap`.

    Returns:
        A dict of metric to a dict: `other`, the score of the other one; `difference`,
        how much higher the first one's is; `interval`, of the difference, at 95 %;
        and `better`, the share of the resamples in which the first one's is higher,
        equal ones by half.

    Example:

    >>> from captioner.metrics import CaptionScorer
    >>> scorer = CaptionScorer({"1": ["A dog runs."], "2": ["Two cats."]})
    >>> ours = scorer.statistics({"1": "a dog runs", "2": "a cat"})
    >>> theirs = scorer.statistics({"1": "a dog", "2": "a cat"})
    >>> compare(ours, theirs, scorer.from_statistics)["cider"]["difference"] > 0
    True
    """
    ours, theirs = (from_statistics(s.sum(axis=0)) for s in (statistics, other))
    our_samples, their_samples = (
        bootstrap(s, from_statistics) for s in (statistics, other)
    )
    comparison = {}
    for name in ours:
        differences = our_samples[name] - their_samples[name]
        comparison[name] = {
            "other": float(theirs[name]),
            "difference": float(ours[name] - theirs[name]),
            "interval": interval(differences),
            "better": float(np.mean((np.sign(differences) + 1) / 2)),
        }
    return comparison
