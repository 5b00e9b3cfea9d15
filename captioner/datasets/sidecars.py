"""A folder of photos with a text file beside each."""

import os

from captioner.datasets.dataset_builder import DatasetBuilder, read_text
from captioner.images.photo_suffixes import PHOTO_SUFFIXES


def has_sidecars(folder, listing) -> bool:
    """Whether some photo right in the folder has a text file beside it."""
    names = listing.files(folder)
    return any(
        stem + ".txt" in names
        for stem, extension in map(os.path.splitext, names)
        if extension.lower() in PHOTO_SUFFIXES
    )


def read_sidecars(folder, split_fractions=(0.9, 0.05, 0.05)):
    """Reads `photo.jpg` with `photo.txt`, one caption a line.

    Sub folders are read too, hidden ones are not. The path of a photo in the
    folder is its id, and a hash of it decides its split.

    Args:
        folder: str.
        split_fractions: three floats. Sizes of train, dev and test.

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
    builder = DatasetBuilder(f"txt:{folder}", split_fractions)
    listing = builder.listing
    folders = [folder]
    while folders:
        current = folders.pop()
        folders.extend(
            child for child in listing.folders(current) if not os.path.islink(child)
        )
        # macOS leaves "._photo.jpg" files of its own on foreign disks.
        names = {name for name in listing.files(current) if name[0] != "."}
        used = set()
        for name in sorted(names):
            stem, extension = os.path.splitext(name)
            if extension.lower() not in PHOTO_SUFFIXES:
                continue
            path = os.path.join(current, name)
            captions = []
            if stem + ".txt" in names:
                used.add(stem + ".txt")
                try:
                    text = read_text(os.path.join(current, stem + ".txt"))
                    captions = [line for line in text.splitlines() if line.strip()]
                except ValueError as error:
                    builder.leave_out(_relative(path, folder), str(error))
            builder.add(_relative(path, folder), path, captions)
        for name in sorted(names - used):
            if name.endswith(".txt"):
                path = os.path.join(current, name)
                builder.leave_out(_relative(path, folder), "text without a photo")
    return builder.build()


def _relative(path, folder):
    return os.path.relpath(path, folder).replace(os.sep, "/")
