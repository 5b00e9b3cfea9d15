"""The captioner that a training begins with: a new one, or that of a preset."""

import dataclasses

from captioner import presets
from captioner.backbones import VisionBackbone
from captioner.images.image_converter import ImageConverter
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.captioner_options import CaptionerOptions
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.training_options import (
    FEW_IMAGES,
    LEARNING_RATE,
    OF_PRESET,
    PRESET_LEARNING_RATE,
    TrainingOptions,
    with_recipe,
)
from captioner.training.vocabulary import default_min_count, learn_new_words

# So much of the words' occurrences must be known to a preset for it to be a start.
KNOWN_WORDS = 0.7


def resolved(given, num_images, counts, num_captions):
    """The options of a new run, with values for those that depend on its data.

    Args:
        given: dict of the options that the user gave.
        num_images, num_captions: of the training split.
        counts: `Counter` of the words of its captions.

    Returns:
        `TrainingOptions`; what depends on the captioner itself is resolved by
        `as_used`.
    """
    options = TrainingOptions.of(given)
    new = {}
    if options.init_from == "auto":
        new["init_from"] = _preset_for(with_recipe(given), num_images, counts)
    if options.min_count is None:
        new["min_count"] = default_min_count(num_captions)
    if options.learning_rate is None:
        start = new.get("init_from", options.init_from)
        new["learning_rate"] = PRESET_LEARNING_RATE if start else LEARNING_RATE
    if "batch_size" not in given:
        # Some steps an epoch also where there are few images.
        parts = options.gradient_accumulation
        size = min(options.batch_size, max(1, num_images // 4))
        new["batch_size"] = max(parts, size // parts * parts)
    return dataclasses.replace(options, **new)


def _preset_for(given, num_images, counts):
    """The name of the default preset where it is the better start, or None."""
    if num_images >= FEW_IMAGES or set(given) & set(OF_PRESET):
        return None
    try:
        folder = presets.find_preset(presets.DEFAULT_PRESET)
        known = set(Tokenizer.from_assets(folder / "assets").vocabulary)
    except (ValueError, OSError):
        return None
    words = sum(counts.values())
    share = sum(n for word, n in counts.items() if word in known) / max(1, words)
    return presets.DEFAULT_PRESET if share >= KNOWN_WORDS else None


def starting_captioner(options, counts):
    """The captioner that a run begins with.

    Args:
        options: `TrainingOptions`, resolved.
        counts: `Counter` of the words of the training captions.

    Returns:
        `ImageCaptioner`, and the list of words that are new to its preset.

    Raises:
        ValueError: the parts do not fit, or there is no such preset.
        OSError: weights cannot be read or downloaded.
    """
    dtype = "float32"
    if options.mixed_precision:
        dtype = f"mixed_{options.mixed_precision}"
    if options.init_from is None:
        return _new_captioner(options, counts, dtype), []
    captioner = ImageCaptioner.from_preset(options.init_from, dtype=dtype)
    captioner.confidence = None  # that of the weights as they were
    height, width = captioner.preprocessor.image_converter.image_size
    if options.image_size not in (None, height) or height != width:
        captioner = captioner.with_image_size(options.image_size or height)
    return learn_new_words(captioner, counts, options.min_count)


def _new_captioner(options, counts, dtype):
    size = options.image_size
    backbone = VisionBackbone(
        options.backbone,
        image_size=size and (size, size),
        pooling=options.pooling,
        weights=options.weights,
    )
    tokenizer = Tokenizer.from_counts(counts, options.min_count)
    decoder = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(CaptionerOptions)
    }
    length = decoder.pop("max_sequence_length")
    return ImageCaptioner(
        CaptionModel(
            tokenizer.vocabulary_size,
            backbone.feature_shape,
            backbone,
            **decoder,
            dtype=dtype,
        ),
        CaptionPreprocessor(
            ImageConverter(backbone.image_size, options.resize_mode), tokenizer, length
        ),
    )


def as_used(options, given, captioner):
    """The options as the captioner has them, for the recipe.

    Args:
        options: `TrainingOptions`, resolved.
        given: dict of the options that the user gave.
        captioner: that of `starting_captioner`.

    Raises:
        ValueError: an option is given that the preset decides otherwise.
    """
    model, preprocessor = captioner.caption_model, captioner.preprocessor
    backbone, converter = model.vision_backbone, preprocessor.image_converter
    used = {
        "backbone": backbone.architecture,
        "weights": "init_from" if options.init_from else options.weights,
        "image_size": converter.image_size[0],
        "resize_mode": converter.resize_mode,
        "pooling": backbone.pooling,
        "max_sequence_length": preprocessor.max_sequence_length,
        **{
            name: getattr(model, name)
            for name in (
                "mixer",
                "fusion",
                "num_layers",
                "hidden_dim",
                "intermediate_dim",
                "num_heads",
                "dropout",
            )
        },
    }
    given = with_recipe(given)
    refused = [
        name for name in OF_PRESET if name in given and given[name] != used[name]
    ]
    if options.init_from and refused:
        raise ValueError(
            f"The preset {options.init_from} decides "
            + ", ".join(f"{name} ({used[name]})" for name in refused)
            + ": leave these options out, or train from scratch with init_from none. "
            "Received: " + ", ".join(f"{name}={given[name]}" for name in refused)
        )
    return dataclasses.replace(options, **used)
