"""How good a captioner is on the dev split, after each epoch of `train`."""

import numpy as np

from captioner.metrics import CaptionScorer, diversity

BATCH_SIZE = 64


class DevScores:
    """Captions the dev images from the image alone, and scores these captions.

    Args:
        examples: those of the dev split.
    """

    def __init__(self, examples):
        self.ids = [example["image/id"] for example in examples]
        self.scorer = CaptionScorer(
            {example["image/id"]: example["captions"] for example in examples}
        )

    def score(self, captioner, read):
        """Score a captioner.

        Args:
            captioner: `ImageCaptioner`.
            read: function of int64 indices (B,) into the examples that returns their
                image features.

        Returns:
            Dict of scores, as `history.json` has them, and a dict of image ids to
            captions.
        """
        captions = []
        for start in range(0, len(self.ids), BATCH_SIZE):
            rows = np.arange(start, min(start + BATCH_SIZE, len(self.ids)))
            captions += captioner.generate(read(rows), len(rows))
        captions = dict(zip(self.ids, captions))
        scores = self.scorer.score(captions)
        written = diversity([caption.split() for caption in captions.values()])
        return {
            "dev_bleu_4": float(scores["bleu_4"]),
            "dev_cider": float(scores["cider"]),
            "dev_distinct": written["distinct"] / len(self.ids),
            "dev_length": float(written["mean_length"]),
            "dev_bad_endings": float(written["bad_endings"]),
            "dev_repeated_phrases": float(written["repeated_phrases"]),
        }, captions

    def samples(self, captions, number=3):
        """Some of the captions, each epoch of the same images: (id, caption) pairs."""
        places = np.linspace(0, len(self.ids) - 1, min(number, len(self.ids)))
        return [
            (self.ids[i], captions[self.ids[i]]) for i in places.round().astype(int)
        ]


def best_of(rows):
    """The row with the highest CIDEr on dev, the first of equals."""
    return max(rows, key=lambda row: row["dev_cider"])
