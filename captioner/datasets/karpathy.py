"""Karpathy's JSON files: `dataset_flickr8k.json`, `dataset_coco.json`, ...

Source: Karpathy, Li, "Deep Visual-Semantic Alignments for Generating Image
Descriptions", CVPR 2015.
"""

import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.rows import read_json


def is_karpathy(data) -> bool:
    """Whether parsed JSON is a Karpathy file: images that carry sentences."""
    images = data.get("images") if isinstance(data, dict) else None
    return bool(
        isinstance(images, list)
        and images
        and isinstance(images[0], dict)
        and "sentences" in images[0]
    )


def read_karpathy(path, image_dir=None, split_fractions=None):
    """Reads a Karpathy JSON file with its splits; `restval` is trained on.

    Photos are looked for as `filepath/filename` beside the file and in the folders
    there. That relative path is the id.

    Args:
        path: str. The JSON file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. See `DatasetBuilder`.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If the file is not of this form, an image is in two splits,
            or nothing usable is left.

    Example:

    ```python
    dataset = read_karpathy("dataset_flickr8k.json", image_dir="Flicker8k_Dataset")
    ```
    """
    data = read_json(path)
    if not is_karpathy(data):
        raise ValueError(
            f"{path} is no Karpathy JSON: expected images with sentences in it."
        )
    images = {}
    try:
        for number, image in enumerate(data["images"], 1):
            name = os.path.join(image.get("filepath", ""), image["filename"])
            captions = [sentence["raw"] for sentence in image["sentences"]]
            entry = images.setdefault(name, ([], []))
            entry[0].extend(captions)
            entry[1].append(image.get("split"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: every image needs a filename and sentences with a raw text. "
            f"Image number {number} has not: {error}"
        ) from error
    base = os.path.dirname(path)
    builder = DatasetBuilder(f"karpathy:{path}", base, image_dir, split_fractions)
    for name, (captions, splits) in images.items():
        builder.add(name, captions)
        for split in splits:
            builder.add(name, (), split)
    return builder.build()
