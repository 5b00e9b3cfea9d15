"""Greedy search: the most likely word at each step."""

import tensorflow as tf

from captioner.samplers.sampler import Sampler


class GreedySampler(Sampler):
    """Takes the most likely token at each step.

    Args:
        length_penalty, length_normalization, constraints: see `Sampler`.

    Example:

    ```python
    captioner.compile(sampler=GreedySampler())
    captioner.generate("photo.jpg")
    ```
    """

    def choose(self, probabilities, state, rules):
        words = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return self.write(words, probabilities, state, rules)
