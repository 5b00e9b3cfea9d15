"""The first stage of `train`: learning to continue what people wrote."""

import math

from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.train_step import crossentropy


class Crossentropy:
    """The stage that learns to continue what people wrote, word by word.

    A stage is what the loop asks of it; see also `cider_optimization.py`.

    Args:
        epochs: how many at most.
        patience: end after so many epochs without a better CIDEr; None for never.
        label_smoothing: see `CaptionCrossentropy`.

    Attributes:
        backbone_layers: how many of the image network's last layers learn.
        notes: dict of what a stage wants to remember within an epoch, as JSON has it;
            the loop keeps it in its checkpoints.
    """

    name = "crossentropy"  # in `history.json`
    backbone_layers = 0

    def __init__(self, epochs, patience, label_smoothing):
        self.epochs = epochs
        self.patience = patience
        self.loss = CaptionCrossentropy(label_smoothing)

    def view(self, x, y, sample_weight):
        """What the steps need of a batch of `RowBatches`."""
        return x, y, sample_weight

    def prepare(self, batch, seed):
        """From that to what `objective` takes; in the graph, and never under XLA."""
        return batch

    def objective(self, model, batch):
        """See `train_step.crossentropy`."""
        return crossentropy(model, batch)

    def has_exploded(self, loss, vocabulary_size):
        """Whether a loss is far beyond that of guessing."""
        return loss > 10 * math.log(vocabulary_size)

    def report(self, state):
        """What `history.json` says of an epoch, besides its loss and dev scores."""
        return {"real_tokens": round(state["weight"] / state["positions"], 4)}
