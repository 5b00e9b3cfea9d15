"""Beam search with a length penalty."""

import keras
import numpy as np
import tensorflow as tf

from captioner.samplers.sampler import (
    NEVER,
    Sampler,
    SamplerOutput,
    keep_static_shape,
    next_log_probs,
)


class BeamSampler(Sampler):
    """Keeps the K best captions at each step, all images of a batch at once.

    A caption that ends stays in its beam, frozen with its score, until K better
    ones push it out; captions of different lengths are compared by their
    normalised scores. The loop ends when no live beam of any image can still beat
    that image's best finished caption: exact, since a log-probability only falls
    and no caption is longer than `max_length`.

    Args:
        num_beams: K. With 1 it is greedy decoding.
        length_penalty: see `Sampler`.

    Example:

    ```python
    captioner.compile(sampler=BeamSampler(num_beams=5, length_penalty=0.7))
    captioner.generate("photo.jpg")
    ```
    """

    def __init__(self, num_beams=3, length_penalty=0.7):
        super().__init__(length_penalty)
        if num_beams < 1:
            raise ValueError(
                f"num_beams must be 1 or more. Received: num_beams={num_beams}"
            )
        self.num_beams = int(num_beams)
        self.rows_per_image = self.num_beams

    def __call__(
        self,
        next,
        text_cache,
        batch_size,
        max_length,
        start_id,
        end_id,
        pad_id,
        banned_ids=(),
    ):
        B, K, L = batch_size, self.num_beams, max_length
        banned_ids = [start_id, pad_id, *banned_ids]

        def keep_going(index, last, finished, token_ids, log_probs, lengths, cache):
            scores = self.normalise(log_probs, lengths)
            best_finished = tf.reduce_max(tf.where(finished, scores, -np.inf), axis=1)
            # The best that a live beam can come to, were the rest of it certain.
            reachable = self.normalise(log_probs, tf.fill([B, K], L))
            best_reachable = tf.reduce_max(
                tf.where(finished, -np.inf, reachable), axis=1
            )
            return tf.reduce_any(best_reachable > best_finished)

        def step(index, last, finished, token_ids, log_probs, lengths, cache):
            step_log_probs, next_cache = next_log_probs(
                next, tf.reshape(last, [B * K]), cache, index, banned_ids
            )
            V = step_log_probs.shape[-1]
            step_log_probs = tf.reshape(step_log_probs, [B, K, V])
            # A finished beam goes on in one way only: padding, at no cost.
            frozen = tf.one_hot(pad_id, V, 0.0, NEVER)
            step_log_probs = tf.where(finished[:, :, None], frozen, step_log_probs)
            lengths += tf.cast(~finished, tf.int32)
            candidates = log_probs[:, :, None] + step_log_probs
            scores = self.normalise(candidates, lengths[:, :, None])
            _, flat = tf.math.top_k(tf.reshape(scores, [B, K * V]), K)
            beams, words = flat // V, flat % V

            log_probs = tf.gather(
                tf.reshape(candidates, [B, K * V]), flat, batch_dims=1
            )
            lengths, finished, token_ids = (
                tf.gather(kept, beams, batch_dims=1)
                for kept in (lengths, finished, token_ids)
            )
            at_index = tf.one_hot(index, L, True, False, dtype=tf.bool)
            token_ids = tf.where(at_index, words[:, :, None], token_ids)
            finished |= words == end_id
            rows = tf.reshape(beams + K * tf.range(B)[:, None], [B * K])
            next_cache = keras.tree.map_structure(
                lambda tensor: tf.gather(tensor, rows), next_cache
            )
            next_cache = keep_static_shape(next_cache, cache)
            return index + 1, words, finished, token_ids, log_probs, lengths, next_cache

        # All beams are alike before the first word: only one of them counts.
        only_first = tf.where(tf.range(K) == 0, 0.0, NEVER)
        _, _, finished, token_ids, log_probs, lengths, _ = tf.while_loop(
            keep_going,
            step,
            (
                tf.constant(0),
                tf.fill([B, K], start_id),
                tf.fill([B, K], False),
                tf.fill([B, K, L], pad_id),
                tf.tile(only_first[None], [B, 1]),
                tf.fill([B, K], 0),
                text_cache,
            ),
            maximum_iterations=L,
        )
        # An unfinished caption only where none has ended.
        none_finished = ~tf.reduce_any(finished, axis=1, keepdims=True)
        scores = self.normalise(log_probs, lengths)
        scores = tf.where(finished | none_finished, scores, -np.inf)
        best = tf.argmax(scores, axis=1)
        return SamplerOutput(
            tf.gather(token_ids, best, batch_dims=1),
            tf.gather(scores, best, batch_dims=1),
        )

    def get_config(self):
        return {**super().get_config(), "num_beams": self.num_beams}
