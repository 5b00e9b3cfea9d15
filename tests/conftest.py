"""Settings and fixtures that all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

# TensorFlow reads this once, when it is imported: its start-up notes hide real output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session", autouse=True)
def own_state_folder(tmp_path_factory):
    """A folder for the key of journals: tests leave the user's own alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tiny_backbone():
    """A small image network with random weights: 64 x 64 pixels, features (4, 1024)."""
    from captioner.backbones import VisionBackbone

    backbone = VisionBackbone("mobilenet", image_size=(64, 64), weights=None)
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        # Keras's own random weights let all pictures fade to nothing on the way.
        if len(weight.shape) == 4:
            height, width, channels, multiplier = weight.shape
            fan_in = height * width * (1 if multiplier == 1 else channels)
            weight.assign(rng.normal(0.0, (2 / fan_in) ** 0.5, weight.shape))
    return backbone


@pytest.fixture(scope="session")
def loud_weights():
    """Gives a decoder random weights, biases too, so large that each counts."""

    def assign(model):
        rng = np.random.default_rng(30)
        for weight in model.trainable_weights:
            noise = rng.normal(0.0, 0.5, weight.shape)
            weight.assign(noise + 1.0 if weight.name == "gamma" else noise)

    return assign


@pytest.fixture(scope="session")
def tiny_captioner(tiny_backbone, loud_weights):
    """An untrained captioner of ten words. Tests leave it as it is."""
    from captioner.images.image_converter import ImageConverter
    from captioner.tasks.caption_model import CaptionModel
    from captioner.tasks.image_captioner import ImageCaptioner
    from captioner.tasks.preprocessor import CaptionPreprocessor
    from captioner.tokenizers.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_captions(["a dog runs on the green grass with two cats"])
    model = CaptionModel(
        tokenizer.vocabulary_size,
        tiny_backbone.feature_shape,
        tiny_backbone,
        fusion="additive",
        num_layers=2,
        hidden_dim=16,
    )
    loud_weights(model)
    converter = ImageConverter(tiny_backbone.image_size)
    return ImageCaptioner(model, CaptionPreprocessor(converter, tokenizer, 8))
