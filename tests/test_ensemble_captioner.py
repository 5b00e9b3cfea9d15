"""Several captioners that write one caption."""

import numpy as np
import pytest
import tensorflow as tf

import captioner
from captioner.backbones import VisionBackbone
from captioner.caption_model import CaptionModel
from captioner.ensemble_captioner import EnsembleCaptioner
from captioner.image_captioner import ImageCaptioner
from captioner.image_converter import ImageConverter
from captioner.image_files import load_image
from captioner.preprocessor import CaptionPreprocessor
from captioner.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))[:4]


@pytest.fixture(scope="module")
def other(tiny_captioner, loud_weights):
    """Another network that sees photos at another size, and one layer."""
    backbone = VisionBackbone("mobilenet", image_size=(32, 32), weights=None)
    tokenizer = tiny_captioner.preprocessor.tokenizer
    model = CaptionModel(
        tokenizer.vocabulary_size, backbone.feature_shape, backbone, hidden_dim=8
    )
    loud_weights(model)
    converter = ImageConverter((32, 32), "crop")
    return ImageCaptioner(model, CaptionPreprocessor(converter, tokenizer, 6))


def test_a_captioner_twice_is_that_captioner(tiny_captioner, photos):
    both = EnsembleCaptioner([tiny_captioner, tiny_captioner])
    assert both.sampler is tiny_captioner.sampler
    expected = tiny_captioner.generate_results(photos)
    for found, result in zip(both.generate_results(photos), expected):
        assert found.text == result.text
        np.testing.assert_allclose(found.log_probs, result.log_probs, atol=1e-5)


def test_probabilities_are_averaged_at_each_step(tiny_captioner, other, photos):
    both = EnsembleCaptioner([tiny_captioner, other], "greedy")
    for photo, result in zip(photos, both.generate_results(photos, batch_size=3)):
        assert len(result.token_ids) <= 6  # the shorter of the two
        probabilities = []
        for member in (tiny_captioner, other):
            image = member.preprocessor.image_converter(load_image(photo))
            before = [member.preprocessor.tokenizer.start_id, *result.token_ids[:-1]]
            logits = member.caption_model(
                {"images": image[None], "token_ids": np.array([before])}, training=False
            )
            probabilities.append(tf.nn.softmax(logits[0]).numpy())
        mean = np.mean(probabilities, axis=0)
        mean[:, [0, 1, 3]] = 0  # padding, start, unknown
        np.testing.assert_array_equal(result.token_ids, mean.argmax(axis=-1))
        np.testing.assert_allclose(
            result.log_probs, np.log(mean.max(axis=-1)), atol=1e-4
        )


def test_the_verbs_take_it_as_any_captioner(tiny_captioner, other, photos):
    both = EnsembleCaptioner([tiny_captioner, other])
    greedy = list(captioner.caption(photos, both, sampler="greedy"))
    both.compile(sampler="greedy")
    expected = both.generate(photos)
    assert [result.caption for result in greedy] == expected
    assert both.generate(photos[0]) == expected[0]


def test_what_cannot_be_done(tiny_captioner, other, photos, tmp_path):
    for members in ([], "run/preset"):
        with pytest.raises(ValueError, match="Received: "):
            EnsembleCaptioner(members)
    tokenizer = Tokenizer.from_captions(["another vocabulary"])
    stranger = ImageCaptioner(
        CaptionModel(tokenizer.vocabulary_size, (4, 6)),
        CaptionPreprocessor(ImageConverter((32, 32)), tokenizer),
    )
    with pytest.raises(ValueError, match="vocabulary of the first"):
        EnsembleCaptioner([tiny_captioner, stranger])
    both = EnsembleCaptioner([tiny_captioner, other])
    with pytest.raises(ValueError, match="no attention"):
        both.generate_results(photos, attention=True)
    for refused in (both.fit, both.save_to_preset):
        with pytest.raises(ValueError, match="its members"):
            refused(tmp_path)
