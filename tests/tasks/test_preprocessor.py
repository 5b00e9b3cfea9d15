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
    """Captions of some images -> token_ids, segment_ids, y, sample_weight as lists."""
    number = captions.shape[0] if tf.is_tensor(captions) else len(captions)
    features = np.zeros((number, 1, 2), "float32")
    x, y, weight = preprocessor({"image_features": features, "captions": captions})
    packed = x["token_ids"], x["segment_ids"], y, weight
    return tuple(each.numpy().tolist() for each in packed)


def tokens(rows, weights):
    """Each row without its padding, which must be all at its end and 0."""
    kept = []
    for row, weight in zip(rows, weights):
        real = int(sum(weight))
        assert weight == [1] * real + [0] * (len(row) - real)
        assert not any(row[real:])
        kept.append(row[:real])
    return kept


def test_y_is_the_token_that_comes_next(preprocessor):
    token_ids, segment_ids, y, weight = prepare(preprocessor, [["a dog"]])
    assert tokens(token_ids, weight) == [[START, A, DOG]]
    assert tokens(y, weight) == [[A, DOG, END]]
    assert segment_ids == weight


def test_a_caption_that_just_fits_is_told_to_end(preprocessor):
    token_ids, _, y, weight = prepare(preprocessor, [["a dog runs"]])
    assert tokens(token_ids, weight) == [[START, A, DOG, RUNS]]
    assert tokens(y, weight) == [[A, DOG, RUNS, END]]


def test_a_caption_that_is_cut_is_not_told_to_end(preprocessor):
    token_ids, _, y, weight = prepare(preprocessor, [["a dog runs a dog"]])
    assert tokens(token_ids, weight) == [[START, A, DOG, RUNS]]
    assert tokens(y, weight) == [[A, DOG, RUNS, A]]


def test_unknown_words_are_learnt_as_unknown(preprocessor):
    _, _, y, weight = prepare(preprocessor, [["a zebra"]])
    assert tokens(y, weight) == [[A, UNKNOWN, END]]


@pytest.mark.parametrize("missing", ["", " ", "...", "- '"])
def test_nothing_is_learnt_from_a_caption_without_words(preprocessor, missing):
    packed = prepare(preprocessor, [[missing, "a dog"], ["a", "a dog"]])
    assert packed == prepare(preprocessor, [["a dog", ""], ["a", "a dog"]])
    assert np.sum(packed[-1], axis=-1).tolist() == [3, 5]


def test_an_image_whose_captions_have_no_words(preprocessor):
    packed = prepare(preprocessor, [["", "..."], [".", ""]])
    assert all(np.shape(part) == (2, 8) and not np.any(part) for part in packed)


def test_the_captions_of_an_image_stand_in_its_row(preprocessor):
    captions = [["a", "a dog", "dog runs"], ["a"] * 3]
    token_ids, segment_ids, y, weight = prepare(preprocessor, captions)
    assert np.shape(y) == (2, 8)  # the longer row has 8
    assert token_ids[0] == [START, A, START, A, DOG, START, DOG, RUNS]
    assert y[0] == [A, END, A, DOG, END, DOG, RUNS, END]
    assert segment_ids[0] == [1, 1, 2, 2, 2, 3, 3, 3]
    assert tokens(segment_ids, weight)[1] == [1, 1, 2, 2, 3, 3]


def test_a_batch_is_as_long_as_its_longest_row_rounded_up(preprocessor):
    for number, length in ((1, 8), (2, 8), (3, 16), (6, 24)):
        assert np.shape(prepare(preprocessor, [["a dog"] * number])[0]) == (1, length)


def test_captions_come_as_one_an_image_as_a_table_or_ragged(preprocessor):
    table = prepare(preprocessor, [["a dog", "a"], ["dog", ""]])
    ragged = tf.ragged.constant([["a dog", "a"], ["dog"]])
    assert prepare(preprocessor, ragged) == table
    one = prepare(preprocessor, ["a dog", "dog runs"])
    assert one == prepare(preprocessor, [["a dog"], ["dog runs"]])


def test_rows_are_the_batch_without_its_padding(preprocessor):
    captions = [["a dog runs", "...", "dog"], ["a"], ["!"]]
    *packed, weight = prepare(preprocessor, tf.ragged.constant(captions))
    rows = preprocessor.rows(captions)
    assert [row.dtype for row in rows] == [np.int32] * 3 and rows[2].shape == (3, 0)
    for kind, name in enumerate(("token_ids", "y", "segment_ids")):
        part = {"token_ids": 0, "segment_ids": 1, "y": 2}[name]
        assert tokens(packed[part], weight) == [row[kind].tolist() for row in rows]
    # And from token ids, as captions that the captioner wrote itself are given.
    ids = [[A, DOG, RUNS, END], [DOG, END]]
    np.testing.assert_array_equal(preprocessor.row(ids), rows[0])


@pytest.mark.parametrize("key", ["image_features", "images"])
def test_the_image_side_passes_through(preprocessor, key):
    image_side = np.random.default_rng(0).normal(size=(1, 4, 4, 3))
    x, _, _ = preprocessor({key: image_side, "captions": [["a dog"]]})
    assert set(x) == {key, "token_ids", "segment_ids"}
    np.testing.assert_array_equal(x[key], image_side)


def test_ranks_and_types_are_known_in_tf_data(preprocessor):
    for captions in ([["a"] * 5] * 2, ["a"] * 2, tf.ragged.constant([["a"], []])):
        batches = tf.data.Dataset.from_tensors(
            {"image_features": np.zeros((2, 1, 3)), "captions": captions}
        ).map(preprocessor)
        x, y, weight = batches.element_spec
        for spec in (x["token_ids"], x["segment_ids"], y, weight):
            assert spec.shape.rank == 2
            assert spec.dtype == (tf.float32 if spec is weight else tf.int32)
        assert next(iter(batches))[1].shape[0] == 2


def test_too_short_a_sequence_is_refused(preprocessor):
    with pytest.raises(ValueError, match="Received: max_sequence_length=1"):
        CaptionPreprocessor(preprocessor.image_converter, preprocessor.tokenizer, 1)
