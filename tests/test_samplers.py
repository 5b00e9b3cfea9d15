import itertools
import string

import numpy as np
import pytest
import tensorflow as tf

from captioner.samplers import (
    SAMPLERS,
    BeamSampler,
    Constraints,
    DiverseBeamSampler,
    GreedySampler,
    RandomSampler,
    SamplerOutput,
    TokenRules,
)
from captioner.samplers.sampler import ENDED, LIVE, NONE, STUCK
from captioner.tokenizer import Tokenizer

PAD, START, END = 0, 1, 2
ALPHABET = ["[PAD]", "[START]", "[END]", *string.ascii_lowercase]
V = len(ALPHABET)
PENALTIES = (0.0, 0.5, 0.7, 1.0, 2.0)


def spell(token_ids):
    return ["".join(ALPHABET[i] for i in row if i > END) for row in token_ids.numpy()]


def rules(max_length=8, **kwargs):
    return TokenRules(max_length, START, END, PAD, **kwargs)


def sample_all(sampler, next, cache, batch_size, max_length=8, jit=False, **kwargs):
    """Runs a sampler in a graph, as `ImageCaptioner` does; gives all hypotheses."""

    @tf.function(jit_compile=jit)
    def run(cache):
        return sampler(next, cache, batch_size, rules(max_length, **kwargs))

    # The rows of an image lie side by side.
    output = run(tf.repeat(cache, sampler.rows_per_image, axis=0))
    shape = (batch_size, sampler.num_hypotheses)
    assert output.token_ids.shape == output.log_probs.shape == (*shape, max_length)
    assert output.totals.shape == output.scores.shape == output.status.shape == shape
    assert output.token_ids.dtype == tf.int32
    # The parts agree with each other.
    np.testing.assert_allclose(
        tf.reduce_sum(output.log_probs, axis=-1), output.totals, rtol=1e-5, atol=1e-6
    )
    assert np.all(output.log_probs.numpy()[output.token_ids == PAD] == 0)
    return output


def sample(*args, **kwargs):
    """The best caption of each image."""
    return SamplerOutput(*(each[:, 0] for each in sample_all(*args, **kwargs)))


def speller(*words):
    """A `next` that spells one word an image, and its cache: the word's tokens.

    The most probable token at each position is the word's letter, the second is
    the one after it in the alphabet.
    """
    length = max(map(len, words)) + 1
    tokens = np.full((len(words), length + 8), PAD, "int32")
    for row, word in enumerate(words):
        ids = [ALPHABET.index(letter) for letter in word]
        tokens[row, : len(ids) + 1] = [*ids, END]

    def next(token_ids, cache, index):
        wanted = cache[:, index]
        logits = 9.0 * tf.one_hot(wanted, V) + 5.0 * tf.one_hot(wanted + 1, V)
        return logits, cache

    return next, tf.constant(tokens)


def bigram_model(seed=0, batch_size=1, end_logit=0.0, num_letters=3, scale=1.0):
    """A `next` whose logits depend on the last token, the position and the image.

    The cache holds each image's table (positions, last token, next token), so that
    a beam that were given another image's cache would be seen.
    """
    rng = np.random.default_rng(seed)
    size = END + 1 + num_letters
    table = scale * rng.normal(size=(batch_size, 8, size, size)).astype("float32")
    table[..., END] += end_logit

    def next(token_ids, cache, index):
        return tf.gather(cache[:, index], token_ids, batch_dims=1), cache

    return next, tf.constant(table)


def log_probs_of(table):
    """The log-probabilities that a table of logits stands for, (..., last, next)."""
    log_sum = np.log(np.sum(np.exp(table), axis=-1, keepdims=True))
    return table - log_sum


def score_of(table, token_ids, length_penalty):
    """The stated score: sum of log-probabilities / number ** length_penalty."""
    log_probs, last, total, count = log_probs_of(table), START, 0.0, 0
    for index, token in enumerate(token_ids):
        total += log_probs[index, last, token]
        count, last = count + 1, token
        if token == END:
            break
    return total / count**length_penalty


def every_caption(table, max_length):
    """All captions that end within `max_length` tokens."""
    letters = range(END + 1, table.shape[-1])
    for length in range(max_length):
        for caption in itertools.product(letters, repeat=length):
            yield [*caption, END]


@pytest.mark.parametrize(
    "sampler", [GreedySampler(), BeamSampler(1), BeamSampler(3), BeamSampler(5, 0.0)]
)
def test_spells_the_words(sampler):
    next, cache = speller("sample", "text", "")
    output = sample(sampler, next, cache, batch_size=3)
    assert spell(output.token_ids) == ["sample", "text", ""]
    # What follows the end token is padding.
    assert output.token_ids[1].numpy().tolist()[4:] == [END, PAD, PAD, PAD]


@pytest.mark.parametrize("sampler", [GreedySampler(), BeamSampler(3)])
def test_a_word_longer_than_the_caption_is_cut(sampler):
    next, cache = speller("caption")
    output = sample(sampler, next, cache, batch_size=1, max_length=4)
    assert spell(output.token_ids) == ["capt"]


@pytest.mark.parametrize("sampler", [GreedySampler(), BeamSampler(3)])
def test_banned_ids_never_appear(sampler):
    next, cache = speller("sample")
    banned = [(ALPHABET.index(letter),) for letter in "ap"]
    output = sample(sampler, next, cache, 1, banned=banned)
    # The second best in their places.
    assert spell(output.token_ids) == ["sbmqle"]


@pytest.mark.parametrize("sampler", [GreedySampler(), BeamSampler(4)])
def test_neither_start_nor_padding_is_written(sampler):
    def next(token_ids, cache, index):
        likely = 9.0 * tf.one_hot([START, PAD], V)
        end = 5.0 * tf.one_hot(END, V)
        letter = (
            6.0 * tf.one_hot(ALPHABET.index("z"), V) * tf.cast(index < 2, "float32")
        )
        logits = tf.reduce_sum(likely, axis=0) + end + letter
        return tf.repeat(logits[None], tf.shape(token_ids)[0], axis=0), cache

    output = sample(sampler, next, tf.zeros((2, 1)), batch_size=2)
    for row in output.token_ids.numpy().tolist():
        assert not {START, PAD} & set(row[: row.index(END)])


@pytest.mark.parametrize("length_penalty", PENALTIES)
def test_score_is_log_probability_over_length(length_penalty):
    next, table = bigram_model(seed=1, batch_size=6, end_logit=-1.0)
    for sampler in (GreedySampler(length_penalty), BeamSampler(3, length_penalty)):
        output = sample(sampler, next, table, batch_size=6, max_length=6)
        expected = [
            score_of(table[i].numpy(), row, length_penalty)
            for i, row in enumerate(output.token_ids.numpy())
        ]
        # Neither start nor padding is ever written, at the price of certainty.
        assert np.all(output.scores < 0)
        np.testing.assert_allclose(output.scores, expected, rtol=1e-5)


def test_greedy_takes_the_likeliest_token_each_time():
    next, table = bigram_model(seed=2, batch_size=4, end_logit=-1.0)
    output = sample(GreedySampler(), next, table, batch_size=4, max_length=6)
    allowed = np.array(table)
    allowed[..., [PAD, START]] = -np.inf
    for image, row in enumerate(output.token_ids.numpy()):
        last = START
        for index, token in enumerate(row):
            expected = (
                PAD if last in (END, PAD) else allowed[image, index, last].argmax()
            )
            assert token == expected
            last = token


@pytest.mark.parametrize("length_penalty", PENALTIES)
def test_one_beam_is_greedy(length_penalty):
    next, table = bigram_model(seed=3, batch_size=32, end_logit=-0.5)
    greedy, beam = (
        sample(sampler, next, table, batch_size=32, max_length=7)
        for sampler in (GreedySampler(length_penalty), BeamSampler(1, length_penalty))
    )
    lengths = np.sum(greedy.token_ids != PAD, axis=1)
    assert len(set(lengths.tolist())) > 2  # short and long captions
    np.testing.assert_array_equal(beam.token_ids, greedy.token_ids)
    np.testing.assert_allclose(beam.scores, greedy.scores, rtol=1e-6)


@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("end_logit", [-2.0, 0.5])
def test_wide_beam_finds_what_brute_force_finds(length_penalty, end_logit):
    num_images, max_length = 4, 5
    next, table = bigram_model(4, num_images, end_logit=end_logit, num_letters=3)
    sampler = BeamSampler(num_beams=200, length_penalty=length_penalty)
    output = sample(sampler, next, table, num_images, max_length)
    for image in range(num_images):
        best = max(
            every_caption(table[image].numpy(), max_length),
            key=lambda ids: score_of(table[image].numpy(), ids, length_penalty),
        )
        found = output.token_ids[image].numpy().tolist()
        assert found == best + [PAD] * (max_length - len(best))
        np.testing.assert_allclose(
            output.scores[image],
            score_of(table[image].numpy(), best, length_penalty),
            rtol=1e-5,
        )


def test_more_beams_find_what_greedy_misses():
    """Greedy takes "a" (0.5), then no letter is likely; "b" (0.4) ends surely."""

    def next(token_ids, cache, index):
        first = {"a": 0.5, "b": 0.4, "c": 0.1}
        after_a = {letter: 0.1 for letter in "defghijklm"}
        probabilities = np.full((V, V), 1e-6, "float32")
        for letter, p in first.items():
            probabilities[START, ALPHABET.index(letter)] = p
        for letter, p in after_a.items():
            probabilities[ALPHABET.index("a"), ALPHABET.index(letter)] = p
        for last in ALPHABET[4:]:
            probabilities[ALPHABET.index(last), END] = 1.0
        return tf.gather(tf.math.log(tf.constant(probabilities)), token_ids), cache

    cache = tf.zeros((1, 1))
    greedy = sample(GreedySampler(), next, cache, 1)
    beam = sample(BeamSampler(2, length_penalty=0.0), next, cache, 1)
    assert spell(greedy.token_ids) == ["ad"]
    assert spell(beam.token_ids) == ["b"]
    assert beam.scores[0] > greedy.scores[0]


@pytest.mark.parametrize("letter_logit", [-3.0, 3.0])
def test_a_finished_beam_keeps_its_score(letter_logit):
    """An end at once is certain enough to win; what the live beams see later, good
    or bad, does not change its score."""

    def next(token_ids, cache, index):
        at_start = tf.one_hot(END, V, 3.0, 0.0)
        later = tf.one_hot(ALPHABET.index("k"), V, letter_logit, 0.0)
        logits = tf.where(index == 0, at_start, later)
        return tf.repeat(logits[None], tf.shape(token_ids)[0], axis=0), cache

    output = sample(BeamSampler(3, length_penalty=0.0), next, tf.zeros((1, 1)), 1)
    assert output.token_ids[0].numpy().tolist() == [END] + [PAD] * 7
    expected = 3.0 - np.log(np.exp(3.0) + V - 1)
    np.testing.assert_allclose(output.scores[0], expected, rtol=1e-5)


def test_length_penalty_prefers_longer_captions():
    next, table = bigram_model(seed=5, batch_size=16, end_logit=0.0)
    lengths = []
    for length_penalty in PENALTIES:
        sampler = BeamSampler(100, length_penalty)
        output = sample(sampler, next, table, batch_size=16, max_length=5)
        lengths.append(np.sum(output.token_ids != PAD))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def count_steps(sampler, words, max_length):
    """How often the sampler asks for the next token."""
    next, cache = speller(*words)
    steps = tf.Variable(0)

    def counting(token_ids, cache, index):
        steps.assign_add(1)
        return next(token_ids, cache, index)

    sample(sampler, counting, cache, len(words), max_length)
    return int(steps)


@pytest.mark.parametrize("sampler", [GreedySampler(), BeamSampler(1)])
def test_stops_with_the_last_caption_of_a_batch(sampler):
    assert count_steps(sampler, ["", "cat", "a"], max_length=9) == len("cat") + 1


def test_beams_stop_when_none_can_win_any_more():
    # The spelt word is nearly certain, so that all else has lost when it ends.
    sampler = BeamSampler(3, length_penalty=0.0)
    assert count_steps(sampler, ["a", "cat"], max_length=9) == len("cat") + 1
    # A high penalty leaves hope to the others for longer, but not for ever.
    sampler = BeamSampler(3, length_penalty=1.0)
    assert len("cat") + 1 <= count_steps(sampler, ["a", "cat"], max_length=9) <= 9


@pytest.mark.parametrize(
    "sampler", [GreedySampler(), BeamSampler(3, 0.7), BeamSampler(4, 0.0)]
)
def test_an_image_in_a_batch_is_captioned_as_alone(sampler):
    next, table = bigram_model(seed=6, batch_size=12, end_logit=-0.5)
    together = sample(sampler, next, table, batch_size=12)
    for image in range(12):
        alone = sample(sampler, next, table[image : image + 1], batch_size=1)
        np.testing.assert_array_equal(alone.token_ids[0], together.token_ids[image])
        np.testing.assert_allclose(alone.scores[0], together.scores[image], rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_config_makes_the_same_sampler(name):
    sampler = SAMPLERS[name](length_penalty=0.3)
    again = SAMPLERS[name](**sampler.get_config())
    assert again.get_config() == sampler.get_config()
    assert again.length_penalty == 0.3


def test_bad_arguments():
    with pytest.raises(ValueError, match="Received: num_beams=0"):
        BeamSampler(num_beams=0)
    with pytest.raises(ValueError, match="Received: length_penalty=-1"):
        GreedySampler(length_penalty=-1)
