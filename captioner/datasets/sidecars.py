"""A folder of photos with a text file beside each."""

import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import folder_split
from captioner.datasets.rows import read_text
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

# What `captioner caption --sidecars` and the tools for image generators write.
TEXT_SUFFIXES = (".txt", ".caption")
_MAX_TEXT_BYTES = 2**20


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
    from captioner.images.photo_sources import find_photos  # loads OpenCV

    builder = DatasetBuilder(f"txt:{folder}", folder, None, split_fractions)
    listing, used = builder.listing, {}
    photos = [
        os.path.relpath(photo.path, folder)
        for photo in find_photos([folder])
        if photo.error is None  # a folder that cannot be read
    ]
    splits = [_folder_split(photo) for photo in photos]
    for photo, split in zip(photos, splits):
        parent, name = os.path.split(photo)
        directory = os.path.normpath(os.path.join(folder, parent))
        texts = _texts(name, listing.files(directory))
        used.setdefault(directory, set()).update(texts)
        captions = []
        for text in texts[:1]:
            try:
                content = read_text(
                    os.path.join(directory, text), max_bytes=_MAX_TEXT_BYTES
                )
                captions = [line for line in content.splitlines() if line.strip()]
            except ValueError as error:
                builder.leave_out(photo, str(error))
        for text in texts[1:]:
            builder.leave_out(os.path.join(parent, text), f"{texts[0]} was read")
        builder.add(photo, captions, split if all(splits) else None)
    for directory, texts in used.items():
        for name in sorted(listing.files(directory) - texts):
            # macOS leaves "._photo.txt" files of its own on foreign disks.
            if name.endswith(TEXT_SUFFIXES) and not name.startswith("."):
                path = os.path.relpath(os.path.join(directory, name), folder)
                builder.leave_out(path.replace(os.sep, "/"), "text without a photo")
    return builder.build()


def _texts(photo, names):
    """The text files of a photo, that to be read first."""
    stem = os.path.splitext(photo)[0]
    texts = [base + suffix for base in (stem, photo) for suffix in TEXT_SUFFIXES]
    return [text for text in texts if text in names]


def _folder_split(photo):
    first, separator, _ = photo.partition(os.sep)
    return folder_split(first) if separator else None
