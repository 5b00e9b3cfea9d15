"""The first stage of `train`: learning to continue what people wrote."""

import math

from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.train_step import crossentropy


class Crossentropy:
    """The stage that learns to continue what people wrote, word by word.

    Its attributes and methods are what the loop asks of every stage.

    Args:
        epochs: maximum number of epochs.
        patience: stop after this many epochs without a better CIDEr; None for never.
        label_smoothing: see `CaptionCrossentropy`.

    Attributes:
        backbone_layers: number of the image network's last layers to train.
        notes: dict of what the stage remembers within an epoch, in the types of JSON;
            the loop keeps it in its checkpoints.
    """

    name = "crossentropy"  # in `history.json`
    backbone_layers = 0

    def __init__(self, epochs, patience, label_smoothing):
        self.epochs = epochs
        self.patience = patience
        self.loss = CaptionCrossentropy(label_smoothing)

    def view(self, x, y, sample_weight):
        """Select what a step needs from a batch of `RowBatches`."""
        return x, y, sample_weight

    def prepare(self, batch, seed):
        """Prepare that for `objective`, in the graph and never under XLA."""
        return batch

    def objective(self, model, batch):
        """See `train_step.crossentropy`."""
        return crossentropy(model, batch)

    def has_exploded(self, loss, vocabulary_size):
        """Whether a loss is far higher than that of guessing."""
        return loss > 10 * math.log(vocabulary_size)

    def report(self, state):
        """More values of an epoch for `history.json`."""
        return {"real_tokens": round(state["weight"] / state["positions"], 4)}
