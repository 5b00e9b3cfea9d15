"""Speed and equality of `captioner.metrics` beside pycocoevalcap, in one run.

Needs Java and `pip install pycocoevalcap`.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --dataset flickr8k:flickr8k --all

Scores one caption of each of 1,000 images against five references, from text to
BLEU, ROUGE-L and CIDEr; and times CIDEr-D of 160 captions, five for each of 32 images,
whose references were prepared before: the reward of CIDEr optimisation. Captions are
made up, or those of a dataset. `--all` compares tokens, and scores to the last digit,
over all captions of the dataset: each image's first caption against its others, then
its second, and so on. Prints a table and one line of JSON.
"""

import argparse
import itertools
import json
import random
import statistics
import time

import numpy as np

from captioner.datasets import load_dataset
from captioner.metrics import Bleu, CaptionScorer, CiderD, RougeL, ptb_tokenize

NUM_IMAGES = 1000
NUM_REFERENCES = 5
NUM_SAMPLES = 160


def made_up_captions(num_images, seed=0):
    """Five captions for each image, of 3,000 words as frequent as those of a language
    are, with the length of Flickr8k's."""
    generator = random.Random(seed)
    syllables = "ba ke di lo mu ra se ti go pu na fe vi so du".split()
    words = ["".join(three) for three in itertools.product(syllables, repeat=3)][:3000]
    weights = np.cumsum(1 / np.arange(1, 3001)).tolist()

    def caption():
        length = generator.randint(6, 16)
        text = " ".join(generator.choices(words, cum_weights=weights, k=length))
        return f"A {text}."

    return [[caption() for _ in range(NUM_REFERENCES)] for _ in range(num_images)]


def tokenize_with_java(captions):
    """The tokens of lists of captions by pycocoevalcap, a string each."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize(
        {i: [{"caption": text} for text in texts] for i, texts in enumerate(captions)}
    )


def score_with_pycocoevalcap(references, candidates):
    """Scores strings of tokens: BLEU-1 to 4, ROUGE-L, CIDEr; and those of each image
    as an array (N, 6)."""
    from pycocoevalcap.bleu.bleu import Bleu as OriginalBleu
    from pycocoevalcap.cider.cider import Cider as OriginalCider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, bleus = OriginalBleu(4).compute_score(references, candidates, verbose=0)
    rouge, rouges = Rouge().compute_score(references, candidates)
    cider, ciders = OriginalCider().compute_score(references, candidates)
    return [*bleu, rouge, cider], np.column_stack([*bleus, rouges, ciders])


def seconds(function):
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def compare_speed(references, candidates, repeats):
    """Both from text to scores, in turn; the fastest of some repeats counts."""
    ids = [str(number) for number in range(len(references))]
    given = dict(zip(ids, references)), dict(zip(ids, candidates))

    def original():
        return score_with_pycocoevalcap(
            tokenize_with_java(references),
            tokenize_with_java([[text] for text in candidates]),
        )[0]

    def ours():
        scores = CaptionScorer(given[0]).score(given[1])
        return [scores[name] for name in scores if name != "cider_plain"]

    times = {"pycocoevalcap": [], "captioner": []}
    for _ in range(repeats):
        taken, theirs = seconds(original)
        times["pycocoevalcap"].append(taken)
        for _ in range(5):
            taken, scores = seconds(ours)
            times["captioner"].append(taken)
    difference = max(abs(a - b) for a, b in zip(theirs, scores, strict=True))
    return {name: min(taken) for name, taken in times.items()}, difference


def time_reward(references):
    """Seconds for CIDEr-D of a batch, of fifty."""
    prepared, cider_d = seconds(
        lambda: CiderD([[text.lower().split() for text in t] for t in references])
    )
    generator = random.Random(0)
    times = []
    for _ in range(50):
        images = generator.sample(range(len(references)), NUM_SAMPLES // 5)
        images = [image for image in images for _ in range(5)]
        samples = []
        for image in images:
            words = generator.choice(references[image]).lower().split()
            samples.append(words[:4] + generator.choices(words, k=8))
        taken, _ = seconds(lambda: cider_d.score_each(samples, images))
        times.append(taken)
    return prepared, times


def compare_all(captions):
    """Tokens and scores over a whole corpus; returns what differs."""
    java = tokenize_with_java(captions)
    # pycocoevalcap drops an image whose captions are all empty.
    java = [java.get(i, [""] * len(texts)) for i, texts in enumerate(captions)]
    different = [
        (text, tokens, " ".join(ptb_tokenize(text)))
        for texts, of_image in zip(captions, java)
        for text, tokens in zip(texts, of_image, strict=True)
        if tokens != " ".join(ptb_tokenize(text))
    ]
    corpus_difference = each_difference = 0.0
    for turn in range(min(map(len, captions))):
        references = dict(enumerate(t[:turn] + t[turn + 1 :] for t in java))
        candidates = dict(enumerate([t[turn]] for t in java))
        theirs, theirs_each = score_with_pycocoevalcap(references, candidates)
        split = [[text.split() for text in texts] for texts in references.values()]
        tokens = [texts[0].split() for texts in candidates.values()]
        bleu, rouge_l, cider_d = Bleu(split), RougeL(split), CiderD(split)
        ours = [*bleu.score(tokens), rouge_l.score(tokens), cider_d.score(tokens)]
        each = [bleu.score_each(tokens), rouge_l.score_each(tokens)]
        each = np.column_stack([*each, cider_d.score_each(tokens)])
        corpus_difference = max(
            corpus_difference, np.abs(np.subtract(ours, theirs)).max()
        )
        each_difference = max(each_difference, np.abs(each - theirs_each).max())
    return different, float(corpus_difference), float(each_difference)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="as for `captioner evaluate`")
    parser.add_argument("--all", action="store_true", help="compare all its captions")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.dataset:
        data = load_dataset(arguments.dataset)
        captions = [e["captions"] for s in data.splits for e in data.examples(s)]
        random.Random(0).shuffle(captions)
    else:
        captions = made_up_captions(6000)
    chosen = [texts[:NUM_REFERENCES] for texts in captions[:NUM_IMAGES]]
    # Every other image gets one of its own references, the rest that of another.
    candidates = [chosen[i - i % 2][0] for i in range(len(chosen))]
    times, difference = compare_speed(chosen, candidates, arguments.repeats)
    ratio = times["pycocoevalcap"] / times["captioner"]
    prepared, rewards = time_reward(captions)
    median = statistics.median(rewards)
    print(
        f"{len(chosen)} images, {sum(map(len, chosen))} references, from text to scores"
    )
    for name, taken in times.items():
        print(f"  {name:<14}{taken * 1e3:9.1f} ms")
    print(f"  ratio         {ratio:9.1f}    largest difference {difference:.1e}")
    print(f"CIDEr-D of {NUM_SAMPLES} captions, references of {len(captions)} images")
    print(f"  prepared      {prepared * 1e3:9.1f} ms")
    print(
        f"  a batch       {median * 1e3:9.2f} ms   slowest {max(rewards) * 1e3:.2f} ms"
    )
    record = {
        "images": len(chosen),
        "seconds": times,
        "ratio": ratio,
        "difference": difference,
        "reward_seconds": {"median": median, "slowest": max(rewards)},
    }
    if arguments.all:
        different, corpus, each = compare_all(captions)
        number = sum(map(len, captions))
        print(f"{number} captions, tokens that differ from Java's: {len(different)}")
        for text, java, ours in different:
            print(f"  {text!r}\n    Java: {java}\n    ours: {ours}")
        print(
            f"  largest difference: {corpus:.1e} of a corpus, {each:.1e} of a caption"
        )
        record["all"] = {
            "captions": number,
            "different_tokens": len(different),
            "corpus_difference": corpus,
            "caption_difference": each,
        }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
