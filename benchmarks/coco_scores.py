"""Scores predictions with pycocoevalcap and with `captioner.metrics`, side by side.

The published figures of this project come from here: tokens by pycocoevalcap's Java
PTBTokenizer, BLEU and CIDEr by pycocoevalcap, and ours next to them. It needs Java
and `pip install pycocoevalcap`.

    python benchmarks/coco_scores.py --references refs.json --predictions preds.json

`--references` is a COCO captions file ({"annotations": [{"image_id", "caption"}]}),
`--predictions` a COCO results file ([{"image_id", "caption"}]); image ids may be
numbers or strings. Prints a table and one line of JSON.
"""

import argparse
import json
import sys
import time

from captioner.metrics import CaptionScorer

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider")


def read_references(path):
    """Reads a COCO captions file into {image_id: [caption]}."""
    with open(path, encoding="utf-8") as file:
        annotations = json.load(file)["annotations"]
    references = {}
    for annotation in annotations:
        captions = references.setdefault(annotation["image_id"], [])
        captions.append(annotation["caption"])
    return references


def read_predictions(path):
    """Reads a COCO results file into {image_id: caption}."""
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    predictions = {result["image_id"]: result["caption"] for result in results}
    if len(predictions) != len(results):
        raise ValueError(
            "An image must have one prediction. Received: "
            f"{len(results)} predictions for {len(predictions)} images"
        )
    return predictions


def score_with_pycocoevalcap(references, predictions):
    """Returns the scores of pycocoevalcap and the seconds of its two parts."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    started = time.perf_counter()
    # Both go through one Java process each, like in `pycocoevalcap.eval`.
    tokenizer = PTBTokenizer()
    reference_tokens = tokenizer.tokenize(
        {i: [{"caption": c} for c in captions] for i, captions in references.items()}
    )
    # In the order of the references, which `Bleu` and `Cider` take for granted.
    prediction_tokens = tokenizer.tokenize(
        {i: [{"caption": predictions[i]}] for i in references}
    )
    tokenized = time.perf_counter()
    bleu, _ = Bleu(4).compute_score(reference_tokens, prediction_tokens, verbose=0)
    cider, _ = Cider().compute_score(reference_tokens, prediction_tokens)
    finished = time.perf_counter()
    scores = dict(zip(METRICS, (*bleu, float(cider))))
    return scores, tokenized - started, finished - tokenized


def score_with_captioner(references, predictions):
    """Returns our scores and the seconds of preparing references and of scoring."""
    started = time.perf_counter()
    scorer = CaptionScorer(references)
    prepared = time.perf_counter()
    scores = scorer.score(predictions)
    finished = time.perf_counter()
    return scores, prepared - started, finished - prepared


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", required=True, help="COCO captions JSON")
    parser.add_argument("--predictions", required=True, help="COCO results JSON")
    arguments = parser.parse_args()
    references = read_references(arguments.references)
    predictions = read_predictions(arguments.predictions)

    # Ours first: it refuses files of different images, in one line.
    try:
        ours, preparing, scoring = score_with_captioner(references, predictions)
    except ValueError as error:
        sys.exit(f"coco_scores.py: {error}")
    theirs, tokenizing, computing = score_with_pycocoevalcap(references, predictions)

    captions = sum(map(len, references.values()))
    print(f"{len(predictions)} predictions, {captions} references")
    print(f"{'':8} {'pycocoevalcap':>14} {'captioner':>14} {'difference':>12}")
    for name in METRICS:
        difference = ours[name] - theirs[name]
        print(f"{name:8} {theirs[name]:14.6f} {ours[name]:14.6f} {difference:12.1e}")
    java, python = tokenizing + computing, preparing + scoring
    print(f"{'seconds':8} {java:14.2f} {python:14.2f} {f'{java / python:.1f} x':>12}")
    print(f"  pycocoevalcap: {tokenizing:.2f} tokenising, {computing:.2f} scoring")
    print(f"  captioner: {preparing:.2f} preparing references, {scoring:.2f} scoring")
    record = {
        "images": len(predictions),
        "references": captions,
        "pycocoevalcap": theirs,
        "captioner": ours,
        "max_difference": max(abs(ours[name] - theirs[name]) for name in METRICS),
        "seconds": {
            "pycocoevalcap": {"tokenize": tokenizing, "score": computing},
            "captioner": {"prepare": preparing, "score": scoring},
        },
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
