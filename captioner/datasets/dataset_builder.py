"""The rules that every dataset of files obeys, in one place."""

import hashlib
import os
import re

from captioner.datasets.caption_dataset import SPLITS, CaptionDataset
from captioner.datasets.caption_markers import cut_markers
from captioner.datasets.photo_search import (
    SPLIT_NAMES,
    FolderListing,
    PhotoSearch,
    canonical_split,
)

SPLIT_FRACTIONS = (0.9, 0.05, 0.05)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Names that `relative_id` need not change.
_PLAIN_PATH = re.compile(r"[^/\\.][^/\\]*(?:/[^/\\.][^/\\]*)*")
# A dev split that is smaller than this says little of a captioner.
_SMALL = 20


def hashed_split(image_id, fractions=SPLIT_FRACTIONS) -> str:
    """The split of an image in a dataset that gives none.

    Only the id decides, so an image stays in its split whatever is added to or
    taken from the dataset.

    Args:
        image_id: str.
        fractions: three floats that add up to 1: train, dev, test.
    """
    position = _position(image_id)
    train, dev, _ = fractions
    if position < train:
        return "train"
    # Without a test fraction the rounding of train + dev must not make one.
    return "dev" if position < train + dev or fractions[2] == 0 else "test"


def _position(image_id):
    """A number from 0 to 1 that depends on the id alone."""
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class DatasetBuilder:
    """Collects images and captions and builds a `CaptionDataset` of them.

    - Photos are found by their names, see `PhotoSearch`. They may lie outside the
      folder of the dataset: a captions file may name any file of this computer that its
      user may read.
    - The same file is the same image: its captions are joined, and the id it
      was first added with is kept.
    - A caption becomes one line: runs of white space are one space. Empty ones
      are left out; so is an image without captions, and one that is not on
      disk. Repeated ones are kept: two people may write the same sentence.
    - Start and end markers that nearly all captions have are cut.
    - An image that is given two splits is refused: scores on it would be wrong.
    - If no image has a split, `hashed_split` decides, and dev gets an image at least.
      If some have one, the others are left out. If there are a train split and
      `split_fractions` but no dev split, dev is taken from train.
    - Nothing is opened: a broken image is found by whoever decodes it.

    Args:
        name: str. The name of the dataset.
        base: str. The folder of the captions file.
        image_dir: str or None. The folder of the photos, where the user names it.
        split_fractions: three floats, or None for the usual ones. See `hashed_split`.
    """

    def __init__(self, name, base=".", image_dir=None, split_fractions=None):
        if split_fractions is not None and (
            len(split_fractions) != 3
            or min(split_fractions) < 0
            or abs(sum(split_fractions) - 1) > 1e-6
        ):
            raise ValueError(
                "`split_fractions` must be three numbers (train, dev, test) of at "
                f"least 0 that add up to 1. Received: split_fractions={split_fractions}"
            )
        if image_dir is not None and not os.path.isdir(image_dir):
            raise ValueError(f"There is no folder {image_dir} with photos.")
        self.name = name
        self.split_fractions = split_fractions
        self.listing = FolderListing()
        self._bases = _with_parents(base) if image_dir is None else [str(image_dir)]
        self._folder_given = image_dir is not None
        self._images = {}  # name -> _Image
        self._ids = {}
        self._left_out = []
        self._notes = []

    def __contains__(self, name):
        return name in self._images

    def leave_out(self, what, reason):
        """Notes a thing that does not become part of the dataset."""
        self._left_out.append((what, reason))

    def note(self, line):
        """Notes a line for the summary."""
        self._notes.append(line)

    def add(self, name, captions, split=None, image_id=None, image=None):
        """Adds an image, or more captions to an image added before.

        Args:
            name: str. The image as the captions file has it, a path.
            captions: iterable of str.
            split: str or None. Any usual name of a split.
            image_id: str or None for the path of the image.
            image: the image, where it is no file of its own, see `CaptionDataset`.

        Raises:
            ValueError: If the image has two splits, or the id two images.
        """
        entry = self._images.get(name)
        if entry is None:
            entry = self._images[name] = _Image(name, image_id, image)
        if image_id is not None and self._ids.setdefault(image_id, name) != name:
            raise ValueError(
                f"Two images have the id {image_id!r} in {self.name}. "
                f"Received: {self._ids[image_id]} and {name}"
            )
        if split is not None:
            canonical = canonical_split(split)
            if canonical is None:
                raise ValueError(
                    f"The split of an image must be one of {sorted(SPLIT_NAMES)}. "
                    f"Received: split={split!r} for {name!r} in {self.name}"
                )
            self._set_split(entry, canonical)
        for caption in captions:
            # JSON may hold halves of characters, which no encoding has.
            if isinstance(caption, str) and not _SURROGATE.search(caption):
                entry.captions.append(" ".join(caption.split()))
            else:
                self.leave_out(entry.known_as, "caption is not text")

    def _set_split(self, entry, split):
        if entry.split not in (None, split):
            raise ValueError(
                f"The image {entry.name!r} of {self.name} is in two splits, so "
                f"scores would be wrong. Received: {entry.split} and {split}"
            )
        entry.split = split

    def build(self) -> CaptionDataset:
        """Builds the dataset, ordered by image id.

        Raises:
            ValueError: If no image is left.
        """
        entries = self._located()
        marked = cut_markers([{"captions": entry.captions} for entry in entries])
        usable = []
        for entry in entries:
            for caption in entry.captions:
                if not caption:
                    self.leave_out(entry.known_as, "empty caption")
            entry.captions = list(filter(None, entry.captions))
            if entry.captions:
                usable.append(entry)
            else:
                self.leave_out(entry.known_as, "image without captions")
        if marked:
            self.note(marked)
        splits = self._split(usable)
        if not splits:
            first = {reason: what for what, reason in reversed(self._left_out)}
            reasons = [f"{reason}: {what}" for reason, what in first.items()]
            raise ValueError(
                f"{self.name} has no usable image. Received: "
                + ("; ".join(reasons + self._notes) or "no image at all")
            )
        return CaptionDataset(self.name, splits, self._left_out, notes=self._notes)

    def _located(self):
        """The images that are there, each once."""
        search = PhotoSearch(self._bases, self._folder_given, self.listing)
        paths = search.locate(
            {e.name: e.split for e in self._images.values() if e.image is None}
        )
        by_place, missing = {}, []
        for entry in self._images.values():
            if entry.image is None:
                entry.image = paths.get(entry.name)
                if entry.image is None:
                    self.leave_out(entry.known_as, "image not found")
                    missing.append(entry.name)
                    continue
                if entry.image_id is None:
                    entry.image_id = relative_id(entry.name, search.bases[0])
            first = by_place.setdefault(entry.image, entry)
            if first is not entry:
                first.captions += entry.captions
                if entry.split is not None:
                    self._set_split(first, entry.split)
        if missing:
            advice = "; name the folder of the photos with --image-dir (image_dir)"
            self.note(
                f"photos such as {missing[0]} were looked for in {search.where()}"
                + ("" if self._folder_given else advice)
            )
        self._notes += search.notes
        by_id = {}
        for entry in by_place.values():
            other = by_id.setdefault(entry.image_id, entry)
            if other is not entry:
                raise ValueError(
                    f"Two images have the id {entry.image_id!r} in {self.name}. "
                    f"Received: {other.name} and {entry.name}"
                )
        return list(by_place.values())

    def _split(self, entries):
        splits = {split: [] for split in SPLITS}
        fractions = self.split_fractions or SPLIT_FRACTIONS
        if any(entry.split for entry in entries):
            for entry in entries:
                if entry.split is None:
                    self.leave_out(entry.known_as, "image in no split")
                else:
                    splits[entry.split].append(entry)
            if self.split_fractions is not None:
                self._take_dev_from_train(splits, fractions)
        else:
            for entry in entries:
                splits[hashed_split(entry.image_id, fractions)].append(entry)
            self._fill_dev(splits, fractions)
        for part in splits.values():
            part.sort(key=lambda entry: entry.image_id)
        return {
            split: [entry.example() for entry in part]
            for split, part in splits.items()
            if part
        }

    def _take_dev_from_train(self, splits, fractions):
        if splits["dev"] or not splits["train"]:
            self.note("split fractions not used: the dataset has splits of its own")
            return
        share = fractions[1] / ((fractions[0] + fractions[1]) or 1)
        parts = {"train": [], "dev": []}
        for entry in splits["train"]:
            split = hashed_split(entry.image_id, (1 - share, share, 0))
            parts[split].append(entry)
        splits.update(parts)
        self._fill_dev(splits, fractions)
        self.note(f"dev is taken from train: {len(splits['dev'])} images")

    def _fill_dev(self, splits, fractions):
        """A small dataset may have no train or no dev image by chance."""
        train, dev = splits["train"], splits["dev"]
        if fractions[1] and not dev and len(train) > 1:
            dev.append(max(train, key=_Image.position))
            train.remove(dev[0])
        elif fractions[0] and not train and len(dev) > 1:
            train.append(min(dev, key=_Image.position))
            dev.remove(train[0])
        if 0 < len(splits["dev"]) < _SMALL:
            self.note(
                f"the dev split is so small ({len(splits['dev'])}) that its scores say "
                "little; --dev-fraction (split_fractions) makes it larger"
            )


class _Image:
    def __init__(self, name, image_id, image):
        self.name = name
        self.image = image
        self.image_id = name if image_id is None and image is not None else image_id
        self.split = None
        self.captions = []

    @property
    def known_as(self):
        """What the user of the dataset knows the image by."""
        return self.name if self.image_id is None else self.image_id

    def position(self):
        """See `_position`."""
        return _position(self.image_id)

    def example(self):
        return {
            "image/id": self.image_id,
            "image": self.image,
            "captions": self.captions,
        }


def _with_parents(folder):
    """A folder, and those above it while it is called "annotations" or so, as COCO has
    them: there the photos lie beside it."""
    folder = os.path.normpath(folder)
    bases = [folder]
    while os.path.basename(os.path.abspath(folder)).lower().startswith("annotation"):
        folder = os.path.normpath(os.path.join(folder, os.pardir))
        bases.append(folder)
    return bases


def relative_id(name, base) -> str:
    """The id of an image without one: its path below the folder of the images.

    Args:
        name: str. The image as the captions file has it: relative or absolute.
        base: str. The folder that relative names start from.

    Returns:
        A path with forward slashes, on every system.
    """
    if _PLAIN_PATH.fullmatch(name):  # nearly all are
        return name
    if "\\" in name and "/" not in name:
        name = name.replace("\\", "/")
    path = os.path.relpath(os.path.join(base, name), base)
    if os.path.isabs(name) and path.startswith(os.pardir):
        path = os.path.normpath(name)
    return path.replace(os.sep, "/")
