"""A folder of photos with a text file beside each."""

import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import folder_split
from captioner.datasets.rows import read_text
from captioner.images.folder_walk import walk_folder
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

# What `captioner caption --sidecars` and the tools for image generators write.
TEXT_SUFFIXES = (".txt", ".caption")
_MAX_BYTES = 2**20  # of a text file


def has_sidecars(folder, listing) -> bool:
    """Whether a photo in the folder, or in a folder of it, has a text beside it."""
    for each in (folder, *listing.folders(folder)):
        names = listing.files(each)
        for stem, suffix in map(os.path.splitext, names):
            if suffix.lower() in PHOTO_SUFFIXES and _texts(stem + suffix, names):
                return True
    return False


def read_sidecars(folder, split_fractions=None):
    """Reads `photo.jpg` with `photo.txt` or `photo.caption`, one caption a line.

    `photo.jpg.txt` is read too. Sub folders are read, hidden ones are not. The path of
    a photo in the folder is its id. If all photos lie in folders that are called as
    splits (`train/`, `val/`, ...), these are the splits; else a hash of the id decides.

    Args:
        folder: str.
        split_fractions: three floats or None. Sizes of train, dev and test; see
            `DatasetBuilder`.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If there is no such folder or no photo with captions in it.

    Example:

    ```python
    dataset = read_sidecars("photos", split_fractions=(0.8, 0.1, 0.1))
    ```
    """
    if not os.path.isdir(folder):
        raise ValueError(f"There is no folder {folder}.")
    builder = DatasetBuilder(f"txt:{folder}", folder, None, split_fractions)
    photos = []  # (its path in the folder, its texts there)
    for visit in walk_folder(folder, _is_wanted):
        below = os.path.relpath(visit.folder, folder)
        if visit.error is not None:
            builder.leave_out(below, f"cannot be read: {visit.error.strerror}")
        names = set(visit.names)
        used = set()
        for name in sorted(filter(_is_photo, names)):
            texts = _texts(name, names)
            used.update(texts)
            photos.append((_join(below, name), [_join(below, text) for text in texts]))
        for name in sorted(names - used):
            if not _is_photo(name):
                builder.leave_out(_join(below, name), "text without a photo")
    splits = [_folder_split(photo) for photo, _ in photos]
    for (photo, texts), split in zip(photos, splits):
        captions = []
        for text in texts[:1]:
            try:
                content = read_text(os.path.join(folder, text), "strict", _MAX_BYTES)
                captions = [line for line in content.splitlines() if line.strip()]
            except ValueError as error:
                builder.leave_out(photo, str(error))
        for text in texts[1:]:
            builder.leave_out(text, f"{texts[0]} was read")
        builder.add(photo, captions, split if all(splits) else None)
    return builder.build()


def _join(folder, name):
    return name if folder == os.curdir else f"{folder}/{name}"


def _is_photo(name):
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def _is_wanted(name):
    return name.endswith(TEXT_SUFFIXES) or _is_photo(name)


def _texts(photo, names):
    """The text files of a photo, that to be read first."""
    stem = os.path.splitext(photo)[0]
    texts = [base + suffix for base in (stem, photo) for suffix in TEXT_SUFFIXES]
    return [text for text in texts if text in names]


def _folder_split(photo):
    first, separator, _ = photo.partition("/")
    return folder_split(first) if separator else None
