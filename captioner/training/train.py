"""Train a captioner on a dataset: `captioner train`.

OUTPUT/
    preset/         the best captioner so far, by CIDEr on dev
    recipe.json     all options as they were used
    run.json        what the run began with, for resume
    history.json    loss, dev scores and seconds of each epoch
    checkpoint/     the state after the last epoch or some minutes ago, for resume
    features/       image features
    tensorboard/    curves: tensorboard --logdir OUTPUT
"""

import contextlib
import dataclasses
import hashlib
import inspect

import keras

from captioner import presets
from captioner.datasets import load_dataset
from captioner.features.feature_cache import FeatureCache
from captioner.metrics.rightness import least_right_score
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.terminal import printable, printable_lines, say
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.cider_optimization import CiderOptimization, CiderReward
from captioner.training.confidence_fitting import NUM_PHOTOS, fit_confidence
from captioner.training.crossentropy import Crossentropy
from captioner.training.distribution import Distribution
from captioner.training.fine_tuning import FineTuning
from captioner.training.model_card import model_card
from captioner.training.optimizers import adamw
from captioner.training.run_folder import RunFolder
from captioner.training.stage_data import StageData
from captioner.training.starting_point import as_used, resolved, starting_captioner
from captioner.training.training_options import (
    RunOptions,
    TrainingOptions,
    docstring,
    with_recipe,
)
from captioner.training.training_run import TrainingRun
from captioner.training.vocabulary import CaptionReport


def train(dataset=None, output=None, **options):
    """Train a captioner; the best one by CIDEr on dev is kept as a preset.

    First the captioner learns to continue what people wrote (cross-entropy), while
    the image network stays as it is: its features are computed once and kept. Then,
    with `fine_tune_epochs`, the last layers of the image network are trained as well,
    on photos that are a little different each time (see `fine_tuning.py`). Then, with
    `cider_epochs`, the captioner learns from the scores of its own captions (see
    `cider_optimization.py`). Each stage begins with the best weights so far. After
    each epoch the dev photos are captioned from the photo alone, and scored. The first
    two stages end after their epochs, or when CIDEr has not risen for `patience`
    epochs. A training that was stopped or killed, also within an epoch, continues with
    `resume=True` to the same weights as one that was not.

    Args:
        dataset: what `load_dataset` takes, as "flickr8k:DIR", or a `CaptionDataset`,
            with a train split and a dev split. With `resume`, by default the one that
            the training began with.
        output: folder for everything that is written; new, or one to resume.
        {options}

    Returns:
        The path of the preset.

    Raises:
        ValueError: options or a dataset that cannot be trained on, named.
        TrainingError: the loss has exploded, memory is out, a worker is gone; it says
            how to continue.
        OSError: something cannot be read or written.

    Example:

    ```python
    captioner.train("flickr8k:flickr8k", "run")
    captioner.ImageCaptioner.from_preset("run/preset").generate("photo.jpg")
    captioner.train(output="run", resume=True, epochs=20)  # longer
    ```
    """
    names = {field.name for field in dataclasses.fields(RunOptions)}
    inspect.signature(train).bind(dataset, output, **options)  # as if they were named
    how = RunOptions(**{name: options.pop(name) for name in names & set(options)})
    if output is None:
        raise ValueError("output must be a folder. Received: output=None")
    folder, changed = RunFolder(output, how.resume), {}
    if how.resume:
        used, changed = folder.options(options)
    else:
        used = TrainingOptions.of(options)
        if dataset is None:
            raise ValueError("dataset must be given. Received: dataset=None")
    distribution = Distribution(used.distribute)  # before TensorFlow does anything else
    if distribution.is_chief and not how.resume:
        folder.refuse_other_files()
    with contextlib.ExitStack() as stack:
        if how.resume and distribution.is_chief:
            stack.enter_context(folder.lock())
        if folder.run_info.get("cleaned"):
            if changed:
                raise ValueError(
                    f"The checkpoint in {output} was deleted with --clean, so the "
                    "training cannot be extended. Start a new one from its preset: "
                    f"--init-from {folder.path / 'preset'}"
                )
            return folder.path / "preset"
        try:
            _train(stack, dataset, folder, distribution, options, used, changed, how)
        except KeyboardInterrupt:
            if folder.recipe is not None:
                say(f"stopped; continue with: captioner train --resume {folder.path}")
            raise
    return folder.path / "preset"


def _train(stack, dataset, folder, distribution, given, options, changed, how):
    # Whatever may be refused comes before the first file.
    data, name = _load(dataset, folder)
    summary = data.summary()
    print(printable_lines(summary), flush=True)
    _check_spaces(summary)
    train_examples, dev_examples = _splits(data)
    # A mix may repeat images in an epoch, but their captions count once.
    captions = [text for each in data.examples("train") for text in each["captions"]]
    captioner, options = _start(
        (len(train_examples), captions, dev_examples),
        given,
        options,
        how.resume,
        distribution,
    )
    chief = distribution.is_chief
    if not how.resume and chief:
        stack.enter_context(folder.lock())
    cache_dir = how.cache_dir or folder.run_info.get("cache_dir")
    cache = FeatureCache(
        cache_dir or folder.path / "features",
        captioner.preprocessor.image_converter,
        captioner.caption_model.vision_backbone,
    )
    images = StageData(captioner, cache, train_examples, dev_examples, options)
    fingerprints = {
        "the dataset": images.fingerprint(),
        "the weights of the image network": cache.fingerprint,
        "the vocabulary": _sha256(captioner.preprocessor.tokenizer.vocabulary),
    }
    if how.resume:
        folder.check_fingerprints(fingerprints)
        if chief and how.cache_dir:
            folder.note(cache_dir=how.cache_dir)
    elif chief:
        spec = None if dataset is data else name
        folder.note(**fingerprints, cache_dir=how.cache_dir, dataset=spec)
        folder.write_recipe(_recipe(name, options))  # last: from now on it can resume
    left_out = folder.run_info.get("left_out")
    if left_out is None:
        left_out = images.unreadable(from_photos=not options.epochs)
        if chief:
            folder.note(left_out=left_out)
    images.leave_out(left_out)

    run = TrainingRun(
        folder.path,
        captioner,
        distribution,
        images,
        options,
        _preset_writer(folder, captioner, name, options, cache.fingerprint),
        how.checkpoint_minutes,
    )
    if how.resume:
        run.resume()
        folder.check_extension(changed, run.history)
        if chief and changed:
            folder.write_extension(_recipe(name, options), changed, len(run.history))
        if chief and run.history:
            run.write_history()
    run.train(
        _stages(options, captioner, images),
        lambda stage: _optimizer(options, stage, images, distribution),
    )
    if chief:
        _add_confidence(folder.path / "preset", cache, images)
        _finish(folder, run.best(), how.clean)


def _start(data, given, options, resume, distribution):
    """The captioner that the run begins with, and the options as they are used.

    Args:
        data: number of training images, their captions, and the dev examples.
    """
    num_images, captions, dev = data
    counts = Tokenizer.count_words(captions)
    if not resume:
        options = resolved(given, num_images, counts, len(captions))
        _tell_start(options, given, num_images)
    _check_batch_size(options, num_images, distribution)
    keras.utils.set_random_seed(options.seed)
    with distribution.strategy.scope():
        captioner, new_words = starting_captioner(options, counts)
    if not resume:
        options = as_used(options, given, captioner)
    if options.fine_tune_epochs:  # refuses more layers than there are
        captioner.caption_model.vision_backbone.unfreeze(options.fine_tune_layers)
    _tell_new_words(new_words, options)
    report = CaptionReport.of(
        captioner.preprocessor,
        captions,
        [text for each in dev for text in each["captions"]],
        options.min_count,
    )
    report.check()
    print(printable_lines(report), flush=True)
    return captioner, options


def _preset_writer(folder, captioner, name, options, fingerprint):
    """A function of the row of the best epoch that writes the preset.

    Args:
        fingerprint: of the image network before it learns.
    """

    def write(best):
        network = captioner.caption_model.vision_backbone
        fine_tuned = network.fingerprint() != fingerprint
        sampler = captioner.sampler
        captioner.save_to_preset(
            folder.path / "preset",
            recipe={**folder.recipe, "best_epoch": best["epoch"]},
            scores={
                "split": "dev",
                "sampler": type(sampler).__name__,
                **sampler.get_config(),
                **best,
            },
            card=model_card(captioner, name, options, fine_tuned, best),
        )

    return write


def _load(dataset, folder):
    """The dataset, and its name: the object itself, that of a spec, or that of the run
    to resume."""
    if dataset is None:
        dataset = folder.run_info.get("dataset")
        if dataset is None:
            raise ValueError(
                f"The training in {folder.path} began with a dataset object: pass it "
                "again. Received: dataset=None"
            )
    if hasattr(dataset, "examples"):
        return dataset, dataset.name
    return load_dataset(dataset), str(dataset)


def _check_spaces(summary):
    """Refuse captions that would be one word each: the vocabulary would learn them by
    heart, and every other caption would be unknown."""
    count = sum(summary.captions.values())
    if summary.unspaced_captions > count / 2:
        raise ValueError(
            f"{summary.unspaced_captions} of {count} captions are written without "
            "spaces between words, as Chinese, Japanese and Thai are. Put spaces "
            "between the words first, with a word segmenter such as jieba."
        )


def _splits(data):
    for split in ("train", "dev"):
        if split not in data.splits:
            advice = " --dev-fraction 0.1 takes a tenth of train."
            advice = advice if split == "dev" else ""
            raise ValueError(
                f"{data.name} has no {split} split, which training needs.{advice}"
            )
    return list(data.epoch("train")), list(data.examples("dev"))


def _check_batch_size(options, num_images, distribution):
    batch_size = options.batch_size
    if num_images < batch_size:
        raise ValueError(
            f"There are only {num_images} images to train on. "
            f"Received: batch_size={batch_size}"
        )
    parts = options.gradient_accumulation * distribution.replicas
    if batch_size % parts:
        raise ValueError(
            f"batch_size must be a multiple of gradient_accumulation times the number "
            f"of devices, {parts}; the nearest is "
            f"{max(1, round(batch_size / parts)) * parts}. Received: "
            f"batch_size={batch_size}, "
            f"gradient_accumulation={options.gradient_accumulation}, "
            f"{distribution.replicas} devices"
        )


def _tell_start(options, given, num_images):
    if options.init_from and with_recipe(given).get("init_from", "auto") == "auto":
        print(
            f"starting from the preset {options.init_from}, since there are only "
            f"{num_images:,} training images; --init-from none starts from scratch"
        )


def _tell_new_words(words, options):
    if words:
        some = ", ".join(printable(word) for word in words[:8])
        more = f" and {len(words) - 8} more" if len(words) > 8 else ""
        print(f"new words, unknown to {options.init_from}: {some}{more}")


def _recipe(name, options):
    """The contents of `recipe.json`, with the recipe of the preset it began with."""
    recipe = {
        "train": {"dataset": name, **dataclasses.asdict(options)},
        "versions": presets.versions(),
    }
    if options.init_from:
        preset = presets.find_preset(options.init_from)
        with contextlib.suppress(presets.PresetError):  # a preset may have none
            recipe["init_from"] = presets.read_json(preset, "recipe.json")
    return recipe


def _sha256(words):
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _stages(options, captioner, images):
    label_smoothing, patience = options.label_smoothing, options.patience
    stages = [Crossentropy(options.epochs, patience, label_smoothing)]
    if options.fine_tune_epochs:
        stages.append(
            FineTuning(
                options.fine_tune_epochs,
                patience,
                label_smoothing,
                options.fine_tune_layers,
            )
        )
    if options.cider_epochs:
        reward = CiderReward(captioner.preprocessor.tokenizer, images.train_captions)
        stages.append(
            CiderOptimization(
                options.cider_epochs,
                captioner,
                reward,
                options.cider_samples,
                options.cider_crossentropy,
            )
        )
    return stages


def _optimizer(options, stage, images, distribution):
    steps = len(images.train) // options.batch_size
    return adamw(
        options.learning_rate_of(stage.name),
        steps * stage.epochs,
        warmup_steps=int(steps * min(options.warmup_epochs, stage.epochs)),
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm or None,
        ema_steps=options.ema_epochs * steps,
        mixed_precision=options.mixed_precision,
        replicas=distribution.replicas,
    )


def _add_confidence(preset, cache, images):
    """Let the best preset know how far its captions can be trusted."""
    captioner = ImageCaptioner.from_preset(preset)
    references = [each["captions"] for each in images.dev]
    # A run that is resumed when it is complete has one already.
    if captioner.confidence is not None or least_right_score(references) is None:
        return
    cache = FeatureCache(
        cache.folder.parent, captioner.preprocessor.image_converter, captioner.backbone
    )
    split_images = [[each["image"] for each in s] for s in (images.train, images.dev)]
    # No more features than it needs, where the network has been fine-tuned.
    split_images[0] = split_images[0][:: -(-len(images.train) // NUM_PHOTOS)]
    for each in split_images:
        cache.compute(each)
    captioner.confidence = fit_confidence(captioner, cache, *split_images, references)
    captioner.save_to_preset(
        preset,
        recipe=presets.read_json(preset, "recipe.json"),
        scores=presets.read_json(preset, "scores.json"),
        card=(preset / "README.md").read_text(encoding="utf-8"),
    )


def _finish(folder, best, clean):
    print(
        f"best epoch {best['epoch']}: dev CIDEr {best['dev_cider']:.3f}, "
        f"BLEU-4 {best['dev_bleu_4']:.3f}; preset: {folder.path / 'preset'}"
    )
    size = folder.disposable_bytes()
    if clean:
        folder.clean()
        print(f"deleted checkpoint and features: {size / 1e6:,.0f} MB")
    else:
        print(
            f"checkpoint and features take {size / 1e6:,.0f} MB; to delete them: "
            f"captioner train --resume {folder.path} --clean"
        )


def _describe():
    """Give `train` the signature and the docstring of its options."""
    signature = inspect.signature(train)
    classes = (TrainingOptions, RunOptions)
    parameters = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default
        )
        for each in classes
        for field in dataclasses.fields(each)
    ]
    train.__signature__ = signature.replace(
        parameters=[*list(signature.parameters.values())[:2], *parameters]
    )
    train.__doc__ = train.__doc__.replace("{options}", docstring(classes))


_describe()
