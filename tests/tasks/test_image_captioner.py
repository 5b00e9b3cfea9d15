import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from captioner import presets
from captioner.decoders import MIXERS
from captioner.decoders.fusion import FUSIONS
from captioner.features.input_pipeline import training_batches
from captioner.images.image_converter import ImageConverter
from captioner.images.image_files import ImageError, load_image
from captioner.samplers import (
    SAMPLERS,
    BeamSampler,
    Constraints,
    GreedySampler,
    Sampler,
)
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))


@pytest.fixture(scope="module")
def images(tiny_captioner, photos):
    converter = tiny_captioner.preprocessor.image_converter
    size = converter.image_size
    return np.stack([converter(load_image(photo, size)) for photo in photos])


def written(task, images):
    """What `write` makes of converted photos: captions and scores."""
    results = task.write([*images])
    return [each.text for each in results], [each.score for each in results]


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


def test_the_nesting_of_photos_is_that_of_captions(tiny_captioner, photos, captions):
    first, second, third = captions[:3]
    nested = {"a": [photos[0], (photos[1],)], "b": photos[2]}
    expected = {"a": [first, (second,)], "b": third}
    assert tiny_captioner.generate(nested) == expected
    assert tiny_captioner.generate(nested, batch_size=2) == expected
    assert tiny_captioner.generate(tuple(photos[:2])) == (first, second)


@pytest.mark.parametrize("images", [[], (), {"a": []}, np.zeros((0, 4, 1024), "f4")])
def test_no_photo_is_refused(tiny_captioner, images):
    with pytest.raises(ValueError, match="one photo or more. Received: images="):
        tiny_captioner.generate(images)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_a_batch_size_that_cannot_be(tiny_captioner, photos, batch_size):
    with pytest.raises(ValueError, match=f"Received: batch_size={batch_size}"):
        tiny_captioner.generate(photos, batch_size=batch_size)


def test_photos_of_one_size_may_be_one_array(tiny_captioner, photos):
    array = np.stack([load_image(photo)[:100, :120] for photo in photos[:3]])
    expected = tiny_captioner.generate(list(array))
    assert tiny_captioner.generate(array) == expected
    assert tiny_captioner.generate(tf.constant(array)) == expected


@pytest.mark.parametrize("shape", [(4, 7), (81, 1280)])
def test_features_of_another_network_are_refused(tiny_captioner, photos, shape):
    features = np.ones(shape, "float32")
    for images in (features, [photos[0], features]):
        with pytest.raises(ValueError, match=rf"Received: shape=\({shape[0]}, "):
            tiny_captioner.generate(images)


def test_features_in_place_of_photos(tiny_captioner, photos, images, captions):
    features = tiny_captioner.caption_model.encode(images)
    assert tiny_captioner.generate(features) == captions
    # What a feature cache keeps.
    half = np.asarray(features).astype("float16")
    assert tiny_captioner.generate(half[1]) == captions[1]
    mixed = [half[0], photos[1], features[2]]
    assert tiny_captioner.generate(mixed) == captions[:3]


def test_results_say_what_the_model_says(tiny_captioner, photos, images, captions):
    sampler = BeamSampler(4, 0.7, num_hypotheses=3)
    made = ImageCaptioner.from_preset(tiny_captioner, sampler)
    results = made.generate_results(photos)
    model, tokenizer = made.caption_model, made.preprocessor.tokenizer
    features = model.encode(images)
    for row, result in enumerate(results):
        assert result.text == result.hypotheses[0].text
        assert len({each.text for each in result.hypotheses}) == 3
        assert result.attention is None
        scores = [each.score for each in result.hypotheses]
        assert scores == sorted(scores, reverse=True)
        for each in result.hypotheses:
            ids = each.token_ids
            assert each.text == tokenizer.detokenize(ids).numpy().decode()
            assert (ids[-1] == tokenizer.end_id) == (each.finish_reason == "end")
            # The whole caption at once, without cache or beams.
            logits = model(
                {
                    "image_features": features[row : row + 1],
                    "token_ids": np.array([[tokenizer.start_id, *ids[:-1]]]),
                }
            )
            expected = tf.gather(tf.nn.log_softmax(logits[0]), ids, batch_dims=1)
            np.testing.assert_allclose(each.log_probs, expected, atol=1e-4)
            assert each.total_log_prob == pytest.approx(sum(each.log_probs), abs=1e-4)
            score = each.total_log_prob / len(ids) ** 0.7
            assert each.score == pytest.approx(score, abs=1e-4)
    assert made.generate(photos) == [result.text for result in results]
    with pytest.raises(AttributeError):
        results[0].text = "a cat"


def test_the_attention_map_of_each_word(tiny_captioner, photos, monkeypatch):
    def attention_scores(self, inputs):
        """That a token was given, at the position of its id."""
        assert inputs["image_features"].shape[1:] == (4, 1024)
        return tf.one_hot(inputs["token_ids"] % 4, 4)

    monkeypatch.setattr(CaptionModel, "attention_scores", attention_scores, False)
    monkeypatch.setattr(CaptionModel, "has_attention", True)
    made = ImageCaptioner(tiny_captioner.caption_model, tiny_captioner.preprocessor)
    for result in made.generate_results(photos[:3], batch_size=2, attention=True):
        assert result.attention.shape == (len(result.token_ids), 2, 2)
        seen = result.attention.reshape(-1, 4).argmax(axis=-1)
        # The token before each: what a word saw is what led to it.
        before = [made.preprocessor.tokenizer.start_id, *result.token_ids[:-1]]
        np.testing.assert_array_equal(seen, np.mod(before, 4))


PAIRS = [*itertools.product(MIXERS, FUSIONS)]
STRATEGIES = [*SAMPLERS]


# Each pair with one strategy, and with another where there is time: all take minutes.
@pytest.mark.parametrize(
    "mixer, fusion, name",
    [
        *((*pair, name) for pair, name in zip(PAIRS, itertools.cycle(STRATEGIES))),
        *(
            pytest.param(*pair, name, marks=pytest.mark.exhaustive)
            for pair, name in zip(PAIRS, itertools.cycle(STRATEGIES[::-1]))
        ),
    ],
)
def test_one_loop_for_every_mixer_and_fusion(
    tiny_captioner, loud_weights, mixer, fusion, name
):
    tokenizer = tiny_captioner.preprocessor.tokenizer
    model = CaptionModel(
        tokenizer.vocabulary_size, (4, 6), None, mixer, fusion, 2, hidden_dim=16
    )
    loud_weights(model)
    constraints = Constraints(
        prefix="two", banned=["the grass"], bad_endings=["a", "on the"], min_length=3
    )
    made = ImageCaptioner(
        model, tiny_captioner.preprocessor, SAMPLERS[name](constraints=constraints)
    )
    features = np.random.default_rng(0).normal(size=(5, 4, 6)).astype("float32")
    outputs = [
        tf.function(made.generate_step, jit_compile=jit, autograph=False)(features)
        for jit in (False, True)
    ]
    if name != "random":  # XLA draws otherwise
        np.testing.assert_array_equal(*(output.token_ids for output in outputs))
        np.testing.assert_allclose(*(output.scores for output in outputs), rtol=1e-4)
    for output in outputs:
        tokens = output.token_ids[:, 0]
        before = tf.pad(tokens[:, :-1], [[0, 0], [1, 0]], constant_values=1)
        logits = model({"image_features": features, "token_ids": before})
        expected = tf.gather(tf.nn.log_softmax(logits), tokens, batch_dims=2)
        expected = tf.where(tokens == tokenizer.pad_id, 0.0, expected)
        np.testing.assert_allclose(output.log_probs[:, 0], expected, atol=1e-3)
        for text in tokenizer.detokenize(tokens).numpy():
            assert text.startswith(b"two") and b"the grass" not in text
            assert not text.endswith((b" a", b"on the"))


def test_constraints_in_words(tiny_captioner, photos, captions):
    constraints = Constraints(
        max_length=12,
        prefix="Two cats",
        banned=["dog", "the green"],
        bad_endings=["a", "on", "with"],
        no_repeat_ngram_size=1,
    )
    made = ImageCaptioner.from_preset(
        tiny_captioner, BeamSampler(3, constraints=constraints)
    )
    for result in made.generate_results(photos):
        words = result.text.split()
        assert words[:2] == ["two", "cats"] and "dog" not in words
        assert "the green" not in result.text
        assert words[-1] not in ("a", "on", "with")
        assert len(set(words)) == len(words) < 12
    assert tiny_captioner.generate(photos) == captions  # the other is as it was


def test_a_sampler_that_does_not_fit_is_refused_at_once(tiny_captioner):
    made = ImageCaptioner(tiny_captioner.caption_model, tiny_captioner.preprocessor)
    before = made.sampler
    for sampler, complaint in (
        (BeamSampler(100), "14 words of the vocabulary. Received: num_beams=100"),
        (GreedySampler(constraints=Constraints(banned=["zebra"])), "banned='zebra'"),
        (GreedySampler(constraints=Constraints(min_length=9)), "min_length=9"),
    ):
        with pytest.raises(ValueError, match=complaint):
            made.compile(sampler=sampler)
    assert made.sampler is before


def test_many_long_captions(loud_weights, tiny_captioner):
    tokenizer = tiny_captioner.preprocessor.tokenizer
    model = CaptionModel(
        tokenizer.vocabulary_size,
        (4, 6),
        None,
        "transformer",
        "attention",
        hidden_dim=16,
    )
    loud_weights(model)
    constraints = Constraints(min_length=80, max_length=80, bad_endings=["a"])
    made = ImageCaptioner(
        model, tiny_captioner.preprocessor, BeamSampler(2, constraints=constraints)
    )
    features = np.random.default_rng(1).normal(size=(512, 4, 6)).astype("float32")
    results = made.generate_results(features, batch_size=512)
    assert len(results) == 512
    for result in results:
        assert len(result.token_ids) == 80 and not result.text.endswith(" a")
    few = made.generate_results(features[500:503])
    assert [each.text for each in few] == [each.text for each in results[500:503]]


def test_long_captions(tiny_captioner, photos):
    constraints = Constraints(min_length=80, max_length=80)
    made = ImageCaptioner.from_preset(
        tiny_captioner, GreedySampler(constraints=constraints)
    )
    result = made.generate_results(photos[0])
    assert len(result.token_ids) == 80
    assert len(result.text.split()) in (79, 80)


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
    found, scores = written(again, images)
    _, expected = written(tiny_captioner, images)
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
    beam = written(made, images)
    made.compile(sampler="greedy")
    greedy = written(made, images)
    assert isinstance(made.sampler, GreedySampler)
    made.compile(sampler=BeamSampler(1, length_penalty=0.0))
    one_beam = written(made, images)
    made.compile()
    assert isinstance(made.sampler, BeamSampler)  # stays as it is
    assert one_beam[0] == greedy[0]
    np.testing.assert_allclose(one_beam[1], greedy[1], rtol=1e-5)
    assert not np.allclose(beam[1], greedy[1])
    with pytest.raises(ValueError, match="greedy, beam, .*Received: sampler=nope"):
        made.compile(sampler="nope")


def test_one_trace_for_batches_of_any_size(tiny_captioner, images, monkeypatch):
    traces = []

    def count(owner, name):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            traces.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(CaptionModel, "encode")
    count(Sampler, "__call__")
    made = ImageCaptioner(tiny_captioner.caption_model, tiny_captioner.preprocessor)
    for number, sampler in enumerate(SAMPLERS):
        traces.clear()
        made.compile(sampler=sampler)  # traces anew, now counted
        for size in (4, 1, 7, 4):
            assert len(written(made, images[:size])[0]) == size
            assert len(made.generate_results([*images[:size]])) == size
        # Another sampler sees the same features.
        assert sorted(traces) == ["__call__", "encode"][: 2 if number == 0 else 1]


def test_xla_compiles_once_for_batches_of_like_size(tiny_captioner, images, captions):
    made = ImageCaptioner.from_preset(tiny_captioner, BeamSampler(3))
    made.compile(jit_compile=True)
    for size in (1, 3, 4, 7):
        assert written(made, images[:size])[0] == captions[:size]
    loop = made._writer._generate.get_concrete_function().graph
    assert "_XlaMustCompile" in str(loop.as_graph_def())
    assert not tiny_captioner.jit_compile  # the other is as it was


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


@pytest.mark.parametrize("fusion", FUSIONS)
def test_another_image_size_keeps_the_weights_and_stretches_the_grid(
    tiny_captioner, photos, fusion
):
    preprocessor = tiny_captioner.preprocessor
    model = CaptionModel(
        preprocessor.tokenizer.vocabulary_size,
        tiny_captioner.caption_model.image_feature_shape,
        tiny_captioner.caption_model.vision_backbone,
        fusion=fusion,
        num_layers=1,
        hidden_dim=16,
    )
    bias = next(w for w in model.weights if w.path.endswith("position_bias"))
    # From the left to the right of a grid of 2 x 2: 0 to 1.
    columns = np.reshape([0.0, 1.0, 0.0, 1.0], (4, 1))
    bias.assign(np.broadcast_to(columns, bias.shape))
    original = ImageCaptioner(model, preprocessor)
    assert original.with_image_size(64).generate(photos) == original.generate(photos)
    larger = original.with_image_size(128)
    assert larger.image_spec.shape == (128, 128, 3)
    assert larger.feature_spec.shape == (16, original.feature_spec.shape[1])
    assert all(isinstance(text, str) for text in larger.generate(photos[:2]))
    for old, new in zip(model.weights, larger.caption_model.weights):
        if old is not bias:
            np.testing.assert_array_equal(old, new)
            continue
        grid = np.array(new).reshape(-1, 4, 4, new.shape[-1])
        expected = np.reshape([0.0, 0.25, 0.75, 1.0], (1, 1, 4, 1))
        np.testing.assert_allclose(grid, np.broadcast_to(expected, grid.shape))


def test_another_image_size_needs_an_image_network(tiny_captioner):
    words = tiny_captioner.preprocessor.tokenizer.vocabulary_size
    blind = ImageCaptioner(CaptionModel(words, (4, 8)), tiny_captioner.preprocessor)
    with pytest.raises(ValueError, match="no image network"):
        blind.with_image_size(64)
