"""Multi-head attention whose keys and values can be kept."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="captioner")
class MultiHeadAttention(keras.layers.Layer):
    """softmax(q k^T / sqrt(D / heads)) v, many times side by side.

    Vaswani et al., "Attention is all you need" (2017). Unlike
    `keras.layers.MultiHeadAttention` it is in three parts, so that what is looked at
    is projected once and looked at often: an image by every word, a word by all
    that follow.

        queries(text)                 (B, T, D) -> (B, heads, T, D / heads)
        keys_and_values(source)       (B, S, E) -> two of (B, heads, S, D / heads)
        call(queries, keys, values)   (B, T, D), and the scores, (B, heads, T, S)

    Args:
        hidden_dim: D.
        num_heads: how many; must divide D.

    Raises:
        ValueError: `num_heads` does not divide `hidden_dim`.

    Example:

    >>> import numpy as np
    >>> attention = MultiHeadAttention(hidden_dim=8, num_heads=2)
    >>> attention.build((None, None, 8), (None, None, 16))
    >>> keys, values = attention.keys_and_values(np.ones((3, 49, 16), "float32"))
    >>> queries = attention.queries(np.ones((3, 5, 8), "float32"))
    >>> out, scores = attention(queries, keys, values)
    >>> out.shape, scores.shape
    (TensorShape([3, 5, 8]), TensorShape([3, 2, 5, 49]))
    """

    def __init__(self, hidden_dim, num_heads, **kwargs):
        super().__init__(**kwargs)
        if hidden_dim % num_heads:
            fitting = [n for n in range(1, hidden_dim + 1) if hidden_dim % n == 0]
            nearest = min(fitting, key=lambda n: abs(n - num_heads))
            raise ValueError(
                f"num_heads must divide hidden_dim={hidden_dim}; the nearest that does "
                f"is {nearest}. Received: num_heads={num_heads}"
            )
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.head_dim = hidden_dim // num_heads
        self.query_dense = self._dense("query_dense", use_bias=False)
        # Without a bias: it would add the same to all scores of a query.
        self.key_dense = self._dense("key_dense", use_bias=False)
        self.value_dense = self._dense("value_dense")
        self.output_dense = self._dense("output_dense")

    def _dense(self, name, **kwargs):
        return keras.layers.Dense(
            self.hidden_dim, dtype=self.dtype_policy, name=name, **kwargs
        )

    def build(self, text_shape, source_shape):
        self.query_dense.build(text_shape)
        self.key_dense.build(source_shape)
        self.value_dense.build(source_shape)
        self.output_dense.build((None, None, self.hidden_dim))
        self.built = True

    def queries(self, text):
        # Scaled here, where it is the smaller tensor.
        return self._split(self.query_dense(text)) * self.head_dim**-0.5

    def keys_and_values(self, source):
        return [
            self._split(dense(source)) for dense in (self.key_dense, self.value_dense)
        ]

    def _split(self, x):
        shape = (-1, ops.shape(x)[1], self.num_heads, self.head_dim)
        return ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))

    def call(self, queries, keys, values, attention_mask=None):
        """`attention_mask`, bool and of a shape that broadcasts to the scores', is
        False where a query must not look."""
        logits = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))
        logits = ops.cast(logits, "float32")  # a softmax needs it
        if attention_mask is not None:
            logits = ops.where(attention_mask, logits, -1e9)
        scores = ops.softmax(logits)
        attended = ops.matmul(ops.cast(scores, values.dtype), values)
        attended = ops.transpose(attended, (0, 2, 1, 3))
        shape = (-1, ops.shape(attended)[1], self.hidden_dim)
        return self.output_dense(ops.reshape(attended, shape)), scores

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
        }
