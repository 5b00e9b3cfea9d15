"""What every sampler shares: its contract and its score."""

import dataclasses
import math

import keras
import tensorflow as tf

NEVER = -1e9  # a log-probability that loses against every real one


@dataclasses.dataclass(frozen=True)
class SamplerOutput:
    """The best caption that a sampler found for each of B images.

    Attributes:
        token_ids: int32 (B, L), without the start token: the words, the end token
            where it fitted, and padding.
        scores: float32 (B,), the log-probability of the words and the end token,
            divided by their number to the power of `length_penalty`.
    """

    token_ids: tf.Tensor
    scores: tf.Tensor


class Sampler:
    """Chooses the tokens of a caption, one at a time, inside the graph.

    Calling a sampler runs one `tf.while_loop` of fixed shapes that stops as soon
    as every caption is finished.

    Args:
        length_penalty: 0 ranks by probability, which favours short captions; 1 by
            the average log-probability of a token.

    Call arguments:
        next: function of (token_ids int32 (N,), text_cache, index) that returns
            logits (N, V) and the next text cache. N is B * `rows_per_image`; the
            rows of one image lie side by side.
        text_cache: nest of tensors (N, ...), the state before the first token.
        batch_size: B, may be a tensor.
        max_length: L, the most tokens, the end token included.
        start_id, end_id, pad_id: int.
        banned_ids: ids that are never written, as the unknown word's.
    """

    rows_per_image = 1

    def __init__(self, length_penalty=0.0):
        if not 0 <= length_penalty < math.inf:  # nor nan
            raise ValueError(
                "length_penalty must be 0 or more, and finite. "
                f"Received: length_penalty={length_penalty}"
            )
        self.length_penalty = float(length_penalty)

    def normalise(self, log_probs, lengths):
        """The score of captions from their log-probabilities and lengths."""
        lengths = tf.cast(tf.maximum(lengths, 1), tf.float32)
        return log_probs / lengths**self.length_penalty

    def get_config(self):
        """The arguments that make the same sampler again."""
        return {"length_penalty": self.length_penalty}


def next_log_probs(next, token_ids, text_cache, index, banned_ids):
    """One step of the model as log-probabilities (N, V), nothing banned in them."""
    logits, text_cache = next(token_ids, text_cache, index)
    logits = tf.cast(logits, tf.float32)
    banned = tf.reduce_sum(tf.one_hot(banned_ids, logits.shape[-1]), axis=0)
    return tf.nn.log_softmax(logits) + banned * NEVER, text_cache


def keep_static_shape(nest, like):
    """Give tensors the static shapes of others, as `tf.while_loop` wants them."""
    return keras.tree.map_structure(
        lambda tensor, model: tf.ensure_shape(tensor, model.shape), nest, like
    )
