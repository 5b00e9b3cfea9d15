"""Train a captioner on a dataset: `captioner train`.

OUTPUT/
    preset/         the best captioner so far, by CIDEr on dev
    recipe.json     the arguments
    history.json    loss, dev scores and seconds of each epoch
    checkpoint/     the state after the last epoch or some minutes ago, for resume
    tensorboard/    curves: tensorboard --logdir OUTPUT
"""

import inspect
import math
import os
import pathlib
import re
import sys

import keras
import numpy as np

from captioner import presets
from captioner.backbones import VisionBackbone
from captioner.datasets import load_dataset
from captioner.features.feature_cache import FeatureCache
from captioner.features.input_pipeline import image_reader
from captioner.images.image_converter import ImageConverter
from captioner.images.image_views import View, image_views
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.cider_optimization import CiderOptimization, CiderReward
from captioner.training.distribution import Distribution
from captioner.training.fine_tuning import FineTuning
from captioner.training.optimizers import adamw
from captioner.training.row_batches import RowBatches
from captioner.training.training_run import Crossentropy, TrainingRun

# The recipe says all that decides the weights; these do not.
_NOT_IN_RECIPE = ("output", "cache_dir", "resume", "checkpoint_minutes")
_COUNTS = {  # name: the least
    "image_size": 1,
    "num_layers": 1,
    "hidden_dim": 1,
    "intermediate_dim": 1,
    "num_heads": 1,
    "min_count": 1,
    "batch_size": 1,
    "gradient_accumulation": 1,
    "epochs": 0,
    "patience": 1,
    "augmentations": 0,
    "fine_tune_epochs": 0,
    "fine_tune_layers": 1,
    "cider_epochs": 0,
    "cider_samples": 2,
}
_RATES = {  # name: the least, and what it stays below
    "dropout": (0, 1),
    "label_smoothing": (0, 1),
    "learning_rate": (0, math.inf),
    "warmup_epochs": (0, math.inf),
    "weight_decay": (0, math.inf),
    "clip_norm": (0, math.inf),
    "ema_epochs": (0, math.inf),
    "fine_tune_learning_rate": (0, math.inf),
    "cider_learning_rate": (0, math.inf),
    "cider_crossentropy": (0, 1),
    "checkpoint_minutes": (0, math.inf),
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
    gradient_accumulation=1,
    epochs=15,
    patience=4,
    learning_rate=1e-3,
    warmup_epochs=0.5,
    weight_decay=0.01,
    clip_norm=5.0,
    ema_epochs=1.0,
    flips=False,
    augmentations=0,
    fine_tune_epochs=0,
    fine_tune_layers=8,
    fine_tune_learning_rate=1e-4,
    cider_epochs=0,
    cider_learning_rate=5e-5,
    cider_samples=5,
    cider_crossentropy=0.0,
    mixed_precision=None,
    jit_compile=False,
    distribute=None,
    init_from=None,
    seed=0,
    checkpoint_minutes=10.0,
    cache_dir=None,
    resume=False,
):
    """Train a captioner; the best one by CIDEr on dev is kept as a preset.

    First the captioner learns to continue what people wrote (cross-entropy), while
    the backbone stays as it is: its features are computed once and kept. Then, with
    `fine_tune_epochs`, the top of the backbone learns along, from photos that are
    each time a little different (see `fine_tuning.py`). Then, with `cider_epochs`, the
    captioner learns from the scores of captions of its own (see
    `cider_optimization.py`). Each part goes on from the best weights so far. After
    each epoch the dev photos are captioned, without a look at their captions, and
    scored. The first two parts end after their epochs, or when CIDEr has not risen for
    `patience` epochs. A run that was stopped or killed, also within an epoch, goes on
    with `resume=True` to the same weights as one that was not.

    Args:
        dataset: what `load_dataset` takes, as "flickr8k:DIR", with a train split
            and a dev split.
        output: folder for everything that is written; new, or one to resume.
        backbone: a name of `backbone_names()`.
        weights: "imagenet", the path of a `.weights.h5`, or None for random ones.
        image_size: side of the square photos in pixels; by default that of
            `init_from`, or what the backbone's weights were trained at.
        resize_mode: "squash", "crop" or "pad", for photos that are not square.
        pooling: None for the grid of features, "avg" for their mean.
        mixer, fusion, num_layers, hidden_dim, intermediate_dim, num_heads, dropout:
            see `CaptionModel`.
        label_smoothing: see `CaptionCrossentropy`.
        min_count: words seen less often in training are unknown.
        max_sequence_length: the most words of a caption, and one for its end.
        batch_size: images a step, each with all its captions.
        gradient_accumulation: in how many parts, one after the other, each batch is
            done: the same steps with less memory.
        epochs, patience: how long to train, see above; no epochs with `init_from`
            leave only the other parts.
        learning_rate: of AdamW, at its highest: it rises over the first
            `warmup_epochs` and falls along a cosine to zero at `epochs`.
        warmup_epochs: see above; 0.5 is half an epoch.
        weight_decay: of AdamW, not on biases and norms.
        clip_norm: the gradient of all weights is made no longer than this; 0 leaves it
            as long as it is.
        ema_epochs: the weights that are scored and kept are a moving average of
            those of about so many epochs, which is steadier than the last step's
            (Polyak and Juditsky, 1992); 0 for the last step's.
        flips: half of the photos, chosen anew each epoch, are seen mirrored left to
            right, where no caption has the word "left" or "right". Twice the
            features are kept.
        augmentations: so many copies of each photo (and of its mirror image) are
            cropped, brightened and changed in contrast by chance, and in each epoch
            one of all these views is seen. Of each of them the features are kept.
        fine_tune_epochs, fine_tune_layers: how long the top of the backbone learns,
            and how many of its layers, see `FineTuning`. All features are then
            computed anew for a part that comes after it.
        fine_tune_learning_rate: of AdamW there, at its highest.
        cider_epochs, cider_samples, cider_crossentropy: of the last part, see
            `CiderOptimization`.
        cider_learning_rate: of AdamW there, at its highest.
        mixed_precision: "bfloat16" or "float16", for the decoder's products; the
            preset is one of float32. None for float32 throughout.
        jit_compile: let XLA compile the steps, once for each length of a batch.
        distribute: None, "mirrored", "multiworker" or "tpu", see `Distribution`.
            `batch_size` is that of all devices together.
        init_from: a preset to go on from, by name or folder: its image network,
            decoder and vocabulary take the place of what the arguments say of them,
            but for `image_size`, see `ImageCaptioner.with_image_size`.
        seed: decides the first weights, the order of photos, dropout, and samples.
        checkpoint_minutes: how often the state is kept within an epoch.
        cache_dir: where features are kept; by default `OUTPUT/features`.
        resume: go on with the run in `output`.

    Returns:
        The path of the preset.

    Raises:
        ValueError: arguments or a dataset that cannot be trained on, named.
        TrainingError: the loss has exploded, memory is out, a worker is gone; it says
            from where to go on.
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
    _check({**arguments, "checkpoint_minutes": checkpoint_minutes})
    distribution = Distribution(distribute)  # before TensorFlow does anything else
    _check_divides(batch_size, gradient_accumulation, distribution)
    output = pathlib.Path(output)
    recipe = {"train": arguments, "versions": presets.versions()}
    if distribution.is_chief or resume:
        recipe = _open_run(output, recipe, resume)
    keras.utils.set_random_seed(seed)

    data = load_dataset(dataset)
    print(data.summary(), flush=True)
    for split in ("train", "dev"):
        if split not in data.splits:
            raise ValueError(f"{dataset} has no {split} split, which training needs.")
    train_examples = list(data.epoch("train"))
    dev_examples = list(data.examples("dev"))
    if len(train_examples) < batch_size:
        raise ValueError(
            f"{dataset} has only {len(train_examples)} images to train on. "
            f"Received: batch_size={batch_size}"
        )

    # Everything that may be refused comes before the first photo and the first file.
    precision = f"mixed_{mixed_precision}" if mixed_precision else "float32"
    with distribution.strategy.scope():
        if init_from is not None:
            captioner = ImageCaptioner.from_preset(init_from, dtype=precision)
            if image_size is not None:
                captioner = captioner.with_image_size(image_size)
        else:
            captioner = _new_captioner(arguments, data.examples("train"), precision)
    if fine_tune_epochs:
        captioner.caption_model.vision_backbone.unfreeze(fine_tune_layers)
    tokenizer = captioner.preprocessor.tokenizer
    dev_captions = [text for example in dev_examples for text in example["captions"]]
    print(
        f"vocabulary: {tokenizer.vocabulary_size} words, "
        f"unknown on dev: {tokenizer.unknown_rate(dev_captions):.2%}",
        flush=True,
    )
    if distribution.is_chief:
        output.mkdir(parents=True, exist_ok=True)
        presets.write_json(output / "recipe.json", recipe)

    converter = captioner.preprocessor.image_converter
    cache = FeatureCache(
        cache_dir or output / "features",
        converter,
        captioner.caption_model.vision_backbone,
    )
    views = image_views(flips, augmentations)
    train_examples = _with_features(cache, train_examples, views)
    dev_examples = _with_features(cache, dev_examples)
    train_captions = [example["captions"] for example in train_examples]
    train_images = [example["image"] for example in train_examples]
    dev_images = [example["image"] for example in dev_examples]

    def data(stage):
        if stage.backbone_layers:
            # Changed anew each time that they are seen.
            stage_views = image_views(flips)
            images = image_reader(train_images, converter, stage_views)
            _, read = image_reader(dev_images, converter)

            def read_dev(indices):
                return captioner.encode(read(indices))

        else:
            features = cache.renewed()
            if features is not cache:
                features.compute(train_images, views)
                features.compute(dev_images)
            stage_views = views
            images = features.reader(train_images, views)
            _, read_dev = features.reader(dev_images)
        batches = RowBatches(
            images,
            captioner.preprocessor.rows(train_captions),
            batch_size,
            seed,
            _seen_views(stage_views, train_captions),
        )
        return batches, read_dev

    run = TrainingRun(
        output,
        captioner,
        distribution,
        [example["image/id"] for example in train_examples],
        dev_examples,
        data,
        recipe,
        lambda captioner, best: _card(captioner, arguments, cache.fingerprint, best),
        gradient_accumulation=gradient_accumulation,
        jit_compile=jit_compile,
        checkpoint_minutes=checkpoint_minutes,
        seed=seed,
    )
    stages = [Crossentropy(epochs, patience, label_smoothing)]
    rates = {stages[0].name: learning_rate}
    if fine_tune_epochs:
        stages.append(
            FineTuning(fine_tune_epochs, patience, label_smoothing, fine_tune_layers)
        )
        rates[FineTuning.name] = fine_tune_learning_rate
    if cider_epochs:
        reward = CiderReward(tokenizer, train_captions)
        stages.append(
            CiderOptimization(
                cider_epochs, captioner, reward, cider_samples, cider_crossentropy
            )
        )
        rates[CiderOptimization.name] = cider_learning_rate
    steps = len(train_examples) // batch_size

    def optimizer(stage):
        return adamw(
            rates[stage.name],
            steps * stage.epochs,
            warmup_steps=int(steps * min(warmup_epochs, stage.epochs)),
            weight_decay=weight_decay,
            clip_norm=clip_norm or None,
            ema_steps=ema_epochs * steps,
            mixed_precision=mixed_precision,
            replicas=distribution.replicas,
        )

    if resume:
        run.resume()
    run.train(stages, optimizer)
    if distribution.is_chief:
        print(run.last_words())
    return output / "preset"


def _check(arguments):
    """Refuse what is out of range, or cannot go together."""
    for name, least in _COUNTS.items():
        if arguments[name] is not None and arguments[name] < least:
            raise ValueError(
                f"{name} must be {least} or more. Received: {name}={arguments[name]}"
            )
    for name, (least, limit) in _RATES.items():
        if not least <= arguments[name] < limit:  # nor nan
            raise ValueError(
                f"{name} must be {least} or more, and less than {limit}. "
                f"Received: {name}={arguments[name]}"
            )
    if arguments["mixed_precision"] not in (None, "bfloat16", "float16"):
        raise ValueError(
            "mixed_precision must be bfloat16, float16 or None. "
            f"Received: mixed_precision={arguments['mixed_precision']}"
        )
    others = ("fine_tune_epochs", "cider_epochs")
    if not arguments["epochs"] and not (
        arguments["init_from"] and any(arguments[name] for name in others)
    ):
        raise ValueError(
            "epochs may be 0 only with init_from and fine_tune_epochs or cider_epochs. "
            + "Received: "
            + ", ".join(
                f"{name}={arguments[name]}" for name in ("epochs", "init_from", *others)
            )
        )
    if arguments["distribute"] == "tpu" and arguments["cider_epochs"]:
        raise ValueError(
            "A TPU cannot call the reward: train without cider_epochs on it, then go "
            "on from the preset elsewhere (init_from, epochs=0). Received: "
            f"distribute=tpu, cider_epochs={arguments['cider_epochs']}"
        )


def _check_divides(batch_size, gradient_accumulation, distribution):
    parts = gradient_accumulation * distribution.replicas
    if batch_size % parts:
        raise ValueError(
            f"batch_size must be a multiple of gradient_accumulation times the number "
            f"of devices, {parts}; the nearest is "
            f"{max(1, round(batch_size / parts)) * parts}. Received: "
            f"batch_size={batch_size}, gradient_accumulation={gradient_accumulation}, "
            f"{distribution.replicas} devices"
        )


def _new_captioner(arguments, examples, precision):
    image_size = arguments["image_size"]
    vision_backbone = VisionBackbone(
        arguments["backbone"],
        image_size=image_size and (image_size, image_size),
        pooling=arguments["pooling"],
        weights=arguments["weights"],
    )
    tokenizer = Tokenizer.from_captions(
        (text for example in examples for text in example["captions"]),
        arguments["min_count"],
    )
    decoder = (
        "mixer",
        "fusion",
        "num_layers",
        "hidden_dim",
        "intermediate_dim",
        "num_heads",
        "dropout",
    )
    return ImageCaptioner(
        CaptionModel(
            tokenizer.vocabulary_size,
            vision_backbone.feature_shape,
            vision_backbone,
            **{name: arguments[name] for name in decoder},
            dtype=precision,
        ),
        CaptionPreprocessor(
            ImageConverter(vision_backbone.image_size, arguments["resize_mode"]),
            tokenizer,
            arguments["max_sequence_length"],
        ),
    )


def _seen_views(views, captions):
    """Which views of each photo its captions are as true of, bool (V, N)."""
    sides = re.compile(r"\b(left|right)", re.IGNORECASE)
    flippable = [not any(map(sides.search, texts)) for texts in captions]
    return np.array(
        [flippable if view.mirrored else [True] * len(captions) for view in views]
    )


def _card(captioner, arguments, given, best):
    """The model card of a preset, for its owner to go on writing; `given` is the
    fingerprint of the image network before the run."""
    model, converter = captioner.caption_model, captioner.preprocessor.image_converter
    weights = arguments["init_from"] or arguments["weights"]
    network = f"`{model.vision_backbone.architecture}`, weights `{weights}`, frozen"
    if model.vision_backbone.fingerprint() != given:
        network += f"; then the last {arguments['fine_tune_layers']} layers fine-tuned"
    height, width = converter.image_size
    beams = captioner.sampler.rows_per_image
    dev_scores = f"CIDEr {best['dev_cider']:.3f}, BLEU-4 {best['dev_bleu_4']:.3f}"
    decoder = f"{model.num_layers} layers of {model.mixer} mixer and {model.fusion}"
    return f"""# A captioner trained on `{arguments["dataset"]}`

`captioner caption photos/ --preset .` captions a folder with it.

| | |
|---|---|
| Image network | {network} |
| Photos | {height} x {width} pixels, resize mode `{converter.resize_mode}` |
| Decoder | {decoder} fusion, hidden_dim {model.hidden_dim} |
| Vocabulary | {model.vocabulary_size} words |
| Parameters | {model.count_params():,} |
| Dev, {beams} beams | {dev_scores}, after epoch {best["epoch"]} |

`recipe.json` has all arguments and versions, `scores.json` the scores.
"""


def _open_run(output, new_recipe, resume):
    """The recipe of the run to start or to resume in a folder; writes nothing."""
    arguments = new_recipe["train"]
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
    return new_recipe


def _with_features(cache, examples, views=(View(),)):
    """The examples whose photos can be read, after their features are cached."""
    images = [example["image"] for example in examples]
    errors = cache.compute(images, views)
    for error in errors.values():
        print(f"left out: {error}", file=sys.stderr)
    if len(errors) == len(examples):
        raise ValueError("No photo of the train or the dev split can be read.")
    return [example for i, example in enumerate(examples) if i not in errors]


def _plain(value):
    return os.fspath(value) if isinstance(value, os.PathLike) else value
