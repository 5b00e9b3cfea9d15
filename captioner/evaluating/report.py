"""An evaluation as one HTML file that needs nothing else: no network, no other file."""

import collections
import pathlib

import numpy as np
from markupsafe import Markup

from captioner.files import atomic_write
from captioner.images.image_files import ImageError, load_image
from captioner.images.thumbnail import JpegUri, make_thumbnail, thumbnail_size
from captioner.pages.page import write_page
from captioner.pages.plots import bar_plot, interval_plot
from captioner.progress import progress_bar

# So many photos at most, half of them the worst and half the best.
MAX_IMAGES = 1000
THUMBNAIL_SIZE = 160  # of the longer side, in pixels
_TEMPLATE = pathlib.Path(__file__).with_name("report.html")
MAX_LENGTH = 40  # words of a caption; longer ones share a bar

_NAMES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "cider_plain": "CIDEr, plain",
    "meteor": "METEOR",
    "spice": "SPICE",
    "distinct": "Distinct captions",
    "copied": "Copied from training",
    "vocabulary": "Words used",
    "mean_length": "Mean length",
    "empty": "Empty captions",
    "bad_endings": "Bad endings",
    "repeated_words": "A word twice in a row",
    "repeated_phrases": "Three words twice",
    "self_bleu_4": "Self-BLEU-4",
    "chair_i": "Objects in no reference (CHAIR)",
    "chair_s": "Captions with such an object",
    "n_best_self_bleu_4": "Self-BLEU-4 among those of an image",
}
_SHARES = ("copied", "bad_endings", "repeated_words", "repeated_phrases")
_SHARES += ("chair_i", "chair_s")


def write_report(path, evaluation, references, images):
    """Writes an evaluation as a web page to look through.

    Scores with their intervals, plots, and the photos with their captions, worst
    first, to be searched and sorted. Photos are small JPEGs in the page itself. With
    more than 1,000 images the page has the 500 worst and the 500 best by CIDEr.

    Args:
        path: of the file, which is replaced.
        evaluation: an `Evaluation`.
        references: dict of image id to the list of its captions by people.
        images: dict of image id to whatever `load_image` takes.

    Raises:
        OSError: the file cannot be written.

    Example:

    ```python
    examples = captioner.load_dataset("scenes:64").examples("test")
    write_report(
        "report.html",
        captioner.evaluate("run/preset", "scenes:64", split="test"),
        {example["image/id"]: example["captions"] for example in examples},
        {example["image/id"]: example["image"] for example in examples},
    )
    ```
    """
    protocol = evaluation.protocol
    subject = protocol.get("preset") or protocol["predictions"]
    ciders = {i: each["cider"] for i, each in evaluation.scores_each.items()}
    shown = sorted(ciders, key=ciders.get)
    if len(shown) > MAX_IMAGES:
        shown = shown[: MAX_IMAGES // 2] + shown[-(MAX_IMAGES // 2) :]
    with progress_bar("report", total=len(shown)) as bar:

        def cards():
            for image_id in shown:
                yield _card(evaluation, references, images, image_id)
                bar.update()

        # replace: a file name need not be valid text.
        with atomic_write(path, "w", encoding="utf-8", errors="replace") as file:
            write_page(
                file,
                _TEMPLATE,
                title=f"{subject} on {protocol['dataset']}, {protocol['split']}",
                protocol=protocol,
                **_scores(evaluation),
                **_comparison(evaluation),
                plots=_plots(evaluation),
                tiles=_tiles(evaluation.diversity),
                hallucinated=evaluation.diversity.get("hallucinated"),
                count=(
                    len(shown)
                    if len(shown) == len(ciders)
                    else f"{len(shown)} of {len(ciders)}"
                ),
                orders=_orders(evaluation),
                images=cards(),
                left_out=evaluation.left_out.values(),
            )


def _scores(evaluation):
    rows = []
    for name, value in evaluation.scores.items():
        low, high = evaluation.intervals[name]
        row = [_NAMES[name], f"{value:.4f}", f"{low:.4f} to {high:.4f}"]
        if evaluation.oracle:
            row.append(f"{evaluation.oracle[name]:.4f}")
        rows.append(row)
    plot = interval_plot(
        "Scores with their 95 % intervals",
        {
            _NAMES[name]: (value, *evaluation.intervals[name])
            for name, value in evaluation.scores.items()
        },
    )
    return {
        "scores": rows,
        "score_head": ["", "score", "95 % interval"]
        + ["best of several"] * bool(evaluation.oracle),
        "score_plot": Markup(plot),
        # A line for each metric that could not be run.
        "missing": [
            f"{_NAMES[name]} is {evaluation.protocol[name]}"
            for name in ("meteor", "spice")
            if str(evaluation.protocol[name]).startswith("missing")
        ],
    }


def _comparison(evaluation):
    if not evaluation.comparison:
        return {"comparison": None}
    rows = [
        (
            _NAMES[name],
            f"{found['other']:.4f}",
            f"{found['difference']:+.4f}",
            "{:+.4f} to {:+.4f}".format(*found["interval"]),
            f"{found['better']:.1%}",
        )
        for name, found in evaluation.comparison.items()
    ]
    plot = interval_plot(
        "Differences with their 95 % intervals; right of 0 is better",
        {
            _NAMES[name]: (found["difference"], *found["interval"])
            for name, found in evaluation.comparison.items()
        },
    )
    return {"comparison": rows, "comparison_plot": Markup(plot)}


def _plots(evaluation):
    ciders = [scores["cider"] for scores in evaluation.scores_each.values()]
    top = max(1.0, float(np.ceil(max(ciders))))
    counts, edges = np.histogram(ciders, bins=20, range=(0, top))
    plots = [
        bar_plot(
            "Images by the CIDEr of their caption",
            [(f"{a:.2f}", n) for a, n in zip(edges, counts.tolist())],
        ),
        bar_plot("Captions by their number of words", _by_length(evaluation.diversity)),
    ]
    if evaluation.calibration:
        spearman = evaluation.calibration["spearman"]
        found = "none" if spearman is None else f"{spearman:.2f}"
        plots.append(
            bar_plot(
                "Mean CIDEr of a fifth of the captions each, from the lowest to the "
                f"highest score of the captioner; rank correlation {found}",
                [
                    (f"{part['score']:.2f}", part["quality"])
                    for part in evaluation.calibration["bins"]
                ],
            )
        )
    if evaluation.reliability:
        error = evaluation.reliability["expected_calibration_error"]
        plots.append(
            bar_plot(
                "Share of right captions in each tenth, by their mean confidence; "
                f"calibration error {error:.3f}",
                [
                    (f"{part['confidence']:.2f}", part["right"])
                    for part in evaluation.reliability["deciles"]
                ],
            )
        )
    return list(map(Markup, plots))


def _tiles(diversity):
    """The name and the value of each figure about the captions."""
    for name, value in diversity.items():
        if name in _NAMES:
            if value is None:
                value = "unknown"
            elif name in _SHARES:
                value = f"{value:.1%}"
            elif isinstance(value, float):
                value = f"{value:.3f}"
            yield _NAMES[name], value


def _orders(evaluation):
    """The orders that a reader can choose: value, number of a card, sign, label."""
    orders = [
        ("worst", "cider", 1, "worst first"),
        ("best", "cider", -1, "best first"),
    ]
    if evaluation.caption_scores:
        orders.append(("score", "score", 1, "least likely first"))
    if evaluation.confidences:
        orders.append(("confidence", "confidence", 1, "least confident first"))
    if evaluation.other_captions:
        orders.append(("difference", "difference", 1, "worse than the other first"))
    return orders


def _by_length(diversity):
    """Bars from the shortest caption to the longest; all long ones are one bar."""
    counts = collections.Counter()
    for length, count in diversity["lengths"].items():
        counts[min(length, MAX_LENGTH)] += count
    bars = [(str(n), counts[n]) for n in range(min(counts), max(counts) + 1)]
    if MAX_LENGTH in counts:
        bars[-1] = (f"{MAX_LENGTH}+", counts[MAX_LENGTH])
    return bars


def _card(evaluation, references, images, image_id):
    each = evaluation.scores_each[image_id]
    data = {"cider": each["cider"]}
    facts = [f"CIDEr {each['cider']:.2f}", f"ROUGE-L {each['rouge_l']:.2f}"]
    if image_id in evaluation.caption_scores:
        data["score"] = evaluation.caption_scores[image_id]
        facts.append(f"score {data['score']:.2f}")
    if image_id in evaluation.confidences:
        data["confidence"] = evaluation.confidences[image_id]
        facts.append(f"confidence {data['confidence']:.0%}")
    card = {
        "id": image_id,
        "data": data,
        "photo": _photo(images[image_id]),
        "caption": evaluation.captions[image_id],
        "facts": ", ".join(facts),
        "references": references[image_id],
        "other": None,
    }
    if evaluation.other_captions:
        other = evaluation.other_captions[image_id]
        data["difference"] = each["cider"] - other["cider"]
        card["other"] = other["caption"]
        card["other_facts"] = f"the other, CIDEr {other['cider']:.2f}"
    return card


def _photo(image):
    """The small photo, or None: predictions need no photo that can be read."""
    try:
        pixels = load_image(image)
    except ImageError:
        return None
    size = thumbnail_size(*pixels.shape[:2], THUMBNAIL_SIZE)
    return JpegUri(make_thumbnail(pixels, THUMBNAIL_SIZE), size)
