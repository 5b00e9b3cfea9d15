"""What mixes along a caption."""

import keras


class TextMixer(keras.layers.Layer):
    """A layer that sees only the past:

        call(text, segment_ids)               (N, L, D) -> (N, L, D), all at once
        build_cache(batch_size, max_length)   a nest of tensors (B, ...), the state
                                              before the first token
        step(text, cache, index)              (B, D), state -> (B, D), next state

    `step` over the positions of a caption gives what `call` gives at once. Where
    several captions stand in one row, `segment_ids`, int (N, L), is another number
    for each, and none sees the others; it is None where each row is one. Every
    mixer is made with the same arguments and takes from them what it needs.

    Args:
        hidden_dim: D, the width of the text state.
        intermediate_dim: for feed-forward networks; None for the mixer's own choice.
        num_heads: for attention.
        dropout: rate.
    """

    def __init__(
        self, hidden_dim, intermediate_dim=None, num_heads=8, dropout=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.dropout = dropout

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }
