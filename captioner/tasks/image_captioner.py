"""Photos in, captions out; with everything that a user does with it."""

import dataclasses
import hashlib
import json
import math
import pathlib
import threading

import keras
import numpy as np
import tensorflow as tf

from captioner import presets
from captioner.backbones import VisionBackbone
from captioner.datasets.caption_dataset import CaptionDataset
from captioner.features.litert_network import image_network
from captioner.images.image_converter import ImageConverter
from captioner.keras_settings import check_settings
from captioner.samplers import SAMPLERS, sampler_class, sampler_name
from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.caption_writer import CaptionWriter
from captioner.tasks.confidence import MAX_BYTES, Confidence
from captioner.tasks.fit_data import fit_batches
from captioner.tasks.forked import note_use, refuse_if_forked
from captioner.tasks.image_inputs import in_batches, to_pixels
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tasks.preset_config import (
    check_config,
    check_decoding,
    converter_from,
    memory_at_the_end,
    shapes_alone,
)
from captioner.tasks.task import Task
from captioner.tokenizers.tokenizer import Tokenizer

CONFIDENCE_FILE = "assets/confidence.npz"


class ImageCaptioner(Task):
    """Trains on captioned photos, captions new ones, saves itself as a preset.

    Args:
        caption_model: a `CaptionModel` with its `vision_backbone`.
        preprocessor: a `CaptionPreprocessor`.
        sampler: how words are chosen, a `Sampler` or a name in `SAMPLERS`; by
            default beam search with 3 beams.
        confidence: a `Confidence`, which estimates how likely each caption is right, or
            None.

    Raises:
        ValueError: the parts do not fit each other, or the sampler's options or
            constraints do not fit the vocabulary.

    Example:

    ```python
    captioner = ImageCaptioner.from_preset("efficientnet_lite2_lstm_flickr8k")
    captioner.generate("photo.jpg")                      # "a dog runs on grass"
    captioner.generate(["a.jpg", "b.jpg"])               # a list of two
    captioner.generate_results("photo.jpg").score        # and more, see GenerateResult
    ```
    """

    def __init__(self, caption_model, preprocessor, sampler="beam", confidence=None):
        note_use()
        refuse_if_forked()
        self.caption_model = caption_model
        self.preprocessor = preprocessor
        self.confidence = confidence
        if caption_model.vision_backbone is not None:
            _check_image_size(
                caption_model.vision_backbone.image_size,
                preprocessor.image_converter.image_size,
            )
        self._convert = GraphConverter(preprocessor.image_converter)
        self._encode = tf.function(
            caption_model.encode,
            input_signature=[
                tf.TensorSpec((None, *self.image_spec.shape), self.image_spec.dtype)
            ],
            autograph=False,
        )
        self._network = NetworkOnDemand(self, None)
        self._set_sampler(sampler)

    def _set_sampler(self, sampler, jit_compile=False):
        # A new writer for each, since a tf.function keeps what it traced.
        self._writer = CaptionWriter(
            self.caption_model,
            self.preprocessor,
            self.feature_spec,
            sampler,
            jit_compile,
        )

    @property
    def sampler(self):
        """The `Sampler` that chooses the tokens; `compile` and `replaced` change it."""
        return self._writer.sampler

    @property
    def jit_compile(self):
        """Whether XLA compiles the decoding loop."""
        return self._writer.jit_compile

    @property
    def backbone(self):
        """The `VisionBackbone`, or None for a model of image features alone."""
        return self.caption_model.vision_backbone

    @property
    def abilities(self):
        found = {"scores", "features", "graph"}
        if "num_hypotheses" in self.sampler.options():
            found.add("hypotheses")
        if self.caption_model.has_attention:
            found.add("attention")
        if self.confidence is not None:
            found.add("confidence")
        return frozenset(found)

    @property
    def image_size(self):
        """(height, width) of the photos that the image network sees, in pixels."""
        return self.preprocessor.image_converter.image_size

    @property
    def image_spec(self):
        """The `tf.TensorSpec` of one converted photo."""
        return tf.TensorSpec((*self.image_size, 3), tf.float32)

    @property
    def feature_spec(self):
        """The `tf.TensorSpec` of one photo's image features."""
        return tf.TensorSpec(self.caption_model.image_feature_shape, tf.float32)

    @property
    def variables(self):
        """All variables of the model, for a graph to keep."""
        return self.caption_model.variables

    def summary(self, **kwargs):
        """Print the layers and their parameters, as `keras.Model.summary`."""
        self.caption_model.summary(**kwargs)

    def count_params(self):
        """How many numbers the weights are, those of the image network included."""
        return self.caption_model.count_params()

    @property
    def convert(self):
        """uint8 RGB (H, W, 3) -> float32 (height, width, 3), as the preprocessor's
        `ImageConverter` does it."""
        return self._convert

    def write(self, batch, prompts=None):
        """Converted photos, a list of B float32 (height, width, 3) -> list of B
        `GenerateResult`; see `Task.write`."""
        refuse_if_forked()
        if prompts is not None:
            self.require("prompts")
        return self._results(self._network(stacked(batch)))

    def _results(self, image_features, attention=False):
        results = self._writer.results(image_features, attention)
        if self.confidence is None:
            return results
        confidences = self.confidence(np.asarray(image_features), results)
        return [
            dataclasses.replace(result, confidence=float(confidence))
            for result, confidence in zip(results, confidences)
        ]

    def encode(self, batch):
        """Converted photos -> image features, float32 (B, P, E).

        Args:
            batch: a list of B converted photos, or one tensor (B, height, width, 3).

        Raises:
            ValueError: the model has no image network.
        """
        refuse_if_forked()
        return self._encode(stacked(batch))

    def caption_images(self, images):
        """Converted photos to captions, as TensorFlow ops for a graph.

        Args:
            images: float32 (B, height, width, 3).

        Returns:
            Captions, strings (B, n), the best first, and scores, float32 (B, n).
        """
        captions, output = self._writer.captions(self.caption_model.encode(images))
        return captions, output.scores

    def generate_step(self, image_features):
        """Image features to tokens, as TensorFlow ops for a graph, also for XLA:
        float32 (B, P, E) -> `SamplerOutput`."""
        return self._writer.tokens(image_features)

    def fingerprint(self):
        """A sha256 of the weights, the vocabulary and all that decides captions."""
        digest = hashlib.sha256()
        config = self.caption_model.get_config()
        names = ("name", "dtype", "vision_backbone")
        parts = {
            "caption_model": {k: v for k, v in config.items() if k not in names},
            "image_converter": [
                self.preprocessor.image_converter.image_size,
                self.preprocessor.image_converter.resize_mode,
                self.preprocessor.image_converter.interpolation,
            ],
            "max_sequence_length": self.preprocessor.max_sequence_length,
            "vocabulary": self.preprocessor.tokenizer.vocabulary,
            **self.describe(),
        }
        digest.update(json.dumps(parts, sort_keys=True).encode())
        if self.backbone is not None:
            digest.update(self.backbone.fingerprint().encode())
        network = {id(w) for w in self.backbone.weights} if self.backbone else ()
        for weight in self.caption_model.weights:
            if id(weight) not in network:
                digest.update(keras.ops.convert_to_numpy(weight).tobytes())
        return digest.hexdigest()

    def describe(self):
        """The class, the sampler and its options, as a flat dict."""
        return {
            "task": type(self).__name__,
            "sampler": type(self.sampler).__name__,
            **self.sampler.get_config(),
        }

    def replaced(self, sampler=None, num_captions=None, num_threads=None):
        """This captioner with other options and the same weights; see `Task.replaced`.

        Example:

        ```python
        three = captioner.replaced(num_captions=3)
        [each.text for each in three.generate_results("photo.jpg").hypotheses]
        ```
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        sampler = sampler_for(
            self.sampler if sampler is None else sampler, num_captions
        )
        if sampler is not self.sampler:
            other._set_sampler(sampler, self.jit_compile)
        if num_threads is not None:
            other._network = NetworkOnDemand(other, num_threads)
        return other

    def compile(self, optimizer="adam", loss=None, sampler=None, **kwargs):
        """As `keras.Model.compile`, with the sampler that `generate` uses.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: by default `CaptionCrossentropy()`.
            sampler: a `Sampler` or its name; None leaves it as it is.
            **kwargs: passed on, as `weighted_metrics`. With `jit_compile=True`, XLA
                compiles the decoding loop, too: a slower first call for each size of
                batch, rounded up to a power of two, and faster ones after it,
                mostly for few images at a time. Sampling then gives other
                captions.

        Raises:
            ValueError: Keras' `fit` cannot do that on several devices.
        """
        _check_devices(self.caption_model.distribute_strategy, optimizer, kwargs)
        jit_compile = kwargs.setdefault("jit_compile", False) is True
        self._set_sampler(self.sampler if sampler is None else sampler, jit_compile)
        self.caption_model.compile(
            optimizer=optimizer, loss=loss or CaptionCrossentropy(), **kwargs
        )

    def fit(self, data, validation_data=None, batch_size=32, **kwargs):
        """Train, as `keras.Model.fit`.

        Args:
            data: one of

                - a dataset of `load_dataset`: its train split, in another order in
                  every epoch, and its dev split as validation data if none is given;
                - a list of its examples, as `dataset.examples("train")`;
                - a `tf.data.Dataset` of (image, captions) pairs, one by one or in
                  batches: the image as RGB pixels from 0 to 255, encoded bytes, or
                  image features; the captions a string or several;
                - a `tf.data.Dataset` of dicts as `CaptionPreprocessor` takes them, in
                  batches; `training_batches` makes them.
            validation_data: one of the same, or None.
            batch_size: images a batch, for data that is not in batches.
            **kwargs: passed on, as `epochs`, `steps_per_epoch`, `callbacks`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: the data has another structure, or the model cannot be trained
                in this way on several machines.

        Example:

        ```python
        dataset = captioner.load_dataset("flickr8k:flickr8k")
        model.compile("adam")
        model.fit(dataset, epochs=5, callbacks=[keras.callbacks.TensorBoard("logs")])
        ```
        """
        refuse_if_forked()
        strategy = self.caption_model.distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "Keras' fit fails on several machines; captioner.train with "
                'distribute="multiworker" works there.'
            )
        if isinstance(data, CaptionDataset):
            if validation_data is None and "dev" in data.splits:
                validation_data = data
            data = list(data.examples("train"))
        if isinstance(validation_data, CaptionDataset):
            validation_data = list(validation_data.examples("dev"))
        kwargs.setdefault("shuffle", False)  # Keras warns that it cannot shuffle these
        epochs = kwargs.get("epochs", 1)
        batches, steps = fit_batches(data, self, batch_size, epochs, seed=0)
        if steps is not None:
            kwargs.setdefault("steps_per_epoch", steps)
        prepare = dict(map_func=self.preprocessor, num_parallel_calls=tf.data.AUTOTUNE)
        if validation_data is not None:
            held_out, _ = fit_batches(validation_data, self, batch_size, 1, None)
            kwargs["validation_data"] = held_out.map(**prepare)
        return self.caption_model.fit(
            batches.map(**prepare).prefetch(tf.data.AUTOTUNE), **kwargs
        )

    def generate_results(self, images, batch_size=16, prompts=None, attention=False):
        """Like `Task.generate`, with scores and all else known about each caption.

        Args:
            images: see `Task.generate`; or image features, a float array (P, E), also
                among photos, or (B, P, E).
            batch_size: how many at a time.
            prompts: this captioner has none.
            attention: ask for the attention map of each token, too.

        Returns:
            A `GenerateResult`, or as many in the same nesting.

        Raises:
            ImageError: a photo cannot be read.
            ValueError: there is no photo, its pixels are not from 0 to 255, features
                are of another shape, or the model has no attention to show.
        """
        refuse_if_forked()
        if prompts is not None:
            self.require("prompts")
        if attention:
            self.require("attention")

        def write(images, prompts):
            results = self._results(self._features_of(images), attention)
            return [self._on_grid(result) for result in results]

        return in_batches(
            write,
            images,
            batch_size,
            holds_many=lambda images: self._are_features(images, dims=3),
        )

    def _are_features(self, images, dims=2):
        shape = tuple(self.feature_spec.shape)
        return _is_float(images, dims) and tuple(images.shape[dims - 2 :]) == shape

    def _features_of(self, images):
        """The image features of photos and features, in their order."""
        for image in images:
            # Not a grey picture of floats, which it could be to `load_image`.
            if _is_float(image, 2) and not self._are_features(image):
                raise ValueError(
                    "Image features must be those of this captioner's network. "
                    f"Received: shape={tuple(image.shape)}"
                )
        photos = [image for image in images if not self._are_features(image)]
        encoded = ()
        if photos:
            size = self.image_size
            encoded = self.encode(
                [self.convert(to_pixels(photo, size)) for photo in photos]
            )
            if len(photos) == len(images):
                return encoded
        encoded = iter(encoded)
        kept = (tf.cast(x, tf.float32) for x in images if self._are_features(x))
        return tf.stack(
            [next(kept if self._are_features(x) else encoded) for x in images]
        )

    def _on_grid(self, result):
        """The result with its attention, (T, P), as maps (T, height, width)."""
        if result.attention is None:
            return result
        positions = self.caption_model.image_feature_shape[0]
        side = math.isqrt(positions)
        grid = (side, side) if side * side == positions else (1, positions)
        if self.backbone is not None and positions > 1:
            grid = self.backbone.grid
        return dataclasses.replace(
            result, attention=result.attention.reshape(-1, *grid)
        )

    @classmethod
    def from_preset(cls, preset, sampler=None, dtype=None, custom_objects=None):
        """Load a preset by its name or its folder.

        Checks every file against its checksum; runs no code from the folder.

        Args:
            preset: a name that `captioner presets` lists, or a path. An
                `ImageCaptioner` is one already, and shares its weights with what
                comes back.
            sampler: replaces the preset's own.
            dtype: the decoder's dtype or policy, as "mixed_bfloat16"; by default the
                preset's own.
            custom_objects: dict of names to classes of your own that the preset needs
                and that are not registered, as in Keras.

        Raises:
            PresetError: there is no such preset, it is damaged, or it needs a class
                that is not known here.
        """
        if isinstance(preset, cls):
            return preset if sampler is None else preset.replaced(sampler)
        refuse_if_forked()
        folder = presets.find_preset(preset)
        presets.verify_preset(folder)
        config = presets.read_json(folder, presets.CONFIG_FILE)
        if config.get("class_name") != cls.__name__:
            raise presets.PresetError(
                f"{folder}: holds a {config.get('class_name')}, not an {cls.__name__}"
            )
        check_settings()
        weights = folder / presets.WEIGHTS_FILE
        try:
            with keras.saving.custom_object_scope(custom_objects or {}):
                tokenizer = Tokenizer.from_assets(folder / "assets")
                check_config(config, tokenizer)
                if sampler is None:
                    own = config["sampler"]
                    sampler = sampler_class(own["name"]).from_config(own["config"])
                with memory_at_the_end():
                    caption_model = CaptionModel.from_config(
                        {
                            **config["caption_model"],
                            **({"dtype": dtype} if dtype else {}),
                        }
                    )
                    presets.check_weights(caption_model, weights)
            preprocessor = CaptionPreprocessor(
                converter_from(config["image_converter"]),
                tokenizer,
                config["max_sequence_length"],
            )
            presets.load_weights(caption_model, weights)
            confidence = None
            if (folder / CONFIDENCE_FILE).is_file():
                confidence = Confidence.from_bytes(
                    presets.read_bytes(folder, CONFIDENCE_FILE, MAX_BYTES),
                    caption_model.image_feature_shape[-1],
                )
            made = cls(caption_model, preprocessor, sampler, confidence)
            check_decoding(
                made.sampler, caption_model, preprocessor.max_sequence_length
            )
        except presets.PresetError:
            raise
        # A configuration may be of any kind, and so may what Keras says to it.
        except Exception as error:
            first_line = str(error).strip().partition("\n")[0] or type(error).__name__
            raise presets.PresetError(
                f"{folder}: cannot be rebuilt ({first_line})"
            ) from error
        return made

    def with_image_size(self, side):
        """This captioner for photos of another size, to go on training with.

        A network often sees more in photos that are somewhat larger than those it was
        trained on (Touvron et al., "Fixing the train-test resolution discrepancy",
        2019). All weights stay, but for what depends on the place in the grid, which
        is interpolated to the new grid.

        Args:
            side: of the square photos, in pixels.

        Returns:
            Another `ImageCaptioner`.

        Raises:
            ValueError: it has no image network.

        Example:

        ```python
        model = captioner.ImageCaptioner.from_preset("efficientnet_lite2_lstm_flickr8k")
        model.with_image_size(384).generate("photo.jpg")
        ```
        """
        config = self.caption_model.get_config()
        if config["vision_backbone"] is None:
            raise ValueError("This captioner has no image network for photos.")
        backbone = VisionBackbone.from_config(
            {**config["vision_backbone"], "image_size": (side, side)}
        )
        caption_model = CaptionModel(
            **{
                **config,
                "vision_backbone": backbone,
                "image_feature_shape": backbone.feature_shape,
            }
        )
        for old, new in zip(self.caption_model.weights, caption_model.weights):
            value = old.numpy()
            if old.shape != new.shape:  # a bias for each position, (..., P, D)
                value = tf.image.resize(
                    value.reshape(-1, *self.backbone.grid, old.shape[-1]),
                    backbone.grid,
                )
                value = tf.reshape(value, new.shape)
            new.assign(value)
        preprocessor = CaptionPreprocessor(
            ImageConverter((side, side), self.preprocessor.image_converter.resize_mode),
            self.preprocessor.tokenizer,
            self.preprocessor.max_sequence_length,
        )
        return type(self)(caption_model, preprocessor, self.sampler)

    def save_to_preset(self, path, recipe=None, scores=None, card="", dtype="float32"):
        """Write a preset folder; it is there whole or not at all.

        Args:
            path: the folder; replaced where it is a preset already.
            recipe: dict, how it was trained.
            scores: dict, how good it is.
            card: the text of its model card, README.md.
            dtype: "float32", or "float16" for half the size.

        Raises:
            PresetError: `path` exists and is not a preset.
            ValueError: the image network, fusion or sampler is of a class that cannot
                be made again from its `get_config`.
        """
        config = {
            "class_name": type(self).__name__,
            # Its weights are float32 also where it computes in less while training.
            "caption_model": {**self.caption_model.get_config(), "dtype": "float32"},
            "image_converter": self.preprocessor.image_converter.get_config(),
            "max_sequence_length": self.preprocessor.max_sequence_length,
            "sampler": {
                "name": sampler_name(type(self.sampler)),
                "config": self.sampler.get_config(),
            },
        }
        self._check_can_be_loaded(config)
        with presets.new_preset(path) as folder:
            presets.write_json(folder / presets.CONFIG_FILE, config)
            (folder / "assets").mkdir()
            self.preprocessor.tokenizer.save_assets(folder / "assets")
            if self.confidence is not None:
                (folder / CONFIDENCE_FILE).write_bytes(self.confidence.to_bytes())
            presets.save_weights(
                self.caption_model, folder / presets.WEIGHTS_FILE, dtype
            )
            for name, value in (("recipe.json", recipe), ("scores.json", scores)):
                if value is not None:
                    presets.write_json(folder / name, value)
            if card:
                (folder / "README.md").write_text(card, encoding="utf-8")
        return pathlib.Path(path)

    def _check_can_be_loaded(self, config):
        """Refuse to save what `from_preset` could not load."""
        own = self.caption_model.own_classes()
        if type(self.sampler) not in SAMPLERS.values():
            own.add(type(self.sampler))
        if not own:
            return
        known = {keras.saving.get_registered_name(each): each for each in own}
        try:
            again = json.loads(json.dumps(config))
            with keras.saving.custom_object_scope(known):
                sampler = again["sampler"]
                sampler_class(sampler["name"]).from_config(sampler["config"])
                with shapes_alone():
                    model = CaptionModel.from_config(again["caption_model"])
                    shapes = [tuple(variable.shape) for variable in model.weights]
        except Exception as error:  # whatever the classes' own code raises
            first_line = str(error).strip().partition("\n")[0]
            raise ValueError(
                "This captioner cannot be saved, since it could not be loaded: "
                + first_line
            ) from error
        if shapes != [tuple(each.shape) for each in self.caption_model.weights]:
            raise ValueError(
                "This captioner cannot be saved: a copy made from get_config of your "
                "classes has weights of other shapes."
            )

    def __getstate__(self):
        # To pickle and to copy: graphs are made anew.
        return {
            "caption_model": self.caption_model,
            "preprocessor": self.preprocessor,
            "sampler": self.sampler,
            "confidence": self.confidence,
        }

    def __setstate__(self, state):
        self.__init__(**state)


class GraphConverter:
    """An `ImageConverter` as one TensorFlow function: the same floats in less time.

    Args:
        image_converter: an `ImageConverter`.

    Call arguments:
        image: uint8 RGB (H, W, 3).

    Returns:
        float32 (height, width, 3).
    """

    def __init__(self, image_converter):
        self.image_converter = image_converter
        self.image_size = image_converter.image_size
        self._function = tf.function(
            image_converter,
            input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)],
            autograph=False,
        )

    def __call__(self, image):
        return self._function(image)

    def __reduce__(self):  # to pickle and to copy
        return type(self), (self.image_converter,)


class NetworkOnDemand:
    """Converted photos (B, height, width, 3) to image features, made when first used.

    Args:
        captioner: an `ImageCaptioner`.
        num_threads: that one call uses, on the fastest engine for this processor; None
            for the TensorFlow graph.
    """

    def __init__(self, captioner, num_threads):
        self._captioner, self._num_threads = captioner, num_threads
        self._network, self._making = None, threading.Lock()

    def __call__(self, images):
        with self._making:
            if self._network is None:
                backbone = self._captioner.backbone
                if self._num_threads is None or backbone is None:
                    self._network = self._captioner.encode
                else:
                    self._network = image_network(backbone, self._num_threads)
        return self._network(images)


def stacked(batch):
    """A list of converted photos as one tensor, or one nest of them; a tensor as is."""
    if isinstance(batch, list):
        return tf.nest.map_structure(lambda *each: tf.stack(each), *batch)
    return batch


def sampler_for(sampler, num_captions):
    """The sampler, or one like it that finds `num_captions` for each photo."""
    if num_captions is None or num_captions <= getattr(sampler, "num_hypotheses", 1):
        return sampler
    if isinstance(sampler, str):
        sampler = SAMPLERS[sampler]() if sampler in SAMPLERS else sampler
    options = getattr(sampler, "options", set)()
    if "num_hypotheses" not in options:
        raise ValueError(
            f"{type(sampler).__name__} finds one caption for each photo. "
            f"Received: num_captions={num_captions}"
        )
    changes = {"num_hypotheses": num_captions}
    if "num_beams" in options:
        changes["num_beams"] = max(sampler.num_beams, num_captions)
    return sampler.replaced(**changes)


def _is_float(array, dims):
    return (
        isinstance(array, (np.ndarray, tf.Tensor))
        and tf.as_dtype(array.dtype).is_floating
        and len(array.shape) == dims
    )


def _check_devices(strategy, optimizer, options):
    """Refuse what Keras' `fit` gets wrong or fails at, late, on several devices."""
    refused = {
        "jit_compile": options.get("jit_compile") is True,
        "steps_per_execution": options.get("steps_per_execution", 1) > 1,
        "gradient_accumulation_steps": bool(
            getattr(optimizer, "gradient_accumulation_steps", None)
        ),
    }
    if strategy.num_replicas_in_sync > 1 and any(refused.values()):
        raise ValueError(
            "On several devices, fit does not support jit_compile, steps_per_execution "
            "and an optimizer's gradient_accumulation_steps. captioner.train supports "
            'jit_compile and gradient_accumulation with distribute="mirrored". '
            f"Received: {', '.join(name for name in refused if refused[name])}"
        )


def _check_image_size(backbone_size, converter_size):
    if tuple(backbone_size) != tuple(converter_size):
        raise ValueError(
            f"The backbone takes photos of {tuple(backbone_size)} pixels. "
            f"Received: image_converter.image_size={tuple(converter_size)}"
        )
