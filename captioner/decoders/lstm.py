"""The LSTM text mixer."""

import keras
import tensorflow as tf
from keras import ops

from captioner.decoders.text_mixer import TextMixer


@keras.saving.register_keras_serializable(package="captioner")
class LSTMMixer(TextMixer):
    """Mixes along the caption with an LSTM (Hochreiter and Schmidhuber, 1997).

        i, f, g, o = W text_t + U state_(t-1) + b
        memory_t   = sigmoid(f) memory_(t-1) + sigmoid(i) tanh(g)
        state_t    = sigmoid(o) tanh(memory_t)

    The weights are those of `keras.layers.LSTM`, and so is what comes out; but several
    captions may stand in one row, which Keras' layer does not take, and XLA can
    compile it on every device.

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

    def call(self, text, segment_ids=None, training=None):
        cell, dtype = self.lstm.cell, self.compute_dtype
        kernel, recurrent_kernel, bias = (
            ops.cast(weight, dtype)
            for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)
        )
        inputs = ops.matmul(text, kernel) + bias
        if segment_ids is None:
            goes_on = ops.ones_like(inputs[:, :, :1])
        else:
            goes_on = ops.cast(segment_ids[:, 1:] == segment_ids[:, :-1], dtype)
            goes_on = ops.pad(goes_on, ((0, 0), (1, 0)))[:, :, None]
        return recurrence(inputs, goes_on, recurrent_kernel)

    def build_cache(self, batch_size, max_length):
        state = ops.zeros((batch_size, self.hidden_dim), dtype=self.compute_dtype)
        return [state, state]

    def step(self, text, cache, index):
        return self.lstm.cell(text, cache)


@tf.custom_gradient
def recurrence(inputs, goes_on, kernel):
    """The states of an LSTM at all positions, (N, L, D).

    With a gradient of its own, in which that of the kernel is one product for all
    positions.

    Args:
        inputs: (N, L, 4 D), W text + b.
        goes_on: (N, L, 1), 0 where a caption begins in the middle of a row, else 1.
        kernel: (D, 4 D), U.
    """
    length, dtype = tf.shape(inputs)[1], inputs.dtype
    inputs, keep = (tf.transpose(x, [1, 0, 2]) for x in (inputs, goes_on))
    nothing = tf.zeros_like(inputs[0, :, : kernel.shape[0]])

    def arrays(*likes):
        # By length first: one step is one piece of memory.
        return [
            tf.TensorArray(dtype, length, element_shape=like.shape) for like in likes
        ]

    def forward(t, state, memory, *kept):
        state, memory = state * keep[t], memory * keep[t]
        gates = inputs[t] + tf.matmul(state, kernel)
        i, f, g, o = tf.split(gates, 4, axis=-1)
        i, f, o, g = tf.sigmoid(i), tf.sigmoid(f), tf.sigmoid(o), tf.tanh(g)
        next_memory = f * memory + i * g
        shown = tf.tanh(next_memory)
        next_state = o * shown
        values = (next_state, state, memory, shown, tf.concat([i, f, g, o], -1))
        kept = [array.write(t, value) for array, value in zip(kept, values)]
        return t + 1, next_state, next_memory, *kept

    _, _, _, *kept = tf.while_loop(
        lambda t, *_: t < length,
        forward,
        (0, nothing, nothing, *arrays(*[nothing] * 4, inputs[0])),
        maximum_iterations=length,
    )
    states, before, memories, shown, gates = (array.stack() for array in kept)

    def backward(upstream):
        upstream = tf.transpose(upstream, [1, 0, 2])

        def step(t, d_state, d_memory, d_gates):
            d_state += upstream[t]
            i, f, g, o = tf.split(gates[t], 4, axis=-1)
            d_memory += d_state * o * (1 - shown[t] ** 2)
            d_here = tf.concat(
                [
                    d_memory * g * i * (1 - i),
                    d_memory * memories[t] * f * (1 - f),
                    d_memory * i * (1 - g**2),
                    d_state * shown[t] * o * (1 - o),
                ],
                axis=-1,
            )
            d_state = tf.matmul(d_here, kernel, transpose_b=True) * keep[t]
            return t - 1, d_state, d_memory * f * keep[t], d_gates.write(t, d_here)

        *_, d_gates = tf.while_loop(
            lambda t, *_: t >= 0,
            step,
            (length - 1, nothing, nothing, *arrays(inputs[0])),
            maximum_iterations=length,
        )
        d_inputs = d_gates.stack()
        d_kernel = tf.matmul(
            tf.reshape(before, [-1, kernel.shape[0]]),
            tf.reshape(d_inputs, [-1, kernel.shape[1]]),
            transpose_a=True,
        )
        return tf.transpose(d_inputs, [1, 0, 2]), None, d_kernel

    return tf.transpose(states, [1, 0, 2]), backward
