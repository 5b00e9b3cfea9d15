"""Which captions are right, as far as references can tell.

A caption counts as right when its CIDEr reaches the lowest quarter of what people's own
captions reach against the other captions of the same photo: it fits the photo no worse
than what a person might have written.
"""

import numpy as np

from captioner.metrics import CaptionScorer


def least_right_score(references):
    """The CIDEr that a quarter of people's own captions stay below, or None.

    Each caption by a person is scored against the others of its photo.
    """
    several = [captions for captions in references if len(captions) > 1]
    if not several:
        return None
    rest = {str(i): captions[1:] for i, captions in enumerate(several)}
    one = {str(i): captions[0] for i, captions in enumerate(several)}
    each = CaptionScorer(rest).score_each(one)
    return float(np.quantile([scores["cider"] for scores in each.values()], 0.25))


def right_captions(captions, references, least):
    """Which captions are right: bool (N,)."""
    scorer = CaptionScorer({str(i): texts for i, texts in enumerate(references)})
    each = scorer.score_each({str(i): text for i, text in enumerate(captions)})
    return np.array([scores["cider"] >= least for scores in each.values()])
