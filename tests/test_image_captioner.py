import json
from pathlib import Path

import keras
import numpy as np
import pytest

from captioner import presets
from captioner.caption_model import CaptionModel
from captioner.image_captioner import ImageCaptioner
from captioner.image_converter import ImageConverter
from captioner.image_files import ImageError, load_image
from captioner.input_pipeline import training_batches
from captioner.preprocessor import CaptionPreprocessor
from captioner.samplers import BeamSampler, GreedySampler, Sampler


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))


@pytest.fixture(scope="module")
def images(tiny_captioner, photos):
    converter = tiny_captioner.preprocessor.image_converter
    return np.stack([converter(load_image(photo)) for photo in photos])


@pytest.fixture(scope="module")
def captions(tiny_captioner, photos):
    return tiny_captioner.generate(photos)


def test_photos_get_captions_of_their_own(captions, photos):
    assert len(captions) == len(photos)
    assert all(isinstance(caption, str) for caption in captions)
    assert len(set(captions)) > 1


def test_one_photo_gives_a_str(tiny_captioner, photos, captions):
    assert tiny_captioner.generate(photos[0]) == captions[0]
    assert tiny_captioner.generate([photos[0]]) == captions[:1]
    assert tiny_captioner.generate(tuple(photos[:2])) == captions[:2]
    assert tiny_captioner.generate([]) == []


@pytest.mark.parametrize(
    "source", [str, Path, Path.read_bytes, load_image], ids=lambda make: make.__name__
)
def test_path_bytes_and_array_alike(tiny_captioner, photos, captions, source):
    assert tiny_captioner.generate(source(photos[1])) == captions[1]
    mixed = [photos[0], source(photos[1]), str(photos[2])]
    assert tiny_captioner.generate(mixed) == captions[:3]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_changes_nothing(tiny_captioner, photos, captions, batch_size):
    assert tiny_captioner.generate(photos, batch_size=batch_size) == captions


@pytest.mark.parametrize(
    ("photo", "kind"),
    [(b"", "empty"), (b"no photo", "not_an_image"), ("missing.jpg", "missing")],
)
def test_a_bad_photo_raises_image_error(tiny_captioner, photos, photo, kind):
    for asked in (photo, [photos[0], photo]):
        with pytest.raises(ImageError) as caught:
            tiny_captioner.generate(asked)
        assert caught.value.kind == kind


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_preset_captions_as_before(tiny_captioner, images, captions, dtype, tmp_path):
    path = tiny_captioner.save_to_preset(
        tmp_path / "tiny", recipe={"seed": 3}, card="# Tiny", dtype=dtype
    )
    again = ImageCaptioner.from_preset(path)
    assert again.preprocessor.max_sequence_length == 8
    assert again.preprocessor.image_converter.image_size == (64, 64)
    found, scores = again.caption_batch(images)
    _, expected = tiny_captioner.caption_batch(images)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(scores, expected, rtol=tolerance)
    assert found == captions
    assert json.loads((path / "recipe.json").read_text()) == {"seed": 3}


def test_float16_halves_a_preset(tiny_captioner, tmp_path):
    sizes = [
        (
            tiny_captioner.save_to_preset(tmp_path / dtype, dtype=dtype)
            / presets.WEIGHTS_FILE
        )
        .stat()
        .st_size
        for dtype in ("float16", "float32")
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_compiled_captioner_saves_no_optimizer(tiny_captioner, tmp_path):
    plain = tiny_captioner.save_to_preset(tmp_path / "plain")
    compiled = ImageCaptioner(tiny_captioner.caption_model, tiny_captioner.preprocessor)
    compiled.compile("adam")
    trained = compiled.save_to_preset(tmp_path / "compiled")
    sizes = [(each / presets.WEIGHTS_FILE).stat().st_size for each in (plain, trained)]
    assert sizes[0] == sizes[1]
    assert compiled.caption_model.optimizer is not None


def test_the_sampler_is_part_of_a_preset(tiny_captioner, tmp_path):
    made = ImageCaptioner(
        tiny_captioner.caption_model,
        tiny_captioner.preprocessor,
        BeamSampler(num_beams=2, length_penalty=0.3),
    )
    again = ImageCaptioner.from_preset(made.save_to_preset(tmp_path / "beam"))
    assert again.sampler.get_config() == {"num_beams": 2, "length_penalty": 0.3}
    other = ImageCaptioner.from_preset(tmp_path / "beam", sampler="greedy")
    assert isinstance(other.sampler, GreedySampler)


def test_compile_chooses_the_sampler(tiny_captioner, images):
    made = ImageCaptioner(tiny_captioner.caption_model, tiny_captioner.preprocessor)
    assert isinstance(made.sampler, BeamSampler)
    beam = made.caption_batch(images)
    made.compile(sampler="greedy")
    greedy = made.caption_batch(images)
    assert isinstance(made.sampler, GreedySampler)
    made.compile(sampler=BeamSampler(1, length_penalty=0.0))
    one_beam = made.caption_batch(images)
    made.compile()
    assert isinstance(made.sampler, BeamSampler)  # stays as it is
    assert one_beam[0] == greedy[0]
    np.testing.assert_allclose(one_beam[1], greedy[1], rtol=1e-5)
    assert not np.allclose(beam[1], greedy[1])
    with pytest.raises(ValueError, match="greedy, beam .*Received: sampler=nope"):
        made.compile(sampler="nope")


def test_a_sampler_of_ones_own_generates_but_has_no_preset(
    tiny_captioner, photos, tmp_path
):
    class SecondBest(GreedySampler):
        pass

    assert issubclass(SecondBest, Sampler)
    made = ImageCaptioner(
        tiny_captioner.caption_model, tiny_captioner.preprocessor, SecondBest()
    )
    assert isinstance(made.generate(photos[0]), str)
    with pytest.raises(ValueError, match="can only name a sampler of greedy, beam"):
        made.save_to_preset(tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_features_and_images_give_the_same_captions(tiny_captioner, images, captions):
    features = tiny_captioner.caption_model.encode(images)
    found, scores = tiny_captioner.caption_features(features)
    assert found == captions
    assert scores.shape == (len(images),)
    # What a feature cache keeps.
    half, _ = tiny_captioner.caption_features(np.asarray(features).astype("float16"))
    assert half == captions


def test_one_trace_for_batches_of_any_size(tiny_captioner, images, monkeypatch):
    made = ImageCaptioner(tiny_captioner.caption_model, tiny_captioner.preprocessor)
    traces = []

    def count(owner, name):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            traces.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(CaptionModel, "encode")
    count(BeamSampler, "__call__")
    made.compile(sampler=BeamSampler(2))  # traces anew, now counted
    for size in (4, 1, 7, 4):
        assert len(made.caption_batch(images[:size])[0]) == size
    assert sorted(traces) == ["__call__", "encode"]


def test_a_converter_of_another_size_is_refused(tiny_captioner):
    preprocessor = CaptionPreprocessor(
        ImageConverter((32, 32)), tiny_captioner.preprocessor.tokenizer
    )
    with pytest.raises(ValueError, match=r"image_size=\(32, 32\)"):
        ImageCaptioner(tiny_captioner.caption_model, preprocessor)


def test_fit_learns_two_photos_by_heart(tiny_captioner, tiny_backbone, photos, images):
    keras.utils.set_random_seed(0)
    preprocessor = tiny_captioner.preprocessor
    model = CaptionModel(
        preprocessor.tokenizer.vocabulary_size,
        tiny_backbone.feature_shape,
        tiny_backbone,
        hidden_dim=16,
        dropout=0.0,
    )
    made = ImageCaptioner(model, preprocessor)
    made.compile(keras.optimizers.Adam(0.005))
    frozen = tiny_backbone.fingerprint()
    features = model.encode(images[:2]).numpy()
    reader = "image_features", lambda indices: features[indices]
    batches, steps = training_batches(
        reader,
        [["a dog runs", "a dog runs"], ["two cats on the grass"]],
        batch_size=2,
        epochs=60,
        seed=0,
    )
    history = made.fit(
        batches.repeat(),
        steps_per_epoch=200,
        validation_data=batches.take(1),
        verbose=0,
    )
    assert steps == 1
    assert made.generate(photos[:2]) == ["a dog runs", "two cats on the grass"]
    assert history.history["val_loss"][-1] < 0.5  # log(14) = 2.6 before
    assert tiny_backbone.fingerprint() == frozen
