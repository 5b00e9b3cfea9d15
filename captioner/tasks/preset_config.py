"""A model from the configuration of a preset, which anybody may have written."""

import contextlib

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import initialize_all_variables

from captioner.images.image_converter import ImageConverter
from captioner.samplers.constraints import MAX_LENGTH

MAX_PIXELS = 2_048**2  # of one converted photo
MAX_STATE = 2**26  # numbers that decoding keeps of one photo
DTYPES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


@contextlib.contextmanager
def shapes_alone():
    """Build Keras models whose variables have shapes, and never any memory.

    So a model that is too large, or does not fit its weights, is refused at no cost.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Or the next scope that ends would make them.
        global_state.set_global_attribute("uninitialized_variables", [])


@contextlib.contextmanager
def memory_at_the_end():
    """As `shapes_alone`; but variables get their memory if the block ends well."""
    with shapes_alone():
        yield
        waiting = global_state.get_global_attribute("uninitialized_variables")
    global_state.set_global_attribute("uninitialized_variables", waiting)
    initialize_all_variables()


def check_config(config, tokenizer):
    """Refuse sizes that would take the memory, before anything is built.

    Args:
        config: the dict of a preset's `config.json`.
        tokenizer: its `Tokenizer`.

    Raises:
        ValueError, KeyError, TypeError: a size is out of range, missing, or no number.
    """
    model = config["caption_model"]
    positions, width = model["image_feature_shape"]
    height_of_photos, width_of_photos = config["image_converter"]["image_size"]
    sizes = {
        "hidden_dim": (model["hidden_dim"], 16_384),
        "intermediate_dim": (model.get("intermediate_dim") or 1, 65_536),
        "num_layers": (model["num_layers"], 128),
        "num_heads": (model.get("num_heads", 8), 1_024),
        "max_sequence_length": (config["max_sequence_length"], MAX_LENGTH),
        "image height": (height_of_photos, 4_096),
        "image width": (width_of_photos, 4_096),
        "image pixels": (height_of_photos * width_of_photos, MAX_PIXELS),
        "image positions": (positions, 16_384),
        "image feature width": (width, 16_384),
    }
    for name, (size, limit) in sizes.items():
        if not (type(size) is int and 0 < size <= limit):
            raise ValueError(
                f"{name} must be a whole number from 1 to {limit}. "
                f"Received: {name}={size!r}"
            )
    backbone = model["vision_backbone"]
    if backbone is not None and list(backbone["image_size"]) != list(
        config["image_converter"]["image_size"]
    ):
        raise ValueError(
            "the image converter and the image network must have one image_size. "
            f"Received: {config['image_converter']['image_size']} and "
            f"{backbone['image_size']}"
        )
    if model["vocabulary_size"] != tokenizer.vocabulary_size:
        raise ValueError(
            f"the vocabulary has {tokenizer.vocabulary_size} words. "
            f"Received: vocabulary_size={model['vocabulary_size']}"
        )
    if model.get("dtype", "float32") not in DTYPES:
        raise ValueError(
            f"dtype must be one of {', '.join(DTYPES)}. "
            f"Received: dtype={model['dtype']}"
        )


def check_decoding(sampler, model, max_sequence_length):
    """Refuse a sampler that would keep too much of each photo.

    Raises:
        ValueError: beams times words, or beams times the text cache, is too much.
    """
    length = sampler.constraints.max_length or max_sequence_length
    cache = model.num_layers * 2 * model.hidden_dim
    if model.mixer == "transformer":
        cache *= length
    each = cache + 3 * model.vocabulary_size + 2 * length
    if sampler.rows_per_image * each > MAX_STATE:
        most = MAX_STATE // each
        raise ValueError(
            f"This model decodes {most} beams or samples of a photo at most. "
            f"Received: {sampler.rows_per_image}"
        )


def converter_from(config):
    """The `ImageConverter` of a preset's configuration."""
    names = ("image_size", "resize_mode", "interpolation")
    return ImageConverter(**{name: config[name] for name in names if name in config})
