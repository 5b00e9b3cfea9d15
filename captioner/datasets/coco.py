"""COCO captions JSON.

Source: Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation
Server", 2015, https://arxiv.org/abs/1504.00325
"""

import os
import re

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import FolderListing
from captioner.datasets.rows import read_json

_CAPTIONS_FILE = re.compile(r"captions_.*\.json")
# "train2017" but not "trainval2014", which is of both.
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|dev|test)(?![a-z])", re.IGNORECASE)


def find_captions_files(folder, listing) -> list:
    """Paths of the captions files of a COCO folder; empty if it is not one.

    They lie in the folder, in `annotations/`, or in `annotations/` in a folder that is
    called as the archive: `annotations_trainval2017/`.
    """
    annotations = [
        child
        for child in listing.folders(folder)
        if os.path.basename(child).lower().startswith("annotations")
    ]
    below = [os.path.join(child, "annotations") for child in annotations]
    for base in (*annotations, *below, folder):
        names = sorted(filter(_CAPTIONS_FILE.fullmatch, listing.files(base)))
        if names:
            return [os.path.join(base, name) for name in names]
    return []


def read_coco(path, image_dir=None, split_fractions=None):
    """Reads COCO captions: one JSON file, or a folder of them.

    The name of a file says its split: `captions_train2017.json` is train,
    `captions_val2017.json` is dev. A single file whose name has no such word is
    split by a hash of the image ids. The id of an image is COCO's own. Photos
    are looked for beside the file and in the folders there, and beside
    `annotations/`: `train2017/`, `images/val2017/`, `val2017/val2017/`, ...

    Args:
        path: str. A JSON file, or a folder with `annotations/captions_*.json`.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. Sizes of train, dev and test where the
            name of the file gives no split; see `DatasetBuilder`.

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
    files = [path]
    if os.path.isdir(path):
        files = find_captions_files(path, FolderListing())
        if not files:
            raise ValueError(
                f"Neither {path} nor its folder annotations/ has a captions_*.json."
            )
    base = os.path.dirname(files[0])
    builder = DatasetBuilder(f"coco:{path}", base, image_dir, split_fractions)
    for file in files:
        _read_file(file, builder)
    return builder.build()


def _read_file(file, builder):
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
    word = _SPLIT_WORD.search(os.path.basename(file))
    split = word.group(1) if word else None
    for number, same_id in names.items():
        for name in same_id:
            builder.add(name, (), split, image_id=str(number))
        builder.add(name, captions.get(number, ()))
    for number in captions:
        if number not in names:
            builder.leave_out(str(number), "captions of an image that is not listed")
