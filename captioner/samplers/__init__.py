"""Ways of choosing tokens: the loop that turns next-token logits into captions."""

import keras

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


def sampler_name(sampler_class):
    """How a preset names a class of samplers: as in `SAMPLERS`, or by the name that it
    is registered with by `keras.saving.register_keras_serializable`."""
    names = {known: name for name, known in SAMPLERS.items()}
    return names.get(sampler_class) or keras.saving.get_registered_name(sampler_class)


def sampler_class(name):
    """The class that `sampler_name` names.

    Raises:
        ValueError: there is no such class, or it is no `Sampler`.
    """
    found = SAMPLERS.get(name) or keras.saving.get_registered_object(name)
    if isinstance(found, type) and issubclass(found, Sampler):
        return found
    raise ValueError(
        f"sampler must be one of {', '.join(SAMPLERS)}, or a subclass of Sampler that "
        f"is registered with keras.saving.register_keras_serializable. "
        f"Received: sampler={name}"
    )


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
    "sampler_class",
    "sampler_name",
]
