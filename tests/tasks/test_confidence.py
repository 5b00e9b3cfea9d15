"""Confidence: what it rests on, how it is fitted, saved and loaded."""

import dataclasses
import io

import numpy as np
import pytest

import captioner
from captioner.metrics import auroc, reliability
from captioner.metrics.rightness import least_right_score, right_captions
from captioner.tasks.confidence import EVIDENCE, Confidence, principal_components
from captioner.training.confidence_fitting import fit_confidence, logistic_regression
from captioner.training.unfamiliar_images import KINDS, unfamiliar_images


@pytest.fixture(scope="module")
def confidence():
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 32))
    parts = principal_components(pooled + 0.1 * rng.normal(size=(200, 32)))
    count = len(EVIDENCE)
    return Confidence(
        **parts,
        center=np.zeros(count),
        scale=np.ones(count),
        weights=np.array([1.0, 0.5, 0.0, -1.0]),
        bias=0.3,
    )


def result(log_probs, text="a dog"):
    return captioner.GenerateResult(text, log_probs=np.array(log_probs, "float32"))


def test_unlikely_words_and_unfamiliar_images_lower_it(confidence):
    near = np.tile(confidence.mean, (2, 3, 1))
    likely, unlikely = confidence(near, [result([-0.1, -0.2]), result([-3.0, -4.0])])
    assert 0 < unlikely < likely < 1
    far = near + 5 * np.random.default_rng(1).normal(size=(1, 1, 32))
    unfamiliar, _ = confidence(far, [result([-0.1, -0.2])] * 2)
    assert unfamiliar < likely


def test_a_caption_without_tokens_has_one(confidence):
    (value,) = confidence(np.zeros((1, 3, 32)), [result([], "")])
    assert 0 < value < 1


def test_it_comes_back_from_its_bytes(confidence):
    again = Confidence.from_bytes(confidence.to_bytes(), 32)
    features = np.random.default_rng(2).normal(size=(3, 5, 32))
    results = [result([-1.0, -0.5])] * 3
    np.testing.assert_allclose(
        again(features, results), confidence(features, results), atol=1e-4
    )


def damaged(confidence):
    data = confidence.to_bytes()
    yield b"", "cannot be read"
    yield b"text", "cannot be read"
    yield data[: len(data) // 2], "cannot be read"
    for name, value, words in (
        ("weights", np.zeros(3, "float32"), "weights"),
        ("bias", np.float32("nan"), "bias"),
        ("mean", np.zeros(31, "float32"), "mean"),
        ("components", np.array([["x"]]), "components"),
    ):
        file = io.BytesIO()
        np.savez(file, **{**dataclasses.asdict(confidence), name: value})
        yield file.getvalue(), words
    file = io.BytesIO()  # an object array is a pickle
    np.savez(file, mean=np.array([print], dtype=object))
    yield file.getvalue(), "cannot be read"


def test_damaged_files_are_refused(confidence):
    for data, words in damaged(confidence):
        with pytest.raises(ValueError, match=words):
            Confidence.from_bytes(data, 32)


def test_logistic_regression_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(20_000, 2))
    chance = 1 / (1 + np.exp(-(2 * inputs[:, 0] - inputs[:, 1] + 0.5)))
    weights, bias = logistic_regression(inputs, rng.random(20_000) < chance)
    np.testing.assert_allclose([*weights, bias], [2, -1, 0.5], atol=0.2)


def test_reliability_of_honest_and_of_random_confidences():
    rng = np.random.default_rng(4)
    honest = rng.random(5000)
    is_right = rng.random(5000) < honest
    found = reliability(honest, is_right)
    assert found["expected_calibration_error"] < 0.05 and found["auroc"] > 0.8
    assert sum(each["images"] for each in found["deciles"]) == 5000
    found = reliability(rng.random(5000), is_right)
    assert found["expected_calibration_error"] > 0.2
    assert found["auroc"] == pytest.approx(0.5, abs=0.05)
    assert auroc([], [1.0]) is None


def test_right_is_what_people_reach():
    references = [["a dog runs on grass", "a dog running in the grass"]] * 2 + [
        ["two cats sleep on a bed", "cats sleeping on the bed"],
        ["a man rides a horse", "a man riding a brown horse"],
    ]
    least = least_right_score(references)
    captions = ["a dog runs in the grass", "a plate of food", "two cats on a bed", ""]
    found = right_captions(captions, references, least)
    assert found.tolist() == [True, False, True, False]
    assert least_right_score([["one"], ["reference each"]]) is None


def test_unfamiliar_images_are_drawn_from_their_seed():
    first, again = unfamiliar_images(10, seed=5), unfamiliar_images(10, seed=5)
    other = unfamiliar_images(10, seed=6)
    assert len(KINDS) == 5
    for a, b, c in zip(first, again, other):
        assert a.dtype == np.uint8 and a.shape == (256, 256, 3)
        assert (a == b).all() and (a != c).any()


def test_a_captioner_learns_it_and_keeps_it_in_its_preset(tiny_captioner, tmp_path):
    rng = np.random.default_rng(7)
    photos = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(24)]
    cache = captioner.FeatureCache(
        tmp_path / "features",
        tiny_captioner.preprocessor.image_converter,
        tiny_captioner.backbone,
    )
    cache.compute(photos)
    texts = tiny_captioner.generate(photos[:12])
    references = [[texts[i], "a dog runs"] for i in range(6)]
    references += [["two cats", "cats on grass"]] * 6
    assert "confidence" not in tiny_captioner.abilities
    fitted = fit_confidence(tiny_captioner, cache, photos, photos[:12], references)
    knowing = tiny_captioner.replaced()
    knowing.confidence = fitted
    assert "confidence" in knowing.abilities
    results = knowing.generate_results(photos[:12])
    assert [each.text for each in results] == texts
    assert all(0 < each.confidence < 1 for each in results)
    knowing.save_to_preset(tmp_path / "preset")
    again = captioner.ImageCaptioner.from_preset(tmp_path / "preset")
    for a, b in zip(again.generate_results(photos[:3]), results):
        assert a.confidence == pytest.approx(b.confidence, abs=1e-3)
    file = tmp_path / "preset" / "assets" / "confidence.npz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(captioner.PresetError, match="checksum"):
        captioner.ImageCaptioner.from_preset(tmp_path / "preset")
    one_each = [texts[:1] for texts in references]
    assert fit_confidence(tiny_captioner, cache, photos, photos[:12], one_each) is None
