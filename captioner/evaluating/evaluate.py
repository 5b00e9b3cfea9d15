"""Score captions on a dataset's split: `captioner evaluate`."""

import collections
import concurrent.futures
import importlib.metadata
import itertools
import os
import pathlib
import re

from captioner import presets
from captioner.datasets import load_dataset
from captioner.evaluating.evaluation import Evaluation
from captioner.evaluating.predictions import (
    READERS,
    Predictions,
    match_predictions,
    read_predictions,
)
from captioner.evaluating.report import write_report
from captioner.images.image_files import ImageError, load_image
from captioner.metrics import (
    CaptionScorer,
    bootstrap,
    calibration,
    chair,
    compare,
    diversity,
    interval,
    java_version,
    name_ids,
    ptb_tokenize,
    reliability,
    self_bleu,
)
from captioner.metrics.bootstrap import LEVEL, NUM_RESAMPLES
from captioner.metrics.rightness import least_right_score
from captioner.progress import progress_bar
from captioner.tasks.load_task import load_task
from captioner.tasks.task import Task
from captioner.terminal import say

PREDICTIONS_FILE = "predictions.json"
N_BEST_FILE = "n_best.json"
REFERENCES_FILE = "references.json"
SCORES_FILE = "scores.json"
REPORT_FILE = "report.html"
OTHER = "other_"  # before the names of what `compare_with` wrote
_NOT_ALWAYS = (N_BEST_FILE, OTHER + PREDICTIONS_FILE, OTHER + N_BEST_FILE)
_FILES = (PREDICTIONS_FILE, REFERENCES_FILE, SCORES_FILE, REPORT_FILE, *_NOT_ALWAYS)


def evaluate(
    preset,
    dataset,
    split=None,
    sampler=None,
    output=None,
    overwrite=False,
    batch_size=16,
    compare_with=None,
    java_metrics=True,
):
    """Score the captions of a preset, which are generated now, or of a file.

    A preset captions the photos of the split and does not see their captions. A file
    of predictions must have a caption for each image of the split; one with an error
    instead (`captioner caption` writes such rows) is left out like a photo that a
    preset cannot read. Captions of images in other splits, or without references, are
    counted and not scored. An empty caption is scored as it is. A prediction for
    an image that the dataset does not have, a second one for an image, and a missing
    one are errors.

    Args:
        preset: name or folder of a preset, a `Task`, or a list of them,
            which caption together, see `EnsembleCaptioner`; or a file or folder of
            predictions, see `read_predictions`.
        dataset: what `load_dataset` takes, as "flickr8k:DIR".
        split: "test", "dev" or "train"; by default test where there is one,
            else dev.
        sampler: replaces that of the preset (or presets).
        output: folder for `predictions.json` (COCO results), `references.json`
            (COCO captions), which other tools can score, `scores.json`, and
            `report.html`, which shows it all with the photos. Where there are several
            captions of an image, as by `BeamSampler(5, num_hypotheses=5)`, all are in
            `n_best.json`, which can be scored again, too.
        overwrite: replace these files if they exist.
        batch_size: photos at a time.
        compare_with: another preset or predictions, scored on the same images; its
            captions are written as `other_predictions.json`.
        java_metrics: compute METEOR and SPICE if Java and their data are installed.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: no such preset, dataset or split, predictions that cannot be
            scored, or `output` has such files.
        OSError: `output` cannot be written.

    Example:

    ```python
    evaluation = captioner.evaluate("run/preset", "flickr8k:flickr8k", split="dev")
    evaluation.scores["cider"], evaluation.intervals["cider"]
    ```
    """
    data = load_dataset(dataset)
    split = split or ("test" if "test" in data.splits else "dev")
    examples = list(data.examples(split))
    # Mistakes are found before the long work begins.
    sources = [
        _open(source, sampler, data, split)
        for source in (preset, compare_with)
        if source is not None
    ]
    if sampler is not None and all(isinstance(s, Predictions) for s in sources):
        raise ValueError(f"{preset} holds finished captions, so it takes no sampler.")
    without_references = [
        what for what, reason in data.summary().left_out if "without captions" in reason
    ]
    if without_references:
        say(f"images without references: {name_ids(without_references)}")
    if output is not None:
        output = pathlib.Path(output)
        output.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if (output / name).exists() and not overwrite:
                raise ValueError(
                    f"{output / name} exists; it is replaced only with overwrite."
                )
    written = [
        (
            source
            if isinstance(source, Predictions)
            else _caption(source, examples, split, batch_size)
        )
        for source in sources
    ]
    left_out = {}
    for predictions in reversed(written):
        left_out.update(predictions.errors)
    for reason in left_out.values():
        say(f"left out: {reason}")
    references = {
        example["image/id"]: example["captions"]
        for example in examples
        if example["image/id"] not in left_out
    }
    if not references:
        raise ValueError(f"No photo of the {split} split of {dataset} can be read.")
    if output is not None:
        for name in _NOT_ALWAYS:  # of an earlier evaluation
            (output / name).unlink(missing_ok=True)
        # Predictions first, scores second: any other tool can score them too.
        for prefix, predictions in zip(("", OTHER), written):
            _write_predictions(output, prefix, predictions, references)
        _write_references(output / REFERENCES_FILE, references)

    scorer = CaptionScorer(references, java_metrics)
    found = _score(scorer, written, references)
    evaluation = Evaluation(
        protocol={
            "predictions" if isinstance(sources[0], Predictions) else "preset": (
                _name(preset)
            ),
            "dataset": str(dataset),
            "split": split,
            "images": len(references),
            "left_out": len(left_out),
            "without_references": len(without_references),
            "references": sum(map(len, references.values())),
            **written[0].notes,
            **({} if compare_with is None else {"compare_with": _name(compare_with)}),
            **{f"other_{key}": n for p in written[1:] for key, n in p.notes.items()},
            **_metric_versions(scorer, java_metrics),
        },
        diversity=_diversity(written[0], references, data, split),
        left_out=left_out,
        **found,
    )
    if output is not None:
        presets.write_json(output / SCORES_FILE, _scores_json(evaluation))
        images = {example["image/id"]: example["image"] for example in examples}
        write_report(output / REPORT_FILE, evaluation, references, images)
    return evaluation


def _name(source):
    if isinstance(source, (list, tuple)):
        return " + ".join(map(_name, source))
    return "in memory" if isinstance(source, Task) else str(source)


def _open(source, sampler, data, split):
    """The captioner that a source is; or its predictions, by the ids of a split."""
    if is_predictions(source):
        return match_predictions(read_predictions(source), data, split)
    return load_task(source, sampler)


def is_predictions(source):
    """Whether captions are to be read there: it is no preset, and is called as a file
    of captions is, or there is something."""
    if not isinstance(source, (str, os.PathLike)):  # a captioner, or several presets
        return False
    try:
        presets.find_preset(source)
    except presets.PresetError:
        path = pathlib.Path(source)
        return path.suffix.lower() in READERS or (
            path.exists() and not (path / presets.WEIGHTS_FILE).exists()
        )
    return False


def _caption(task, examples, split, batch_size):
    """Captions the photos of a split, in batches, from the photos alone."""
    captions, scores, errors, confidences = {}, {}, {}, {}
    with progress_bar(f"captions of {split}", total=len(examples)) as bar:
        for batch in _converted(task, examples, batch_size, errors):
            results = task.write([image for _, image in batch])
            for (image_id, _), result in zip(batch, results):
                captions[image_id] = [each.text for each in result.hypotheses]
                if result.score is not None:
                    scores[image_id] = result.score
                if result.confidence is not None:
                    confidences[image_id] = result.confidence
            bar.update(len(results))
    notes = {"captions": "free-running, from the photo alone", **task.describe()}
    return Predictions(split, captions, scores, errors, notes, confidences=confidences)


def _converted(task, examples, batch_size, errors):
    """Yields lists of (image id, converted photo); photos are read and converted ahead
    by threads. Those that cannot be read go into `errors`, a dict."""

    def convert(example):
        try:
            return example["image/id"], task.convert(
                load_image(example["image"], task.image_size)
            )
        except ImageError as error:
            errors[example["image/id"]] = str(error)

    def in_order(pool):
        ahead = collections.deque()
        for example in examples:
            ahead.append(pool.submit(convert, example))
            if len(ahead) > 2 * batch_size:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        photos = filter(None, in_order(pool))
        while batch := list(itertools.islice(photos, batch_size)):
            yield batch


def _score(scorer, written, references):
    """The fields of an `Evaluation` that are scores."""
    several = {image_id: written[0].captions[image_id] for image_id in references}
    captions = {image_id: texts[0] for image_id, texts in several.items()}
    statistics = scorer.statistics(captions)
    other_captions = comparison = oracle = calibrated = None
    if len(written) > 1:
        other_captions = {i: written[1].captions[i][0] for i in references}
        other_statistics = scorer.statistics(other_captions)
    if any(len(texts) > 1 for texts in several.values()):
        oracle = scorer.score(scorer.best_of(several))
    # What Java failed at is now known, and missing from all.
    if other_captions:
        comparison = compare(statistics, other_statistics, scorer.from_statistics)
        ciders = scorer.from_statistics(other_statistics)["cider"].tolist()
        other_captions = {
            image_id: {"caption": text, "cider": cider}
            for (image_id, text), cider in zip(other_captions.items(), ciders)
        }
    resampled = bootstrap(statistics, scorer.from_statistics)
    scores = scorer.from_statistics(statistics.sum(axis=0))
    each = scorer.from_statistics(statistics)
    rows = zip(*(values.tolist() for values in each.values()))
    caption_scores = {i: s for i, s in written[0].scores.items() if i in references}
    quality = dict(zip(references, each["cider"].tolist()))
    if caption_scores:
        calibrated = calibration(
            list(caption_scores.values()), [quality[i] for i in caption_scores]
        )
    confidences = {i: c for i, c in written[0].confidences.items() if i in references}
    return {
        "confidences": confidences,
        "reliability": _reliability(confidences, quality, references),
        "scores": {name: float(value) for name, value in scores.items()},
        "intervals": {name: interval(values) for name, values in resampled.items()},
        "scores_each": {i: dict(zip(each, row)) for i, row in zip(references, rows)},
        "captions": captions,
        "caption_scores": caption_scores,
        "calibration": calibrated,
        "oracle": oracle,
        "comparison": comparison,
        "other_captions": other_captions,
    }


def _reliability(confidences, quality, references):
    """Whether the confidences are what they say, or None; `quality` is each CIDEr."""
    least = least_right_score([references[image_id] for image_id in confidences])
    if least is None:
        return None
    is_right = [quality[image_id] >= least for image_id in confidences]
    return reliability(list(confidences.values()), is_right)


def _metric_versions(scorer, java_metrics):
    """With what the scores are computed, and why some are not."""
    versions = {
        "tokenizer": "Penn Treebank, lower case, no punctuation, as pycocoevalcap 1.2",
        "metrics": f"captioner {importlib.metadata.version('captioner')}, equal to "
        "pycocoevalcap 1.2; cider is CIDEr-D",
        "intervals": f"{LEVEL:.0%}, {NUM_RESAMPLES} bootstrap resamples of the images",
    }
    for name, version in (("meteor", "METEOR 1.5"), ("spice", "SPICE 1.0")):
        if not java_metrics:
            versions[name] = "not asked for"
        elif name in scorer.missing:
            versions[name] = f"missing: {scorer.missing[name]}"
        else:
            versions[name] = f"{version}, Java {java_version()}"
    return versions


def _diversity(predictions, references, data, split):
    tokens = [
        [ptb_tokenize(text) for text in predictions.captions[image_id]]
        for image_id in references
    ]
    training = None
    if "train" in data.splits and split != "train":
        training = [
            ptb_tokenize(caption)
            for example in data.examples("train")
            for caption in example["captions"]
        ]
    first = [texts[0] for texts in tokens]
    found = diversity(first, training)
    found |= chair(
        first,
        [[ptb_tokenize(text) for text in several] for several in references.values()],
    )
    n_best = [texts for texts in tokens if len(texts) > 1]
    if n_best:
        found["n_best_self_bleu_4"] = sum(map(self_bleu, n_best)) / len(n_best)
    return found


def _scores_json(evaluation):
    fields = ("intervals", "diversity", "calibration", "reliability", "oracle")
    fields += ("comparison",)
    values = {name: getattr(evaluation, name) for name in (*fields, "protocol")}
    return {**evaluation.scores, **values}


def _write_predictions(output, prefix, predictions, references):
    rows, n_best = [], []
    number = _id_writer(references)
    for image_id in references:
        texts = predictions.captions[image_id]
        of, score = {"image_id": number(image_id)}, {}
        if image_id in predictions.scores:
            score = {"score": predictions.scores[image_id]}
        if image_id in predictions.confidences:
            score["confidence"] = predictions.confidences[image_id]
        rows.append({**of, "caption": texts[0], **score})
        n_best.append({**of, "captions": texts, **score})
    presets.write_json(output / f"{prefix}{PREDICTIONS_FILE}", rows)
    if any(len(row["captions"]) > 1 for row in n_best):
        presets.write_json(output / f"{prefix}{N_BEST_FILE}", n_best)


def _write_references(path, references):
    number = _id_writer(references)
    annotations = [
        {"id": index, "image_id": number(image_id), "caption": text}
        for index, (image_id, text) in enumerate(
            (image_id, text) for image_id, texts in references.items() for text in texts
        )
    ]
    images = [{"id": number(i), "file_name": i} for i in references]
    presets.write_json(path, {"images": images, "annotations": annotations})


def _id_writer(references):
    """Ids that are all numbers, as COCO's, are written as numbers."""
    numbers = all(re.fullmatch("0|[1-9][0-9]{0,17}", i) for i in references)
    return int if numbers else str
