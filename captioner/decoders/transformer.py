"""The Transformer text mixer."""

import keras
from keras import ops

from captioner.decoders.attention import MultiHeadAttention
from captioner.decoders.text_mixer import TextMixer


@keras.saving.register_keras_serializable(package="captioner")
class TransformerMixer(TextMixer):
    """Mixes along the caption with causal self-attention, then thinks about it.

        text = text + dropout(attention(text))
        out  = text + dropout(W_2 gelu(W_1 norm(text)))

    The decoder of Vaswani et al., "Attention is all you need" (2017), normed first
    (the block norms what it gives) and without the look at the image, which is the
    fusion's. Words know their places by rotation (Su et al., "RoFormer", 2021): no
    weights, and no longest caption.

    Args: see `TextMixer`; `intermediate_dim` is the width of W_1, by default 4 D.

    Raises:
        ValueError: `num_heads` does not divide `hidden_dim`, or leaves each head an
            odd width, which cannot be rotated.

    Example:

    >>> import numpy as np
    >>> mixer = TransformerMixer(hidden_dim=8, num_heads=2)
    >>> mixer(np.ones((2, 5, 8), "float32")).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.attention = MultiHeadAttention(
            self.hidden_dim, self.num_heads, dtype=self.dtype_policy, name="attention"
        )
        if self.attention.head_dim % 2:
            raise ValueError(
                "The width of a Transformer's heads must be even. Received: "
                f"hidden_dim={self.hidden_dim}, num_heads={self.num_heads}"
            )
        self.attention_dropout = self._dropout("attention_dropout")
        self.norm = keras.layers.LayerNormalization(
            dtype=self.dtype_policy, name="norm"
        )
        self.intermediate_dense = keras.layers.Dense(
            self.intermediate_dim or 4 * self.hidden_dim,
            activation="gelu",
            dtype=self.dtype_policy,
            name="intermediate_dense",
        )
        self.output_dense = keras.layers.Dense(
            self.hidden_dim, dtype=self.dtype_policy, name="output_dense"
        )
        self.output_dropout = self._dropout("output_dropout")

    def _dropout(self, name):
        return keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name=name)

    def build(self, text_shape):
        self.attention.build(text_shape, text_shape)
        self.norm.build(text_shape)
        self.intermediate_dense.build(text_shape)
        self.output_dense.build((*text_shape[:-1], self.intermediate_dense.units))
        self.built = True

    def call(self, text, segment_ids=None, training=None):
        positions = ops.arange(ops.shape(text)[1])
        seen = positions[:, None] >= positions[None, :]
        if segment_ids is not None:  # (N, 1, L, L), the same for all heads
            same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
            seen = ops.logical_and(seen, same)
        keys, values = self.attention.keys_and_values(text)
        attended, _ = self.attention(
            rotate(self.attention.queries(text), positions),
            rotate(keys, positions),
            values,
            attention_mask=seen,
        )
        text = text + self.attention_dropout(attended, training=training)
        return text + self._feed_forward(text, training)

    def _feed_forward(self, text, training=None):
        text = self.output_dense(self.intermediate_dense(self.norm(text)))
        return self.output_dropout(text, training=training)

    def build_cache(self, batch_size, max_length):
        shape = (batch_size, self.num_heads, max_length, self.attention.head_dim)
        past = ops.zeros(shape, dtype=self.compute_dtype)
        return [past, past]  # keys and values

    def step(self, text, cache, index):
        text = text[:, None]
        place = ops.reshape(ops.convert_to_tensor(index), (1,))
        keys, values = self.attention.keys_and_values(text)
        new = [rotate(keys, place), values]
        positions = ops.arange(ops.shape(cache[0])[2])
        here = (positions == index)[:, None]
        cache = [ops.where(here, now, past) for now, past in zip(new, cache)]
        attended, _ = self.attention(
            rotate(self.attention.queries(text), place),
            *cache,
            attention_mask=positions <= index,
        )
        text = text + attended
        return (text + self._feed_forward(text))[:, 0], cache


def rotate(x, positions):
    """Turn each pair of numbers of (..., T, width) by an angle that grows with its
    position: the product of two is then a matter of how far apart they are."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-ops.arange(half, dtype="float32") / half)
    angles = ops.cast(positions, "float32")[:, None] * frequencies
    cos, sin = (ops.cast(f(angles), x.dtype) for f in (ops.cos, ops.sin))
    first, second = x[..., :half], x[..., half:]
    return ops.concatenate(
        [first * cos - second * sin, first * sin + second * cos], axis=-1
    )
