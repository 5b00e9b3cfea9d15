"""Sampling of words by their probability."""

import numbers

import tensorflow as tf

from captioner.samplers.constraints import check_number
from captioner.samplers.sampler import SMALLEST, Sampler


class RandomSampler(Sampler):
    """Samples each token by its probability.

    With a seed, a caption depends only on the seed, the image and its place in the
    batch. Scores are those of the model, whatever the temperature.

    Args:
        temperature: values below 1 make likely words more likely; 0 is greedy search.
            At most 1,000, where all words are almost equally likely.
        top_k: sample from the k most likely tokens only; None for all.
        top_p: sample from the fewest tokens that together have at least this
            probability (Holtzman et al., "The curious case of neural text
            degeneration", 2020), after `top_k`.
        num_hypotheses: number of captions sampled for each image.
        seed: int; None for different captions each time.
        length_penalty, length_normalization, constraints: see `Sampler`.

    Example:

    ```python
    captioner.compile(sampler=RandomSampler(temperature=0.7, top_p=0.9, seed=1))
    captioner.generate("photo.jpg")
    ```
    """

    def __init__(
        self,
        temperature=1.0,
        top_k=None,
        top_p=1.0,
        num_hypotheses=1,
        seed=None,
        length_penalty=0.0,
        **kwargs,
    ):
        super().__init__(length_penalty, **kwargs)
        check_number("temperature", temperature, 0, 1_000)
        if top_k is not None:
            check_number("top_k", top_k, 1, 2**31 - 1, numbers.Integral)
        check_number("top_p", top_p, 1e-3, 1)
        check_number("num_hypotheses", num_hypotheses, 1, 1_024, numbers.Integral)
        if seed is not None:
            check_number("seed", seed, 0, 2**31 - 1, numbers.Integral)
        self.temperature = float(temperature)
        self.top_k = top_k if top_k is None else int(top_k)
        self.top_p = float(top_p)
        self.num_hypotheses = self.rows_per_image = int(num_hypotheses)
        self.seed = seed if seed is None else int(seed)

    def choose(self, probabilities, state, rules):
        B, K, V = tf.shape(probabilities)[0], *probabilities.shape[1:]
        # As good as 0, by which nothing can be divided.
        greedy = self.temperature < 1e-6
        top_k = 1 if greedy else min(self.top_k or V, V)
        share, ids = probabilities, None
        if top_k < V or self.top_p < 1:
            share, ids = tf.math.top_k(probabilities, top_k)
        # What may be written, as a prefix, may be as unlikely as it likes.
        share = tf.where(share < 0, 0.0, tf.maximum(share, SMALLEST))
        if not greedy and self.temperature != 1:
            best = tf.reduce_max(share, axis=-1, keepdims=True)
            share = (share / tf.maximum(best, SMALLEST)) ** (1 / self.temperature)
        upto = tf.cumsum(share, axis=-1)
        if self.top_p < 1:
            inside = upto - share < self.top_p * upto[:, :, -1:]
            upto = tf.cumsum(tf.where(inside, share, 0.0), axis=-1)
        # Not quite up to 1: a product that is rounded up would be behind all.
        shape, most = [B, K, 1], 0.999999
        if self.seed is None:
            drawn = tf.random.uniform(shape, maxval=most)
        else:
            drawn = tf.random.stateless_uniform(
                shape, [self.seed, state.index], maxval=most, alg="philox"
            )
        # The first that it reaches: one that may be written, where any may.
        reached = (upto > drawn * upto[:, :, -1:]) & (share > 0)
        words = tf.argmax(tf.cast(reached, tf.int32), -1, output_type=tf.int32)
        if ids is not None:
            words = tf.gather(ids, words, batch_dims=2)
        return self.write(words, probabilities, state, rules)

    def get_config(self):
        config = {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "num_hypotheses": self.num_hypotheses,
            "seed": self.seed,
        }
        return {**config, **super().get_config()}
