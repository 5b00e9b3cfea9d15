"""Beam search with a length penalty."""

import math
import numbers

import tensorflow as tf

from captioner.samplers.constraints import check_number
from captioner.samplers.sampler import ENDED, LIVE, NONE, STUCK, Sampler, log, top_k


class BeamSampler(Sampler):
    """Beam search: keeps the K best captions at each step, for all images of a batch.

    A finished caption keeps its beam and its score until K better captions replace it.
    Captions of different lengths are compared by their normalised scores. The loop ends
    when no live beam of any image can become one of its `num_hypotheses` best. This is
    exact, since a log-probability only falls and no caption is longer than
    `max_length`.

    Args:
        num_beams: K; 1 is greedy search.
        length_penalty: see `Sampler`.
        num_hypotheses: number of captions of each image, at most K.
        length_normalization, constraints: see `Sampler`.

    Example:

    ```python
    captioner.compile(sampler=BeamSampler(num_beams=5, length_penalty=0.7))
    captioner.generate("photo.jpg")
    ```
    """

    def __init__(self, num_beams=3, length_penalty=0.7, num_hypotheses=1, **kwargs):
        super().__init__(length_penalty, **kwargs)
        check_number("num_beams", num_beams, 1, 1_024, numbers.Integral)
        check_number("num_hypotheses", num_hypotheses, 1, num_beams, numbers.Integral)
        self.num_beams = self.rows_per_image = int(num_beams)
        self.num_hypotheses = int(num_hypotheses)

    def first_status(self):
        # All beams are alike before the first word: only one of them counts.
        return [LIVE] + [NONE] * (self.num_beams - 1)

    def choose(self, probabilities, state, rules):
        parents, *rest = self.search(probabilities, probabilities, state, rules)
        return parents if self.num_beams > 1 else None, *rest

    def search(self, wanted, probabilities, state, rules):
        """One step of K beams, as `choose`, which chooses by `wanted`, float32
        (B, K, V), and counts `probabilities`; often the same."""
        K, V = probabilities.shape[1:]
        each = min(K, V)  # the K best of all are among the K best of each beam
        values, words = top_k(wanted, each)
        allowed, values = values >= 0, log(values)
        gained = values
        if wanted is not probabilities:
            gained = log(tf.gather(probabilities, words, batch_dims=2))
        live = ((state.status == LIVE) & state.open[:, None])[:, :, None]
        written = live & allowed
        # A beam that is finished, or has nothing to say, goes on in one way: as it is.
        stays = (tf.range(each) == 0) & ~written
        status = tf.where(live, STUCK, state.status[:, :, None])
        status = tf.where(stays, status, NONE)
        status = tf.where(written, tf.where(words == rules.end_id, ENDED, LIVE), status)
        scores = self.normalise(
            state.totals[:, :, None] + tf.where(written, values, 0.0),
            state.lengths[:, :, None] + tf.cast(written, tf.int32),
        )
        ranks = self.rank(scores, status, behind=status == STUCK)
        _, best = tf.math.top_k(tf.reshape(ranks, [-1, K * each]), K)
        words = tf.where(written, words, rules.pad_id)
        words, gained, status = (
            tf.gather(tf.reshape(x, [-1, K * each]), best, batch_dims=1)
            for x in (words, gained, status)
        )
        return best // each, words, gained, status

    def may_win(self, state, max_length):
        return self._reach(state, max_length, LIVE)

    def last_status(self, state, max_length):
        # Nothing left to say where something better might have come: even what was
        # ended is only the best so far.
        live = tf.reduce_any(state.status == LIVE, axis=1)
        short = self._reach(state, max_length, STUCK) & ~live
        return tf.where(short[:, None] & (state.status != NONE), STUCK, state.status)

    def _reach(self, state, max_length, status):
        """Whether a beam of that status could become one of those asked for."""
        scores = self.normalise(state.totals, state.lengths)
        ended = tf.where(state.status == ENDED, scores, -math.inf)
        to_beat = tf.math.top_k(ended, self.num_hypotheses)[0][:, -1]
        # The best that it could come to, were the rest of it certain.
        reachable = self.normalise(state.totals, max_length)
        reachable = tf.where(state.status == status, reachable, -math.inf)
        return tf.reduce_max(reachable, axis=1) > to_beat

    def get_config(self):
        config = {**super().get_config(), "num_beams": self.num_beams}
        if self.num_hypotheses > 1:
            config["num_hypotheses"] = self.num_hypotheses
        return config
