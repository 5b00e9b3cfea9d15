"""Train a captioner on a dataset: `captioner train`.

OUTPUT/
    preset/         the best captioner so far, by CIDEr on dev
    recipe.json     the arguments
    history.json    loss, dev scores and seconds of each epoch
    checkpoint/     the state after the last epoch, for resume
    tensorboard/    curves: tensorboard --logdir OUTPUT
"""

import contextlib
import inspect
import math
import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from captioner import presets
from captioner.backbones import VisionBackbone
from captioner.caption_model import CaptionModel
from captioner.datasets import load_dataset
from captioner.feature_cache import FeatureCache
from captioner.image_captioner import CaptionCrossentropy, ImageCaptioner
from captioner.image_converter import ImageConverter
from captioner.input_pipeline import training_batches
from captioner.metrics import CaptionScorer
from captioner.preprocessor import CaptionPreprocessor
from captioner.tokenizer import Tokenizer

# The recipe says all that decides the weights; these do not.
_NOT_IN_RECIPE = ("output", "cache_dir", "resume")
_COUNTS = (
    "image_size",
    "num_layers",
    "hidden_dim",
    "intermediate_dim",
    "num_heads",
    "min_count",
    "batch_size",
    "epochs",
    "patience",
)
_RATES = {  # name: the least, and what it stays below
    "dropout": (0, 1),
    "label_smoothing": (0, 1),
    "learning_rate": (0, math.inf),
    "weight_decay": (0, math.inf),
    "ema_epochs": (0, math.inf),
}


def train(
    dataset,
    output,
    *,
    backbone="efficientnet_lite2",
    weights="imagenet",
    image_size=None,
    resize_mode="squash",
    pooling=None,
    mixer="lstm",
    fusion="additive",
    num_layers=2,
    hidden_dim=512,
    intermediate_dim=None,
    num_heads=8,
    dropout=0.4,
    label_smoothing=0.1,
    min_count=4,
    max_sequence_length=20,
    batch_size=32,
    epochs=15,
    patience=4,
    learning_rate=1e-3,
    weight_decay=0.01,
    ema_epochs=1.0,
    seed=0,
    cache_dir=None,
    resume=False,
):
    """Train a captioner; the best one by CIDEr on dev is kept as a preset.

    The backbone stays as it is: its features are computed once and kept. After
    each epoch the dev photos are captioned, without a look at their captions, and
    scored. Training ends after `epochs`, or when CIDEr has not risen for
    `patience` epochs. A run that was killed goes on with `resume=True` to the same
    weights as one that was not.

    Args:
        dataset: what `load_dataset` takes, as "flickr8k:DIR", with a train split
            and a dev split.
        output: folder for everything that is written; new, or one to resume.
        backbone: a name of `backbone_names()`.
        weights: "imagenet", the path of a `.weights.h5`, or None for random ones.
        image_size: side of the square photos in pixels; by default what the
            backbone's weights were trained at.
        resize_mode: "squash", "crop" or "pad", for photos that are not square.
        pooling: None for the grid of features, "avg" for their mean.
        mixer, fusion, num_layers, hidden_dim, intermediate_dim, num_heads, dropout:
            see `CaptionModel`.
        label_smoothing: see `CaptionCrossentropy`.
        min_count: words seen less often in training are unknown.
        max_sequence_length: the most words of a caption, and one for its end.
        batch_size: images a step, each with all its captions.
        epochs, patience: how long to train, see above.
        learning_rate: of AdamW, at its highest: it rises over the first half
            epoch and falls along a cosine to zero at `epochs`.
        weight_decay: of AdamW, not on biases and norms.
        ema_epochs: the weights that are scored and kept are a moving average of
            those of about so many epochs, which is steadier than the last step's
            (Polyak and Juditsky, 1992); 0 for the last step's.
        seed: decides the first weights, the order of photos, and dropout.
        cache_dir: where features are kept; by default `OUTPUT/features`.
        resume: go on with the run in `output`.

    Returns:
        The path of the preset.

    Raises:
        ValueError: arguments or a dataset that cannot be trained on, named.
        OSError: something cannot be read or written.

    Example:

    ```python
    captioner.train("flickr8k:flickr8k", "run", backbone="vgg16")
    captioner.ImageCaptioner.from_preset("run/preset").generate("photo.jpg")
    ```
    """
    arguments = {
        name: _plain(value)
        for name, value in locals().items()
        if name in inspect.signature(train).parameters and name not in _NOT_IN_RECIPE
    }
    for name in _COUNTS:
        if arguments[name] is not None and arguments[name] < 1:
            raise ValueError(
                f"{name} must be 1 or more. Received: {name}={arguments[name]}"
            )
    for name, (least, limit) in _RATES.items():
        if not least <= arguments[name] < limit:  # nor nan
            raise ValueError(
                f"{name} must be {least} or more, and less than {limit}. "
                f"Received: {name}={arguments[name]}"
            )
    output = pathlib.Path(output)
    recipe = _open_run(output, arguments, resume)
    keras.utils.set_random_seed(seed)

    data = load_dataset(dataset)
    print(data.summary(), flush=True)
    for split in ("train", "dev"):
        if split not in data.splits:
            raise ValueError(f"{dataset} has no {split} split, which training needs.")
    train_examples = list(data.examples("train"))
    dev_examples = list(data.examples("dev"))
    if len(train_examples) < batch_size:
        raise ValueError(
            f"{dataset} has only {len(train_examples)} images to train on. "
            f"Received: batch_size={batch_size}"
        )

    # Everything that may be refused comes before the first photo and the first file.
    vision_backbone = VisionBackbone(
        backbone,
        image_size=image_size and (image_size, image_size),
        pooling=pooling,
        weights=weights,
    )
    image_converter = ImageConverter(vision_backbone.image_size, resize_mode)
    tokenizer = Tokenizer.from_captions(
        (text for example in train_examples for text in example["captions"]), min_count
    )
    dev_captions = [text for example in dev_examples for text in example["captions"]]
    print(
        f"vocabulary: {tokenizer.vocabulary_size} words, seen {min_count} times or "
        f"more; unknown on dev: {tokenizer.unknown_rate(dev_captions):.2%}",
        flush=True,
    )
    captioner = ImageCaptioner(
        CaptionModel(
            tokenizer.vocabulary_size,
            vision_backbone.feature_shape,
            vision_backbone,
            mixer=mixer,
            fusion=fusion,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_heads=num_heads,
            dropout=dropout,
        ),
        CaptionPreprocessor(image_converter, tokenizer, max_sequence_length),
    )
    output.mkdir(parents=True, exist_ok=True)
    presets.write_json(output / "recipe.json", recipe)

    cache = FeatureCache(
        cache_dir or output / "features", image_converter, vision_backbone
    )
    train_examples = _with_features(cache, train_examples)
    dev_examples = _with_features(cache, dev_examples)
    train_captions = [example["captions"] for example in train_examples]
    run = _Run(output, captioner, cache, dev_examples, patience, recipe)
    steps = len(train_examples) // batch_size
    captioner.compile(
        optimizer=_optimizer(learning_rate, weight_decay, ema_epochs, steps, epochs),
        loss=CaptionCrossentropy(label_smoothing),
    )
    first_epoch = run.restore() if resume else 0
    batches, steps = training_batches(
        cache.reader([example["image"] for example in train_examples]),
        train_captions,
        batch_size,
        epochs,
        seed,
        first_epoch,
    )
    if first_epoch < epochs and not run.is_over():
        captioner.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=epochs,
            callbacks=[run, keras.callbacks.TensorBoard(output / "tensorboard")],
            verbose=1 if sys.stdout.isatty() else 2,
        )
    print(run.last_words())
    return output / "preset"


class _Run(keras.callbacks.Callback):
    """What happens between epochs: score dev, keep the best, save the state."""

    def __init__(self, output, captioner, cache, dev_examples, patience, recipe):
        super().__init__()
        self.output = output
        self.captioner = captioner
        self.patience = patience
        self.recipe = recipe
        self.history = []
        self.dev_ids = [example["image/id"] for example in dev_examples]
        _, self.read = cache.reader([example["image"] for example in dev_examples])
        self.scorer = CaptionScorer(
            {example["image/id"]: example["captions"] for example in dev_examples}
        )
        self.checkpoints = None

    def on_train_begin(self, logs=None):
        self.checkpoints = self.checkpoints or self._checkpoint_manager()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.time()

    def on_epoch_end(self, epoch, logs=None):
        with self._averaged_weights():
            self._score_and_keep_the_best(epoch, logs)
        # Last of all, since it is what a resumed run goes by.
        try:
            self.checkpoints.save(checkpoint_number=epoch + 1)
        except tf.errors.OpError as error:  # TensorFlow's form of a full disk
            raise OSError(f"{self.output / 'checkpoint'}: {error.message}") from error
        if self.is_over():
            self.model.stop_training = True

    @contextlib.contextmanager
    def _averaged_weights(self):
        """The moving average of the weights in the place of the weights."""
        variables = self.model.trainable_variables
        kept = [variable.numpy() for variable in variables]
        self.model.optimizer.finalize_variable_values(variables)
        yield
        for variable, value in zip(variables, kept):
            variable.assign(value)

    def _score_and_keep_the_best(self, epoch, logs):
        scores = self._score_dev()
        # Into Keras' own logs, so that its progress line and TensorBoard have them.
        logs.update({f"dev_{name}": value for name, value in scores.items()})
        row = {name: float(value) for name, value in logs.items()}
        row["seconds"] = round(time.time() - self.started, 1)
        self.history = [*self.history[:epoch], {"epoch": epoch + 1, **row}]
        if self.best()["epoch"] == epoch + 1:
            self._save_preset()
        presets.write_json(self.output / "history.json", {"epochs": self.history})

    def best(self):
        """The epoch with the highest CIDEr, the first of equals."""
        return max(self.history, key=lambda row: row["dev_cider"])

    def is_over(self):
        """Whether CIDEr has not risen for `patience` epochs."""
        return bool(self.history) and (
            self.history[-1]["epoch"] - self.best()["epoch"] >= self.patience
        )

    def restore(self):
        """Load the state after the last finished epoch; returns its number."""
        self.checkpoints = self._checkpoint_manager()
        newest = self.checkpoints.latest_checkpoint
        if newest is None:
            return 0
        try:
            self.checkpoints.checkpoint.restore(newest).assert_consumed()
        except (tf.errors.OpError, IndexError, AssertionError) as error:
            raise ValueError(
                f"{self.output / 'checkpoint'} is damaged; the preset is whole, and "
                "a new run can use the same --cache-dir."
            ) from error
        epoch = int(newest.rpartition("-")[2])
        rows = presets.read_json(self.output, "history.json").get("epochs", [])
        self.history = rows[:epoch]
        print(f"resumed after epoch {epoch}")
        return epoch

    def last_words(self):
        """One line for the end of a run."""
        best = self.best()
        return (
            f"best epoch {best['epoch']}: dev CIDEr {best['dev_cider']:.3f}, "
            f"BLEU-4 {best['dev_bleu_4']:.3f}; preset: "
            f"{self.output / 'preset'}"
        )

    def _score_dev(self):
        captions = []
        for start in range(0, len(self.dev_ids), 64):
            rows = np.arange(start, min(start + 64, len(self.dev_ids)))
            captions += self.captioner.caption_features(self.read(rows))[0]
        scores = self.scorer.score(dict(zip(self.dev_ids, captions)))
        return {name: scores[name] for name in ("bleu_4", "cider")}

    def _save_preset(self):
        best, sampler = self.best(), self.captioner.sampler
        self.captioner.save_to_preset(
            self.output / "preset",
            recipe={**self.recipe, "best_epoch": best["epoch"]},
            scores={
                "split": "dev",
                "sampler": type(sampler).__name__,
                **sampler.get_config(),
                **best,
            },
            card=_card(self.captioner, self.recipe["train"], best),
        )

    def _checkpoint_manager(self):
        # The decoder, the state of dropout, and the optimizer; not the backbone,
        # which never changes.
        model = self.captioner.caption_model
        frozen = {id(v) for v in model.vision_backbone.variables}
        model.optimizer.build(model.trainable_variables)
        variables = [v for v in model.variables if id(v) not in frozen]
        variables += model.optimizer.variables
        checkpoint = tf.train.Checkpoint(
            variables=[v.value for v in {id(v): v for v in variables}.values()]
        )
        return tf.train.CheckpointManager(
            checkpoint, self.output / "checkpoint", max_to_keep=1
        )


def _card(captioner, arguments, best):
    """The model card of a preset, for its owner to go on writing."""
    model, converter = captioner.caption_model, captioner.preprocessor.image_converter
    network = f"`{arguments['backbone']}`, weights `{arguments['weights']}`"
    height, width = converter.image_size
    beams = captioner.sampler.rows_per_image
    dev_scores = f"CIDEr {best['dev_cider']:.3f}, BLEU-4 {best['dev_bleu_4']:.3f}"
    decoder = f"{model.num_layers} layers of {model.mixer} mixer and {model.fusion}"
    return f"""# A captioner trained on `{arguments["dataset"]}`

`captioner caption photos/ --preset .` captions a folder with it.

| | |
|---|---|
| Image network | {network}, frozen |
| Photos | {height} x {width} pixels, resize mode `{converter.resize_mode}` |
| Decoder | {decoder} fusion, hidden_dim {model.hidden_dim} |
| Vocabulary | {model.vocabulary_size} words |
| Parameters | {model.count_params():,} |
| Dev, {beams} beams | {dev_scores}, after epoch {best["epoch"]} |

`recipe.json` has all arguments and versions, `scores.json` the scores.
"""


def _open_run(output, arguments, resume):
    """The recipe of the run to start or to resume in a folder; writes nothing."""
    if resume:
        if not (output / "recipe.json").is_file():
            raise ValueError(f"There is no run to resume in {output}.")
        recipe = presets.read_json(output, "recipe.json")
        if not isinstance(recipe.get("train"), dict):
            raise ValueError(f"{output / 'recipe.json'} holds no recipe to resume.")
        changed = [n for n in arguments if recipe["train"].get(n) != arguments[n]]
        if changed:
            raise ValueError(
                f"The run in {output} was started with other arguments: "
                + ", ".join(f"{n}={recipe['train'].get(n)}" for n in changed)
            )
        return recipe
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(
            f"{output} is not empty: resume the run there, or choose another output."
        )
    return {"train": arguments, "versions": presets.versions()}


def _with_features(cache, examples):
    """The examples whose photos can be read, after their features are cached."""
    images = [example["image"] for example in examples]
    errors = cache.compute(images)
    for error in errors.values():
        print(f"left out: {error}", file=sys.stderr)
    if len(errors) == len(examples):
        raise ValueError("No photo of the train or the dev split can be read.")
    return [example for i, example in enumerate(examples) if i not in errors]


def _optimizer(learning_rate, weight_decay, ema_epochs, steps, epochs):
    warmup = max(1, steps // 2)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=max(1, steps * epochs - warmup),
            warmup_target=learning_rate,
            warmup_steps=warmup,
        ),
        weight_decay=weight_decay,
        global_clipnorm=5.0,
        use_ema=ema_epochs > 0,
        # One step moves the average by 1 / steps of `ema_epochs`.
        ema_momentum=1 - 1 / max(1.0, ema_epochs * steps),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _plain(value):
    return os.fspath(value) if isinstance(value, os.PathLike) else value
