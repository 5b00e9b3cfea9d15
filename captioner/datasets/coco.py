"""COCO captions JSON.

Source: Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation
Server", 2015, https://arxiv.org/abs/1504.00325
"""

import os
import re

from captioner.datasets.dataset_builder import DatasetBuilder, read_json

_CAPTIONS_FILE = re.compile(r"captions_.*\.json")
# "train2017" but not "trainval2014", which is of both.
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|dev|test)(?![a-z])", re.IGNORECASE)


def find_captions_files(folder, listing) -> list:
    """Paths of the captions files of a COCO folder; empty if it is not one."""
    for base in (os.path.join(folder, "annotations"), folder):
        names = sorted(filter(_CAPTIONS_FILE.fullmatch, listing.files(base)))
        if names:
            return [os.path.join(base, name) for name in names]
    return []


def read_coco(path, image_dir=None, split_fractions=(0.9, 0.05, 0.05)):
    """Reads COCO captions: one JSON file, or a folder of them.

    The name of a file says its split: `captions_train2017.json` is train,
    `captions_val2017.json` is dev. A single file whose name has no such word is
    split by a hash of the image ids. The id of an image is COCO's own. Photos
    are looked for beside the file, beside its folder, and in the folders there
    (`train2017/`, `val2017/`).

    Args:
        path: str. A JSON file, or a folder with `annotations/captions_*.json`.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats. Sizes of train, dev and test where the
            name of the file gives no split.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If a file is not of this form, an image is in two splits, or
            nothing usable is left.

    Example:

    ```python
    dataset = read_coco("coco")  # coco/annotations/captions_val2017.json, ...
    dataset.splits  # ("train", "dev")
    ```
    """
    builder = DatasetBuilder(f"coco:{path}", split_fractions)
    files = [path]
    if os.path.isdir(path):
        files = find_captions_files(path, builder.listing)
        if not files:
            raise ValueError(
                f"{path} has no captions_*.json, nor has its annotations/."
            )
    for file in files:
        _read_file(file, builder, image_dir)
    return builder.build()


def _read_file(file, builder, image_dir):
    data = read_json(file)
    captions, names = {}, {}
    try:
        for annotation in data["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(
                annotation["caption"]
            )
        for image in data["images"]:
            names.setdefault(image["id"], []).append(os.fspath(image["file_name"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no COCO captions JSON: expected images with id and file_name "
            f"and annotations with image_id and caption. Missing: {error}"
        ) from error
    if image_dir is None:
        first_names = [name for same_id in names.values() for name in same_id]
        image_dir = _find_image_dir(file, first_names, builder.listing)
    word = _SPLIT_WORD.search(os.path.basename(file))
    split = word.group(1) if word else None
    for number, same_id in names.items():
        for name in same_id:
            path = os.path.join(image_dir, name)
            builder.add(str(number), path, (), split)
        builder.add(str(number), path, captions.get(number, ()))
    for number in captions:
        if number not in names:
            builder.leave_out(str(number), "captions of an image that is not listed")


def _find_image_dir(file, names, listing):
    folder = os.path.dirname(file)
    beside = listing.find_image_dir(folder, names)
    parent = os.path.normpath(os.path.join(folder, os.pardir))
    above = listing.find_image_dir(parent, names)
    return max(beside, above, key=lambda base: listing.count(base, names))
