"""Greedy decoding: the likeliest word, every time."""

import tensorflow as tf

from captioner.samplers.sampler import Sampler


class GreedySampler(Sampler):
    """Takes the likeliest token at each step.

    Args:
        length_penalty, length_normalization, constraints: see `Sampler`.

    Example:

    ```python
    captioner.compile(sampler=GreedySampler())
    captioner.generate("photo.jpg")
    ```
    """

    def choose(self, log_probs, state, rules):
        words = tf.argmax(log_probs, axis=-1, output_type=tf.int32)
        gained = tf.gather(log_probs, words, batch_dims=2)
        words, status = self.next_status(state.status, words, gained, rules)
        return None, words, gained, status
