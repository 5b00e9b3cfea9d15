"""The one shape every dataset takes: named splits of images with captions."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from captioner.datasets.caption_markers import lacks_spaces

SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class DatasetPart:
    """One of the datasets that were joined by `mix_datasets`.

    Args:
        name: str. The ids of its images begin with it.
        weight: int. How many times an epoch sees each of its training images.
        images: dict. Number of its images in each split.
    """

    name: str
    weight: int
    images: Mapping[str, int]

    def __str__(self):
        counts = ", ".join(f"{split} {count}" for split, count in self.images.items())
        return f"{self.name} x {self.weight}: {counts}"


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
    """What was read from a dataset and what was left out.

    `str(summary)` is a short table for a terminal.

    Args:
        name: str. The name of the dataset.
        images: dict. Number of images of each split.
        captions: dict. Number of captions of each split.
        left_out: tuple of `(what, reason)`. Every image, caption or list that
            is not part of the dataset, and why.
        parts: tuple of `DatasetPart`. The datasets that were joined, if any were.
        epoch_images: int. Number of training images that an epoch sees, each counted
            as often as it is repeated.
        notes: tuple of str. What else its user should know, each a line.
        unspaced_captions: int. Number of captions that are written without spaces
            between words, see `lacks_spaces`; a tokenizer that splits at spaces learns
            nothing from them.
    """

    name: str
    images: Mapping[str, int]
    captions: Mapping[str, int]
    left_out: tuple[tuple[str, str], ...] = ()
    parts: tuple[DatasetPart, ...] = ()
    epoch_images: int = 0
    notes: tuple[str, ...] = ()
    unspaced_captions: int = 0

    def __str__(self):
        lines = [self.name, f"{'split':<8}{'images':>9}{'captions':>10}"]
        for split, count in self.images.items():
            lines.append(f"{split:<8}{count:>9}{self.captions[split]:>10}")
        absent = [split for split in SPLITS if split not in self.images]
        if absent:
            lines.append(f"no split: {', '.join(absent)}")
        if self.parts:
            lines.append("parts (an epoch repeats the training images):")
            lines += [f"  {part}" for part in self.parts]
            lines.append(f"images in an epoch: {self.epoch_images}")
        if self.unspaced_captions:
            lines.append(
                f"note: {self.unspaced_captions} captions have no spaces between words"
            )
        lines += [f"note: {note}" for note in self.notes]
        by_reason = collections.defaultdict(list)
        for what, reason in self.left_out:
            by_reason[reason].append(what)
        if by_reason:
            lines.append(f"left out: {len(self.left_out)}")
        for reason, things in by_reason.items():
            # One example is enough to find the fault; `left_out` has them all.
            more = f" and {len(things) - 1} more" if len(things) > 1 else ""
            lines.append(f"  {len(things)} x {reason}: {things[0]}{more}")
        # A file name may hold what moves the cursor or colours a terminal.
        return "\n".join(_printable(line) for line in lines)


def _printable(text):
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


class CaptionDataset:
    """Images with captions, in splits.

    One example is a dict:

    - `"image/id"`: str, unique in the dataset and the same on every machine.
    - `"image"`: str path, encoded bytes, uint8 RGB array `(H, W, 3)`, or an object
      whose `read()` returns one of the latter two, where the image is a part of a
      larger file. `load_image` takes them all. A path may lie outside the folder of the
      dataset: a captions file may name any file that its user may read.
    - `"captions"`: list of str, stripped, never empty.

    Args:
        name: str. What the dataset is called in summaries.
        splits: dict of split name (`"train"`, `"dev"`, `"test"`) to a sequence
            of examples. A split that a dataset does not have is absent.
        left_out: iterable of `(what, reason)`, both str.
        num_captions: dict of split name to number of captions. Needed where
            the examples are made on access and counting would make them all.
        epochs: dict of split name to a sequence of examples. Needed where an epoch
            sees some examples several times, see `epoch`.
        parts: iterable of `DatasetPart`, for the summary.
        notes: iterable of str, for the summary.
        unspaced_captions: int. Needed with `num_captions`, see `DatasetSummary`.

    Example:

    ```python
    dataset = captioner.datasets.load_dataset("scenes:100")
    print(dataset.summary())
    example = dataset.examples("train")[0]
    example["image"].shape  # (64, 64, 3)
    ```
    """

    def __init__(
        self,
        name,
        splits,
        left_out=(),
        num_captions=None,
        epochs=None,
        parts=(),
        notes=(),
        unspaced_captions=0,
    ):
        unknown = set(splits) - set(SPLITS)
        if unknown:
            raise ValueError(
                f"A split must be one of {SPLITS}. Received: splits={sorted(splits)}"
            )
        self.name = name
        self._splits = {split: splits[split] for split in SPLITS if split in splits}
        self._left_out = tuple(left_out)
        self._num_captions = num_captions
        self._epochs = epochs or {}
        self._parts = tuple(parts)
        self._notes = tuple(notes)
        self._unspaced_captions = unspaced_captions

    @property
    def splits(self):
        """Tuple of the names of the splits that this dataset has."""
        return tuple(self._splits)

    def examples(self, split) -> Sequence[dict]:
        """The examples of one split, as a sequence in a stable order.

        Args:
            split: str. One of `splits`.

        Raises:
            ValueError: If the dataset has no such split.
        """
        if split not in self._splits:
            raise ValueError(
                f"The dataset {self.name!r} has the splits {self.splits}. "
                f"Received: split={split!r}"
            )
        return self._splits[split]

    def epoch(self, split="train") -> Sequence[dict]:
        """The examples that one epoch of training sees.

        These are `examples(split)`, unless the dataset is a mix that repeats the images
        of some of its parts.

        Args:
            split: str. One of `splits`.

        Raises:
            ValueError: If the dataset has no such split.
        """
        examples = self.examples(split)
        return self._epochs.get(split, examples)

    def summary(self) -> DatasetSummary:
        """Counts of images and captions by split, and what was left out."""
        captions, unspaced = self._num_captions, self._unspaced_captions
        if captions is None:
            texts = {
                split: [text for example in examples for text in example["captions"]]
                for split, examples in self._splits.items()
            }
            captions = {split: len(each) for split, each in texts.items()}
            unspaced = sum(map(lacks_spaces, itertools.chain(*texts.values())))
        return DatasetSummary(
            name=self.name,
            images={split: len(examples) for split, examples in self._splits.items()},
            captions=captions,
            left_out=self._left_out,
            parts=self._parts,
            notes=self._notes,
            unspaced_captions=unspaced,
            epoch_images=len(self.epoch("train")) if "train" in self._splits else 0,
        )
