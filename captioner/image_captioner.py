"""The task: photos in, captions out; with everything that a user does with it."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from captioner import presets
from captioner.caption_model import CaptionModel
from captioner.image_converter import ImageConverter
from captioner.image_files import load_image
from captioner.preprocessor import CaptionPreprocessor
from captioner.samplers import SAMPLERS
from captioner.tokenizer import Tokenizer


@keras.saving.register_keras_serializable(package="captioner")
class CaptionCrossentropy(keras.losses.Loss):
    """Cross-entropy of the next token, from logits, the mean over real tokens.

    Args:
        label_smoothing: share of the target spread evenly over the vocabulary
            (Szegedy et al., "Rethinking the Inception architecture", 2016).

    Example:

    >>> import numpy as np
    >>> loss = CaptionCrossentropy(label_smoothing=0.1)
    >>> value = loss(np.array([[1, 2]]), np.zeros((1, 2, 4), "float32"),
    ...              sample_weight=np.array([[1.0, 0.0]]))
    >>> round(float(value), 4)  # log(4): padding counts for nothing
    1.3863
    """

    def __init__(self, label_smoothing=0.0, name="caption_crossentropy", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        loss = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        if self.label_smoothing:
            # Of the crossentropy against the even distribution only this differs:
            # no one-hot (B, C, L, V), no second softmax over the vocabulary.
            indices = ops.cast(y_true, "int32")[..., None]
            target = ops.take_along_axis(y_pred, indices, axis=-1)[..., 0]
            even = target - ops.mean(y_pred, axis=-1)
            loss += self.label_smoothing * even
        return loss

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


class ImageCaptioner:
    """Trains on captioned photos, captions new ones, saves itself as a preset.

    Args:
        caption_model: a `CaptionModel` with its `vision_backbone`.
        preprocessor: a `CaptionPreprocessor`.
        sampler: how words are chosen, a `Sampler` or "greedy" or "beam"; by
            default beam search with 3 beams.

    Example:

    ```python
    captioner = ImageCaptioner.from_preset("efficientnet_lite2_lstm_flickr8k")
    captioner.generate("photo.jpg")                      # "a dog runs on grass"
    captioner.generate(["a.jpg", "b.jpg"])               # a list of two
    ```
    """

    def __init__(self, caption_model, preprocessor, sampler="beam"):
        self.caption_model = caption_model
        self.preprocessor = preprocessor
        if caption_model.vision_backbone is not None:
            _check_image_size(
                caption_model.vision_backbone.image_size,
                preprocessor.image_converter.image_size,
            )
        self._set_sampler(sampler)

    def _set_sampler(self, sampler):
        if isinstance(sampler, str):
            if sampler not in SAMPLERS:
                raise ValueError(
                    f"sampler must be one of {', '.join(SAMPLERS)} or a Sampler. "
                    f"Received: sampler={sampler}"
                )
            sampler = SAMPLERS[sampler]()
        self.sampler = sampler
        # Anew for each sampler, since a tf.function keeps what it traced. The
        # batch is left open: batches of any size share one trace. Without autograph,
        # which would rewrite code that is TF ops already.
        height, width = self.preprocessor.image_converter.image_size
        self._encode = tf.function(
            self.caption_model.encode,
            input_signature=[tf.TensorSpec((None, height, width, 3), tf.float32)],
            autograph=False,
        )
        self._generate = tf.function(
            self.generate_step,
            input_signature=[
                tf.TensorSpec(
                    (None, *self.caption_model.image_feature_shape), tf.float32
                )
            ],
            autograph=False,
        )

    def compile(self, optimizer="adam", loss=None, sampler=None, **kwargs):
        """As `keras.Model.compile`, with the sampler that `generate` uses.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: by default `CaptionCrossentropy()`.
            sampler: a `Sampler` or its name; None leaves it as it is.
            **kwargs: passed on, as `jit_compile` or `weighted_metrics`.
        """
        if sampler is not None:
            self._set_sampler(sampler)
        kwargs.setdefault("jit_compile", False)
        self.caption_model.compile(
            optimizer=optimizer, loss=loss or CaptionCrossentropy(), **kwargs
        )

    def fit(self, batches, **kwargs):
        """Train, as `keras.Model.fit`.

        Args:
            batches: `tf.data.Dataset` of dicts as `CaptionPreprocessor` takes
                them; `input_pipeline.training_batches` makes them.
            **kwargs: passed on, as `epochs`, `steps_per_epoch`, `callbacks`;
                `validation_data` is a dataset like `batches`.

        Returns:
            `keras.callbacks.History`.
        """
        kwargs.setdefault("shuffle", False)  # Keras warns that it cannot shuffle these
        prepare = dict(map_func=self.preprocessor, num_parallel_calls=tf.data.AUTOTUNE)
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = kwargs["validation_data"].map(**prepare)
        return self.caption_model.fit(
            batches.map(**prepare).prefetch(tf.data.AUTOTUNE), **kwargs
        )

    def generate(self, images, batch_size=16):
        """Caption one photo, or many.

        Args:
            images: a path, encoded bytes, or a uint8 RGB array (H, W, 3); or a
                list of them.
            batch_size: how many at a time.

        Returns:
            A str, or a list of str in the order given.

        Raises:
            ImageError: a photo cannot be read.
        """
        if not isinstance(images, (list, tuple)):
            return self.generate([images])[0]
        captions = []
        for start in range(0, len(images), batch_size):
            converted = [
                self.preprocessor.image_converter(load_image(image))
                for image in images[start : start + batch_size]
            ]
            captions += self.caption_batch(np.stack(converted))[0]
        return captions

    def caption_batch(self, images):
        """Converted photos, float32 (B, H, W, 3) -> list of B captions, and their
        scores, float32 (B,)."""
        return self.caption_features(self._encode(images))

    def caption_features(self, image_features):
        """Image features, (B, P, E) -> list of B captions, and their scores."""
        captions, scores = self._generate(tf.cast(image_features, tf.float32))
        return [caption.decode() for caption in captions.numpy()], scores.numpy()

    def generate_step(self, image_features):
        """The whole of decoding as TF ops: (B, P, E) -> strings (B,), float (B,)."""
        model, tokenizer = self.caption_model, self.preprocessor.tokenizer
        batch_size = tf.shape(image_features)[0]
        max_length = self.preprocessor.max_sequence_length
        image_cache = model.build_image_cache(image_features)

        def next(token_ids, text_cache, index):
            return model.step(token_ids, text_cache, image_cache, index)

        output = self.sampler(
            next,
            model.build_text_cache(
                batch_size * self.sampler.rows_per_image, max_length
            ),
            batch_size,
            max_length=max_length,
            start_id=tokenizer.start_id,
            end_id=tokenizer.end_id,
            pad_id=tokenizer.pad_id,
            banned_ids=[tokenizer.unknown_id],
        )
        return tokenizer.detokenize(output.token_ids), output.scores

    @classmethod
    def from_preset(cls, preset, sampler=None):
        """Load a preset by its name or its folder.

        Checks every file against its checksum; runs no code from the folder.

        Args:
            preset: a name that `captioner presets` lists, or a path. An
                `ImageCaptioner` is one already, and shares its weights with what
                comes back.
            sampler: replaces the preset's own.

        Raises:
            PresetError: there is no such preset, or it is damaged.
        """
        if isinstance(preset, cls):
            if sampler is None:
                return preset
            return cls(preset.caption_model, preset.preprocessor, sampler)
        folder = presets.find_preset(preset)
        presets.verify_preset(folder)
        config = presets.read_json(folder, presets.CONFIG_FILE)
        if config.get("class_name") != cls.__name__:
            raise presets.PresetError(
                f"{folder}: holds a {config.get('class_name')}, not an {cls.__name__}"
            )
        try:
            tokenizer = Tokenizer.from_assets(folder / "assets")
            _check_sizes(config, tokenizer)
            caption_model = CaptionModel.from_config(config["caption_model"])
            preprocessor = CaptionPreprocessor(
                ImageConverter.from_config(config["image_converter"]),
                tokenizer,
                config["max_sequence_length"],
            )
            if sampler is None:
                sampler = SAMPLERS[config["sampler"]["name"]](
                    **config["sampler"]["config"]
                )
            caption_model.load_weights(folder / presets.WEIGHTS_FILE)
        except (KeyError, TypeError, ValueError, OSError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise presets.PresetError(
                f"{folder}: cannot be rebuilt ({first_line})"
            ) from error
        return cls(caption_model, preprocessor, sampler)

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
        """
        names = {known: name for name, known in SAMPLERS.items()}
        if type(self.sampler) not in names:
            raise ValueError(
                f"A preset can only name a sampler of {', '.join(SAMPLERS)}. "
                f"Received: sampler={self.sampler}"
            )
        config = {
            "class_name": type(self).__name__,
            "caption_model": self.caption_model.get_config(),
            "image_converter": self.preprocessor.image_converter.get_config(),
            "max_sequence_length": self.preprocessor.max_sequence_length,
            "sampler": {
                "name": names[type(self.sampler)],
                "config": self.sampler.get_config(),
            },
        }
        with presets.new_preset(path) as folder:
            presets.write_json(folder / presets.CONFIG_FILE, config)
            (folder / "assets").mkdir()
            self.preprocessor.tokenizer.save_assets(folder / "assets")
            weights = folder / presets.WEIGHTS_FILE
            _save_weights(self.caption_model, weights)
            if dtype == "float16":
                presets.shrink_weights(weights)
            for name, value in (("recipe.json", recipe), ("scores.json", scores)):
                if value is not None:
                    presets.write_json(folder / name, value)
            if card:
                (folder / "README.md").write_text(card, encoding="utf-8")
        return pathlib.Path(path)


def _check_sizes(config, tokenizer):
    """Refuse, before anything is built, a configuration that would eat the memory."""
    model = config["caption_model"]
    positions, width = model["image_feature_shape"]
    sizes = {
        "hidden_dim": (model["hidden_dim"], 16_384),
        "intermediate_dim": (model.get("intermediate_dim") or 1, 65_536),
        "num_layers": (model["num_layers"], 128),
        "num_heads": (model.get("num_heads", 8), 1_024),
        "max_sequence_length": (config["max_sequence_length"], 1_024),
        "image_size": (max(config["image_converter"]["image_size"]), 4_096),
        "image positions": (positions, 16_384),
        "image feature width": (width, 16_384),
        "num_beams": (config["sampler"]["config"].get("num_beams", 1), 1_024),
    }
    for name, (size, limit) in sizes.items():
        if not 0 < size <= limit:
            raise ValueError(f"{name} must be 1 to {limit}. Received: {name}={size}")
    backbone = model["vision_backbone"]
    if backbone is not None:
        _check_image_size(
            backbone["image_size"], config["image_converter"]["image_size"]
        )
    if model["vocabulary_size"] != tokenizer.vocabulary_size:
        raise ValueError(
            f"the vocabulary has {tokenizer.vocabulary_size} words. "
            f"Received: vocabulary_size={model['vocabulary_size']}"
        )


def _check_image_size(backbone_size, converter_size):
    if tuple(backbone_size) != tuple(converter_size):
        raise ValueError(
            f"The backbone takes photos of {tuple(backbone_size)} pixels. "
            f"Received: image_converter.image_size={tuple(converter_size)}"
        )


def _save_weights(model, path):
    # The weights alone: a compiled model's file would have the optimizer too.
    optimizer, model.optimizer = getattr(model, "optimizer", None), None
    try:
        model.save_weights(path)
    finally:
        model.optimizer = optimizer
