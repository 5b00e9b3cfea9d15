"""Batches for `train`: each image once an epoch, little padding, whole captions."""

import numpy as np
import pytest

from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.row_batches import RowBatches, padded

N, B = 50, 4
WORDS = "one two three four five six seven eight nine ten".split()


@pytest.fixture(scope="module")
def captions():
    random = np.random.default_rng(0)
    return [
        [
            " ".join(WORDS[: random.integers(1, 10)])
            for _ in range(random.integers(1, 6))
        ]
        for _ in range(N)
    ]


@pytest.fixture(scope="module")
def preprocessor(captions):
    tokenizer = Tokenizer.from_captions(sum(captions, []))
    return CaptionPreprocessor(None, tokenizer, max_sequence_length=8)


def read(indices):
    """Features that say which image they are of, and whether it is mirrored."""
    return np.asarray(indices, np.float16)[:, None, None] * np.ones((2, 3), np.float16)


@pytest.fixture
def batches(captions, preprocessor):
    return RowBatches(("image_features", read), preprocessor.rows(captions), B, seed=1)


def test_each_image_comes_once_an_epoch_with_its_own_captions(batches, preprocessor):
    seen = []
    for x, y, sample_weight in batches.dataset(epoch=0):
        assert x["image_features"].shape == (B, 2, 3)
        for i, index in enumerate(x["index"].numpy()):
            assert x["image_features"][i, 0, 0] == index
            row = batches.rows[index]
            length = row.shape[1]
            np.testing.assert_array_equal(x["token_ids"][i, :length], row[0])
            np.testing.assert_array_equal(y[i, :length], row[1])
            np.testing.assert_array_equal(x["segment_ids"][i, :length], row[2])
            assert sample_weight[i].numpy().sum() == length
            seen.append(index)
    assert len(seen) == len(set(seen)) == batches.steps * B == 48


def test_there_is_little_padding(batches):
    plan = batches.epoch(0)
    lengths = [batches.padded_length(batch) for batch in plan]
    assert len(set(lengths)) <= 6 and all(length % 8 == 0 for length in lengths)
    in_order = np.arange(48).reshape(-1, B)  # as the images come, for comparison
    waste = [
        1
        - batches.lengths[each].sum() / sum(B * batches.padded_length(b) for b in each)
        for each in (plan, in_order)
    ]
    assert waste[0] < 0.5 * waste[1]


def test_the_seed_and_the_epoch_decide_the_order(batches):
    again = RowBatches(("image_features", read), batches.rows, B, seed=1)
    other = RowBatches(("image_features", read), batches.rows, B, seed=2)
    np.testing.assert_array_equal(batches.epoch(3), again.epoch(3))
    assert (batches.epoch(3) != batches.epoch(4)).any()
    assert (batches.epoch(3) != other.epoch(3)).any()


def test_an_epoch_can_begin_in_its_middle(batches):
    whole = [x["index"].numpy().tolist() for x, _, _ in batches.dataset(2)]
    rest = [x["index"].numpy().tolist() for x, _, _ in batches.dataset(2, first_step=5)]
    assert rest == whole[5:]


def test_workers_and_their_devices_share_each_batch(batches):
    whole = [(x["index"], y) for x, y, _ in batches.dataset(0)]
    shares = [
        list(batches.dataset(0, worker=worker, workers=2, replicas=2))
        for worker in range(2)
    ]
    for step, (index, y) in enumerate(whole):
        parts = [share[2 * step + k] for share in shares for k in range(2)]
        found = np.concatenate([x["index"] for x, _, _ in parts])
        np.testing.assert_array_equal(found, index)
        # All are as long as the longest of the whole batch.
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), y)


def test_views_are_drawn_anew_each_epoch_where_they_may_be(captions, preprocessor):
    flippable = np.arange(N) % 2 == 0
    views = np.array([flippable | True, flippable, flippable | True])
    made = RowBatches(
        ("image_features", read), preprocessor.rows(captions), B, 1, views
    )
    plans = [made.epoch(epoch) for epoch in range(60)]
    seen = np.bincount(np.concatenate(plans, axis=None), minlength=3 * N).reshape(3, N)
    assert (seen[~views] == 0).all() and seen[views].min() > 5
    shares = seen[:, flippable].sum(axis=1) / seen[:, flippable].sum()
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    shares = seen[:, ~flippable].sum(axis=1) / seen[:, ~flippable].sum()
    np.testing.assert_allclose(shares, [1 / 2, 0, 1 / 2], atol=0.05)
    x, _, _ = next(iter(made.dataset(0)))
    np.testing.assert_array_equal(x["image_features"][:, 0, 0], plans[0][0])
    np.testing.assert_array_equal(x["index"], plans[0][0] % N)


def test_fewer_images_than_a_batch(batches):
    with pytest.raises(ValueError, match="only 50 images.*batch_size=51"):
        RowBatches(("image_features", read), batches.rows, 51, 0)


def test_padded():
    assert padded([[1], [2, 3]], 3).tolist() == [[1, 0, 0], [2, 3, 0]]
