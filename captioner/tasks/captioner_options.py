"""The options of a captioner's decoder, and their defaults: the one place for both.

`CaptionModel`, `CaptionPreprocessor`, `train` and its command line take them from here.
Nothing here loads TensorFlow.
"""

import dataclasses


def option(default, help, least=None, below=None, choices=None, registry=False):
    """A field of a dataclass of options.

    Args:
        default: its default.
        help: one or two sentences, for `--help` and the docstring of `train`.
        least, below: the smallest number allowed, and the one that it stays below.
        choices: the allowed values besides None.
        registry: whether the choices are only those of captioner itself, to which a
            program can add its own classes; the model checks them then.
    """
    metadata = {"help": help, "least": least, "below": below}
    metadata |= {"choices": choices, "registry": registry}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionerOptions:
    """What a decoder is made of.

    Raises:
        ValueError: a value is out of range or not one of the choices.

    Example:

    >>> CaptionerOptions(num_layers=1).hidden_dim
    512
    """

    mixer: str = option(
        "lstm",
        "Text mixer of the decoder.",
        choices=("lstm", "transformer"),
        registry=True,
    )
    fusion: str | None = option(
        None,
        "How the decoder uses the image. [default: attention; additive with "
        "pooled features]",
        choices=("additive", "concat", "weighted", "attention"),
        registry=True,
    )
    num_layers: int = option(2, "Number of decoder layers.", least=1)
    hidden_dim: int = option(512, "Width of the decoder.", least=1)
    intermediate_dim: int | None = option(
        None,
        "Width of the feed-forward network of a Transformer, and of the image in "
        "additive, concat and weighted fusion. [default: 4 times the hidden "
        "dimension, and the hidden dimension]",
        least=1,
    )
    num_heads: int = option(
        8,
        "Number of attention heads of a Transformer and of attention fusion.",
        least=1,
    )
    dropout: float = option(0.4, "Dropout rate of the decoder.", least=0, below=1)
    max_sequence_length: int = option(
        20,
        "Maximum number of tokens of a caption, including the end token. Longer "
        "training captions are cut.",
        least=2,
    )

    def __post_init__(self):
        check_options(self)


def check_options(options):
    """Refuse a dataclass of options if one of its values is not allowed.

    Raises:
        ValueError: a value is out of range or not one of the choices.
    """
    for field in dataclasses.fields(options):
        _check(field.name, getattr(options, field.name), field.metadata)


def default_fusion(image_feature_shape):
    """Attention over a grid (P, E); additive where P is 1, with nothing to attend over.

    Example:

    >>> default_fusion((49, 512)), default_fusion((1, 512))
    ('attention', 'additive')
    """
    return "attention" if image_feature_shape[0] > 1 else "additive"


def _check(name, value, metadata):
    choices, least, below = (metadata[key] for key in ("choices", "least", "below"))
    if value is None:
        return
    if choices and not metadata["registry"] and value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}. Received: {name}={value}"
        )
    if least is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number. Received: {name}={value!r}")
    if not least <= value or (below is not None and not value < below):  # nor nan
        limit = "" if below is None else f" and less than {below}"
        raise ValueError(
            f"{name} must be {least} or more{limit}. Received: {name}={value}"
        )
