"""Several datasets joined to one: `mix:flickr8k:DIR*1+everyday.jsonl*2`."""

import bisect
import itertools
import operator
import os
import re
from collections.abc import Sequence

from captioner.datasets.caption_dataset import SPLITS, CaptionDataset, DatasetPart

# A part is in quotes as a whole or has none; `+` separates the parts.
_PART = re.compile(
    r"""\s*(?:"([^"]*)"|'([^']*)'|([^+"']*?))\s*(?:\*\s*([^+*]*?)\s*)?(?=\+|\Z)"""
)
# Files of these names say nothing of what is in them: their folder's name does.
_ANY_NAME = {"annotations", "captions", "dataset", "metadata"}
# More is more likely a typing error than a wish.
_MAX_WEIGHT = 100


def split_mix(text):
    """Splits the text after `mix:` into specs and weights.

    `+` separates the parts. A part may end in `*` and its weight, a whole number; a
    part without one has weight 1. A spec that itself contains `+`, `*` or a quotation
    mark stands in single or double quotation marks.

    Args:
        text: str, such as `"flickr8k:DIR*1+'a+b.jsonl'*2"`.

    Returns:
        list of `(spec, weight)`: `[("flickr8k:DIR", 1), ("a+b.jsonl", 2)]`.

    Raises:
        ValueError: If a part is empty, or a weight is no whole number from 1 to 100.

    Example:

    >>> split_mix("scenes:50 + photos/captions.csv*3")
    [('scenes:50', 1), ('photos/captions.csv', 3)]
    """
    parts, position = [], 0
    while True:
        match = _PART.match(text, position)
        *specs, weight = match.groups() if match else (None, None)
        spec = next((spec for spec in specs if spec), None)
        if spec is None:
            raise ValueError(
                "A mix is SPEC*WEIGHT+SPEC*WEIGHT; put a SPEC that contains +, * or "
                "a quotation mark in quotation marks of the other kind. "
                f"Received: mix:{text}"
            )
        parts.append((spec, _weight(weight, text)))
        if match.end() == len(text):
            return parts
        position = match.end() + 1


def _weight(weight, text):
    if weight is None:
        return 1
    if not weight.isascii() or not weight.isdecimal():
        raise ValueError(
            "The weight of a part must be a whole number, which is how often an epoch "
            f"sees each training image of the part. Received: {weight!r} in mix:{text}"
        )
    return int(weight)


def mix_datasets(parts, name="mix"):
    """Joins datasets to one.

    The splits are joined by name. An image keeps its captions; its id begins with the
    name of its part, as in `"flickr8k/1000268201.jpg"`. `examples` has each image
    once. `epoch("train")` has each image of a part as many times as the weight of the
    part says; dev and test are never repeated.

    Args:
        parts: list of `(name, dataset, weight)`: a str that is unique, a
            `CaptionDataset`, and an int from 1 to 100.
        name: str. The name of the joined dataset.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If there are no parts, two have the same name, a weight is out of
            range, or the same file is in one split of one part and in another split
            of another part.

    Example:

    ```python
    from captioner.datasets import load_dataset, mix_datasets

    photos = load_dataset("photos/captions.csv")
    data = mix_datasets([("photos", photos, 2), ("scenes", load_dataset("scenes"), 1)])
    len(data.examples("train")), len(data.epoch("train"))
    ```
    """
    names = [part_name for part_name, _, _ in parts]
    if not parts or len(set(names)) < len(names):
        raise ValueError(
            f"A mix needs parts that have different names. Received: names={names}"
        )
    for _, _, weight in parts:
        if (
            not isinstance(weight, int)
            or isinstance(weight, bool)
            or not 1 <= weight <= _MAX_WEIGHT
        ):
            raise ValueError(
                "The weight of a part must be a whole number from 1 to "
                f"{_MAX_WEIGHT}. Received: weight={weight!r}"
            )
    splits, epochs, captions = {}, {}, {}
    for split in SPLITS:
        having = [part for part in parts if split in part[1].splits]
        if not having:
            continue
        splits[split] = _Joined(
            [(part_name, data.examples(split)) for part_name, data, _ in having]
        )
        # A part may itself be a mix, whose epoch has repeated images.
        epochs[split] = _Joined(
            [
                (part_name, data.epoch(split))
                for part_name, data, weight in having
                for _ in range(weight if split == "train" else 1)
            ]
        )
        captions[split] = sum(data.summary().captions[split] for _, data, _ in having)
    _refuse_files_in_two_splits(parts, name)
    summaries = [(part_name, data.summary()) for part_name, data, _ in parts]
    return CaptionDataset(
        name,
        splits,
        [
            (f"{part_name}/{what}", reason)
            for part_name, summary in summaries
            for what, reason in summary.left_out
        ],
        num_captions=captions,
        epochs=epochs,
        parts=[
            DatasetPart(part_name, weight, summary.images)
            for (part_name, summary), (_, _, weight) in zip(summaries, parts)
        ],
        notes=[
            f"{part_name}: {note}"
            for part_name, summary in summaries
            for note in summary.notes
        ],
        unspaced_captions=sum(s.unspaced_captions for _, s in summaries),
    )


def part_names(specs):
    """Names for the parts of a mix: the last name in each spec, without the suffix.

    A file called `captions`, `metadata`, `dataset` or `annotations` gets the name of
    its folder. Equal names are numbered. The names become part of the image ids, so
    the rest of the path, which differs between machines, is not in them.

    >>> part_names(["flickr8k:/data/flickr8k", "everyday/captions.jsonl", "pets.csv"])
    ['flickr8k', 'everyday', 'pets']
    """
    names = []
    for spec in specs:
        reader, colon, where = spec.partition(":")
        if not colon or where.isdecimal():  # a path; a number of scenes
            where = reader
        folder, base = os.path.split(where.replace("\\", "/").rstrip("/"))
        base = os.path.splitext(base)[0]
        if base in _ANY_NAME:
            base = os.path.basename(folder) or base
        base = base or "part"
        number = sum(name == base or name.startswith(f"{base}-") for name in names)
        names.append(f"{base}-{number + 1}" if number else base)
    return names


def _refuse_files_in_two_splits(parts, name):
    """Training on a photo of another part's dev split would make its scores wrong."""
    places = {}
    for part_name, data, _ in parts:
        for split in data.splits:
            examples = data.examples(split)
            if not isinstance(examples, list):
                continue  # made on access: these have no files in common
            for example in examples:
                if not isinstance(example["image"], str):
                    continue
                path = os.path.realpath(example["image"])
                image_id = f"{part_name}/{example['image/id']}"
                other_split, other_id = places.setdefault(path, (split, image_id))
                if other_split != split:
                    raise ValueError(
                        f"{path} is in two splits of {name}, so scores would be "
                        f"wrong. Received: {other_id} in {other_split} and {image_id} "
                        f"in {split}"
                    )


class _Joined(Sequence):
    """The examples of several parts, one part after the other, with prefixed ids."""

    def __init__(self, parts):
        self.parts = parts
        self.ends = list(itertools.accumulate(len(examples) for _, examples in parts))

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"Example {index} of {len(self)}.")
        index %= len(self)
        number = bisect.bisect_right(self.ends, index)
        part_name, examples = self.parts[number]
        example = examples[index - self.ends[number]]
        return {**example, "image/id": f"{part_name}/{example['image/id']}"}
