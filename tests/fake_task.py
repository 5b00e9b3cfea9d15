"""A task that is no neural network: verbs use nothing of a task but the contract."""

import hashlib

import numpy as np

from captioner import GenerateResult
from captioner.tasks.generate_result import Hypothesis
from captioner.tasks.task import Task


class FakeTask(Task):
    """Captions a photo by its mean colour: "mostly red, 87".

    Args:
        word: the first word of each caption.
        num_captions: how many hypotheses it gives; with scores.
    """

    abilities = frozenset({"scores", "hypotheses"})

    def __init__(self, word="mostly", num_captions=1):
        self.word, self.num_captions = word, num_captions

    @property
    def convert(self):
        return mean_colour

    def write(self, batch, prompts=None):
        results = []
        for mean in batch:
            order = np.argsort(mean)[::-1]
            found = [
                Hypothesis(
                    f"{self.word} {('red', 'green', 'blue')[i]}, {mean[i]:.0f}",
                    score=float(mean[i] / 255),
                )
                for i in order[: self.num_captions]
            ]
            best = {"text": found[0].text, "score": found[0].score}
            results.append(GenerateResult(**best, hypotheses=tuple(found)))
        return results

    def fingerprint(self):
        return hashlib.sha256(self.word.encode()).hexdigest()

    def describe(self):
        return {"task": "FakeTask", "word": self.word}

    def replaced(self, sampler=None, num_captions=None, num_threads=None):
        if sampler is not None:
            return super().replaced(sampler)
        return FakeTask(self.word, num_captions or self.num_captions)


class TextOnlyTask(Task):
    """Four methods and no ability at all."""

    def convert(self, image):
        return image.shape

    def write(self, batch, prompts=None):
        return [GenerateResult(f"a photo of {h} by {w} pixels") for h, w, _ in batch]

    def fingerprint(self):
        return "text only"

    def describe(self):
        return {"task": "TextOnlyTask"}


def mean_colour(image):
    """uint8 (H, W, 3) -> float64 (3,)."""
    return image.mean(axis=(0, 1))
