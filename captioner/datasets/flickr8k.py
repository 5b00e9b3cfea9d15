"""Flickr8k in its original layout.

Source: Hodosh, Young, Hockenmaier, "Framing Image Description as a Ranking
Task", JAIR 47 (2013).
"""

import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.rows import read_text

_CAPTIONS_FILE = "Flickr8k.token.txt"
_SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def find_captions_file(folder, listing):
    """Path of the captions of a Flickr8k folder, or None if it is not one."""
    return _find(_CAPTIONS_FILE, folder, listing)


def read_flickr8k(folder, image_dir=None, split_fractions=None):
    """Reads Flickr8k with its official lists: 6,000 / 1,000 / 1,000 images.

    The text files lie in `folder` or in a sub folder of it (`Flickr8k_text/`),
    the photos in a sub folder (`Flicker8k_Dataset/`, as the archive spells it,
    `Flickr8k_Dataset/Flicker8k_Dataset/`, or any other). A missing list means that the
    split is absent. The ids are the file names of the photos.

    Args:
        folder: str. The folder that the archives were unpacked in.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. Where there is no list of dev images,
            dev is taken from train.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If the captions or all three lists are missing, a line has
            no tab, an image is in two lists, or nothing usable is left.

    Example:

    ```python
    dataset = read_flickr8k("flickr8k")
    dataset.splits  # ("train", "dev", "test")
    ```
    """
    builder = DatasetBuilder(f"flickr8k:{folder}", folder, image_dir, split_fractions)
    listing = builder.listing
    captions_file = find_captions_file(folder, listing)
    if captions_file is None:
        raise ValueError(
            f"{folder} is not a Flickr8k folder: neither it nor a folder in it has "
            f"{_CAPTIONS_FILE}."
        )
    captions = {}
    for number, line in enumerate(read_text(captions_file).split("\n"), 1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        if not tab:
            raise ValueError(
                f"{captions_file}, line {number}: expected IMAGE#N, a tab and a "
                f"caption. Received: {line[:80]!r}"
            )
        captions.setdefault(key.rpartition("#")[0].strip(), []).append(caption)
    found_list = False
    for split, name in _SPLIT_FILES.items():
        split_file = _find(name, folder, listing)
        if split_file is None:
            builder.leave_out(name, f"no list of the {split} images")
            continue
        found_list = True
        for image_id in dict.fromkeys(read_text(split_file).split("\n")):
            image_id = image_id.strip()
            if image_id:
                builder.add(image_id, captions.get(image_id, ()), split)
    if not found_list:
        names = ", ".join(_SPLIT_FILES.values())
        raise ValueError(f"{folder} has no list of images: none of {names}.")
    for image_id, texts in captions.items():
        if image_id not in builder:
            builder.add(image_id, texts)
    return builder.build()


def _find(name, folder, listing):
    """Path of a text file in `folder` or a sub folder of it, or None."""
    for text_dir in (folder, *listing.folders(folder)):
        path = os.path.join(text_dir, name)
        if path in listing:
            return path
    return None
