"""Ways of choosing words: the loop that turns next-token logits into captions."""

from captioner.samplers.beam_sampler import BeamSampler
from captioner.samplers.constraints import Constraints, TokenRules
from captioner.samplers.diverse_beam_sampler import DiverseBeamSampler
from captioner.samplers.greedy_sampler import GreedySampler
from captioner.samplers.random_sampler import RandomSampler
from captioner.samplers.sampler import Sampler, SamplerOutput

SAMPLERS = {
    "greedy": GreedySampler,
    "beam": BeamSampler,
    "diverse_beam": DiverseBeamSampler,
    "random": RandomSampler,
}

__all__ = [
    "SAMPLERS",
    "BeamSampler",
    "Constraints",
    "DiverseBeamSampler",
    "GreedySampler",
    "RandomSampler",
    "Sampler",
    "SamplerOutput",
    "TokenRules",
]
