"""CIDEr optimisation makes what is rewarded likelier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from captioner.datasets import load_dataset
from captioner.images.image_converter import ImageConverter
from captioner.metrics import CiderD
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.cider_optimization import CiderOptimization, CiderReward
from captioner.training.crossentropy import Crossentropy
from captioner.training.distribution import Distribution
from captioner.training.optimizers import adamw
from captioner.training.row_batches import RowBatches
from captioner.training.step import Step

N, B, K = 48, 16, 4


@pytest.fixture(scope="module")
def captions():
    examples = load_dataset(f"scenes:{N}").examples("train")
    return [example["captions"] for example in examples]


@pytest.fixture
def parts(captions):
    """A captioner of drawn scenes; an image's features are as good as its caption."""
    keras.utils.set_random_seed(1)
    tokenizer = Tokenizer.from_captions(sum(captions, []))
    preprocessor = CaptionPreprocessor(ImageConverter(), tokenizer, 12)
    features = np.zeros((N, 4, tokenizer.vocabulary_size), np.float32)
    for image, [text] in enumerate(captions):
        for place, word in enumerate(tokenizer.tokenize([text]).to_list()[0]):
            features[image, place % 4, word] += 1 + place // 4
    model = CaptionModel(
        tokenizer.vocabulary_size,
        features.shape[1:],
        fusion="additive",
        num_layers=1,
        hidden_dim=64,
        dropout=0.0,
    )
    batches = RowBatches(
        ("image_features", lambda i: features[i]), preprocessor.rows(captions), B, 1
    )
    return ImageCaptioner(model, preprocessor), batches


def train(captioner, batches, stage, learning_rate, epochs):
    """Rewards or losses of each epoch."""
    captioner.compile(adamw(learning_rate, 10_000, clip_norm=1.0), stage.loss)
    model = captioner.caption_model
    model.optimizer.build(model.trainable_variables)
    step, means = Step(Distribution(), model, stage, 1, False), []
    for epoch in range(epochs):
        stage.notes, losses = {}, []
        for index, batch in enumerate(batches.dataset(epoch).map(stage.view)):
            losses.append(float(step(batch, 100 * epoch + index)["loss"]))
        if stage.name == "cider":
            means.append(stage.report({"seconds": 1.0})["reward"])
        else:
            means.append(np.mean(losses))
    return means


@pytest.mark.parametrize(
    "crossentropy", [0.0, pytest.param(0.2, marks=pytest.mark.slow)]
)
def test_the_expected_reward_rises(parts, captions, crossentropy):
    captioner, batches = parts
    losses = train(captioner, batches, Crossentropy(1, None, 0.0), 5e-3, 12)
    assert losses[-1] < 0.7 * losses[0]
    reward = CiderReward(captioner.preprocessor.tokenizer, captions)
    stage = CiderOptimization(1, captioner, reward, K, crossentropy)
    rewards = train(captioner, batches, stage, 2e-3, 25)
    before, after = np.mean(rewards[:3]), np.mean(rewards[-3:])
    assert after > 1.3 * before, rewards


def test_the_reward_is_that_of_evaluation_with_the_end_as_a_word(captions):
    tokenizer = Tokenizer.from_captions(sum(captions, []))
    reward = CiderReward(tokenizer, captions)
    texts = [texts[0] for texts in captions]
    words = [text.split() for text in texts]
    end = ["[END]"]
    cider_d = CiderD([[each + end] for each in words])
    ids = tokenizer.tokenize(texts[1:2] * 3).to_list()
    whole, without_end, cut = ids[0] + [tokenizer.end_id], ids[1], ids[2][:-2]
    rows = [
        row + [tokenizer.pad_id] * (12 - len(row)) for row in (whole, without_end, cut)
    ]
    found = reward([1, 1, 1], rows)
    wanted = [words[1] + end, words[1], words[1][:-2]]
    np.testing.assert_allclose(found, cider_d.score_each(wanted, [1, 1, 1]), rtol=1e-5)
    assert found[0] > found[1] > found[2]


def test_a_token_weighs_its_captions_advantage(parts, captions):
    captioner, _ = parts
    tokenizer = captioner.preprocessor.tokenizer
    reward = CiderReward(tokenizer, captions)
    stage = CiderOptimization(1, captioner, reward, samples=2, crossentropy=0.25)
    stage.notes = {}
    right = [*tokenizer.tokenize(captions[3]).to_list()[0], tokenizer.end_id]
    wrong = right[:2]
    pad = lambda ids: ids + [tokenizer.pad_id] * (12 - len(ids))  # noqa: E731
    rows, weights, sampled = stage._score(
        np.array([3]), np.array([[pad(right), pad(wrong)]], np.int32)
    )
    n = len(right)
    good, bad = reward([3, 3], [pad(right), pad(wrong)])
    assert rows[1, 0, : n + 2].tolist() == [*right, *wrong]
    assert rows[1, 0, n + 2 : 2 * n + 2].tolist() == right  # what people wrote
    np.testing.assert_allclose(weights[0, :n], 0.75 * (good - bad), rtol=1e-5)
    np.testing.assert_allclose(weights[0, n : n + 2], 0.75 * (bad - good), rtol=1e-5)
    np.testing.assert_allclose(weights[0, n + 2 : 2 * n + 2], 0.25 * (n + 2) / n)
    assert sampled[0].sum() == n + 2 and sampled[0, : n + 2].all()


def test_what_is_never_sampled_does_not_become_likelier(parts, captions):
    captioner, batches = parts
    tokenizer = captioner.preprocessor.tokenizer
    reward = CiderReward(tokenizer, captions)
    stage = CiderOptimization(1, captioner, reward, K)
    stage.notes, model = {}, captioner.caption_model
    [batch, *_] = batches.dataset(0).map(stage.view)
    with tf.GradientTape() as tape:
        loss, _ = stage.objective(model, stage.prepare(batch, tf.constant(1)))
    bias = model.logits_dense.bias.value
    gradient = tape.gradient(loss, bias).numpy()
    never = [tokenizer.start_id, tokenizer.pad_id, tokenizer.unknown_id]
    assert np.all(gradient[never] == 0)
    assert np.count_nonzero(gradient) == len(gradient) - len(never)
