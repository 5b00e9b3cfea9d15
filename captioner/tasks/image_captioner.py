"""The task: photos in, captions out; with everything that a user does with it."""

import copy
import math
import numbers
import pathlib

import keras
import numpy as np
import tensorflow as tf

from captioner import presets
from captioner.backbones import VisionBackbone
from captioner.images.image_converter import ImageConverter
from captioner.images.image_files import load_image
from captioner.samplers import SAMPLERS
from captioner.samplers.constraints import check_number
from captioner.samplers.sampler import ENDED, LIVE, STUCK
from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.generate_result import GenerateResult, Hypothesis
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer

# As `GenerateResult` names them; there is none where there is no caption.
FINISH_REASONS = {ENDED: "end", LIVE: "length", STUCK: "constraints"}


class ImageCaptioner:
    """Trains on captioned photos, captions new ones, saves itself as a preset.

    Args:
        caption_model: a `CaptionModel` with its `vision_backbone`.
        preprocessor: a `CaptionPreprocessor`.
        sampler: how words are chosen, a `Sampler` or a name in `SAMPLERS`; by
            default beam search with 3 beams.

    Raises:
        ValueError: the parts do not fit each other, or the sampler's options or
            constraints do not fit the vocabulary.

    Example:

    ```python
    captioner = ImageCaptioner.from_preset("efficientnet_lite2_lstm_flickr8k")
    captioner.generate("photo.jpg")                      # "a dog runs on grass"
    captioner.generate(["a.jpg", "b.jpg"])               # a list of two
    captioner.generate_results("photo.jpg").score        # and all else that is known
    ```
    """

    def __init__(self, caption_model, preprocessor, sampler="beam"):
        self.caption_model = caption_model
        self.preprocessor = preprocessor
        self.jit_compile = False
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
        vocabulary_size = self.preprocessor.tokenizer.vocabulary_size
        num_beams = getattr(sampler, "num_beams", 1)
        if num_beams > vocabulary_size:
            raise ValueError(
                f"num_beams must not be above the {vocabulary_size} words of the "
                f"vocabulary. Received: num_beams={num_beams}"
            )
        self._rules = sampler.constraints.token_rules(
            self.preprocessor.tokenizer, self.preprocessor.max_sequence_length
        )
        self.sampler = sampler
        # Anew for each sampler, since a tf.function keeps what it traced. The
        # batch is left open: batches of any size share one trace. Without autograph,
        # which would rewrite code that is TF ops already.
        images, features = (
            tf.nest.map_structure(
                lambda spec: tf.TensorSpec((None, *spec.shape), spec.dtype), each
            )
            for each in (self.image_spec, self.feature_spec)
        )
        token_ids = tf.TensorSpec((None, self._rules.max_length), tf.int32)
        self._encode, self._generate, self._attend = (
            tf.function(function, input_signature=signature, autograph=False)
            for function, signature in (
                (self.caption_model.encode, [images]),
                (self.caption_step, [features]),
                (self._attention_step, [features, token_ids]),
            )
        )

    @property
    def image_spec(self):
        """The `tf.TensorSpec` of one converted photo."""
        height, width = self.preprocessor.image_converter.image_size
        return tf.TensorSpec((height, width, 3), tf.float32)

    @property
    def feature_spec(self):
        """The `tf.TensorSpec` of one photo's image features."""
        return tf.TensorSpec(self.caption_model.image_feature_shape, tf.float32)

    def compile(self, optimizer="adam", loss=None, sampler=None, **kwargs):
        """As `keras.Model.compile`, with the sampler that `generate` uses.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: by default `CaptionCrossentropy()`.
            sampler: a `Sampler` or its name; None leaves it as it is.
            **kwargs: passed on, as `weighted_metrics`. With `jit_compile=True`, XLA
                compiles the decoding loop, too: a slower first call for each size of
                batch, rounded up to a power of two, and faster ones after it,
                mostly for few images at a time. Sampling then draws otherwise.

        Raises:
            ValueError: Keras' `fit` cannot do that on several devices.
        """
        _check_devices(self.caption_model.distribute_strategy, optimizer, kwargs)
        self.jit_compile = kwargs.setdefault("jit_compile", False) is True
        self._set_sampler(self.sampler if sampler is None else sampler)
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
        strategy = self.caption_model.distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "Keras' fit fails on several machines; captioner.train with "
                'distribute="multiworker" works there.'
            )
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
            images: a path, encoded bytes, a uint8 RGB array (H, W, 3), or image
                features, a float array (P, E); or a list, tuple or dict of them, of
                which some may be lists again. Many may be one array, of photos
                (B, H, W, 3) or of features (B, P, E).
            batch_size: how many at a time.

        Returns:
            A str, or as many in the same nesting.

        Raises:
            ImageError: a photo cannot be read.
            ValueError: there is none, or features are of another shape.
        """
        results = self.generate_results(images, batch_size)
        return keras.tree.map_structure(lambda result: result.text, results)

    def generate_results(self, images, batch_size=16, attention=False):
        """As `generate`, with all that is known about each caption.

        Args:
            images, batch_size: see `generate`.
            attention: ask for the attention map of each token, too.

        Returns:
            A `GenerateResult`, or as many in the same nesting.

        Raises:
            ImageError: a photo cannot be read.
            ValueError: as `generate`, or the model has no attention to show.
        """
        check_number("batch_size", batch_size, 1, 2**31 - 1, numbers.Integral)
        if isinstance(images, (np.ndarray, tf.Tensor)):
            if len(images.shape) == 4 or self._are_features(images, dims=3):
                images = list(np.asarray(images))
        flat = keras.tree.flatten(images)
        if not flat:
            raise ValueError(f"images must hold one or more. Received: images={images}")
        for image in flat:
            # Not a grey picture of floats, which it could be to `load_image`.
            if _is_float(image, 2) and not self._are_features(image):
                raise ValueError(
                    "Image features must be those of this captioner's network. "
                    f"Received: shape={tuple(image.shape)}"
                )
        results = []
        for start in range(0, len(flat), batch_size):
            image_features = _float32(
                self._features_of(flat[start : start + batch_size])
            )
            texts, output = self._generate(image_features)
            maps = [None] * len(texts)
            if attention:
                maps = self._attend(image_features, output.token_ids[:, 0]).numpy()
            results += self._results(texts.numpy(), output, maps)
        return keras.tree.pack_sequence_as(images, results)

    def _are_features(self, images, dims=2):
        shape = getattr(self.feature_spec, "shape", None)  # an ensemble has several
        return _is_float(images, dims) and tuple(images.shape[dims - 2 :]) == shape

    def _features_of(self, images):
        """The image features of photos and features, in their order."""
        photos = [image for image in images if not self._are_features(image)]
        encoded = ()
        if photos:
            convert = self.preprocessor.image_converter
            loaded = (load_image(photo, convert.image_size) for photo in photos)
            converted = [convert(image) for image in loaded]
            batch = tf.nest.map_structure(lambda *each: tf.stack(each), *converted)
            encoded = self._encode(batch)
            if len(photos) == len(images):
                return encoded
        encoded = iter(_float32(encoded))
        kept = (tf.cast(x, tf.float32) for x in images if self._are_features(x))
        return tf.stack(
            [next(kept if self._are_features(x) else encoded) for x in images]
        )

    def _results(self, texts, output, maps):
        """Texts (B, n), `SamplerOutput` and B attention maps -> `GenerateResult`s."""
        output = type(output)(*(each.numpy() for each in output))
        lengths = (output.token_ids != self.preprocessor.tokenizer.pad_id).sum(axis=-1)
        for row, attention in enumerate(maps):
            found = [
                Hypothesis(
                    text=texts[row, i].decode(),
                    token_ids=output.token_ids[row, i, : lengths[row, i]],
                    log_probs=output.log_probs[row, i, : lengths[row, i]],
                    total_log_prob=float(output.totals[row, i]),
                    score=float(output.scores[row, i]),
                    finish_reason=FINISH_REASONS[output.status[row, i]],
                )
                for i in range(texts.shape[1])
                if output.status[row, i] in FINISH_REASONS
            ]
            if attention is not None:
                attention = attention[: lengths[row, 0]]
                attention = attention.reshape(-1, *self._image_grid())
            yield GenerateResult(
                **vars(found[0]), hypotheses=tuple(found), attention=attention
            )

    def _image_grid(self):
        """The height and width of the grid that the P image positions are."""
        backbone = self.caption_model.vision_backbone
        positions = self.caption_model.image_feature_shape[0]
        if backbone is not None and positions > 1:
            return backbone.network.output_shape[1:3]
        side = math.isqrt(positions)
        return (side, side) if side * side == positions else (1, positions)

    def encode(self, images):
        """Converted photos, float32 (B, H, W, 3) -> image features (B, P, E)."""
        return self._encode(images)

    def caption_batch(self, images):
        """Converted photos, float32 (B, H, W, 3) -> list of B captions, and their
        scores, float32 (B,)."""
        return self.caption_features(self._encode(images))

    def batch_results(self, images):
        """As `caption_batch`, with all that is known: a list of B `GenerateResult`."""
        texts, output = self._generate(_float32(self._encode(images)))
        return list(self._results(texts.numpy(), output, [None] * len(texts)))

    def caption_features(self, image_features):
        """Image features, (B, P, E) -> list of B captions, and their scores."""
        if not len(tf.nest.flatten(image_features)[0]):
            raise ValueError("image_features must hold one image or more. Received: 0")
        texts, output = self._generate(_float32(image_features))
        texts = [caption.decode() for caption in texts[:, 0].numpy()]
        return texts, output.scores[:, 0].numpy()

    def caption_step(self, image_features):
        """As `generate_step`, and before it the captions, strings (B, n)."""
        decode = self.generate_step
        if self.jit_compile:
            decode = tf.function(decode, jit_compile=True, autograph=False)
            decode = self._in_powers_of_two(decode)
        output = decode(image_features)
        return self.preprocessor.tokenizer.detokenize(output.token_ids), output

    @staticmethod
    def _in_powers_of_two(decode):
        """`decode`, for which batches are filled up with repetitions of the last
        image, since XLA compiles anew for each size."""

        def filled_up(image_features):
            number = tf.shape(tf.nest.flatten(image_features)[0])[0]
            size = 2 ** tf.range(31)
            size = tf.reduce_min(tf.boolean_mask(size, size >= number))
            rows = tf.minimum(tf.range(size), number - 1)
            output = decode(
                tf.nest.map_structure(lambda x: tf.gather(x, rows), image_features)
            )
            return type(output)(*(each[:number] for each in output))

        return filled_up

    def generate_step(self, image_features):
        """The whole of decoding as TF ops, for any `tf.function`, also one with
        `jit_compile=True`: (B, P, E) -> `SamplerOutput`."""
        model = self.caption_model
        batch_size = tf.shape(tf.nest.flatten(image_features)[0])[0]
        rows = self.sampler.rows_per_image
        image_cache = model.build_image_cache(image_features)

        def next(token_ids, text_cache, index):
            return model.step(token_ids, text_cache, image_cache, index)

        text_cache = model.build_text_cache(batch_size * rows, self._rules.max_length)
        return self.sampler(next, text_cache, batch_size, self._rules)

    def _attention_step(self, image_features, token_ids):
        """What each of the tokens (B, L) saw: float32 (B, L, P)."""
        # A token is what comes after the one that the model is given.
        before = tf.pad(
            token_ids[:, :-1],
            [[0, 0], [1, 0]],
            constant_values=self.preprocessor.tokenizer.start_id,
        )
        return self.caption_model.attention_scores(
            {"image_features": image_features, "token_ids": before}
        )

    @classmethod
    def from_preset(cls, preset, sampler=None, dtype=None):
        """Load a preset by its name or its folder.

        Checks every file against its checksum; runs no code from the folder.

        Args:
            preset: a name that `captioner presets` lists, or a path. An
                `ImageCaptioner` is one already, and shares its weights with what
                comes back.
            sampler: replaces the preset's own.
            dtype: the decoder's dtype or policy, as "mixed_bfloat16"; by default the
                preset's own.

        Raises:
            PresetError: there is no such preset, or it is damaged.
        """
        if isinstance(preset, cls):
            if sampler is not None:
                preset = copy.copy(preset)
                preset._set_sampler(sampler)
            return preset
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
            if sampler is None:  # it, too, refuses what would eat the memory
                sampler = SAMPLERS[config["sampler"]["name"]].from_config(
                    config["sampler"]["config"]
                )
            caption_model = CaptionModel.from_config(
                {**config["caption_model"], **({"dtype": dtype} if dtype else {})}
            )
            preprocessor = CaptionPreprocessor(
                ImageConverter.from_config(config["image_converter"]),
                tokenizer,
                config["max_sequence_length"],
            )
            caption_model.load_weights(folder / presets.WEIGHTS_FILE)
        except (KeyError, TypeError, ValueError, OSError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise presets.PresetError(
                f"{folder}: cannot be rebuilt ({first_line})"
            ) from error
        return cls(caption_model, preprocessor, sampler)

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
            raise ValueError("This captioner has no image network to see photos with.")
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
        old_grid = self.caption_model.vision_backbone.network.output_shape[1:3]
        for old, new in zip(self.caption_model.weights, caption_model.weights):
            value = old.numpy()
            if old.shape != new.shape:  # a bias for each position, (..., P, D)
                value = tf.image.resize(
                    value.reshape(-1, *old_grid, old.shape[-1]),
                    backbone.network.output_shape[1:3],
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
        """
        names = {known: name for name, known in SAMPLERS.items()}
        if type(self.sampler) not in names:
            raise ValueError(
                f"A preset can only name a sampler of {', '.join(SAMPLERS)}. "
                f"Received: sampler={self.sampler}"
            )
        config = {
            "class_name": type(self).__name__,
            # Its weights are float32 also where it computes in less while training.
            "caption_model": {**self.caption_model.get_config(), "dtype": "float32"},
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
            presets.save_weights(
                self.caption_model, folder / presets.WEIGHTS_FILE, dtype
            )
            for name, value in (("recipe.json", recipe), ("scores.json", scores)):
                if value is not None:
                    presets.write_json(folder / name, value)
            if card:
                (folder / "README.md").write_text(card, encoding="utf-8")
        return pathlib.Path(path)


def _is_float(array, dims):
    return (
        isinstance(array, (np.ndarray, tf.Tensor))
        and tf.as_dtype(array.dtype).is_floating
        and len(array.shape) == dims
    )


def _float32(image_features):
    return tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), image_features)


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
            "On several devices fit does without jit_compile, steps_per_execution and "
            "an optimizer's gradient_accumulation_steps; captioner.train has its own "
            'jit_compile and gradient_accumulation there, with distribute="mirrored". '
            f"Received: {', '.join(name for name in refused if refused[name])}"
        )


def _check_image_size(backbone_size, converter_size):
    if tuple(backbone_size) != tuple(converter_size):
        raise ValueError(
            f"The backbone takes photos of {tuple(backbone_size)} pixels. "
            f"Received: image_converter.image_size={tuple(converter_size)}"
        )
