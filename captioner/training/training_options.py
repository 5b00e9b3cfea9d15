"""The options of `train`: their defaults, limits and help, each in one place.

The signature and the docstring of `train`, the flags of `captioner train`, and
`recipe.json` are all made from these two classes. Nothing here loads TensorFlow.
"""

import dataclasses
import math
import os
import re
import textwrap

from captioner.tasks.captioner_options import CaptionerOptions, check_options, option

# With fewer training images than this, and with a vocabulary that mostly knows their
# words, a captioner that is already trained is the better start.
FEW_IMAGES = 3_000
# The default of min_count: 1, and one more for each 2,500 captions, up to four.
CAPTIONS_PER_COUNT, MOST_COUNT = 2_500, 4
LEARNING_RATE, PRESET_LEARNING_RATE = 1e-3, 3e-4
# Where training begins from a preset, it decides these.
OF_PRESET = (
    "backbone",
    "weights",
    "resize_mode",
    "pooling",
    *(field.name for field in dataclasses.fields(CaptionerOptions)),
)
# A run may be resumed with other values of these: the epochs of each stage.
EXTENDABLE = ("epochs", "patience", "fine_tune_epochs", "cider_epochs")
# The stages to which they belong, in their order.
STAGE_EPOCHS = {
    "crossentropy": "epochs",
    "fine_tuning": "fine_tune_epochs",
    "cider": "cider_epochs",
}

RECIPES = {
    # The field's classic, as in Keras' example and many courses.
    "classic": {"backbone": "vgg16", "fusion": "additive", "flips": False},
    # Three Transformer blocks, which need more epochs than an LSTM.
    "transformer": {
        "mixer": "transformer",
        "fusion": "attention",
        "num_layers": 3,
        "hidden_dim": 320,
        "dropout": 0.3,
        "learning_rate": 8e-4,
        "epochs": 20,
    },
    # To see in minutes whether a dataset works at all.
    "quick": {
        "pooling": "avg",
        "num_layers": 1,
        "hidden_dim": 256,
        "flips": False,
        "epochs": 5,
    },
    # All stages and larger images, as the shipped preset was made: hours.
    "thorough": {
        "image_size": 320,
        "augmentations": 1,
        "fine_tune_epochs": 3,
        "cider_epochs": 5,
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(CaptionerOptions):
    """All that decides the weights, besides the dataset: `asdict` is the recipe.

    A None means that the value depends on the data or on other options; `resolved`
    puts a value in its place.

    Raises:
        ValueError: a value is out of range, or two do not go together.

    Example:

    >>> TrainingOptions(epochs=3).batch_size
    32
    """

    recipe: str | None = option(
        None,
        "Named set of options; options that are given as well take precedence. "
        "classic: VGG16, LSTM and additive fusion. transformer: 3 Transformer layers. "
        "quick: pooled features and 5 epochs, for a first try. thorough: image "
        "augmentation, fine-tuning and CIDEr optimisation, for the best captions "
        "after some hours.",
        choices=tuple(RECIPES),
    )
    backbone: str = option(
        "efficientnet_lite2", "Image network; `captioner.backbone_names()` lists them."
    )
    weights: str | None = option(
        "imagenet",
        "Weights of the image network: imagenet, none for random ones, or the path of "
        "a .weights.h5 file.",
    )
    image_size: int | None = option(
        None,
        "Height and width of the images in pixels. [default: that of the preset or of "
        "the image network's weights]",
        least=1,
    )
    resize_mode: str = option(
        "squash",
        "How images that are not square are made square.",
        choices=("squash", "crop", "pad"),
    )
    pooling: str | None = option(
        None,
        "Average the image features to one vector per image. [default: keep the grid]",
        choices=("avg",),
    )
    min_count: int | None = option(
        None,
        "Words that occur fewer times in the training captions are unknown. [default: "
        f"{MOST_COUNT}, and fewer for fewer than "
        f"{(MOST_COUNT - 1) * CAPTIONS_PER_COUNT:,} captions]",
        least=1,
    )
    label_smoothing: float = option(
        0.1,
        "Share of the target probability that is spread over all words.",
        least=0,
        below=1,
    )
    batch_size: int = option(
        32,
        "Images per step, each with all its captions, on all devices. Fewer than 128 "
        "images make smaller batches.",
        least=1,
    )
    gradient_accumulation: int = option(
        1,
        "Number of parts in which each batch is processed: the same steps with less "
        "memory.",
        least=1,
    )
    epochs: int = option(
        15,
        "Maximum number of epochs with a frozen image network. 0 is allowed with "
        "--init-from and another stage.",
        least=0,
    )
    patience: int = option(
        4, "Stop a stage after this many epochs without a better CIDEr.", least=1
    )
    learning_rate: float | None = option(
        None,
        f"Peak learning rate of AdamW. [default: {LEARNING_RATE}; "
        f"{PRESET_LEARNING_RATE} from a preset]",
        least=0,
        below=math.inf,
    )
    warmup_epochs: float = option(
        0.5,
        "Epochs over which the learning rate rises to its peak; it then falls along a "
        "cosine to zero.",
        least=0,
        below=math.inf,
    )
    weight_decay: float = option(
        0.01,
        "Weight decay of AdamW, not applied to biases and norms.",
        least=0,
        below=math.inf,
    )
    clip_norm: float = option(
        5.0, "Maximum norm of the gradient; 0 for no limit.", least=0, below=math.inf
    )
    ema_epochs: float = option(
        1.0,
        "Length in epochs of the moving average of the weights that is scored and "
        "saved; 0 for the weights of the last step.",
        least=0,
        below=math.inf,
    )
    flips: bool = option(
        True,
        "Show half of the images mirrored, except where a caption says left or right. "
        "Doubles the features to compute.",
    )
    augmentations: int = option(
        0,
        "Number of randomly cropped, brightened and contrasted copies of each image. "
        "Each copy has features to compute.",
        least=0,
    )
    fine_tune_epochs: int = option(
        0,
        "Maximum number of epochs in which the last layers of the image network are "
        "trained as well.",
        least=0,
    )
    fine_tune_layers: int = option(
        8, "Number of layers of the image network to fine-tune.", least=1
    )
    fine_tune_learning_rate: float = option(
        1e-4, "Peak learning rate of fine-tuning.", least=0, below=math.inf
    )
    cider_epochs: int = option(
        0,
        "Number of epochs of CIDEr optimisation, in which the captioner learns from "
        "the CIDEr of its own captions.",
        least=0,
    )
    cider_learning_rate: float = option(
        5e-5, "Peak learning rate of CIDEr optimisation.", least=0, below=math.inf
    )
    cider_samples: int = option(
        5, "Captions sampled per image in CIDEr optimisation.", least=2
    )
    cider_crossentropy: float = option(
        0.0,
        "Share of cross-entropy in the loss of CIDEr optimisation.",
        least=0,
        below=1,
    )
    mixed_precision: str | None = option(
        None,
        "Precision of the decoder's matrix products. [default: float32]",
        choices=("bfloat16", "float16"),
    )
    jit_compile: bool = option(False, "Compile the training steps with XLA.")
    distribute: str | None = option(
        None,
        "Train on all GPUs of this machine (mirrored), on the machines in TF_CONFIG "
        "(multiworker), or on a TPU. [default: one device]",
        choices=("mirrored", "multiworker", "tpu"),
    )
    init_from: str | None = option(
        "auto",
        "Preset to start from, by name or folder: it decides the network, the decoder "
        "and the vocabulary, to which new words are added. none: start from scratch. "
        f"auto: the default preset, if there are fewer than {FEW_IMAGES:,} training "
        "images and it knows most of their words, unless another option describes "
        "another model.",
    )
    seed: int = option(
        0, "Seed of the initial weights, the order of images, dropout and samples."
    )

    def __post_init__(self):
        for name in ("weights", "init_from"):
            value = getattr(self, name)
            plain = None if value == "none" else value
            plain = os.fspath(plain) if isinstance(plain, os.PathLike) else plain
            object.__setattr__(self, name, plain)
        super().__post_init__()
        others = ("fine_tune_epochs", "cider_epochs")
        if not self.epochs and (
            self.init_from in (None, "auto") or not any(map(self._value, others))
        ):
            names = ("epochs", "init_from", *others)
            raise ValueError(
                "epochs may be 0 only with init_from and fine_tune_epochs or "
                "cider_epochs. Received: "
                + ", ".join(f"{name}={self._value(name)}" for name in names)
            )
        if self.distribute == "tpu" and self.cider_epochs:
            raise ValueError(
                "CIDEr optimisation does not run on a TPU: train without cider_epochs "
                "there, then continue from the preset on another machine (init_from, "
                "epochs=0). Received: distribute=tpu, "
                f"cider_epochs={self.cider_epochs}"
            )

    def _value(self, name):
        return getattr(self, name)

    @classmethod
    def of(cls, given):
        """The options of a dict; those of its recipe where it has none.

        Example:

        >>> TrainingOptions.of({"recipe": "quick", "epochs": 2}).pooling
        'avg'
        """
        return cls(**with_recipe(given))

    def learning_rate_of(self, stage):
        """The peak learning rate of a stage, by its name."""
        names = {
            "crossentropy": "learning_rate",
            "fine_tuning": "fine_tune_learning_rate",
            "cider": "cider_learning_rate",
        }
        return self._value(names[stage])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a training is run: nothing here decides the weights.

    Raises:
        ValueError: a value is out of range.
    """

    resume: bool = option(
        False,
        "Continue the training in OUTPUT with its own options: `captioner train "
        "--resume OUTPUT` is enough. More --epochs, --fine-tune-epochs, --cider-epochs "
        "or another --patience extend it.",
    )
    checkpoint_minutes: float = option(
        10.0,
        "Minutes between two checkpoints within an epoch.",
        least=0,
        below=math.inf,
    )
    cache_dir: str | None = option(
        None, "Folder for image features. [default: OUTPUT/features]"
    )
    clean: bool = option(
        False,
        "Delete the checkpoint and OUTPUT/features once the training is complete. "
        "With --resume, this cleans up a complete training.",
    )

    def __post_init__(self):
        if isinstance(self.cache_dir, os.PathLike):
            object.__setattr__(self, "cache_dir", os.fspath(self.cache_dir))
        check_options(self)


def with_recipe(given):
    """A dict of options together with those of its recipe.

    Raises:
        ValueError: there is no such recipe.
    """
    recipe = given.get("recipe")
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(
            f"recipe must be one of {', '.join(RECIPES)}. Received: recipe={recipe}"
        )
    return {**RECIPES.get(recipe, {}), **given}


def docstring(classes):
    """The fields of classes of options, as the `Args` of a docstring."""
    lines = []
    for field in (field for each in classes for field in dataclasses.fields(each)):
        text = re.sub(r"--([a-z-]+)", _argument, field.metadata["help"])
        lines += textwrap.wrap(
            f"{field.name}: {text}",
            88,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
    return "\n".join(lines).strip()


def _argument(flag):
    return flag[1].replace("-", "_")
