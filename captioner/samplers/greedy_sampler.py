"""Greedy decoding: the likeliest word, every time."""

import tensorflow as tf

from captioner.samplers.sampler import (
    Sampler,
    SamplerOutput,
    keep_static_shape,
    next_log_probs,
)


class GreedySampler(Sampler):
    """Takes the likeliest token at each step.

    Example:

    ```python
    captioner.compile(sampler=GreedySampler())
    captioner.generate("photo.jpg")
    ```
    """

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
        banned_ids = [start_id, pad_id, *banned_ids]

        def keep_going(index, last, finished, *_):
            return ~tf.reduce_all(finished)

        def step(index, last, finished, token_ids, log_probs, lengths, cache):
            step_log_probs, next_cache = next_log_probs(
                next, last, cache, index, banned_ids
            )
            best = tf.argmax(step_log_probs, axis=-1, output_type=tf.int32)
            gained = tf.gather(step_log_probs, best, axis=1, batch_dims=1)
            best = tf.where(finished, pad_id, best)
            log_probs += tf.where(finished, 0.0, gained)
            lengths += tf.cast(~finished, tf.int32)
            at_index = tf.one_hot(index, max_length, True, False, dtype=tf.bool)
            token_ids = tf.where(at_index, best[:, None], token_ids)
            finished |= best == end_id
            next_cache = keep_static_shape(next_cache, cache)
            return index + 1, best, finished, token_ids, log_probs, lengths, next_cache

        _, _, _, token_ids, log_probs, lengths, _ = tf.while_loop(
            keep_going,
            step,
            (
                tf.constant(0),
                tf.fill([batch_size], start_id),
                tf.fill([batch_size], False),
                tf.fill([batch_size, max_length], pad_id),
                tf.fill([batch_size], 0.0),
                tf.fill([batch_size], 0),
                text_cache,
            ),
            maximum_iterations=max_length,
        )
        return SamplerOutput(token_ids, self.normalise(log_probs, lengths))
