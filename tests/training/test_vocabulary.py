"""Which words can be learned, and new words for a captioner that is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.vocabulary import (
    CaptionReport,
    default_min_count,
    learn_new_words,
)


def report(train, dev=("a dog",), min_count=1, max_sequence_length=20):
    tokenizer = Tokenizer.from_captions(train, min_count)
    preprocessor = CaptionPreprocessor(None, tokenizer, max_sequence_length)
    return CaptionReport.of(preprocessor, train, dev, min_count)


def test_good_captions_need_no_advice():
    lines = str(report(["a dog runs", "a dog sits"]))
    assert (
        lines == "vocabulary: 4 words; unknown: 0.0% of the words of train, 0.0% of dev"
    )


@pytest.mark.parametrize(
    "captions, min_count, reason",
    [
        (["a red dog", "two blue cats"], 4, "100% .*fewer than 4 times.*smaller min_c"),
        (["...", "!"], 1, "have no words: check the column"),
    ],
)
def test_captions_that_teach_nothing_are_refused(captions, min_count, reason):
    made = report(captions, min_count=min_count)
    with pytest.raises(ValueError, match=reason):
        made.check()


def test_captions_of_any_language_are_learned_with_spaces():
    report(["一只 狗 在 草地 上 奔跑", "koira juoksee nurmella", "un chien"]).check()


def test_what_is_cut_and_what_is_unknown_is_told_with_advice():
    captions = ["a dog runs on grass"] * 5 + ["a zebra"]
    made = report(captions, dev=["a pig", "a cow"], min_count=2, max_sequence_length=5)
    made.check()
    lines = str(made).splitlines()
    assert "vocabulary: 5 words; unknown: 3.7% of the words of train, 50.0%" in lines[0]
    assert "many words of dev occur in no caption of train" in lines[1]
    assert lines[2].startswith(
        "cut: 5 of 6 training captions (83.3%) have more than 4 "
    )
    assert lines[2].endswith("--max-sequence-length 6 keeps them whole")
    few = str(report(["a dog"] * 9 + ["a pig", "a cow"], min_count=2))
    assert "fewer than 2 times are unknown; --min-count 1 keeps them" in few
    # The advice is right.
    assert "cut" not in str(report(captions, max_sequence_length=6))


def test_rare_words_count_where_there_are_few_captions():
    counts = [default_min_count(n) for n in (1, 2_499, 2_500, 7_499, 7_500, 10**6)]
    assert counts == [1, 1, 2, 3, 4, 4]


@pytest.fixture
def grown(tiny_captioner):
    counts = Tokenizer.count_words(["a red zebra", "a red cow", "a dog"])
    return learn_new_words(tiny_captioner, counts, min_count=1)


def test_new_words_are_added_after_the_old_ones(tiny_captioner, grown):
    captioner, words = grown
    assert words == ["red", "cow", "zebra"]
    old = tiny_captioner.preprocessor.tokenizer.vocabulary
    assert captioner.preprocessor.tokenizer.vocabulary == [*old, *words]
    assert captioner.caption_model.vocabulary_size == len(old) + 3


def test_known_words_leave_the_captioner_as_it_is(tiny_captioner):
    counts = Tokenizer.count_words(["a dog", "a rare bird"])
    same, words = learn_new_words(tiny_captioner, counts, min_count=2)
    assert same is tiny_captioner and words == []


def test_old_weights_and_old_captions_stay_the_same(tiny_captioner, grown, repository):
    captioner, words = grown
    changed = set()
    before, after = tiny_captioner.caption_model, captioner.caption_model
    for old, new in zip(before.weights, after.weights, strict=True):
        kept = new.numpy()[tuple(slice(size) for size in old.shape)]
        np.testing.assert_array_equal(kept, old.numpy())
        if old.shape != new.shape:
            changed.add((old.name, *np.subtract(new.shape, old.shape)))
    assert changed == {("embeddings", 3, 0), ("kernel", 0, 3), ("bias", 3)}
    photos = sorted(repository.glob("data/samples/*.jpg"))
    assert captioner.generate(photos) == tiny_captioner.generate(photos)


def test_new_words_can_be_learned(tiny_captioner):
    keras.utils.set_random_seed(0)
    old = tiny_captioner.preprocessor
    size = old.tokenizer.vocabulary_size
    model = CaptionModel(size, (4, 6), hidden_dim=32, num_layers=1, dropout=0.0)
    counts = Tokenizer.count_words(["a red zebra"])
    captioner, words = learn_new_words(ImageCaptioner(model, old), counts, 1)
    features = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    captions = tf.constant([["a red zebra"], ["a dog runs"]])
    batches = tf.data.Dataset.from_tensors(
        {"image_features": features, "captions": captions}
    )
    captioner.compile(keras.optimizers.Adam(0.02))
    captioner.fit(batches.repeat(100), epochs=1, steps_per_epoch=100, verbose=0)
    assert words == ["red", "zebra"]
    assert captioner.generate(features) == ["a red zebra", "a dog runs"]
