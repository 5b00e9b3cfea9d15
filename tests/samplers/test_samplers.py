import itertools
import json
import string

import numpy as np
import pytest
import tensorflow as tf

from captioner.samplers import (
    BeamSampler,
    Constraints,
    DiverseBeamSampler,
    GreedySampler,
    RandomSampler,
    Sampler,
    SamplerOutput,
    TokenRules,
)
from captioner.samplers.sampler import ENDED, LIVE, NONE, STUCK, top_k
from captioner.tokenizers.tokenizer import Tokenizer

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


def score_of(table, token_ids, length_penalty, gnmt=False):
    """The stated score: sum of log-probabilities / number ** length_penalty."""
    log_probs, last, total, count = log_probs_of(table), START, 0.0, 0
    for index, token in enumerate(token_ids):
        total += log_probs[index, last, token]
        count, last = count + 1, token
        if token == END:
            break
    return total / ((5 + count) / 6 if gnmt else count) ** length_penalty


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


# Each excludes a good part of what could be said.
CONSTRAINTS = {
    "none": {},
    "min_length": {"min_length": 4},
    "no_repeat_1": {"no_repeat_ngram_size": 1},
    "no_repeat_2": {"no_repeat_ngram_size": 2},
    "banned": {"banned": ((4,), (3, 5), (5, 5, 3))},
    "prefix": {"prefix": (5, 3)},
    "bad_endings": {"bad_endings": ((3,), (5, 4))},
    "many": {
        "min_length": 3,
        "no_repeat_ngram_size": 2,
        "banned": ((4, 4),),
        "prefix": (5,),
        "bad_endings": ((3,), (5,)),
    },
}
ALL = [
    GreedySampler(),
    BeamSampler(3, num_hypotheses=2),
    DiverseBeamSampler(4, num_groups=2),
    RandomSampler(seed=3, num_hypotheses=2),
]
NAMES = {"argvalues": ALL, "ids": lambda sampler: type(sampler).__name__}


def keeps(
    ids,
    min_length=1,
    no_repeat_ngram_size=0,
    banned=(),
    prefix=(),
    bad_endings=(),
):
    """Whether a caption, a list of words and perhaps END, keeps the rules."""
    words = [token for token in ids if token != END]
    n = no_repeat_ngram_size
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)] if n else []
    return (
        len(ids) >= min_length
        and len(set(ngrams)) == len(ngrams)
        and not any(
            tuple(words[i : i + len(phrase)]) == phrase
            for phrase in banned
            for i in range(len(words))
        )
        and tuple(words[: len(prefix)]) == prefix
        and not any(tuple(words[-len(end) :]) == end for end in bad_endings)
    )


@pytest.mark.parametrize(
    "length_penalty, normalization, end_logit",
    [
        *itertools.product(PENALTIES, ["average"], [-2.0, 0.5]),
        (0.6, "gnmt", -1.0),
        (2.0, "gnmt", 0.5),
    ],
)
def test_wide_beam_finds_what_brute_force_finds(
    length_penalty, normalization, end_logit
):
    num_images, max_length, n = 4, 5, 3
    next, table = bigram_model(4, num_images, end_logit=end_logit, num_letters=3)
    sampler = BeamSampler(200, length_penalty, n, length_normalization=normalization)
    output = sample_all(sampler, next, table, num_images, max_length)
    gnmt = normalization == "gnmt"
    for image in range(num_images):
        scored = sorted(
            (score_of(table[image].numpy(), ids, length_penalty, gnmt), ids)
            for ids in every_caption(table[image].numpy(), max_length)
        )
        for found, score, (expected, best) in zip(
            output.token_ids[image].numpy().tolist(),
            output.scores[image].numpy(),
            scored[: -n - 1 : -1],
        ):
            assert found == best + [PAD] * (max_length - len(best))
            assert score == pytest.approx(expected, rel=1e-5)
    assert np.all(output.status == ENDED)


@pytest.mark.parametrize("name", [name for name in CONSTRAINTS if name != "none"])
def test_wide_beam_finds_the_best_that_keeps_the_rules(name):
    num_images, max_length = 12, 5
    next, table = bigram_model(7, num_images, end_logit=-1.0, num_letters=3)
    # Without a penalty the best captions are short, with a high one long.
    penalty = 0.0 if name == "min_length" else 2.0
    sampler = BeamSampler(200, penalty)
    constraints = CONSTRAINTS[name]
    output = sample(sampler, next, table, num_images, max_length, **constraints)
    excluded = 0
    for image, found in enumerate(output.token_ids.numpy()):
        captions = list(every_caption(table[image].numpy(), max_length))
        captions.sort(key=lambda ids: score_of(table[image].numpy(), ids, penalty))
        kept = [ids for ids in captions if keeps(ids, **constraints)]
        assert found[found != PAD].tolist() == kept[-1]
        excluded += kept[-1] != captions[-1]
    assert excluded  # without the rules it would have been another
    assert np.all(output.status == ENDED)


@pytest.mark.parametrize("sampler", **NAMES)
@pytest.mark.parametrize("name", ["no_repeat_1", "banned", "bad_endings", "many"])
def test_every_sampler_keeps_the_rules(sampler, name):
    next, table = bigram_model(8, 24, end_logit=-1.0, num_letters=5)
    constraints = CONSTRAINTS[name]
    output = sample_all(sampler, next, table, 24, 6, **constraints)
    status = output.status.numpy()
    done = (status == ENDED) | (status == LIVE)
    assert done.mean() > 0.8
    for ids in output.token_ids.numpy()[done]:
        ids = ids[ids != PAD].tolist()
        assert keeps(ids, **constraints), ids
    for ids, ended in zip(output.token_ids.numpy()[done], status[done] == ENDED):
        assert (END in ids) == ended
        assert ended or np.all(ids > END)


@pytest.mark.parametrize("sampler", **NAMES)
def test_compiled_by_xla_alike(sampler):
    next, table = bigram_model(9, 6, end_logit=-1.0, num_letters=5)
    constraints = {**CONSTRAINTS["many"], "repetition_penalty": 1.3}
    expected, found, again = (
        sample_all(sampler, next, table, 6, 6, jit=jit, **constraints)
        for jit in (False, True, True)
    )
    np.testing.assert_array_equal(found.token_ids, again.token_ids)
    if isinstance(sampler, RandomSampler):  # XLA has random numbers of its own
        for ids in found.token_ids.numpy()[found.status == ENDED]:
            assert keeps(ids[ids != PAD].tolist(), **CONSTRAINTS["many"])
        return
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("sampler", **NAMES)
def test_a_prefix_may_be_as_unlikely_as_it_likes(sampler):
    def next(token_ids, cache, index):
        logits = 300.0 * tf.one_hot(tf.where(index < 4, 3, END), 6)
        return tf.repeat(logits[None], tf.shape(token_ids)[0], axis=0), cache

    output = sample(sampler, next, tf.zeros((2, 1)), 2, prefix=(4, 5))
    assert output.token_ids.numpy().tolist() == [[4, 5, 3, 3, END, PAD, PAD, PAD]] * 2
    assert np.all(output.status == ENDED) and np.all(output.totals > -200)


def test_repetition_penalty_is_that_of_ctrl():
    next, table = bigram_model(seed=10, batch_size=8, end_logit=-1.0, scale=2.0)
    output = sample(
        GreedySampler(),
        next,
        table,
        8,
        6,
        repetition_penalty=1.5,
        no_repeat_ngram_size=3,
    )
    plain = sample(GreedySampler(), next, table, 8, 6, no_repeat_ngram_size=3)
    assert not np.array_equal(output.token_ids, plain.token_ids)
    for image, row in enumerate(output.token_ids.numpy()):
        words, last = [], START
        for index, token in enumerate(row[row != PAD]):
            logits = np.array(table[image, index, last])
            for word in set(words):
                logits[word] = (
                    logits[word] / 1.5 if logits[word] > 0 else logits[word] * 1.5
                )
            log_probs = log_probs_of(logits)
            assert float(output.log_probs[image, index]) == pytest.approx(
                log_probs[token], rel=1e-4
            )
            words.append(last := int(token))


@pytest.mark.parametrize("sampler", **NAMES)
def test_where_nothing_is_left_to_say_the_caption_is_what_there_is(sampler):
    # Three letters, each once, and no end before the fifth token.
    next, table = bigram_model(seed=11, batch_size=3)
    rules = {"min_length": 5, "no_repeat_ngram_size": 1}
    output = sample_all(sampler, next, table, 3, **rules)
    status = output.status.numpy()
    assert np.all(status[:, 0] == STUCK) and set(status.flat) <= {STUCK, NONE}
    for ids in output.token_ids.numpy()[status == STUCK]:
        assert sorted(ids) == [PAD] * 5 + [3, 4, 5]
    # What could not be ended does not end badly either.
    output = sample_all(sampler, next, table, 3, bad_endings=((3,), (4,)), **rules)
    for ids in output.token_ids.numpy()[output.status == STUCK]:
        assert ids.max() == PAD or ids[ids != PAD][-1] == 5
    # Nothing may be said at all.
    output = sample_all(
        sampler, next, table, 3, min_length=2, banned=((3,), (4,), (5,))
    )
    assert np.all(output.token_ids == PAD) and np.all(output.status[:, 0] == STUCK)
    assert np.all(np.isfinite(output.scores.numpy()[output.status == STUCK]))


def test_the_best_finished_caption_is_flagged_where_a_better_one_got_stuck():
    """ "k" is all but certain, and goes nowhere; to end at once is the only caption."""
    k = ALPHABET.index("k")

    def next(token_ids, cache, index):
        logits = tf.one_hot(k, V, 9.0, 0.0) + tf.one_hot(END, V, 4.0, 0.0)
        return tf.repeat(logits[None], tf.shape(token_ids)[0], axis=0), cache

    others = tuple((i,) for i in range(END + 1, V) if i != k)
    constraints = {"banned": others, "bad_endings": ((k,),)}
    output = sample_all(
        BeamSampler(3), next, tf.zeros((2, 1)), 2, no_repeat_ngram_size=1, **constraints
    )
    assert output.token_ids[:, 0].numpy().tolist() == [[END] + [PAD] * 7] * 2
    assert output.status.numpy().tolist() == [[STUCK]] * 2
    # Where the certain word may end, it wins, and nothing is flagged.
    output = sample_all(BeamSampler(3), next, tf.zeros((2, 1)), 2, banned=others)
    assert output.status.numpy().tolist() == [[ENDED]] * 2
    assert output.token_ids[0, 0, 0] == k


class Patient(BeamSampler):
    """Goes on as long as there is a live beam."""

    def may_win(self, state, max_length):
        return tf.reduce_any(state.status == LIVE, axis=1)


@pytest.mark.parametrize("normalization", ["average", "gnmt"])
@pytest.mark.parametrize("length_penalty, n", [(0.0, 1), (0.7, 1), (0.7, 3), (2.0, 3)])
def test_stopping_early_loses_nothing(length_penalty, n, normalization):
    next, table = bigram_model(seed=12, batch_size=64, end_logit=0.5)
    steps, outputs = [tf.Variable(0), tf.Variable(0)], []
    for sampler_class, count in zip((BeamSampler, Patient), steps):

        def counting(token_ids, cache, index):
            count.assign_add(1)
            return next(token_ids, cache, index)

        sampler = sampler_class(
            3, length_penalty, n, length_normalization=normalization
        )
        outputs.append(sample_all(sampler, counting, table, 64))
    early, patient = outputs
    np.testing.assert_array_equal(early.token_ids, patient.token_ids)
    np.testing.assert_allclose(early.scores, patient.scores, rtol=1e-6)
    assert int(steps[0]) <= int(steps[1]) == 8
    if not length_penalty:
        assert int(steps[0]) < 8


def test_hypotheses_come_best_first_and_differ():
    next, table = bigram_model(seed=13, batch_size=16, end_logit=-0.5)
    for sampler in (BeamSampler(5, num_hypotheses=5), DiverseBeamSampler(4, 1)):
        output = sample_all(sampler, next, table, 16)
        scores, status = output.scores.numpy(), output.status.numpy()
        for image in range(16):
            rows = output.token_ids[image].numpy().tolist()
            assert len({tuple(row) for row in rows}) == len(rows)
            ended = scores[image][status[image] == ENDED].tolist()
            assert ended == sorted(ended, reverse=True)
            assert np.all(status[image][: len(ended)] == ENDED)  # those first
        best = sample_all(BeamSampler(sampler.num_beams), next, table, 16)
        np.testing.assert_array_equal(best.token_ids[:, 0], output.token_ids[:, 0])


def test_drawing_follows_the_probabilities():
    logits = np.log([1e-9, 1e-9, 0.1, 0.5, 0.3, 0.1]).astype("float32")

    def next(token_ids, cache, index):
        return tf.repeat(logits[None], tf.shape(token_ids)[0], axis=0), cache

    for kwargs, expected in (
        ({}, [0.1, 0.5, 0.3, 0.1]),
        ({"temperature": 0.5}, np.square([0.1, 0.5, 0.3, 0.1]) / 0.36),
        ({"top_k": 2}, [0, 0.625, 0.375, 0]),
        ({"top_p": 0.79}, [0, 0.625, 0.375, 0]),
        ({"top_p": 0.45}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [0, 0.625, 0.375, 0]),
        ({"temperature": 1_000}, [0.25, 0.25, 0.25, 0.25]),  # yet nothing banned
    ):
        sampler = RandomSampler(seed=5, num_hypotheses=1_000, **kwargs)
        output = sample_all(sampler, next, tf.zeros((10, 1)), 10, max_length=1)
        drawn = (
            np.bincount(output.token_ids.numpy().ravel(), minlength=6)[END:] / 10_000
        )
        # Four standard deviations of a share of 10,000.
        np.testing.assert_allclose(drawn, expected, atol=0.02)
        assert np.all(drawn[np.equal(expected, 0)] == 0)
        # Scores are the model's own.
        np.testing.assert_allclose(
            output.totals, tf.gather(logits, output.token_ids[..., 0]), atol=1e-5
        )


def test_a_sampler_says_how_it_chooses():
    class Undecided(Sampler):
        pass

    with pytest.raises(TypeError, match="choose"):
        Undecided()


def test_a_seed_makes_drawing_reproducible():
    next, table = bigram_model(seed=14, batch_size=20)

    def draw(seed):
        return sample(RandomSampler(seed=seed), next, table, 20).token_ids

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
    tf.random.set_seed(None)  # a test before this one may have set one
    assert not np.array_equal(draw(None), draw(None))


@pytest.mark.parametrize(
    "kwargs", [{"temperature": 0}, {"temperature": 1e-5}, {"top_k": 1}, {"top_p": 1e-3}]
)
def test_drawing_only_the_likeliest_is_greedy(kwargs):
    next, table = bigram_model(seed=15, batch_size=32, end_logit=-0.5)
    greedy = sample(GreedySampler(), next, table, 32)
    drawn = sample(RandomSampler(seed=1, **kwargs), next, table, 32)
    np.testing.assert_array_equal(drawn.token_ids, greedy.token_ids)
    np.testing.assert_allclose(drawn.scores, greedy.scores, rtol=1e-6)


def test_groups_of_beams_differ_by_the_penalty():
    next, table = bigram_model(seed=16, batch_size=32, end_logit=-0.5, num_letters=6)
    alike, different = (
        sample_all(DiverseBeamSampler(6, 3, penalty), next, table, 32)
        for penalty in (0.0, 5.0)
    )
    two_beams = sample(BeamSampler(2), next, table, 32)
    for output in (alike, different):  # the first group knows of no other
        found = output.token_ids.numpy() == two_beams.token_ids[:, None].numpy()
        assert np.all(found.all(axis=-1).any(axis=-1))

    def count(output):
        rows = output.token_ids.numpy().tolist()
        return np.mean([len({*map(tuple, captions)}) for captions in rows])

    assert count(alike) <= 2 < count(different)
    first_words = [
        len({*rows}) for rows in different.token_ids[:, :, 0].numpy().tolist()
    ]
    assert np.mean(first_words) > 2.5
    for image in range(32):
        for ids, score in zip(different.token_ids[image], different.scores[image]):
            ids = ids[ids != PAD].numpy()
            expected = score_of(table[image].numpy(), ids, 0.7)
            assert float(score) == pytest.approx(expected, rel=1e-4)


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
    "sampler",
    [
        GreedySampler(),
        BeamSampler(4, 0.0, num_hypotheses=4),
        BeamSampler(3, 0.7, num_hypotheses=2),
        DiverseBeamSampler(4, 2),
    ],
)
def test_an_image_in_a_batch_is_captioned_as_alone(sampler):
    next, table = bigram_model(seed=6, batch_size=12, end_logit=-0.5)
    together = sample_all(sampler, next, table, 12, no_repeat_ngram_size=2)
    for image in (0, 5, 11):
        cache = table[image : image + 1]
        alone = sample_all(sampler, next, cache, 1, no_repeat_ngram_size=2)
        np.testing.assert_array_equal(alone.token_ids[0], together.token_ids[image])
        np.testing.assert_array_equal(alone.status[0], together.status[image])
        np.testing.assert_allclose(alone.scores[0], together.scores[image], rtol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        GreedySampler(0.3),
        BeamSampler(4, 0.3, 2, length_normalization="gnmt"),
        DiverseBeamSampler(6, 2, 0.9, 0.3, 5),
        RandomSampler(0.5, 20, 0.9, 3, 7, 0.3),
    ],
)
def test_config_makes_the_same_sampler(sampler):
    sampler.constraints = Constraints(
        min_length=3,
        max_length=9,
        no_repeat_ngram_size=2,
        repetition_penalty=1.1,
        banned=["a", "b c"],
        prefix="d",
        bad_endings=["e"],
    )
    config = json.loads(json.dumps(sampler.get_config()))
    again = type(sampler).from_config(config)
    assert again.get_config() == sampler.get_config()
    assert vars(again) == vars(sampler)
    assert again.length_penalty == 0.3


def test_a_config_names_what_was_asked_for():
    assert GreedySampler().get_config() == {"length_penalty": 0.0}
    assert BeamSampler().get_config() == {"num_beams": 3, "length_penalty": 0.7}
    sampler = GreedySampler(constraints=Constraints(prefix="a"))
    assert sampler.get_config()["constraints"] == {"prefix": "a"}


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: BeamSampler(num_beams=0), "num_beams=0"),
        (lambda: BeamSampler(num_beams=2.5), "num_beams=2.5"),
        (lambda: BeamSampler(num_beams=5_000), "num_beams=5000"),
        (lambda: BeamSampler(3, num_hypotheses=4), "num_hypotheses=4"),
        (lambda: GreedySampler(length_penalty=-1), "length_penalty=-1"),
        (lambda: GreedySampler(length_penalty=np.nan), "length_penalty=nan"),
        (lambda: GreedySampler(length_penalty="1"), "length_penalty='1'"),
        (lambda: GreedySampler(length_normalization="sum"), "normalization=sum"),
        (lambda: GreedySampler(constraints={"prefix": "a"}), "constraints={"),
        (lambda: DiverseBeamSampler(5, num_groups=2), "num_beams=5, num_groups=2"),
        (lambda: DiverseBeamSampler(diversity_penalty=-1), "diversity_penalty=-1"),
        (lambda: GreedySampler(length_penalty=np.inf), "length_penalty=inf"),
        (lambda: DiverseBeamSampler(diversity_penalty=np.nan), "penalty=nan"),
        (lambda: RandomSampler(temperature=-1), "temperature=-1"),
        (lambda: RandomSampler(temperature=np.nan), "temperature=nan"),
        (lambda: RandomSampler(temperature=1e5), "temperature=100000.0"),
        (lambda: RandomSampler(top_p=np.nan), "top_p=nan"),
        (lambda: RandomSampler(top_k=0), "top_k=0"),
        (lambda: RandomSampler(top_p=0.0), "top_p=0.0"),
        (lambda: RandomSampler(top_p=1.1), "top_p=1.1"),
        (lambda: RandomSampler(seed=-1), "seed=-1"),
        (lambda: RandomSampler(num_hypotheses=0), "num_hypotheses=0"),
        (lambda: Constraints(min_length=5, max_length=4), "min_length=5, max_length=4"),
        (lambda: Constraints(min_length=0), "min_length=0"),
        (lambda: Constraints(max_length=10**9), "max_length=1000000000"),
        (lambda: Constraints(min_length=True), "min_length=True"),
        (lambda: Constraints(no_repeat_ngram_size=-1), "no_repeat_ngram_size=-1"),
        (lambda: Constraints(repetition_penalty=0), "repetition_penalty=0"),
        (lambda: Constraints(repetition_penalty=np.nan), "repetition_penalty=nan"),
        (lambda: Constraints(banned="a dog"), "banned='a dog'"),
        (lambda: Constraints(bad_endings=[3]), r"bad_endings=\[3\]"),
        (lambda: Constraints(prefix=["a"]), r"prefix=\['a'\]"),
    ],
)
def test_bad_arguments(make, complaint):
    with pytest.raises(ValueError, match=f"Received: .*{complaint}"):
        make()


@pytest.mark.parametrize(
    "kwargs, complaint",
    [
        ({"banned": ["cat", "zebra"]}, "not in the vocabulary.*banned='zebra'"),
        ({"banned": ["..."]}, "has no words.*banned='...'"),
        ({"prefix": "a zebra"}, "not in the vocabulary.*prefix='a zebra'"),
        ({"bad_endings": ["of zebra"]}, "not in the voc.*bad_endings='of zebra'"),
        (
            {"prefix": "a photo", "banned": ["photo"]},
            "banned='photo', prefix='a photo'",
        ),
        ({"prefix": "a photo of", "banned": ["photo of"]}, "banned='photo of'"),
        ({"prefix": "a cat a", "no_repeat_ngram_size": 1}, "no_repeat_ngram_size=1"),
        ({"prefix": "a photo of a cat", "max_length": 5}, "prefix='a photo of a cat'"),
        ({"min_length": 9}, "max_sequence_length, 8.*min_length=9"),
    ],
)
def test_constraints_that_cannot_be_kept(kwargs, complaint):
    tokenizer = Tokenizer.from_captions(["a photo of a cat"])
    with pytest.raises(ValueError, match=complaint):
        Constraints(**kwargs).token_rules(tokenizer, 8)
    fits = Constraints(prefix="A photo", banned=["cat", "a cat"], max_length=80)
    assert fits.token_rules(tokenizer, 8).max_length == 80


@pytest.mark.parametrize("size", [5, 640, 641, 2_924])
@pytest.mark.parametrize("different", [2, 40, 10**6])
def test_top_k_is_that_of_tensorflow(size, different):
    random = np.random.default_rng(size)
    values = random.integers(-1, different, (3, 4, size))
    values = tf.constant(values, tf.float32)
    for k in (1, 3, 5):
        found, places = top_k(values, k)
        expected, their_places = tf.math.top_k(values, k)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(places, their_places)  # the first of equals


def test_replaced_changes_only_what_it_is_told():
    sampler = BeamSampler(5, 0.3, constraints=Constraints(banned=["dog"]))
    more = sampler.replaced(num_hypotheses=2, min_length=3)
    assert more.get_config() == {
        "length_penalty": 0.3,
        "num_beams": 5,
        "num_hypotheses": 2,
        "constraints": {"banned": ["dog"], "min_length": 3},
    }
    assert sampler.num_hypotheses == 1 and sampler.constraints.min_length == 1
    assert sampler.replaced().get_config() == sampler.get_config()
    free = sampler.replaced(constraints=None)
    assert free.constraints == Constraints() and free.num_beams == 5
    greedy = sampler.replaced(GreedySampler)
    assert greedy.get_config() == {
        "length_penalty": 0.3,
        "constraints": {"banned": ["dog"]},
    }
    diverse = sampler.replaced(DiverseBeamSampler, num_groups=5)
    assert (diverse.num_beams, diverse.num_groups) == (5, 5)
    for sampler_class, changes in (
        (None, {"top_k": 3}),
        (GreedySampler, {"num_beams": 2}),
    ):
        with pytest.raises(ValueError, match="does not have this option. Received"):
            sampler.replaced(sampler_class, **changes)
    with pytest.raises(ValueError, match="num_hypotheses=9"):
        sampler.replaced(num_hypotheses=9)


def test_replaced_knows_the_options_of_a_class_of_ones_own():
    class Own(RandomSampler):
        def __init__(self, colour="red", **kwargs):
            super().__init__(**kwargs)
            self.colour = colour

        def get_config(self):
            return {**super().get_config(), "colour": self.colour}

    own = Own("blue", temperature=0.5).replaced(top_k=4)
    assert (own.colour, own.temperature, own.top_k) == ("blue", 0.5, 4)
    assert own.replaced(colour="green").colour == "green"
