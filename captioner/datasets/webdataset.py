"""Tar archives with photos and captions: the shards of WebDataset and img2dataset.

Source: https://github.com/webdataset/webdataset, "The WebDataset Format"
"""

import json
import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import FolderListing, folder_split
from captioner.datasets.table import json_captions
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

_TEXTS = (".txt", ".caption", ".json")  # the first that a sample has is read
_MAX_TEXT_BYTES = 2**20


def find_shards(path, listing) -> list:
    """Paths of the tar archives that a path is or has, in it or in its folders."""
    if os.path.isfile(path):
        return [path] if path.lower().endswith(".tar") else []
    return [
        os.path.join(folder, name)
        for folder in (path, *listing.folders(path))
        for name in sorted(listing.files(folder))
        if name.lower().endswith(".tar")
    ]


def read_webdataset(path, split_fractions=None):
    """Reads tar archives of samples: `0001.jpg` with `0001.txt` or `0001.json`.

    The captions are the lines of the `.txt`, or else the `caption`, `captions` or
    `text` of the `.json`. Captions are read once and kept; photos stay in the archive
    and are read when they are used. An archive or a folder that is called as a split
    (`train-0000.tar`, `val/0000.tar`) is that split, if all are; else a hash of the ids
    decides. The id is the name of the archive and of the sample, `train-0000/0001`.

    Args:
        path: str. A `.tar` file, or a folder of them.
        split_fractions: three floats or None. See `DatasetBuilder`.

    Returns:
        A `CaptionDataset`. The images have a `read()`.

    Raises:
        ValueError: If there are no archives, one is compressed, two samples have the
            same id, or nothing usable is left.

    Example:

    ```python
    dataset = read_webdataset("cc3m")  # cc3m/00000.tar, cc3m/00001.tar, ...
    ```
    """
    listing = FolderListing()
    shards = find_shards(path, listing)
    if not shards:
        raise ValueError(f"{path} is neither a .tar archive nor a folder with some.")
    builder = DatasetBuilder(f"webdataset:{path}", split_fractions=split_fractions)
    root = path if os.path.isdir(path) else os.path.dirname(path)
    names = [
        os.path.splitext(os.path.relpath(shard, root or "."))[0] for shard in shards
    ]
    splits = [_split_of(name) for name in names]
    for shard, name, split in zip(shards, names, splits):
        _read_shard(shard, name, split if all(splits) else None, builder)
    return builder.build()


def _split_of(name):
    folder, base = os.path.split(name)
    return folder_split(base) or folder_split(folder)


def _read_shard(shard, name, split, builder):
    from captioner.images.photo import ARCHIVE_ERRORS, Photo  # loads OpenCV
    from captioner.images.tar_archive import TarSlice, read_tar

    samples = {}  # key -> (the photo, its captions by the suffix of the text)
    try:
        for member in read_tar(shard, lambda _: False):
            folder, base = os.path.split(member.name)
            stem, dot, suffix = base.partition(".")
            key, suffix = os.path.join(folder, stem), f"{dot}{suffix}".lower()
            is_photo = suffix in PHOTO_SUFFIXES
            if not stem or not (is_photo or suffix in _TEXTS):
                continue
            if member.problem is not None:
                builder.leave_out(f"{shard}/{member.name}", member.problem[1])
                continue
            if not isinstance(member.content, TarSlice):
                raise ValueError(
                    f"{shard} is compressed, so its photos cannot be read one by one: "
                    "uncompress it first."
                )
            sample = samples.setdefault(key, [None, {}])
            if is_photo:
                sample[0] = Photo(
                    f"{shard}/{member.name}",
                    member.name,
                    member.stamp,
                    shard,
                    member.content,
                )
            elif member.content.size > _MAX_TEXT_BYTES:
                builder.leave_out(f"{shard}/{member.name}", "text of more than 1 MB")
            else:
                try:
                    text = member.content.read(shard).decode("utf-8-sig")
                    sample[1][suffix] = _captions(text, suffix)
                except (ValueError, RecursionError) as error:
                    builder.leave_out(f"{shard}/{member.name}", str(error))
    except ARCHIVE_ERRORS as error:
        if not samples or "is compressed" in str(error):
            raise ValueError(f"Cannot read {shard}: {_reason(error)}.") from error
        builder.leave_out(f"{shard} from here on", _reason(error))
    for key, (photo, texts) in samples.items():
        image_id = f"{name}/{key}".replace(os.sep, "/")
        captions = next((texts[suffix] for suffix in _TEXTS if suffix in texts), [])
        if photo is None:
            builder.leave_out(image_id, "text without a photo")
        elif image_id in builder:
            raise ValueError(f"Two samples of {builder.name} are called {image_id}.")
        else:
            builder.add(image_id, captions, split, image=photo)


def _captions(text, suffix):
    if suffix != ".json":
        return [line for line in text.splitlines() if line.strip()]
    row = json.loads(text)
    return json_captions(row) if isinstance(row, dict) else []


def _reason(error):
    return getattr(error, "strerror", None) or str(error).rstrip(".")
