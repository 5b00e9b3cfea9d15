import importlib
import shutil
import warnings

import keras
import numpy as np
import pytest

from captioner.backbones import VisionBackbone, backbone_names
from captioner.backbones.vision_backbone import KERAS_APPLICATIONS
from captioner.images.image_files import load_image


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, 64, 64, 3)).astype("float32")


def reference_features(network, module, images):
    """What someone gets who calls `keras.applications` by hand."""
    preprocess = importlib.import_module(f"keras.applications.{module}")
    grid = network(preprocess.preprocess_input(images.copy())).numpy()
    return grid.reshape(len(grid), -1, grid.shape[-1])


@pytest.mark.parametrize("name", KERAS_APPLICATIONS)
def test_every_name_exists_in_keras(name):
    constructor, module, side = KERAS_APPLICATIONS[name]
    assert callable(getattr(keras.applications, constructor))
    assert callable(getattr(keras.applications, module).preprocess_input)
    # The module is the family's: ResNet50V2 has another mode than ResNet50.
    assert constructor.lower().startswith(module.replace("_", "")[:6])
    assert ("V2" in constructor) == ("v2" in module)
    assert side >= 224


def test_no_family_of_keras_is_missing():
    networks = {
        name
        for name in dir(keras.applications)
        if callable(getattr(keras.applications, name))
    }
    assert networks == {
        constructor for constructor, _, _ in KERAS_APPLICATIONS.values()
    }


def test_names():
    names = backbone_names()
    assert names == sorted(names)
    assert {"vgg16", "resnet50", "efficientnet_lite0", "efficientnet_lite2"} < {*names}


# One of each preprocessing mode: caffe (BGR, means), torch (means and deviations),
# tf (-1 to 1), and inside the network.
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet50", 64), ("densenet121", 32), ("mobilenet_v2", 32)]
    + [("efficientnet_b0", 32)],
)
def test_preprocessing_is_the_networks_own(name, side, images, tmp_path):
    images = images[:, :side, :side]
    constructor, module, _ = KERAS_APPLICATIONS[name]
    network = getattr(keras.applications, constructor)(
        include_top=False, weights=None, input_shape=(side, side, 3)
    )
    weights = tmp_path / "network.weights.h5"
    network.save_weights(weights)
    backbone = VisionBackbone(name, image_size=(side, side), weights=weights)
    expected = reference_features(network, module, images)
    assert np.abs(expected).max() > 0
    found = backbone(images).numpy()
    assert found.shape == (2, *backbone.feature_shape)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
    # A few pixels of another colour are not the same.
    assert np.abs(backbone(images[..., ::-1]).numpy() - found).max() > 1e-3 * scale


@pytest.fixture(scope="module")
def vgg16_weights(repository):
    path = repository.parent / "shared/pretrained/vgg16_imagenet_notop.weights.h5"
    if not path.is_file():
        pytest.skip(f"needs VGG16's ImageNet weights, {path.name}")
    return path


def test_vgg16_is_the_published_network(repository, vgg16_weights):
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(96, 96, 3)
    )
    network.load_weights(vgg16_weights)
    photos = sorted((repository / "data" / "samples").glob("*.jpg"))[:3]
    images = np.stack([load_image(photo)[:96, :96] for photo in photos])
    images = images.astype("float32")
    backbone = VisionBackbone("vgg16", image_size=(96, 96), weights=vgg16_weights)
    found = backbone(images).numpy()
    assert found.shape == (3, 9, 512)
    expected = reference_features(network, "vgg16", images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert expected.max() > 10  # trained on pixels of this scale


def test_pooling_is_the_mean_of_the_grid(tiny_backbone, images, tmp_path):
    tiny_backbone.network.save_weights(tmp_path / "tiny.weights.h5")
    pooled = VisionBackbone(
        tiny_backbone.architecture,
        image_size=tiny_backbone.image_size,
        pooling="avg",
        weights=tmp_path / "tiny.weights.h5",
    )
    grid = tiny_backbone(images).numpy()
    assert grid.shape == (2, *tiny_backbone.feature_shape) == (2, 4, 1024)
    assert pooled(images).shape == (2, *pooled.feature_shape) == (2, 1, 1024)
    np.testing.assert_allclose(
        pooled(images)[:, 0], grid.mean(axis=1), rtol=1e-5, atol=1e-6
    )


def test_positions_go_row_by_row(tiny_backbone, images):
    grid = tiny_backbone.network(tiny_backbone.normalize(images.copy())).numpy()
    assert grid.shape == (2, 2, 2, 1024)
    features = tiny_backbone(images).numpy()
    for position, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        np.testing.assert_allclose(
            features[:, position], grid[:, row, column], rtol=1e-5, atol=1e-6
        )


def test_default_size_is_the_one_of_training():
    backbone = VisionBackbone("mobilenet_v3_small", weights=None)
    assert backbone.image_size == (224, 224)
    assert backbone.feature_shape == (49, 576)


def test_a_backbone_is_frozen_unless_told_otherwise(tiny_backbone):
    assert tiny_backbone.trainable_weights == []
    trained = VisionBackbone("mobilenet", (32, 32), weights=None, trainable=True)
    assert len(trained.trainable_weights) > 0
    assert trained.get_config()["trainable"] is True


def test_config_round_trip(tiny_backbone, images, tmp_path):
    again = VisionBackbone.from_config(tiny_backbone.get_config())
    assert again.get_config() == tiny_backbone.get_config()
    tiny_backbone.save_weights(tmp_path / "backbone.weights.h5")
    again.load_weights(tmp_path / "backbone.weights.h5")
    np.testing.assert_allclose(again(images), tiny_backbone(images), atol=1e-6)
    assert again.fingerprint() == tiny_backbone.fingerprint()


def test_fingerprint_changes_with_what_changes_features(tiny_backbone):
    config = tiny_backbone.get_config()
    again, pooled, larger = (
        VisionBackbone.from_config({**config, **change})
        for change in ({}, {"pooling": "avg"}, {"image_size": (96, 96)})
    )
    weights = tiny_backbone.get_weights()
    for backbone in (again, pooled, larger):
        backbone.set_weights(weights)
    assert again.fingerprint() == tiny_backbone.fingerprint()

    weights[-1] = weights[-1] + np.eye(1, len(weights[-1]), dtype="float32")[0] * 1e-3
    again.set_weights(weights)
    prints = [each.fingerprint() for each in (tiny_backbone, again, pooled, larger)]
    assert len(set(prints)) == 4


def test_unknown_names():
    with pytest.raises(ValueError, match="one of .*vgg16.*architecture=vgg17"):
        VisionBackbone("vgg17")
    with pytest.raises(ValueError, match="Received: pooling=max"):
        VisionBackbone("vgg16", pooling="max")


def test_weights_of_another_network(tiny_backbone, tmp_path):
    path = tmp_path / "tiny.weights.h5"
    tiny_backbone.network.save_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # one clear line is enough
        with pytest.raises(ValueError, match=f"do not fit .*weights={path}"):
            VisionBackbone("mobilenet_v3_small", (64, 64), weights=path)


def test_weights_that_are_no_weights(repository, tmp_path):
    photo = repository / "data" / "samples" / "coffee.jpg"
    for name in ("photo.weights.h5", "photo.jpg"):
        path = shutil.copy(photo, tmp_path / name)
        with pytest.raises((OSError, ValueError), match=f"weights={path}"):
            VisionBackbone("mobilenet", (32, 32), weights=path)


def test_weights_that_are_not_there(tmp_path):
    path = tmp_path / "missing.weights.h5"
    with pytest.raises(OSError, match=f"cannot be read .*weights={path}"):
        VisionBackbone("mobilenet", (32, 32), weights=path)
