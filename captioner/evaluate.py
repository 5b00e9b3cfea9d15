"""Score a captioner on a dataset's split: `captioner evaluate`."""

import dataclasses
import pathlib
import sys

from captioner import presets
from captioner.datasets import load_dataset
from captioner.image_captioner import ImageCaptioner
from captioner.input_pipeline import image_batches
from captioner.metrics import CaptionScorer
from captioner.progress import progress_bar

PREDICTIONS_FILE = "predictions.json"
REFERENCES_FILE = "references.json"
SCORES_FILE = "scores.json"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        scores: dict of "bleu_1" to "bleu_4" and "cider".
        captions: dict of image id -> caption.
        protocol: dict of what was measured how: preset, dataset, split, number of
            images, left out and references, sampler.
        left_out: dict of image id -> reason, for unreadable photos.
    """

    scores: dict
    captions: dict
    protocol: dict
    left_out: dict


def evaluate(
    preset,
    dataset,
    split=None,
    sampler=None,
    output=None,
    overwrite=False,
    batch_size=16,
):
    """Caption a split, without a look at its captions, and score the result.

    Args:
        preset: name or folder of a preset, or an `ImageCaptioner`.
        dataset: what `load_dataset` takes, as "flickr8k:DIR".
        split: "test", "dev" or "train"; by default test where there is one,
            else dev.
        sampler: replaces the preset's own.
        output: folder for `predictions.json` (COCO results), `references.json`
            (COCO captions) and `scores.json`, which other tools can score.
        overwrite: replace these files where they are there already.
        batch_size: photos at a time.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: no such preset, dataset or split, or `output` has such files.
        OSError: `output` cannot be written.

    Example:

    ```python
    evaluation = captioner.evaluate("run/preset", "flickr8k:flickr8k", split="dev")
    evaluation.scores["cider"]
    ```
    """
    data = load_dataset(dataset)
    split = split or ("test" if "test" in data.splits else "dev")
    examples = list(data.examples(split))
    captioner = ImageCaptioner.from_preset(preset, sampler)
    if output is not None:  # refused now rather than after the work
        output = pathlib.Path(output)
        output.mkdir(parents=True, exist_ok=True)
        for name in (PREDICTIONS_FILE, REFERENCES_FILE, SCORES_FILE):
            if (output / name).exists() and not overwrite:
                raise ValueError(
                    f"{output / name} exists; it is replaced only with overwrite."
                )

    captions, left_out = {}, {}
    batches = image_batches(
        [example["image"] for example in examples],
        captioner.preprocessor.image_converter,
        batch_size,
        lambda i, error: left_out.__setitem__(examples[i]["image/id"], str(error)),
    )
    with progress_bar(f"captions of {split}", total=len(examples)) as bar:
        for indices, images in batches:
            texts, _ = captioner.caption_batch(images)
            for index, text in zip(indices.numpy(), texts):
                captions[examples[index]["image/id"]] = text
            bar.update(len(texts))
    for reason in left_out.values():
        print(f"left out: {reason}", file=sys.stderr)
    if not captions:
        raise ValueError(f"No photo of the {split} split of {dataset} can be read.")

    references = {
        example["image/id"]: example["captions"]
        for example in examples
        if example["image/id"] in captions
    }
    protocol = {
        "preset": ("in memory" if isinstance(preset, ImageCaptioner) else str(preset)),
        "dataset": str(dataset),
        "split": split,
        "images": len(captions),
        "left_out": len(left_out),
        "references": sum(len(texts) for texts in references.values()),
        "sampler": type(captioner.sampler).__name__,
        **captioner.sampler.get_config(),
    }
    if output is not None:
        # Predictions first, scores second: any other tool can score them too.
        _write_coco(output, captions, references)
    scores = CaptionScorer(references).score(captions)
    if output is not None:
        presets.write_json(output / SCORES_FILE, {**scores, "protocol": protocol})
    return Evaluation(scores, captions, protocol, left_out)


def _write_coco(folder, captions, references):
    predictions = [{"image_id": i, "caption": text} for i, text in captions.items()]
    annotations = [
        {"id": number, "image_id": image_id, "caption": text}
        for number, (image_id, text) in enumerate(
            (image_id, text) for image_id, texts in references.items() for text in texts
        )
    ]
    images = [{"id": image_id, "file_name": image_id} for image_id in references]
    presets.write_json(folder / PREDICTIONS_FILE, predictions)
    presets.write_json(
        folder / REFERENCES_FILE, {"images": images, "annotations": annotations}
    )
