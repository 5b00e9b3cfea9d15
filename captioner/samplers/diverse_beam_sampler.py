"""Beam search in groups that avoid each other's words."""

import numbers

import tensorflow as tf

from captioner.samplers.beam_sampler import BeamSampler
from captioner.samplers.constraints import FINITE, cells, check_number
from captioner.samplers.sampler import LIVE, NONE


class DiverseBeamSampler(BeamSampler):
    """Diverse beam search (Vijayakumar et al., 2018): captions that differ.

    The K beams form G groups, which choose their words one group after the other at
    each step. A word loses `diversity_penalty` of its log-probability for each beam of
    an earlier group that has just chosen it. Only the choice changes: scores are those
    of the model. The first group is an ordinary beam search with K / G beams.

    Args:
        num_beams: K.
        num_groups: G, a divisor of K; by default K.
        diversity_penalty: with 0 all groups find the same captions.
        num_hypotheses: number of captions of each image, from all groups; by default
            K.
        length_penalty, length_normalization, constraints: see `Sampler`.

    Example:

    ```python
    captioner.compile(sampler=DiverseBeamSampler(num_beams=4))
    [each.text for each in captioner.generate_results("photo.jpg").hypotheses]
    ```
    """

    def __init__(
        self,
        num_beams=4,
        num_groups=None,
        diversity_penalty=0.5,
        length_penalty=0.7,
        num_hypotheses=None,
        **kwargs,
    ):
        if num_hypotheses is None:
            num_hypotheses = num_beams
        super().__init__(num_beams, length_penalty, num_hypotheses, **kwargs)
        if num_groups is None:
            num_groups = num_beams
        check_number("num_groups", num_groups, 1, num_beams, numbers.Integral)
        check_number("diversity_penalty", diversity_penalty, 0, FINITE)
        if num_beams % num_groups:
            raise ValueError(
                "num_beams must be a multiple of num_groups. "
                f"Received: num_beams={num_beams}, num_groups={num_groups}"
            )
        self.num_groups = int(num_groups)
        self.diversity_penalty = float(diversity_penalty)

    def first_status(self):
        size = self.num_beams // self.num_groups
        return ([LIVE] + [NONE] * (size - 1)) * self.num_groups

    def choose(self, probabilities, state, rules):
        size = self.num_beams // self.num_groups
        taken = tf.zeros_like(probabilities[:, 0])  # (B, V), how often
        groups = []
        for start in range(0, self.num_beams, size):
            group = slice(start, start + size)
            own = state._replace(
                status=state.status[:, group],
                totals=state.totals[:, group],
                lengths=state.lengths[:, group],
            )
            counted = probabilities[:, group]
            # A log-probability less the penalty; never 0, so that no ban is lost.
            factor = tf.maximum(tf.exp(-self.diversity_penalty * taken), 1e-30)
            parents, words, gained, status = self.search(
                counted * factor[:, None], counted, own, rules
            )
            taken = tf.tensor_scatter_nd_add(taken, cells(words), tf.ones_like(gained))
            groups.append((parents + start, words, gained, status))
        return tuple(tf.concat(each, axis=1) for each in zip(*groups))

    def get_config(self):
        return {
            **super().get_config(),
            "num_hypotheses": self.num_hypotheses,
            "num_groups": self.num_groups,
            "diversity_penalty": self.diversity_penalty,
        }
