import numpy as np
import pytest
import tensorflow as tf

from captioner.images.image_converter import ImageConverter
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer

PAD, START, END, UNKNOWN = range(4)
A, DOG, RUNS = 4, 5, 6


@pytest.fixture(scope="module")
def preprocessor():
    tokenizer = Tokenizer.from_captions(["a dog runs", "a dog", "a"])
    return CaptionPreprocessor(ImageConverter((8, 8)), tokenizer, max_sequence_length=4)


def prepare(preprocessor, captions):
    """Captions of some images -> token_ids, y, sample_weight as lists."""
    features = np.zeros((len(captions), 1, 2), "float32")
    x, y, weight = preprocessor({"image_features": features, "captions": captions})
    return x["token_ids"].numpy().tolist(), y.numpy().tolist(), weight.numpy().tolist()


def test_y_is_the_token_that_comes_next(preprocessor):
    token_ids, y, weight = prepare(preprocessor, [["a dog"]])
    assert token_ids == [[[START, A, DOG, END]]]
    assert y == [[[A, DOG, END, PAD]]]
    assert weight == [[[1, 1, 1, 0]]]


def test_a_caption_that_just_fits_is_told_to_end(preprocessor):
    token_ids, y, weight = prepare(preprocessor, [["a dog runs"]])
    assert token_ids == [[[START, A, DOG, RUNS]]]
    assert y == [[[A, DOG, RUNS, END]]]
    assert weight == [[[1, 1, 1, 1]]]


def test_a_caption_that_is_cut_is_not_told_to_end(preprocessor):
    token_ids, y, weight = prepare(preprocessor, [["a dog runs a dog"]])
    assert token_ids == [[[START, A, DOG, RUNS]]]
    assert y == [[[A, DOG, RUNS, A]]]
    assert weight == [[[1, 1, 1, 1]]]


def test_unknown_words_are_learnt_as_unknown(preprocessor):
    _, y, weight = prepare(preprocessor, [["a zebra"]])
    assert y == [[[A, UNKNOWN, END, PAD]]]
    assert weight == [[[1, 1, 1, 0]]]


@pytest.mark.parametrize("missing", ["", " ", "...", "- '"])
def test_nothing_is_learnt_from_a_caption_without_words(preprocessor, missing):
    _, _, weight = prepare(preprocessor, [["a dog", missing], ["a", "a dog"]])
    assert np.sum(weight, axis=-1).tolist() == [[3, 0], [2, 3]]


def test_five_captions(preprocessor):
    captions = [["a", "a dog", "a dog runs", "dog", "dog runs"], ["a"] * 5]
    together = prepare(preprocessor, captions)
    alone = [prepare(preprocessor, [[text] for text in five]) for five in captions]
    for part in range(3):
        assert np.shape(together[part]) == (2, 5, 4)
        for image in range(2):
            np.testing.assert_array_equal(
                together[part][image], np.squeeze(alone[image][part], axis=1)
            )


@pytest.mark.parametrize("key", ["image_features", "images"])
def test_the_image_side_passes_through(preprocessor, key):
    image_side = np.random.default_rng(0).normal(size=(1, 4, 4, 3))
    x, _, _ = preprocessor({key: image_side, "captions": [["a dog"]]})
    assert set(x) == {key, "token_ids"}
    np.testing.assert_array_equal(x[key], image_side)


def test_shapes_are_known_in_tf_data(preprocessor):
    batches = tf.data.Dataset.from_tensors(
        {"image_features": np.zeros((2, 1, 3)), "captions": [["a"] * 5] * 2}
    ).map(preprocessor)
    x, y, weight = batches.element_spec
    for spec in (x["token_ids"], y, weight):
        assert spec.shape == (2, 5, 4)
    assert (x["token_ids"].dtype, y.dtype, weight.dtype) == (
        tf.int32,
        tf.int32,
        tf.float32,
    )


def test_too_short_a_sequence_is_refused(preprocessor):
    with pytest.raises(ValueError, match="Received: max_sequence_length=1"):
        CaptionPreprocessor(preprocessor.image_converter, preprocessor.tokenizer, 1)
