"""Ways of choosing words: the loops that turn next-token logits into captions."""

from captioner.samplers.beam_sampler import BeamSampler
from captioner.samplers.greedy_sampler import GreedySampler
from captioner.samplers.sampler import Sampler, SamplerOutput

SAMPLERS = {"greedy": GreedySampler, "beam": BeamSampler}

__all__ = ["SAMPLERS", "BeamSampler", "GreedySampler", "Sampler", "SamplerOutput"]
