"""The rules that every dataset of files obeys, in one place."""

import hashlib
import json
import os

from captioner.datasets.caption_dataset import SPLITS, CaptionDataset

# The names by which datasets call their splits. Karpathy's "restval" is the
# part of COCO's validation photos that everybody trains on.
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}

# So many image names tell which folder they are relative to.
_NUM_PROBES = 200


def canonical_split(name):
    """Maps a dataset's own name of a split to `"train"`, `"dev"` or `"test"`.

    Returns:
        str, or None if the name is none of the usual ones.
    """
    return _SPLIT_NAMES.get(str(name).strip().lower())


def hashed_split(image_id, fractions=(0.9, 0.05, 0.05)) -> str:
    """The split of an image in a dataset that gives none.

    Only the id decides, so an image stays in its split whatever is added to or
    taken from the dataset.

    Args:
        image_id: str.
        fractions: three floats that add up to 1: train, dev, test.
    """
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    train, dev, _ = fractions
    if position < train:
        return "train"
    # Without a test fraction the rounding of train + dev must not make one.
    return "dev" if position < train + dev or fractions[2] == 0 else "test"


class FolderListing:
    """Answers "is there such a file" by listing each folder only once."""

    def __init__(self):
        self._folders = {}

    def files(self, folder) -> frozenset:
        """Names of the files of a folder; empty if there is no such folder."""
        return self._list(folder)[0]

    def folders(self, folder) -> list:
        """Sorted paths of the visible sub folders of a folder."""
        return self._list(folder)[1]

    def __contains__(self, path):
        folder, name = os.path.split(path)
        return name in self.files(folder)

    def _list(self, folder):
        if folder not in self._folders:
            files, folders = [], []
            try:
                with os.scandir(folder or ".") as entries:
                    for entry in entries:
                        if entry.is_dir():
                            if not entry.name.startswith("."):
                                folders.append(entry.path)
                        elif entry.is_file():
                            files.append(entry.name)
            except OSError:
                # Absent or not ours to read: either way it holds no image, and
                # the images that were expected in it are reported one by one.
                pass
            self._folders[folder] = (frozenset(files), sorted(folders))
        return self._folders[folder]

    def find_image_dir(self, base, names):
        """The folder that image names are relative to: `base` or a child of it.

        Args:
            base: str. The folder of the captions file.
            names: iterable of str. Image names as the captions file has them.

        Returns:
            The candidate that holds most of the first names.
        """
        names = list(names)
        # The rule, and it spares listing folders that are none of ours.
        if names and self.count(base, names) == len(names[:_NUM_PROBES]):
            return base
        candidates = [base, *self.folders(base)]
        return max(candidates, key=lambda folder: self.count(folder, names))

    def count(self, folder, names) -> int:
        """How many of the first image names are files below `folder`."""
        probes = names[:_NUM_PROBES]
        return sum(os.path.join(folder, name) in self for name in probes)


class DatasetBuilder:
    """Collects images and captions and builds a `CaptionDataset` of them.

    - The same file is the same image: its captions are joined, and the id it
      was first added with is kept.
    - A caption becomes one line: runs of white space are one space. Empty ones
      are left out; so is an image without captions, and one that is not on
      disk. Repeated ones are kept: two people may write the same sentence.
    - An image that is given two splits is refused: scores on it would be wrong.
    - If no image has a split, `hashed_split` decides. If some have one, the
      others are left out.
    - Nothing is opened: a broken image is found by whoever decodes it.

    Args:
        name: str. The name of the dataset.
        split_fractions: three floats. See `hashed_split`.
    """

    def __init__(self, name, split_fractions=(0.9, 0.05, 0.05)):
        if (
            len(split_fractions) != 3
            or min(split_fractions) < 0
            or abs(sum(split_fractions) - 1) > 1e-6
        ):
            raise ValueError(
                "`split_fractions` must be three numbers (train, dev, test) of at "
                f"least 0 that add up to 1. Received: split_fractions={split_fractions}"
            )
        self.name = name
        self.split_fractions = tuple(split_fractions)
        self.listing = FolderListing()
        self._examples = {}
        self._splits = {}
        self._paths = {}
        self._left_out = []

    def __contains__(self, image_id):
        return image_id in self._paths

    def leave_out(self, what, reason):
        """Notes a thing that does not become part of the dataset."""
        self._left_out.append((what, reason))

    def add(self, image_id, path, captions, split=None):
        """Adds an image, or more captions to an image added before.

        Args:
            image_id: str.
            path: str. The file of the image.
            captions: iterable of str.
            split: str or None. Any usual name of a split.

        Raises:
            ValueError: If the image has two splits, or the id two files.
        """
        path = os.path.normpath(path)
        if self._paths.setdefault(image_id, path) != path:
            raise ValueError(
                f"Two images have the id {image_id!r} in {self.name}. "
                f"Received: {self._paths[image_id]} and {path}"
            )
        if path not in self._examples:
            self._examples[path] = {
                "image/id": image_id,
                "image": path,
                "captions": [],
            }
        example = self._examples[path]
        if split is not None:
            canonical = canonical_split(split)
            if canonical is None:
                raise ValueError(
                    f"The split of an image must be one of {sorted(_SPLIT_NAMES)}. "
                    f"Received: split={split!r} for {image_id!r} in {self.name}"
                )
            other = self._splits.setdefault(path, canonical)
            if other != canonical:
                raise ValueError(
                    f"The image {image_id!r} of {self.name} is in two splits, so "
                    f"scores would be wrong. Received: {other} and {canonical}"
                )
        for caption in captions:
            if not isinstance(caption, str):
                self.leave_out(image_id, "caption is not text")
            elif not caption.strip():
                self.leave_out(image_id, "empty caption")
            else:
                example["captions"].append(" ".join(caption.split()))

    def build(self) -> CaptionDataset:
        """Builds the dataset, ordered by image id.

        Raises:
            ValueError: If no image is left.
        """
        splits = {split: [] for split in SPLITS}
        for path, example in self._examples.items():
            image_id = example["image/id"]
            split = self._splits.get(path)
            if split is None and not self._splits:
                split = hashed_split(image_id, self.split_fractions)
            if path not in self.listing:
                self.leave_out(image_id, "image not found")
            elif not example["captions"]:
                self.leave_out(image_id, "image without captions")
            elif split is None:
                self.leave_out(image_id, "image in no split")
            else:
                splits[split].append(example)
        splits = {split: examples for split, examples in splits.items() if examples}
        if not splits:
            first = {reason: what for what, reason in reversed(self._left_out)}
            reasons = [f"{reason}: {what}" for reason, what in first.items()]
            raise ValueError(
                f"{self.name} has no usable image. Received: "
                + ("; ".join(reasons) or "no image at all")
            )
        for examples in splits.values():
            examples.sort(key=lambda example: example["image/id"])
        return CaptionDataset(self.name, splits, self._left_out)


def relative_id(name, image_dir) -> str:
    """The id of an image without one: its path in the folder of the images.

    Args:
        name: str. The image as the captions file has it: relative or absolute.
        image_dir: str. The folder that relative names start from.

    Returns:
        A path with forward slashes, on every system.
    """
    path = os.path.relpath(os.path.join(image_dir, name), image_dir)
    if os.path.isabs(name) and path.startswith(os.pardir):
        path = os.path.normpath(name)
    return path.replace(os.sep, "/")


def read_json(path):
    """Reads a JSON file.

    Raises:
        ValueError: If the file cannot be read or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error


def read_text(path) -> str:
    """Reads a UTF-8 text file, with or without a byte order mark.

    Raises:
        ValueError: If the file is missing, unreadable or not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason}.") from error
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
