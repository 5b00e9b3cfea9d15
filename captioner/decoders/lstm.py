"""The LSTM text mixer."""

import keras
from keras import ops

from captioner.decoders.text_mixer import TextMixer


@keras.saving.register_keras_serializable(package="captioner")
class LSTMMixer(TextMixer):
    """Mixes along the caption with an LSTM (Hochreiter and Schmidhuber, 1997).

    Args: see `TextMixer`; only `hidden_dim` matters.

    Example:

    >>> import numpy as np
    >>> mixer = LSTMMixer(hidden_dim=8)
    >>> mixer(np.ones((2, 5, 8), "float32")).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lstm = keras.layers.LSTM(
            self.hidden_dim, return_sequences=True, dtype=self.dtype_policy, name="lstm"
        )

    def build(self, text_shape):
        self.lstm.build(text_shape)
        self.built = True

    def call(self, text, training=None):
        return self.lstm(text)

    def build_cache(self, batch_size, max_length):
        state = ops.zeros((batch_size, self.hidden_dim), dtype=self.compute_dtype)
        return [state, state]

    def step(self, text, cache, index):
        return self.lstm.cell(text, cache)
