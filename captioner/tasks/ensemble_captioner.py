"""Several captioners that write one caption together."""

import hashlib
import math

import tensorflow as tf

from captioner.tasks.caption_writer import CaptionWriter
from captioner.tasks.forked import refuse_if_forked
from captioner.tasks.image_captioner import ImageCaptioner, sampler_for, stacked
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tasks.task import Task


class EnsembleCaptioner(Task):
    """Averages the probabilities of several captioners at each token.

    Every verb takes it, and it generates as an `ImageCaptioner` does. Each member sees
    the photo at its own size through its own network. It has nothing of its own to
    train or save: its members have.

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

    abilities = frozenset({"scores", "hypotheses", "graph"})

    def __init__(self, members, sampler=None):
        if not isinstance(members, (list, tuple)) or not members:
            raise ValueError(
                f"members must be a list of one preset or more. Received: {members}"
            )
        self.members = [ImageCaptioner.from_preset(member) for member in members]
        tokenizer = self.members[0].preprocessor.tokenizer
        for member, given in zip(self.members, members):
            if member.preprocessor.tokenizer.vocabulary != tokenizer.vocabulary:
                raise ValueError(
                    "The members must have the vocabulary of the first. "
                    f"Received: members={members}, of which {given} has another"
                )
        self._set_sampler(sampler or self.members[0].sampler)

    def _set_sampler(self, sampler, jit_compile=False):
        preprocessors = [member.preprocessor for member in self.members]
        length = min(each.max_sequence_length for each in preprocessors)
        self._writer = CaptionWriter(
            _Models([member.caption_model for member in self.members]),
            CaptionPreprocessor(self.convert, preprocessors[0].tokenizer, length),
            tuple(member.feature_spec for member in self.members),
            sampler,
            jit_compile,
        )

    def __getstate__(self):
        # To pickle and to copy: graphs are made anew.
        return {"members": self.members, "sampler": self.sampler}

    def __setstate__(self, state):
        self.__init__(**state)

    @property
    def sampler(self):
        """The `Sampler` that chooses the tokens; `compile` and `replaced` change it."""
        return self._writer.sampler

    @property
    def image_size(self):
        """(height, width) in pixels that no member's photos exceed."""
        return self.convert.image_size

    @property
    def image_spec(self):
        """The `tf.TensorSpec`s of one converted photo, a tuple with one a member."""
        return tuple(member.image_spec for member in self.members)

    @property
    def variables(self):
        """All variables of all members, for a graph to keep."""
        return sum((member.variables for member in self.members), [])

    @property
    def convert(self):
        """uint8 RGB (H, W, 3) -> a tuple of what each member's `convert` returns."""
        return Converters([member.convert for member in self.members])

    def compile(self, sampler=None, jit_compile=False):
        """Choose how captions are generated, see `ImageCaptioner.compile`."""
        sampler = self.sampler if sampler is None else sampler
        self._set_sampler(sampler, jit_compile)

    def write(self, batch, prompts=None):
        """Converted photos -> list of B `GenerateResult`; see `Task.write`."""
        refuse_if_forked()
        if prompts is not None:
            self.require("prompts")
        features = (
            member._network(images)
            for member, images in zip(self.members, stacked(batch))
        )
        return self._writer.results(tuple(features))

    def caption_images(self, images):
        """Converted photos to captions, as TensorFlow ops for a graph.

        Args:
            images: tuple of float32 (B, height, width, 3), one a member.

        Returns:
            Captions, strings (B, n), the best first, and scores, float32 (B, n).
        """
        features = (
            member.caption_model.encode(each)
            for member, each in zip(self.members, images)
        )
        captions, output = self._writer.captions(tuple(features))
        return captions, output.scores

    def fingerprint(self):
        """A sha256 of the members' fingerprints and of the sampler."""
        prints = [member.fingerprint() for member in self.members]
        return hashlib.sha256(repr((prints, self.describe())).encode()).hexdigest()

    def describe(self):
        """The class, how many members there are, the sampler and its options."""
        return {
            "task": type(self).__name__,
            "members": len(self.members),
            "sampler": type(self.sampler).__name__,
            **self.sampler.get_config(),
        }

    def replaced(self, sampler=None, num_captions=None, num_threads=None):
        """The same members with other options; see `Task.replaced`."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        sampler = sampler_for(
            self.sampler if sampler is None else sampler, num_captions
        )
        if sampler is not self.sampler:
            other._set_sampler(sampler, self._writer.jit_compile)
        if num_threads is not None:
            other.members = [
                member.replaced(num_threads=num_threads) for member in self.members
            ]
        return other


class Converters:
    """One photo in, a tuple of one picture for each member out."""

    def __init__(self, converters):
        self.converters = converters
        # Photos are decoded once, for the member that looks closest.
        self.image_size = tuple(
            map(max, zip(*(each.image_size for each in converters)))
        )

    def __call__(self, image):
        return tuple(convert(image) for convert in self.converters)


class _Models:
    """What decoding asks of a `CaptionModel`, asked of all members' models."""

    def __init__(self, models):
        self.models = models

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
