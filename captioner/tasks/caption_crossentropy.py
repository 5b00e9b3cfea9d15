"""The loss of a caption: how unlikely each next token was."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="captioner")
class CaptionCrossentropy(keras.losses.Loss):
    """Cross-entropy of the next token, from logits, the mean over real tokens.

    Args:
        label_smoothing: share of the target spread evenly over the vocabulary
            (Szegedy et al., "Rethinking the Inception architecture", 2016).

    Example:

    >>> import numpy as np
    >>> loss = CaptionCrossentropy(label_smoothing=0.1)
    >>> value = loss(np.array([[1, 2]]), np.zeros((1, 2, 4), "float32"),
    ...              sample_weight=np.array([[1.0, 0.0]]))
    >>> round(float(value), 4)  # log(4): padding counts for nothing
    1.3863
    """

    def __init__(self, label_smoothing=0.0, name="caption_crossentropy", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        loss = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        if self.label_smoothing:
            # Of the crossentropy against the even distribution only this differs:
            # no one-hot (B, C, L, V), no second softmax over the vocabulary.
            indices = ops.cast(y_true, "int32")[..., None]
            target = ops.take_along_axis(y_pred, indices, axis=-1)[..., 0]
            even = target - ops.mean(y_pred, axis=-1)
            loss += self.label_smoothing * even
        return loss

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
