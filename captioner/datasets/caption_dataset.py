"""The one shape every dataset takes: named splits of images with captions."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

SPLITS = ("train", "dev", "test")


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
    """

    name: str
    images: Mapping[str, int]
    captions: Mapping[str, int]
    left_out: tuple[tuple[str, str], ...] = ()

    def __str__(self):
        lines = [self.name, f"{'split':<8}{'images':>9}{'captions':>10}"]
        for split, count in self.images.items():
            lines.append(f"{split:<8}{count:>9}{self.captions[split]:>10}")
        absent = [split for split in SPLITS if split not in self.images]
        if absent:
            lines.append(f"no split: {', '.join(absent)}")
        by_reason = collections.defaultdict(list)
        for what, reason in self.left_out:
            by_reason[reason].append(what)
        if by_reason:
            lines.append(f"left out: {len(self.left_out)}")
        for reason, things in by_reason.items():
            # One example is enough to find the fault; `left_out` has them all.
            more = f" and {len(things) - 1} more" if len(things) > 1 else ""
            lines.append(f"  {len(things)} x {reason}: {things[0]}{more}")
        return "\n".join(lines)


class CaptionDataset:
    """Images with captions, in splits.

    One example is a dict:

    - `"image/id"`: str, unique in the dataset and the same on every machine.
    - `"image"`: str path, encoded bytes, or uint8 RGB array `(H, W, 3)`.
    - `"captions"`: list of str, stripped, never empty.

    Args:
        name: str. What the dataset is called in summaries.
        splits: dict of split name (`"train"`, `"dev"`, `"test"`) to a sequence
            of examples. A split that a dataset does not have is absent.
        left_out: iterable of `(what, reason)`, both str.
        num_captions: dict of split name to number of captions. Needed where
            the examples are made on access and counting would make them all.

    Example:

    ```python
    dataset = captioner.datasets.load_dataset("scenes:100")
    print(dataset.summary())
    example = dataset.examples("train")[0]
    example["image"].shape  # (64, 64, 3)
    ```
    """

    def __init__(self, name, splits, left_out=(), num_captions=None):
        unknown = set(splits) - set(SPLITS)
        if unknown:
            raise ValueError(
                f"A split must be one of {SPLITS}. Received: splits={sorted(splits)}"
            )
        self.name = name
        self._splits = {split: splits[split] for split in SPLITS if split in splits}
        self._left_out = tuple(left_out)
        self._num_captions = num_captions

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

    def summary(self) -> DatasetSummary:
        """Counts of images and captions by split, and what was left out."""
        captions = self._num_captions
        if captions is None:
            captions = {
                split: sum(len(example["captions"]) for example in examples)
                for split, examples in self._splits.items()
            }
        return DatasetSummary(
            name=self.name,
            images={split: len(examples) for split, examples in self._splits.items()},
            captions=captions,
            left_out=self._left_out,
        )
