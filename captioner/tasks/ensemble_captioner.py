"""Several captioners that write one caption together."""

import math

import tensorflow as tf

from captioner.images.image_decoder import decode_image
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor


def load_captioner(preset, sampler=None):
    """What every verb is given: one preset, or several that write together.

    Args:
        preset: name or folder of a preset, an `ImageCaptioner`, or a list of them.
        sampler: replaces the preset's own, or that of the first.

    Raises:
        PresetError, ValueError: see `ImageCaptioner.from_preset` and
            `EnsembleCaptioner`.
    """
    if isinstance(preset, (list, tuple)):
        return EnsembleCaptioner(preset, sampler)
    return ImageCaptioner.from_preset(preset, sampler)


class EnsembleCaptioner(ImageCaptioner):
    """Averages the probabilities of several presets, step by step.

    Used as an `ImageCaptioner`, by every verb too, except that it is neither trained
    nor saved. Each member sees the photo at its own size through its own network.

    Args:
        members: presets, by name or folder, or `ImageCaptioner`s, with the same
            vocabulary.
        sampler: a `Sampler` or its name; by default the first member's.

    Raises:
        PresetError: there is no such preset, or it is damaged.
        ValueError: no members, or their vocabularies differ.

    Example:

    ```python
    both = captioner.EnsembleCaptioner(["run1/preset", "run2/preset"])
    both.generate("photo.jpg")
    ```
    """

    def __init__(self, members, sampler=None):
        if not isinstance(members, (list, tuple)) or not members:
            raise ValueError(
                f"members must be a list of one preset or more. Received: {members}"
            )
        self.members = [ImageCaptioner.from_preset(member) for member in members]
        preprocessors = [member.preprocessor for member in self.members]
        tokenizer = preprocessors[0].tokenizer
        for member, given in zip(self.members, members):
            if member.preprocessor.tokenizer.vocabulary != tokenizer.vocabulary:
                raise ValueError(
                    "The members must have the vocabulary of the first. "
                    f"Received: members={members}, of which {given} has another"
                )
        super().__init__(
            _Models([member.caption_model for member in self.members]),
            CaptionPreprocessor(
                _Converters([each.image_converter for each in preprocessors]),
                tokenizer,
                min(each.max_sequence_length for each in preprocessors),
            ),
            sampler or self.members[0].sampler,
        )

    @property
    def image_spec(self):
        return tuple(member.image_spec for member in self.members)

    @property
    def feature_spec(self):
        return tuple(member.feature_spec for member in self.members)

    def compile(self, sampler=None, jit_compile=False):
        """As that of an `ImageCaptioner`, of what decoding needs."""
        self.jit_compile = jit_compile
        self._set_sampler(self.sampler if sampler is None else sampler)

    def fit(self, *args, **kwargs):
        raise ValueError("An ensemble is not trained; its members are.")

    def save_to_preset(self, *args, **kwargs):
        raise ValueError("An ensemble has no preset of its own; its members have.")


class _Converters:
    """One photo in, a tuple of one picture for each member out."""

    def __init__(self, converters):
        self.converters = converters
        # Photos are decoded once, for the member that looks closest.
        self.image_size = tuple(
            map(max, zip(*(each.image_size for each in converters)))
        )

    def decode(self, image_bytes):
        return decode_image(image_bytes, self.image_size)

    def __call__(self, image):
        return tuple(convert(image) for convert in self.converters)


class _Models:
    """What decoding asks of a `CaptionModel`, asked of all members' models."""

    vision_backbone = None

    def __init__(self, models):
        self.models = models

    @property
    def variables(self):
        return sum((model.variables for model in self.models), [])

    @property
    def weights(self):
        return sum((model.weights for model in self.models), [])

    def encode(self, images):
        return tuple(model.encode(x) for model, x in zip(self.models, images))

    def build_image_cache(self, image_features):
        return [
            model.build_image_cache(x) for model, x in zip(self.models, image_features)
        ]

    def build_text_cache(self, *args):
        return [model.build_text_cache(*args) for model in self.models]

    def step(self, token_ids, text_cache, image_cache, index):
        steps = [
            model.step(token_ids, text, image, index)
            for model, text, image in zip(self.models, text_cache, image_cache)
        ]
        log_probs = [tf.nn.log_softmax(tf.cast(x, tf.float32)) for x, _ in steps]
        mean = tf.reduce_logsumexp(log_probs, axis=0) - math.log(len(steps))
        return mean, [cache for _, cache in steps]

    def attention_scores(self, inputs):
        raise ValueError("An ensemble has no attention map of its own.")
