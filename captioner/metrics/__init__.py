"""Scores of generated captions against those of people, without Java.

The figures are those of `pycocoevalcap`, the evaluation code of the COCO captioning
challenge on which published results are computed. METEOR and SPICE alone are run by
the original Java programs, where these are installed.
"""

import numpy as np

from captioner.metrics.bleu import Bleu
from captioner.metrics.bootstrap import bootstrap, compare, interval
from captioner.metrics.calibration import auroc, calibration, reliability
from captioner.metrics.chair import chair
from captioner.metrics.cider import Cider, CiderD
from captioner.metrics.diversity import diversity, self_bleu
from captioner.metrics.java_metrics import JavaMetricError, Meteor, Spice, java_version
from captioner.metrics.ngrams import ReferenceNgrams
from captioner.metrics.ptb_tokenizer import ptb_tokenize
from captioner.metrics.rouge import RougeL

__all__ = [
    "Bleu",
    "CaptionScorer",
    "Cider",
    "CiderD",
    "JavaMetricError",
    "Meteor",
    "ReferenceNgrams",
    "RougeL",
    "Spice",
    "auroc",
    "bootstrap",
    "calibration",
    "chair",
    "compare",
    "diversity",
    "interval",
    "java_version",
    "name_ids",
    "ptb_tokenize",
    "reliability",
    "score_captions",
    "self_bleu",
]


class CaptionScorer:
    """BLEU, ROUGE-L and CIDEr of captions, against references prepared once.

    Tokenising the references and counting their n-grams takes longer than scoring,
    so one scorer is made per split and used after every epoch.

    Captions are given as text. They are tokenised, lower-cased and freed of
    punctuation by `ptb_tokenize`.

    | score | what it is |
    |---|---|
    | `bleu_1` to `bleu_4` | corpus BLEU, in 0..1 |
    | `rouge_l` | ROUGE-L, in 0..1 |
    | `cider` | what is commonly called CIDEr, which is CIDEr-D, in 0..10 |
    | `cider_plain` | the plain CIDEr of the same paper, seldom reported, in 0..10 |
    | `meteor`, `spice` | METEOR 1.5 and SPICE, in 0..1, where they were asked for |

    Args:
        references: dict of image id to a list of str, the captions of that image
            by people.
        java_metrics: run METEOR and SPICE too. `missing`, a dict of their names,
            says why one of them is not there.

    Raises:
        ValueError: there are no references, an image has none, or its references
            are not a list of str.

    Example:

    >>> scorer = CaptionScorer({"1.jpg": ["A dog runs."], "2.jpg": ["Two cats."]})
    >>> scores = scorer.score({"1.jpg": "a dog runs", "2.jpg": "a cat"})
    >>> list(scores)
    ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'rouge_l', 'cider', 'cider_plain']
    >>> each = scorer.score_each({"1.jpg": "a dog runs", "2.jpg": "a cat"})
    >>> each["1.jpg"]["cider"], each["2.jpg"]["cider"]
    (7.5, 0.0)
    """

    def __init__(self, references, java_metrics=False):
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
                f"Received something else for {name_ids(wrong)}"
            )
        self.image_ids = tuple(references)
        tokens = [
            [ptb_tokenize(caption) for caption in captions]
            for captions in references.values()
        ]
        self._ngrams = ReferenceNgrams(tokens)
        self._bleu = Bleu(self._ngrams)
        self._rouge_l = RougeL(tokens)
        self._cider_d = CiderD(self._ngrams)
        self._java, self.missing = {}, {}
        if java_metrics:
            for name, metric in (("meteor", Meteor), ("spice", Spice)):
                try:
                    self._java[name] = metric(tokens)
                except JavaMetricError as error:
                    self.missing[name] = str(error)

    def score(self, candidates):
        """Scores one caption for each image of the references.

        Args:
            candidates: dict of image id to str. An empty caption is allowed, counts
                and earns nothing.

        Returns:
            A dict of floats, see above.

        Raises:
            ValueError: the images of `candidates` are not those of the references,
                or a candidate is not a str.
        """
        scores = self.from_statistics(self.statistics(candidates).sum(axis=0))
        return {name: float(value) for name, value in scores.items()}

    def score_each(self, candidates):
        """Scores each caption by itself: dict of image id to a dict as of `score()`.

        The scores of a corpus are the means over its images, but for BLEU and
        METEOR, which add up counts. Takes and raises what `score()` does.
        """
        scores = self.from_statistics(self.statistics(candidates))
        rows = zip(*(values.tolist() for values in scores.values()))
        return {i: dict(zip(scores, row)) for i, row in zip(self.image_ids, rows)}

    def statistics(self, candidates):
        """What `from_statistics` makes scores of, for each image by itself.

        Every score of a corpus comes from the sum of these rows; so does that of any
        resample of its images, which `bootstrap` draws. The document frequencies of
        CIDEr are those of all references here, whatever rows are added.

        Returns:
            float array (N, S), in the order of `image_ids`. Takes and raises what
            `score()` does.
        """
        tokens = self._tokenize(candidates)
        counts = self._ngrams.count(tokens)
        columns = [
            np.ones(len(tokens)),
            self._rouge_l.score_each(tokens),
            *self._cider_d.score_both(counts),
            self._bleu.statistics(counts),
        ]
        if "spice" in self._java:
            columns.append(self._run("spice", tokens))
        if "meteor" in self._java:
            columns.append(self._run("meteor", tokens))
        return np.column_stack(columns)

    def _run(self, name, tokens):
        """The columns of a Java metric; nan where it fails, which `missing` says."""
        metric = self._java[name]
        try:
            if name == "spice":
                return metric.score_each(tokens)
            return metric.statistics(tokens)
        except JavaMetricError as error:
            self.missing[name] = str(error)
            return np.full((len(tokens), getattr(metric, "num_statistics", 1)), np.nan)

    def from_statistics(self, statistics):
        """Scores of rows of `statistics()`, or of sums of them.

        Args:
            statistics: float array (..., S).

        Returns:
            A dict of float arrays (...), see above.
        """
        images, rouge_l, cider, cider_d = np.moveaxis(statistics[..., :4], -1, 0)
        bleu = Bleu.from_statistics(statistics[..., 4:14])
        scores = {f"bleu_{n + 1}": bleu[..., n] for n in range(bleu.shape[-1])}
        scores["rouge_l"] = rouge_l / images
        scores["cider"] = cider_d / images
        scores["cider_plain"] = cider / images
        if "meteor" in self._java:
            counts = statistics[..., -Meteor.num_statistics :]
            scores["meteor"] = Meteor.from_statistics(counts)
        if "spice" in self._java:
            scores["spice"] = statistics[..., 14] / images
        return {n: value for n, value in scores.items() if n not in self.missing}

    def best_of(self, candidates):
        """The best of several captions of each image by CIDEr-D, as an oracle would.

        Args:
            candidates: dict of image id to a list of str, one or more.

        Returns:
            A dict of image id to str, the first of equals.

        Raises:
            ValueError: as `score()` does.
        """
        self._check_ids(candidates)
        texts = [candidates[image_id] for image_id in self.image_ids]
        images = np.repeat(np.arange(len(texts)), list(map(len, texts)))
        scores = self._cider_d.score_each(
            [ptb_tokenize(text) for several in texts for text in several], images
        )
        ends = np.cumsum(list(map(len, texts)))[:-1]
        return {
            image_id: several[int(np.argmax(own))]
            for image_id, several, own in zip(
                self.image_ids, texts, np.split(scores, ends)
            )
        }

    def _tokenize(self, candidates):
        self._check_ids(candidates)
        wrong = [i for i in self.image_ids if not isinstance(candidates[i], str)]
        if wrong:
            raise ValueError(
                "Each candidate must be one str. "
                f"Received something else for {name_ids(wrong)}"
            )
        return [ptb_tokenize(candidates[image_id]) for image_id in self.image_ids]

    def _check_ids(self, candidates):
        missing = [i for i in self.image_ids if i not in candidates]
        known = set(self.image_ids)
        unknown = [i for i in candidates if i not in known]
        if missing or unknown:
            problems = []
            if missing:
                problems.append(f"no candidate for {name_ids(missing)}")
            if unknown:
                problems.append(f"no references for {name_ids(unknown)}")
            raise ValueError(
                "`candidates` and `references` must have the same image ids. "
                f"Received {' and '.join(problems)}"
            )


def score_captions(references, candidates):
    """Scores captions once: `CaptionScorer(references).score(candidates)`.

    Args:
        references: dict of image id to a list of str.
        candidates: dict of image id to str, for the same ids.

    Returns:
        A dict of floats, as of `CaptionScorer`.

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


def name_ids(image_ids):
    """'3 images: a.jpg, b.jpg, c.jpg', at most five by name."""
    named = ", ".join(map(repr, image_ids[:5])) + (
        ", ..." if len(image_ids) > 5 else ""
    )
    return f"{len(image_ids)} {'image' if len(image_ids) == 1 else 'images'}: {named}"
