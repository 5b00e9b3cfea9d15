"""Scores of generated captions against those of people, without Java.

The figures are those of `pycocoevalcap`, the evaluation code of the COCO captioning
challenge on which published results are computed.
"""

from captioner.metrics.bleu import Bleu
from captioner.metrics.cider import CiderD
from captioner.metrics.ptb_tokenizer import ptb_tokenize


class CaptionScorer:
    """BLEU-1 to BLEU-4 and CIDEr of captions, against references prepared once.

    Tokenising the references and counting their n-grams takes longer than scoring,
    so one scorer is made per split and used after every epoch.

    Captions are given as text. They are tokenised, lower-cased and freed of
    punctuation by `ptb_tokenize`.

    Args:
        references: dict of image id to a list of str, the captions of that image
            by people.

    Raises:
        ValueError: there are no references, an image has none, or its references
            are not a list of str.

    Example:

    >>> scorer = CaptionScorer({"1.jpg": ["A dog runs."], "2.jpg": ["Two cats."]})
    >>> scores = scorer.score({"1.jpg": "a dog runs", "2.jpg": "a cat"})
    >>> sorted(scores)
    ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider']
    >>> scorer.score_each({"1.jpg": "a dog runs", "2.jpg": "a cat"})
    {'1.jpg': 7.5, '2.jpg': 0.0}
    """

    def __init__(self, references):
        if not references:
            raise ValueError("There are no references. Received: references={}")
        wrong = [
            image_id
            for image_id, captions in references.items()
            if not isinstance(captions, (list, tuple))
            or not captions
            or not all(isinstance(caption, str) for caption in captions)
        ]
        if wrong:
            raise ValueError(
                "`references` must have a non-empty list of str for each image. "
                f"Received something else for {_name_ids(wrong)}"
            )
        self.image_ids = tuple(references)
        tokens = [
            [ptb_tokenize(caption) for caption in captions]
            for captions in references.values()
        ]
        self._bleu = Bleu(tokens)
        self._cider = CiderD(tokens)

    def score(self, candidates):
        """Scores one caption for each image of the references.

        Args:
            candidates: dict of image id to str. An empty caption is allowed, counts
                and earns nothing.

        Returns:
            A dict of floats: `bleu_1` to `bleu_4` in 0..1 and `cider` in 0..10 (what
            is commonly called CIDEr, which is CIDEr-D: see `captioner.metrics.cider`).

        Raises:
            ValueError: the images of `candidates` are not those of the references,
                or a candidate is not a str.
        """
        tokens = self._tokenize(candidates)
        scores = {
            f"bleu_{order}": value
            for order, value in enumerate(self._bleu.score(tokens), start=1)
        }
        scores["cider"] = self._cider.score(tokens)
        return scores

    def score_each(self, candidates):
        """Scores each caption by itself: dict of image id to its CIDEr, in 0..10.

        The mean over images is the `cider` of `score()`. Takes and raises what
        `score()` does.
        """
        scores = self._cider.score_each(self._tokenize(candidates))
        return dict(zip(self.image_ids, scores))

    def _tokenize(self, candidates):
        missing = [i for i in self.image_ids if i not in candidates]
        known = set(self.image_ids)
        unknown = [i for i in candidates if i not in known]
        if missing or unknown:
            problems = []
            if missing:
                problems.append(f"no candidate for {_name_ids(missing)}")
            if unknown:
                problems.append(f"no references for {_name_ids(unknown)}")
            raise ValueError(
                "`candidates` and `references` must have the same image ids. "
                f"Received {' and '.join(problems)}"
            )
        wrong = [i for i in self.image_ids if not isinstance(candidates[i], str)]
        if wrong:
            raise ValueError(
                "Each candidate must be one str. "
                f"Received something else for {_name_ids(wrong)}"
            )
        return [ptb_tokenize(candidates[image_id]) for image_id in self.image_ids]


def score_captions(references, candidates):
    """Scores captions once: `CaptionScorer(references).score(candidates)`.

    Args:
        references: dict of image id to a list of str.
        candidates: dict of image id to str, for the same ids.

    Returns:
        A dict of floats: `bleu_1`, `bleu_2`, `bleu_3`, `bleu_4` and `cider`.

    Raises:
        ValueError: as `CaptionScorer` does.

    Example:

    >>> scores = score_captions(
    ...     {"1.jpg": ["A dog runs."], "2.jpg": ["Two cats."]},
    ...     {"1.jpg": "a dog runs", "2.jpg": "two cats"},
    ... )
    >>> round(scores["bleu_1"], 6)
    1.0
    """
    return CaptionScorer(references).score(candidates)


def _name_ids(image_ids):
    """'3 images: a.jpg, b.jpg, c.jpg', at most five by name."""
    named = ", ".join(map(repr, image_ids[:5])) + (
        ", ..." if len(image_ids) > 5 else ""
    )
    return f"{len(image_ids)} {'image' if len(image_ids) == 1 else 'images'}: {named}"
