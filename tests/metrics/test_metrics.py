import importlib.machinery
import importlib.util
import inspect
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys
import types
import unicodedata

import numpy as np
import pytest

from captioner.metrics import (
    Bleu,
    CaptionScorer,
    Cider,
    CiderD,
    JavaMetricError,
    Meteor,
    ReferenceNgrams,
    RougeL,
    Spice,
    bootstrap,
    calibration,
    compare,
    diversity,
    interval,
    java_metrics,
    ptb_tokenize,
    score_captions,
    self_bleu,
)

ROOT = pathlib.Path(__file__).parents[2]
FLICKR8K = ROOT.parent / "shared" / "flickr8k" / "Flickr8k.token.txt"

needs_pycocoevalcap = pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None,
    reason="pycocoevalcap, the oracle, is not installed",
)
needs_java = pytest.mark.skipif(
    shutil.which("java") is None, reason="the PTBTokenizer of pycocoevalcap needs Java"
)
needs_flickr8k = pytest.mark.skipif(
    not FLICKR8K.exists(), reason="../shared/flickr8k is not there"
)

# By their kind, captions of our own that are hard to tokenise, and the tokens that the
# Java tokeniser makes of each where it stands alone.
HARD_CAPTIONS = json.loads(
    (ROOT / "tests" / "metrics" / "hard_captions.json").read_text(encoding="utf-8")
)
# All of them on which ours differs, and how.
DIFFERENT = {
    "cannot's": "can not 's",
    "gimme's": "gim me 's",
    "&eacute;": "& eacute",
    "a\u0308-b\u0308": "a\u0308-b\u0308",
    "1\u0301": "1\u0301",
}
# In Java's file these end a caption, so that pycocoevalcap cannot take them.
LINE_ENDS = "\n\r\v\f\u2028\u2029"


def java_tokenize(captions):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokens = PTBTokenizer().tokenize({"all": [{"caption": c} for c in captions]})
    return [caption.split() for caption in tokens["all"]]


def java_tokenize_alone(captions):
    # Java looks at the beginning of the next caption; real ones begin like this.
    between = "A last one"
    tokens = java_tokenize([line for text in captions for line in (text, between)])
    # What it takes for the end of a line would shift all that follows.
    assert tokens[1::2] == [between.lower().split()] * len(captions)
    return tokens[::2]


def exactly(expected):
    return pytest.approx(np.asarray(expected), rel=0, abs=1e-9)


def plain_cider(references, candidates):
    """What the scorer of pycocoevalcap gives without the two things that make CIDEr-D
    of CIDEr: clipping, and the penalty on the length."""
    from pycocoevalcap.cider import cider_scorer

    source = inspect.getsource(cider_scorer)
    clipped = "min(vec_hyp[n][ngram], vec_ref[n][ngram]) * vec_ref[n][ngram]"
    assert source.count(clipped) == 1
    namespace = {}
    source = source.replace(clipped, "vec_hyp[n][ngram] * vec_ref[n][ngram]")
    exec(source, namespace)
    scorer = namespace["CiderScorer"](sigma=math.inf)
    for refs, tokens in zip(references, candidates, strict=True):
        scorer += (" ".join(tokens), [" ".join(reference) for reference in refs])
    return scorer.compute_score()


def assert_equal_to_oracle(references, candidates):
    """Compares scores of lists of tokens with pycocoevalcap, of each and of all."""
    from pycocoevalcap.bleu.bleu import Bleu as OracleBleu
    from pycocoevalcap.cider.cider import Cider as OracleCider
    from pycocoevalcap.rouge.rouge import Rouge as OracleRouge

    gts = {i: [" ".join(r) for r in refs] for i, refs in enumerate(references)}
    res = {i: [" ".join(tokens)] for i, tokens in enumerate(candidates)}
    bleu, bleus = OracleBleu(4).compute_score(gts, res, verbose=0)
    assert Bleu(references).score(candidates) == exactly(bleu)
    assert Bleu(references).score_each(candidates) == exactly(np.transpose(bleus))
    for ours, (score, each) in (
        (RougeL(references), OracleRouge().compute_score(gts, res)),
        (CiderD(references), OracleCider().compute_score(gts, res)),
        (Cider(references), plain_cider(references, candidates)),
    ):
        assert ours.score(candidates) == exactly(score)
        assert ours.score_each(candidates) == exactly(each)


def read_flickr8k(count=None, seed=0):
    """Returns the five captions of each image, of `count` random images."""
    captions = {}
    for line in FLICKR8K.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(caption)
    images = list(captions.values())
    return random.Random(seed).sample(images, count) if count else images


@pytest.mark.parametrize("kind", HARD_CAPTIONS)
def test_ptb_tokenize_hard_captions(kind):
    for caption, expected in HARD_CAPTIONS[kind].items():
        tokens = " ".join(ptb_tokenize(caption))
        assert tokens == DIFFERENT.get(caption, expected), caption
        assert (tokens == expected) == (caption not in DIFFERENT), caption


@needs_pycocoevalcap
@needs_java
def test_hard_captions_are_what_java_says():
    captions = {c: t for kind in HARD_CAPTIONS.values() for c, t in kind.items()}
    assert len(captions) > 1400 and DIFFERENT.keys() <= captions.keys()
    for (caption, expected), tokens in zip(
        captions.items(), java_tokenize_alone(captions), strict=True
    ):
        assert tokens == expected.split(), caption


def test_ptb_tokenize_takes_any_text():
    for end in LINE_ENDS:
        assert ptb_tokenize(f"a dog{end}runs.{end}") == ["a", "dog", "runs"]
    # Half a character is no letter.
    assert ptb_tokenize("a \ud83dd\udc36og \ud83d") == ["a", "d", "og"]


@needs_pycocoevalcap
@needs_java
def test_ptb_tokenize_equals_java_on_very_long_captions():
    pieces = (
        "x é 日本 🐶 ab- a.b. A& ' . - ! 1, 9 ( < _a a@ &amp; o\u0301 \u00ad".split()
    )
    pieces += ["dog ", "dog's ", "can't "]
    captions = [piece * 600 for piece in pieces] + ["www." + "a" * 3000 + ".com"]
    for caption, tokens in zip(captions, java_tokenize_alone(captions), strict=True):
        assert ptb_tokenize(caption) == tokens, caption[:20]


@needs_pycocoevalcap
@needs_java
@pytest.mark.slow
def test_ptb_tokenize_knows_each_character_that_java_knows():
    characters = [
        character
        for character in map(chr, range(1, 0x10000))
        if unicodedata.category(character) != "Cs" and character not in LINE_ENDS
    ]
    captions = [f"bo{character}bo" for character in characters]
    java = java_tokenize_alone(captions)
    different = {
        character: tokens
        for character, caption, tokens in zip(characters, captions, java, strict=True)
        if ptb_tokenize(caption) != tokens
    }
    # Letters and digits that are newer than its Unicode, which it drops; and signs
    # which were not yet what they have become.
    newer = [
        character
        for character, tokens in different.items()
        if unicodedata.category(character)[0] in "LN" and tokens == ["bo", "bo"]
    ]
    assert len(newer) <= 530 and len(different) - len(newer) <= 30


@needs_pycocoevalcap
@needs_java
def test_ptb_tokenize_equals_java_on_generated_sentences():
    words = (
        "a the dog dogs' man's don't isn't it's they’re cannot gonna I'm o'clock "
        "well-known 3-year-old T-shirt U.S. a.m. Mr. etc. street. end.Next B. 5 1,000 "
        '10:30 3.5 1/2 \'70s 1990s #1 $5 50% & AT&T B&B and/or (left) [right] "quoted" '
        "'single' “curly” wow! what?! so... one, two; three: four -- five - six "
        "café 日本語 Собака 🐶 5'10\" http://a.bc/d me@a.org DON'T WHO'S A The"
    ).split()
    generator = random.Random(7)
    sentences = [
        " ".join(generator.choices(words, k=generator.randint(1, 15)))
        for _ in range(400)
    ]
    for sentence, tokens in zip(sentences, java_tokenize_alone(sentences), strict=True):
        assert ptb_tokenize(sentence) == tokens, sentence


@needs_pycocoevalcap
@needs_java
@needs_flickr8k
def test_ptb_tokenize_equals_java_on_flickr8k():
    captions = [caption for image in read_flickr8k(1000) for caption in image]
    # These come with spaces around their punctuation; people do not write so.
    captions += [c.replace(" ,", ",").replace(" .", ".") for c in captions]
    java = java_tokenize(captions)
    different = sum(
        ptb_tokenize(caption) != tokens
        for caption, tokens in zip(captions, java, strict=True)
    )
    assert different <= len(captions) / 10_000


def test_bleu_of_a_worked_example():
    # The example of Papineni et al.: "the" is clipped at 2 of 7, no bigram matches.
    references = [
        ["the cat is on the mat".split(), "there is a cat on the mat".split()]
    ]
    bleu_1, bleu_2, _, _ = Bleu(references).score([["the"] * 7])
    assert bleu_1 == pytest.approx(2 / 7)
    assert bleu_2 == pytest.approx(0, abs=1e-6)
    # 5 of 6 words, 4 of 5 pairs, 3 of 4 triples, 2 of 3 quadruples; no penalty.
    scores = Bleu([["a b c d e f".split()]]).score(["a b c d e x".split()])
    for order, expected in enumerate((5 / 6, 2 / 3, 1 / 2, 1 / 3), start=1):
        assert scores[order - 1] == pytest.approx(expected ** (1 / order))


def test_bleu_takes_the_closest_reference_length():
    # Lengths 3 and 7 are equally far from 5: the shorter counts, without penalty.
    references = [["a b c".split(), "a b c d e f g".split()]]
    assert Bleu(references).score(["a b c d e".split()]) == pytest.approx([1.0] * 4)
    # 4 words against 6: exp(1 - 6 / 4).
    scores = Bleu([["a b c d e f".split()]]).score(["a b c d".split()])
    assert scores == pytest.approx([math.exp(1 - 6 / 4)] * 4)


def test_bleu_is_of_the_corpus_not_the_mean_of_captions():
    references = [["a b".split()], ["c d e f g h".split()]]
    scores = Bleu(references).score(["a b".split(), "c x x x x x".split()])
    assert scores[0] == pytest.approx(3 / 8)


def test_cider_of_a_worked_example():
    references = [["a b".split(), "a c".split()], ["d e".split()]]
    # Two images, so each n-gram of one image weighs log 2. Against "a b" the cosine is
    # 1 for n = 1 and n = 2; against "a c" it is 1 / 2 and 0. Over 4 n-gram sizes and 2
    # references, times 10.
    score = CiderD(references).score_each(["a b".split(), []])
    assert score == pytest.approx([10 * (2 + 0.5) / 4 / 2, 0.0])
    # "a a" is clipped to one "a": 1 * 1 / (2 * sqrt 2) against each reference.
    score = CiderD(references).score_each(["a a".split(), []])
    assert score[0] == pytest.approx(10 * 2 / math.sqrt(8) / 4 / 2)


def test_cider_length_penalty():
    references = [["a b c d".split()], ["x".split()]]
    cider = CiderD(references)
    # 4 words and 8 that contain them: 4 / (2 * sqrt 8), 3 / sqrt(3 * 7), ... times
    # the penalty exp(-4 ** 2 / (2 * 6 ** 2)).
    cosines = [(4 - n) / math.sqrt((4 - n) * (8 - n)) for n in range(4)]
    expected = 10 * sum(cosines) / 4 * math.exp(-16 / 72)
    assert cider.score_each(["a b c d e f g h".split(), []])[0] == pytest.approx(
        expected
    )


def test_cider_gives_no_weight_to_what_every_image_has():
    references = [["a dog".split()], ["a cat".split()]]
    for cider in (Cider(references), CiderD(references)):
        assert cider.score_each([["a"], ["a", "a"]]).tolist() == [0.0, 0.0]


def test_plain_cider_neither_clips_nor_minds_the_length():
    references = [["a b c d".split()], ["x".split()]]
    # The cosine of "a a" and "a b c d" is 2 / (2 * sqrt 4); CIDEr-D has half of it,
    # times the penalty for two words too few.
    candidates = ["a a".split(), []]
    assert Cider(references).score_each(candidates)[0] == pytest.approx(10 * 0.5 / 4)
    assert CiderD(references).score_each(candidates)[0] == pytest.approx(
        10 * 0.25 / 4 * math.exp(-(2**2) / 72)
    )


def test_rouge_l_of_a_worked_example():
    # Of "a b c d e", "a x c e" keeps a, c, e in order: precision 3 / 4. The best recall
    # is of another reference: all of "c e".
    references = [["a b c d e".split(), "c e".split(), "e c a".split()]]
    precision, recall, beta = 3 / 4, 1.0, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    score = RougeL(references).score_each(["a x c e".split()])
    assert score == pytest.approx([expected])


def test_a_batch_has_any_number_of_samples_of_any_image():
    generator = random.Random(5)
    references = [
        [generator.choices(range(30), k=9) for _ in range(generator.randint(1, 5))]
        for _ in range(12)
    ]  # token ids do as well as words
    images = [7, 7, 0, 11, 7, 3, 3]
    samples = [generator.choices(range(35), k=generator.randint(0, 12)) for _ in images]
    samples[0] = list(references[7][0])
    cider_d = CiderD(references)
    scores = cider_d.score_each(samples, images)
    assert scores.shape == (7,) and scores[0] > 1
    for image, sample, score in zip(images, samples, scores):
        one_each = [[] for _ in references]
        one_each[image] = sample
        assert cider_d.score_each(one_each)[image] == pytest.approx(score, abs=1e-12)
    assert cider_d.score_each([], []).shape == (0,)


@pytest.mark.parametrize("images", [[0], [0, 2], [-1, 0], [[0, 1]]])
def test_a_batch_of_images_that_are_not_there_is_refused(images):
    with pytest.raises(ValueError, match="[Ii]mages"):
        CiderD([[["a"]], [["b"]]]).score_each([["a"], ["b"]], images)


@pytest.mark.parametrize("metric", [Bleu, Cider, CiderD, RougeL])
def test_a_candidate_too_few_is_refused(metric):
    with pytest.raises(ValueError):
        metric([[["a"]], [["b"]]]).score([["a"]])


def test_an_image_without_references_is_named():
    with pytest.raises(ValueError, match=r"references\[1\]"):
        ReferenceNgrams([[["a"]], []])


@needs_pycocoevalcap
@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_pycocoevalcap_on_random_corpora(seed):
    generator = random.Random(seed)
    words = [f"w{i}" for i in range(generator.choice([3, 20, 500]))]

    def caption():
        # Squared, so that some words are common, as in any language.
        length = generator.randint(0, 20)
        return [words[int(generator.random() ** 2 * len(words))] for _ in range(length)]

    references = [
        [caption() for _ in range(generator.randint(1, 6))] for _ in range(60)
    ]
    assert_equal_to_oracle(references, [caption() for _ in references])


@needs_pycocoevalcap
def test_scores_equal_pycocoevalcap_on_edge_cases():
    long = [f"w{i % 50}" for i in range(3000)]
    references = [
        [["dog"], ["a", "dog"]],
        [[], ["cat"]],
        [["日本語", "の", "犬"], ["собака"]],
        [long, long[:1500]],
        [["a", "man", "in", "red"]] * 5,
        [["never", "guessed"]],
    ]
    candidates = [["dog"], [], ["日本語", "の", "猫"], long[7:2000], ["a"] * 40, []]
    assert_equal_to_oracle(references, candidates)
    # A corpus of one image, and one where nothing was said at all.
    assert_equal_to_oracle(references[:1], candidates[:1])
    assert_equal_to_oracle(references, [[] for _ in references])


@needs_pycocoevalcap
@needs_flickr8k
def test_scores_equal_pycocoevalcap_on_flickr8k():
    tokens = [
        [ptb_tokenize(caption) for caption in captions]
        for captions in read_flickr8k(300, seed=1)
    ]
    # One person against the others, each in turn.
    for turn in range(2):
        references = [refs[:turn] + refs[turn + 1 :] for refs in tokens]
        assert_equal_to_oracle(references, [refs[turn] for refs in tokens])


def test_score_captions_tokenises_and_names_the_scores():
    references = {
        "a.jpg": ["A dog runs on the green grass.", "The dog runs!"],
        "b.jpg": ["Two men can't ride a bike."],
    }
    candidates = {"b.jpg": "two men ca n't ride a bike", "a.jpg": "The dog runs"}
    scores = score_captions(references, candidates)
    names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "cider_plain"]
    assert list(scores) == names
    assert [scores[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1.0] * 4)
    assert 0 < scores["cider"] < 10


def test_score_each_averages_to_the_score_and_keeps_ids():
    references = {7: ["a red car"], 3: ["two cats sleep", "cats"], "x": ["a dog"]}
    candidates = {"x": "a dog", 3: "", 7: "a car"}
    scorer = CaptionScorer(references)
    each, scores = scorer.score_each(candidates), scorer.score(candidates)
    assert list(each) == [7, 3, "x"]
    assert each[3] == pytest.approx(dict.fromkeys(scores, 0.0), abs=1e-9)
    for name in ("rouge_l", "cider", "cider_plain"):
        mean = sum(values[name] for values in each.values()) / 3
        assert mean == pytest.approx(scores[name])
    bleu = Bleu([[["a", "red", "car"]]]).score([["a", "car"]])
    assert [each[7][f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(bleu)


def test_a_scorer_can_be_used_again():
    scorer = CaptionScorer({"a": ["a red car", "a car"], "b": ["two cats"]})
    good, bad = {"a": "a red car", "b": "two cats"}, {"a": "two cats", "b": ""}
    first = scorer.score(good)
    assert scorer.score(bad)["cider"] == 0
    assert scorer.score(good) == first


def test_all_empty_candidates_score_nothing():
    scores = score_captions({"a": ["a dog"], "b": ["a cat"]}, {"a": "", "b": "."})
    assert scores == pytest.approx(dict.fromkeys(scores, 0.0))


def test_ids_must_match():
    references = {f"{i}.jpg": ["a dog"] for i in range(10)}
    candidates = {f"{i}.jpg": "a dog" for i in range(3, 11)}
    with pytest.raises(ValueError) as error:
        score_captions(references, candidates)
    assert "no candidate for 3 images: '0.jpg', '1.jpg', '2.jpg'" in str(error.value)
    assert "no references for 1 image: '10.jpg'" in str(error.value)
    # Many are counted, not listed.
    with pytest.raises(ValueError, match=r"10 images: .*'4\.jpg', \.\.\."):
        score_captions(references, {})


@pytest.mark.parametrize(
    "references", [{}, {"a": []}, {"a": "a dog"}, {"a": [None]}, {"a": None}]
)
def test_references_must_be_lists_of_text(references):
    with pytest.raises(ValueError, match="eferences"):
        CaptionScorer(references)


def test_a_candidate_must_be_text():
    with pytest.raises(ValueError, match="one str.*1 image: 'a'"):
        score_captions({"a": ["a dog"]}, {"a": ["a dog"]})


def random_captions(seed, count):
    generator = random.Random(seed)
    words = "a the dog cat man red runs on in of".split()
    return {
        i: " ".join(generator.choices(words, k=generator.randint(1, 9)))
        for i in range(count)
    }


@pytest.fixture(scope="module")
def scored():
    """A scorer of 60 images, good captions and bad ones."""
    people = [random_captions(seed, 60) for seed in range(3)]
    scorer = CaptionScorer({i: [person[i] for person in people] for i in range(60)})
    good = {i: people[i % 3][i] if i % 4 else people[0][59 - i] for i in range(60)}
    return scorer, good, random_captions(9, 60)


def test_statistics_add_up_to_scores(scored):
    scorer, good, _ = scored
    statistics = scorer.statistics(good)
    scores = scorer.from_statistics(statistics.sum(axis=0))
    assert {n: float(v) for n, v in scores.items()} == scorer.score(good)
    # Rows of some images, two of them twice, are the scores of that corpus; CIDEr is
    # the mean over them, with the document frequencies of all images.
    chosen = [3, 5, 8, 8, 8, 13, 21, 34, 34, 55]
    scores = scorer.from_statistics(statistics[chosen].sum(axis=0))
    references = [
        [random_captions(seed, 60)[i].split() for seed in range(3)] for i in chosen
    ]
    bleu = Bleu(references).score([good[i].split() for i in chosen])
    assert [scores[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(bleu)
    each = scorer.score_each(good)
    for name in ("rouge_l", "cider", "cider_plain"):
        assert scores[name] == pytest.approx(sum(each[i][name] for i in chosen) / 10)


def test_bootstrap_draws_images_with_replacement(scored):
    scorer, good, _ = scored
    statistics = scorer.statistics(good)
    resampled = bootstrap(statistics, scorer.from_statistics, num_resamples=4000)
    assert set(resampled) == set(scorer.score(good))
    # The mean of N draws has the deviation of one over the square root of N.
    ciders = np.array([each["cider"] for each in scorer.score_each(good).values()])
    low, high = interval(resampled["cider"])
    deviation = ciders.std() / math.sqrt(60)
    assert resampled["cider"].mean() == pytest.approx(ciders.mean(), rel=0.02)
    assert resampled["cider"].std() == pytest.approx(deviation, rel=0.05)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)
    assert low < scorer.score(good)["cider"] < high
    low, high = interval(resampled["bleu_4"])
    assert 0 < low < scorer.score(good)["bleu_4"] < high < 1
    again = bootstrap(statistics, scorer.from_statistics, num_resamples=4000)
    assert np.array_equal(again["bleu_4"], resampled["bleu_4"])
    # In pieces, as where there are many images.
    assert len(bootstrap(np.ones((3, 1)), lambda s: {"x": s[:, 0]}, 7)["x"]) == 7


def test_compare_pairs_the_images(scored):
    scorer, good, bad = scored
    good, bad = scorer.statistics(good), scorer.statistics(bad)
    better = compare(good, bad, scorer.from_statistics)["cider"]
    assert better["difference"] > 0 < better["interval"][0] and better["better"] == 1
    worse = compare(bad, good, scorer.from_statistics)["cider"]
    assert worse["better"] == 0 and worse["difference"] == -better["difference"]
    assert worse["interval"] == pytest.approx([-v for v in better["interval"][::-1]])
    assert worse["other"] - better["other"] == pytest.approx(better["difference"])
    same = compare(good, good, scorer.from_statistics)["bleu_4"]
    assert same["difference"] == 0 == same["interval"][1] and same["better"] == 0.5
    # One caption less good: never higher, and the same where it is not drawn. Two
    # independent bootstraps would call that chance.
    slightly = good.copy()
    slightly[7] = bad[7]
    slightly[7, 1] = good[7, 1] - 0.01
    found = compare(good, slightly, scorer.from_statistics)["rouge_l"]
    drawn = 1 - (1 - 1 / 60) ** 60
    assert found["better"] == pytest.approx(drawn + (1 - drawn) / 2, abs=0.05)
    assert 0 <= found["interval"][0] <= found["interval"][1] < 0.002


def test_best_of_takes_the_best_by_cider():
    scorer = CaptionScorer({"a": ["a red car"], "b": ["two cats"], "c": ["a big dog"]})
    several = {
        "c": ["the dog", "a big dog", "a dog"],
        "a": ["two cats"],
        "b": ["a cat", "nothing", "two dogs"],
    }
    assert scorer.best_of(several) == {
        "a": "two cats",
        "b": "two dogs",
        "c": "a big dog",
    }
    with pytest.raises(ValueError, match="'c'"):
        scorer.best_of({"a": ["x"], "b": ["y"]})


def test_diversity_of_a_worked_example():
    captions = [
        "a dog runs on the".split(),
        "a dog runs on the".split(),
        "a man in a hat and a man in red".split(),
        "two two cats".split(),
        [],
    ]
    found = diversity(captions, [captions[3], ["never", "written"]])
    assert found["distinct"] == 4
    assert found["copied"] == 1 / 5
    assert found["vocabulary"] == len(
        "a dog runs on the man in hat and red two cats".split()
    )
    assert found["mean_length"] == pytest.approx(23 / 5)
    assert found["lengths"] == {0: 1, 3: 1, 5: 2, 10: 1}
    assert found["empty"] == 1
    assert found["bad_endings"] == 2 / 5
    assert found["repeated_words"] == 1 / 5
    assert found["repeated_phrases"] == 1 / 5
    assert diversity(captions)["copied"] is None
    assert diversity(captions, [])["copied"] == 0
    assert diversity(captions[:1])["self_bleu_4"] is None


@pytest.mark.parametrize("words", [2, 10])
def test_self_bleu_is_bleu_against_all_others(words):
    generator = random.Random(words)
    captions = [
        generator.choices("abcdefghij"[:words], k=generator.randint(0, 7))
        for _ in range(40)
    ]
    others = [captions[:i] + captions[i + 1 :] for i in range(40)]
    expected = Bleu(others).score_each(captions)[:, 3].mean()
    assert self_bleu(captions) == pytest.approx(expected, abs=1e-12)


def test_calibration_is_the_correlation_of_ranks():
    quality = [0.1, 5.0, 0.2, 0.3, 9.0, 0.25, 0.0]
    assert calibration(np.exp(quality), quality)["spearman"] == pytest.approx(1)
    assert calibration(np.negative(quality), quality)["spearman"] == pytest.approx(-1)
    assert calibration([2.0] * 7, quality)["spearman"] is None
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    found = calibration([-4, -2, -2, -1], [0, 1, 2, 3])
    assert found["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    found = calibration(list(range(11)), [10 * n for n in range(11)])["bins"]
    assert [part["images"] for part in found] == [3, 2, 2, 2, 2]
    assert found[0] == {"images": 3, "score": 1.0, "quality": 10.0}
    assert found[4]["score"] == 9.5


def test_java_metrics_say_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    scorer = CaptionScorer({"a": ["a dog"]}, java_metrics=True)
    assert scorer.missing == dict.fromkeys(("meteor", "spice"), "Java is not installed")
    assert "meteor" not in scorer.score({"a": "a dog"})
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    folder = tmp_path / "pycocoevalcap"
    (folder / "meteor" / "data").mkdir(parents=True)
    spec = importlib.machinery.ModuleSpec("pycocoevalcap", None, is_package=True)
    spec.submodule_search_locations.append(str(folder))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(JavaMetricError, match="there is no .*meteor-1.5.jar"):
        Meteor([[["a"]]])
    (folder / "meteor" / "meteor-1.5.jar").touch()
    (folder / "meteor" / "data" / "paraphrase-en.gz").touch()
    with pytest.raises(JavaMetricError, match="there is no .*spice-1.0.jar"):
        Spice([[["a"]]])
    (folder / "spice").mkdir()
    (folder / "spice" / "spice-1.0.jar").touch()
    with pytest.raises(JavaMetricError, match="no stanford-corenlp.* downloads it"):
        Spice([[["a"]]])
    # All is there, and the program fails: the rest goes on.
    scorer = CaptionScorer({"a": ["a dog"]}, java_metrics=True)
    assert list(scorer.missing) == ["spice"]
    scores = scorer.score({"a": "a dog"})
    assert scorer.missing["meteor"] == "the program failed"
    assert scores["bleu_1"] == pytest.approx(1) and "meteor" not in scores


def test_spice_is_that_of_pycocoevalcap(monkeypatch, tmp_path):
    # Its models are nowhere that the tests run, so the program is one of ours.
    class FakeSpice:
        def compute_score(self, references, candidates):
            assert references == {0: ["a dog", "the dog"], 1: ["two cats"]}
            words = [len(candidates[i][0].split()) / 10 for i in range(2)]
            return 9.0, [{"All": {"f": f}, "Color": {"f": 0.0}} for f in words]

    for name in ("pycocoevalcap", "pycocoevalcap.spice", "pycocoevalcap.spice.spice"):
        module = types.ModuleType(name)
        module.Spice = FakeSpice
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "lib").mkdir()
    for jar in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / "lib" / jar).touch()
    monkeypatch.setattr(java_metrics, "_package_folder", lambda *_: tmp_path)
    references = {"b": ["A dog.", "The dog."], "a": ["Two cats!"]}
    scorer = CaptionScorer(references, java_metrics=True)
    candidates = {"a": "three words here", "b": "one"}
    assert scorer.score(candidates)["spice"] == pytest.approx(0.2)
    each = scorer.score_each(candidates)
    assert {i: scores["spice"] for i, scores in each.items()} == {"b": 0.1, "a": 0.3}
    assert list(scorer.missing) == ["meteor"]  # there is no jar to run


@needs_pycocoevalcap
@needs_java
@pytest.mark.slow
def test_meteor_equals_pycocoevalcap():
    from pycocoevalcap.meteor.meteor import Meteor as OracleMeteor

    references = {
        0: ["a brown dog is running in grass", "the dog runs"],
        1: ["a cat"],
        2: ["two cats sleep", "cats are asleep on a couch"],
        3: ["people walking down the street", "a crowd walks along a road"],
        4: [""],
        5: ["a man with 1,000 $ says it 's 5 %"],
    }
    candidates = {
        0: ["a dog runs on the grass"],
        1: [""],
        2: ["two cats sleep"],
        3: ["persons walk down a road"],
        4: ["x"],
        5: ["a man with 5 %"],
    }
    score, each = OracleMeteor().compute_score(references, candidates)
    meteor = Meteor([[r.split() for r in refs] for refs in references.values()])
    statistics = meteor.statistics([c[0].split() for c in candidates.values()])
    assert meteor.from_statistics(statistics) == exactly(each)
    assert meteor.from_statistics(statistics.sum(axis=0)) == exactly(score)
    assert 0.1 < score < 0.9 and min(each) == 0 and max(each) == 1

    scorer = CaptionScorer({i: refs for i, refs in references.items() if i != 4}, True)
    scores = scorer.score({i: c[0] for i, c in candidates.items() if i != 4})
    assert 0.1 < scores["meteor"] < 0.9


@needs_pycocoevalcap
@needs_java
@needs_flickr8k
@pytest.mark.slow
def test_all_of_flickr8k_equals_pycocoevalcap():
    benchmark = load_benchmark("metrics")
    different, corpus, each = benchmark.compare_all(read_flickr8k())
    assert len(different) <= 3
    assert corpus < 1e-9 and each < 1e-9


def load_benchmark(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_pycocoevalcap
@needs_java
def test_metrics_benchmark(monkeypatch, capsys):
    benchmark = load_benchmark("metrics")
    monkeypatch.setattr(
        benchmark,
        "made_up_captions",
        lambda _, made=benchmark.made_up_captions: made(60),
    )
    monkeypatch.setattr(sys, "argv", ["metrics.py", "--all", "--repeats", "1"])
    benchmark.main()
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["images"] == 60
    assert record["difference"] < 1e-9
    assert record["all"]["captions"] == 300
    assert record["all"]["different_tokens"] == 0
    assert record["all"]["caption_difference"] < 1e-9
    assert record["seconds"].keys() == {"pycocoevalcap", "captioner"}


@needs_pycocoevalcap
@needs_java
def test_coco_scores_benchmark(tmp_path):
    references, predictions = tmp_path / "references.json", tmp_path / "preds.json"
    annotations = [
        {"id": 1, "image_id": "dög 1.jpg", "caption": "A dog isn't running."},
        {"id": 2, "image_id": "cats.jpg", "caption": "Two cats on a well-known mat"},
        {"id": 3, "image_id": "dög 1.jpg", "caption": "The dog sits."},
    ]
    references.write_text(json.dumps({"images": [], "annotations": annotations}))
    results = [
        {"image_id": "cats.jpg", "caption": "two cats on a mat"},
        {"image_id": "dög 1.jpg", "caption": "the dog isn't sitting"},
    ]
    predictions.write_text(json.dumps(results))
    command = [sys.executable, str(ROOT / "benchmarks" / "coco_scores.py")]
    command += ["--references", str(references), "--predictions", str(predictions)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    record = json.loads(run.stdout.splitlines()[-1])
    assert (record["images"], record["references"]) == (2, 3)
    assert record["max_difference"] < 1e-9
    assert record["captioner"]["cider"] > 0

    predictions.write_text(json.dumps(results[:1]))
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "no candidate for 1 image: 'dög 1.jpg'" in run.stderr
    assert "Traceback" not in run.stderr
