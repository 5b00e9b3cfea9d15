import importlib.util
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

from captioner.metrics import Bleu, CaptionScorer, CiderD, ptb_tokenize, score_captions

ROOT = pathlib.Path(__file__).parents[1]
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

# Our own sentences and the tokens that the Java tokeniser makes of them.
HARD_SENTENCES = {
    "A dog runs.": "a dog runs",
    "It isn't, can't, WON'T and shouldn't've.": (
        "it is n't ca n't wo n't and should n't 've"
    ),
    "It don’t matter, he’s here": "it do n't matter he 's here",
    "He's sure they're what we've got; she'll say I'd go, I'm in.": (
        "he 's sure they 're what we 've got she 'll say i 'd go i 'm in"
    ),
    "You cannot, we're gonna, gotta, wanna; gimme, lemme!": (
        "you can not we 're gon na got ta wan na gim me lem me"
    ),
    "The dogs' bowls and James' cat": "the dogs bowls and james cat",
    "five o'clock with ma'am O'Neil and d'Artagnan, y'all": (
        "five o'clock with ma'am o'neil and d'artagnan y' all"
    ),
    "'Tis a rock'n'roll song of the '70s or 1970's": (
        "'t is a rock 'n' roll song of the '70s or 1970 's"
    ),
    "a bird's-eye view": "a bird 's eye view",
    "A well-known 3-year-old in a T-shirt, half- dressed - or not--maybe": (
        "a well-known 3-year-old in a t-shirt half dressed or not maybe"
    ),
    "1,000 men, $5.50, 10:30 a.m., 50% of 3/4, No. 5 and 5.": (
        "1,000 men $ 5.50 10:30 a.m. 50 % of 3/4 no. 5 and 5"
    ),
    "1st, 2nd, #1, 4x4, 6'2\" and -10": "1st 2nd # 1 4x4 6 2 and -10",
    "Mr. Smith met Dr. Jones at St. Paul, U.S. etc.": (
        "mr. smith met dr. jones at st. paul u.s. etc."
    ),
    "Plan B. The dog and plan B. with me": "plan b the dog and plan b. with me",
    "It says \"stop\" and ``go'' and 'wait'": "it says stop and go and wait",
    "“Curly” and ‘single’ and «angle»": "curly and single and angle",
    "A man (in red) and [two] {more}": (
        "a man -lrb- in red -rrb- and -lsb- two -rsb- -lcb- more -rcb-"
    ),
    "What?! Wow!! No... yes…": "what ?! wow !! no yes",
    "AT&T, R&B, rock & roll, black&white, salt &amp; pepper": (
        "at&t r&b rock & roll black & white salt & pepper"
    ),
    "and/or w/o 24/7 www.example.com me@example.com @you #tag": (
        "and/or w/o 24/7 www.example.com me@example.com @you #tag"
    ),
    "a=b a+b 70°F £5 €5 5¢ ½": "a = b a + b 70 ° f # 5 $ 5 5 cents 1/2",
    "café über señor Собака 日本語 हिन्दी": "café über señor собака 日本語 हिन्दी",
    "a dog 🐶 in ❤️ with👍joy": "a dog in ❤ with joy",
    "soft\u00adhyphen no\u00a0break zero\u200bwidth\ttab": (
        "softhyphen no break zero width tab"
    ),
    "- , . ; ? ! : ' \" ` --": "",
    "": "",
    "   ": "",
}


def java_tokenize(captions):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokens = PTBTokenizer().tokenize({"all": [{"caption": c} for c in captions]})
    return [caption.split() for caption in tokens["all"]]


def oracle_scores(references, candidates):
    """Scores lists of tokens with pycocoevalcap: (BLEU-1..4, CIDEr of each image)."""
    from pycocoevalcap.bleu.bleu import Bleu as OracleBleu
    from pycocoevalcap.cider.cider import Cider as OracleCider

    gts = {i: [" ".join(r) for r in refs] for i, refs in enumerate(references)}
    res = {i: [" ".join(tokens)] for i, tokens in enumerate(candidates)}
    bleu, _ = OracleBleu(4).compute_score(gts, res, verbose=0)
    _, ciders = OracleCider().compute_score(gts, res)
    return bleu, list(ciders)


def assert_equal_to_oracle(references, candidates):
    bleu, ciders = oracle_scores(references, candidates)
    cider = CiderD(references)
    assert Bleu(references).score(candidates) == pytest.approx(bleu, rel=0, abs=1e-9)
    each = cider.score_each(candidates)
    assert each == pytest.approx(ciders, rel=0, abs=1e-9)
    mean = sum(ciders) / len(ciders)
    assert cider.score(candidates) == pytest.approx(mean, rel=0, abs=1e-9)


def read_flickr8k(count=None, seed=0):
    """Returns the five captions of each image, of `count` random images."""
    captions = {}
    for line in FLICKR8K.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(caption)
    images = list(captions.values())
    return random.Random(seed).sample(images, count) if count else images


@pytest.mark.parametrize("sentence", HARD_SENTENCES)
def test_ptb_tokenize_hard_sentences(sentence):
    assert ptb_tokenize(sentence) == HARD_SENTENCES[sentence].split()


@needs_pycocoevalcap
@needs_java
def test_hard_sentences_are_what_java_says():
    expected = [tokens.split() for tokens in HARD_SENTENCES.values()]
    assert java_tokenize(HARD_SENTENCES) == expected


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
    # Java looks at the beginning of the next caption; real ones begin like this.
    sentences = [
        " ".join(["A", *generator.choices(words, k=generator.randint(1, 15))])
        for _ in range(400)
    ] + ["A last one"]
    for sentence, tokens in zip(sentences, java_tokenize(sentences), strict=True):
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
    assert CiderD(references).score_each([["a"], ["a", "a"]]) == [0.0, 0.0]


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
    assert list(scores) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider"]
    assert [scores[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1.0] * 4)
    assert 0 < scores["cider"] < 10


def test_score_each_averages_to_cider_and_keeps_ids():
    references = {7: ["a red car"], 3: ["two cats sleep", "cats"], "x": ["a dog"]}
    candidates = {"x": "a dog", 3: "", 7: "a car"}
    scorer = CaptionScorer(references)
    each = scorer.score_each(candidates)
    assert list(each) == [7, 3, "x"]
    assert each[3] == 0
    assert sum(each.values()) / 3 == pytest.approx(scorer.score(candidates)["cider"])


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
