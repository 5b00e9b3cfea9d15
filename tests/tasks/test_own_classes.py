"""A user's own network, fusion, mixer and sampler: trained, saved, loaded, used."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from keras.saving import register_keras_serializable

import captioner
from captioner.backbones.own_network import check_classes
from captioner.decoders import Fusion, TextMixer
from captioner.images.image_files import load_image
from captioner.presets import PresetError
from captioner.samplers import GreedySampler
from captioner.tasks.image_captioner import ImageCaptioner


@register_keras_serializable(package="tests")
class Network(keras.Model):
    """A registered class with an argument of its own."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.scale = keras.layers.Rescaling(1 / 255)
        self.convolution = keras.layers.Conv2D(width, 4, strides=4, activation="relu")
        self.pool = keras.layers.AveragePooling2D(4)

    def call(self, images):
        return self.pool(self.convolution(self.scale(images)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@register_keras_serializable(package="tests")
class MaxFusion(Fusion):
    def build(self, text_shape, image_features_shape):
        self.image_dense = self._dense("image_dense")
        self.image_dense.build(image_features_shape)
        self.output_dense.build((None, None, self.hidden_dim))
        self.built = True

    def build_cache(self, image_features, training=None):
        return ops.max(self.image_dense(image_features), axis=1, keepdims=True)

    def call(self, text, cache, training=None):
        return self.output_dense(text + cache)


@register_keras_serializable(package="tests")
class DenseMixer(TextMixer):
    """Sees the last word alone."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dense = keras.layers.Dense(self.hidden_dim, name="dense")

    def build(self, text_shape):
        self.dense.build(text_shape)
        self.built = True

    def call(self, text, segment_ids=None, training=None):
        return self.dense(text)

    def build_cache(self, batch_size, max_length):
        return [ops.zeros((batch_size, 1))]

    def step(self, text, cache, index):
        return self.dense(text), cache


@register_keras_serializable(package="tests")
class SecondBest(GreedySampler):
    """Takes the second likeliest word at its first place."""

    def __init__(self, place=0, **kwargs):
        super().__init__(**kwargs)
        self.place = place

    def choose(self, probabilities, state, rules):
        best = ops.top_k(probabilities, 2)[1]
        words = ops.where(state.index == self.place, best[..., 1], best[..., 0])
        return self.write(words, probabilities, state, rules)

    def get_config(self):
        return {**super().get_config(), "place": self.place}


def sequential():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(6, 4, strides=4, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(4),
        ]
    )


def functional():
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    left = keras.layers.Conv2D(5, 4, strides=16, activation="relu")(x)
    right = keras.layers.SeparableConv2D(5, 4, strides=16)(x)
    return keras.Model(image, ops.relu(left + right), name="own")


NETWORKS = {
    "registered": lambda: Network(7),
    "sequential": sequential,
    "functional": functional,
}


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))[:4]


def make(network, loud_weights=None, **options):
    keras.utils.set_random_seed(3)
    tokenizer = captioner.Tokenizer.from_captions(["a dog runs on the green grass"])
    backbone = captioner.VisionBackbone(network, image_size=(32, 32))
    options = {"hidden_dim": 16, "num_layers": 1, "dropout": 0.0, **options}
    model = captioner.CaptionModel(
        tokenizer.vocabulary_size, backbone.feature_shape, backbone, **options
    )
    if loud_weights:
        loud_weights(model)
    converter = captioner.ImageConverter((32, 32))
    return ImageCaptioner(model, captioner.CaptionPreprocessor(converter, tokenizer, 6))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_ones_own(name, photos, loud_weights, tmp_path):
    made = make(NETWORKS[name](), loud_weights)
    assert made.backbone.feature_shape[0] == made.caption_model.image_feature_shape[0]
    assert not made.backbone.trainable_weights  # frozen, as all are at first
    expected = made.generate(photos)
    preset = made.save_to_preset(tmp_path / "own")
    again = ImageCaptioner.from_preset(preset)
    assert again.generate(photos) == expected
    assert again.fingerprint() == made.fingerprint()
    np.testing.assert_allclose(
        again.encode([again.convert(load_image(photos[0]))]),
        made.encode([made.convert(load_image(photos[0]))]),
        atol=1e-6,
    )
    found = list(captioner.caption(photos, preset, output=tmp_path / "captions.csv"))
    assert [result.caption for result in found] == expected


def test_every_part_of_ones_own_through_every_verb(photos, tmp_path):
    made = make(Network(7), fusion=MaxFusion, mixer="tests>DenseMixer")
    assert made.caption_model.fusion == "tests>MaxFusion"
    made.compile(keras.optimizers.Adam(0.01), sampler=SecondBest(1))
    examples = [{"image": photo, "captions": ["a dog runs"]} for photo in photos]
    history = made.fit(examples, epochs=8, batch_size=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    expected = made.generate(photos)
    preset = made.save_to_preset(tmp_path / "own")
    again = ImageCaptioner.from_preset(preset)
    assert type(again.sampler) is SecondBest and again.sampler.place == 1
    assert again.generate(photos) == expected
    assert made.replaced(SecondBest(0)).generate(photos) != expected
    found = captioner.caption(photos, preset)
    assert [result.caption for result in found] == expected
    table = tmp_path / "table.csv"
    rows = [f"{photo},a dog runs,test" for photo in photos]
    table.write_text("\n".join(["image,caption,split", *rows]))
    evaluation = captioner.evaluate(preset, table, java_metrics=False)
    assert list(evaluation.captions.values()) == expected
    assert evaluation.protocol["sampler"] == "SecondBest"
    exported = captioner.export(preset, tmp_path / "exported")
    import tensorflow as tf

    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    data = tf.constant([photo.read_bytes() for photo in photos])
    served = serve(image_bytes=data)["captions"].numpy()
    assert [caption.decode() for caption in served] == expected


def test_a_preset_of_classes_that_are_not_known_here(photos, tmp_path):
    preset = make(Network(7), fusion=MaxFusion).save_to_preset(tmp_path / "own")
    script = (
        "import sys, captioner\n"
        "try: captioner.ImageCaptioner.from_preset(sys.argv[1])\n"
        "except captioner.PresetError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(preset)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tests>" in done.stdout or "Network" in done.stdout
    assert "register_keras_serializable" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_class_that_is_not_registered_comes_by_custom_objects(photos, tmp_path):
    class Late(MaxFusion):
        pass

    class Lazy(GreedySampler):
        pass

    made = make(sequential(), fusion=Late)
    made.compile(sampler=Lazy())
    preset = made.save_to_preset(tmp_path / "own")
    own = {"Late": Late, "Lazy": Lazy}
    again = ImageCaptioner.from_preset(preset, custom_objects=own)
    assert again.generate(photos) == made.generate(photos)
    with pytest.raises(PresetError, match="registered with keras.saving"):
        ImageCaptioner.from_preset(preset)
    (result,) = captioner.caption(photos[0], again)
    assert result.caption == made.generate(photos[0])


def lambda_layer():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Lambda(lambda x: x / 255),
            keras.layers.Conv2D(4, 8, strides=8),
        ]
    )


class Forgetful(Network):
    """Its configuration lacks its argument."""

    def get_config(self):
        return {"name": self.name}


class Growing(Network):
    """What its configuration makes is another network."""

    def get_config(self):
        return {**super().get_config(), "width": self.width + 1}


@pytest.mark.parametrize(
    "network",
    [lambda_layer, lambda: Forgetful(4), lambda: Growing(4)],
    ids=["lambda", "forgetful", "growing"],
)
def test_what_cannot_be_loaded_is_not_saved(network, tmp_path):
    made = make(network())
    with pytest.raises(ValueError, match="cannot be saved") as caught:
        made.save_to_preset(tmp_path / "own")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "own").exists()


def test_a_sampler_that_cannot_be_loaded_is_not_saved(tmp_path):
    class Needs(GreedySampler):
        def __init__(self, something):
            super().__init__()

    made = make(sequential())
    made.compile(sampler=Needs(1))
    with pytest.raises(ValueError, match="cannot be saved"):
        made.save_to_preset(tmp_path / "own")


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ([keras.layers.Flatten(), keras.layers.Dense(4)], "grid of features"),
        ([keras.layers.GlobalAveragePooling2D()], "grid of features"),
        ([keras.layers.Conv2D(4, 64)], "fails on photos|grid"),
    ],
)
def test_a_network_of_another_output_is_refused(layers, complaint):
    image = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=complaint):
        x = image
        if isinstance(layers[0], keras.layers.Flatten):
            image = x = keras.Input((32, 32, 3))
        for layer in layers:
            x = layer(x)
        captioner.VisionBackbone(keras.Model(image, x), image_size=(32, 32))


def test_a_network_of_another_input_is_refused():
    image = keras.Input((48, 48, 3))
    network = keras.Model(image, keras.layers.Conv2D(4, 16, strides=16)(image))
    assert captioner.VisionBackbone(network).image_size == (48, 48)
    with pytest.raises(ValueError, match=r"image_size=\(32, 32\)"):
        captioner.VisionBackbone(network, image_size=(32, 32))
    flat = keras.Input((10,))
    with pytest.raises(ValueError, match="must take photos"):
        captioner.VisionBackbone(keras.Model(flat, keras.layers.Dense(3)(flat)))


@pytest.mark.parametrize("wrong", ["nope", GreedySampler, keras.layers.Dense, 3])
def test_what_is_no_fusion(wrong):
    with pytest.raises(ValueError, match="subclass of Fusion .*Received: fusion="):
        make(sequential(), fusion=wrong)


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "system", "module": "os", "config": {}},
        {"class_name": "Lambda", "module": "keras.layers", "config": {}},
        {"class_name": "TFSMLayer", "module": "keras.layers", "config": {}},
        {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {}},
        {"class_name": "get_file", "module": "keras.utils", "config": {}},
        {"class_name": "X", "module": "keras_cv.models", "config": {}},
        {"class_name": "__lambda__", "config": {"value": "x"}},
        {
            "class_name": "function",
            "module": "keras.utils",
            "config": "get_file",
            "registered_name": "tests>Network",
        },
    ],
    ids=lambda config: str(config["class_name"]),
)
def test_a_configuration_that_names_code_is_refused(config):
    layer = {"class_name": "Activation", "module": "keras.layers"}
    inside = {**layer, "config": {"activation": config}}
    for network in (
        config,
        {"class_name": "Sequential", "module": "keras", "config": [inside]},
    ):
        with pytest.raises(ValueError, match="a preset must not name"):
            check_classes(network)
