"""The LSTM text mixer."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="captioner")
class LSTMMixer(keras.layers.Layer):
    """Mixes along the caption with an LSTM (Hochreiter and Schmidhuber, 1997).

    A text mixer is a layer that sees only the past:

        call(text)                     (B, L, D) -> (B, L, D), the whole caption
        build_cache(batch_size)        the state before the first token
        step(text, cache, index)       (B, D), state -> (B, D), next state

    `step` over the positions of a caption gives what `call` gives at once.

    Args:
        hidden_dim: D, the width of the text state.

    Example:

    >>> import numpy as np
    >>> mixer = LSTMMixer(hidden_dim=8)
    >>> mixer(np.ones((2, 5, 8), "float32")).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, hidden_dim, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.lstm = keras.layers.LSTM(
            hidden_dim, return_sequences=True, dtype=self.dtype_policy, name="lstm"
        )

    def build(self, text_shape):
        self.lstm.build(text_shape)
        self.built = True

    def call(self, text):
        return self.lstm(text)

    def build_cache(self, batch_size):
        state = ops.zeros((batch_size, self.hidden_dim), dtype=self.compute_dtype)
        return [state, state]

    def step(self, text, cache, index):
        """One token: `index`, its position, matters to other mixers only."""
        return self.lstm.cell(text, cache)

    def get_config(self):
        return {**super().get_config(), "hidden_dim": self.hidden_dim}
