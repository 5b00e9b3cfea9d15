"""Drawn scenes with exact captions: "a red circle above a blue square".

They need no download and have no licence, and there is exactly one right
caption for each, so that learning can be tested to the word.
"""

import hashlib
import itertools
import operator
from collections.abc import Sequence

import numpy as np

from captioner.datasets.caption_dataset import SPLITS, CaptionDataset

SHAPES = ("circle", "square", "triangle")
COLORS = {  # RGB
    "red": (225, 45, 45),
    "green": (50, 190, 70),
    "blue": (55, 85, 230),
    "yellow": (240, 215, 50),
}
# Where the subject lies as seen from the object, in units of their distance.
RELATIONS = {
    "above": (0, -1),
    "below": (0, 1),
    "left of": (-1, 0),
    "right of": (1, 0),
}
IMAGE_SIZE = 64
MAX_TRAIN = 100_000  # 1.2 GB of pictures; there are 475 different captions
_NUM_HELD_OUT = {"dev": 200, "test": 200}
_HELD_OUT_FRACTION = 0.1  # of the combinations, for test alone


def build_scenes(num_train=2000, seed=0):
    """Builds a dataset of drawn scenes: two flat shapes on a dark background.

    The larger shape is the subject of the caption, so that "a red circle above
    a blue square" and "a blue square below a red circle" are different
    pictures and each picture has one caption only. There are 528 combinations of
    two shapes and a relation. Nine tenths of them are shared by train and dev,
    always as different pictures. A tenth is shown in test only: those captions
    never occur in training, though every word does (from about 50 training scenes
    on), so that test asks for more than dev does.

    Scenes are drawn when they are accessed. A scene depends on the seed, its
    split and its index only: `num_train=100` gives the first hundred scenes of
    `num_train=2000`. Images are uint8 RGB `(64, 64, 3)`; dev and test have 200
    scenes each.

    Args:
        num_train: int. Number of training scenes.
        seed: int. Another seed gives other scenes and other combinations.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If `num_train` is no integer from 1 to `MAX_TRAIN`.

    Example:

    ```python
    dataset = build_scenes(num_train=500)
    dataset.examples("train")[0]["captions"]  # one caption
    ```
    """
    if not isinstance(num_train, int) or not 1 <= num_train <= MAX_TRAIN:
        raise ValueError(
            f"`num_train` must be a positive integer of at most {MAX_TRAIN:,}. "
            f"Received: num_train={num_train!r}"
        )
    combinations = _combinations(seed)
    sizes = {"train": num_train, **_NUM_HELD_OUT}
    splits = {
        split: _Scenes(split, sizes[split], combinations[split], seed)
        for split in SPLITS
    }
    return CaptionDataset(f"scenes:{num_train}", splits, num_captions=sizes)


class _Scenes(Sequence):
    """The scenes of one split, drawn on access."""

    def __init__(self, split, size, combinations, seed):
        self.split = split
        self.size = size
        self.combinations = combinations
        self.seed = seed

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        index = operator.index(index)
        if not -self.size <= index < self.size:
            raise IndexError(f"Scene {index} of {self.size}.")
        index %= self.size
        # In turns, so that few scenes already show most combinations.
        scene = self.combinations[index % len(self.combinations)]
        subject, relation, other = scene
        return {
            "image/id": f"{self.split}-{index:06d}",
            "image": _draw(scene, _random(self.seed, self.split, index)),
            "captions": [f"a {' '.join(subject)} {relation} a {' '.join(other)}"],
        }


def _random(*key):
    # RandomState, for its numbers are the same in every version of NumPy.
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))


def _combinations(seed):
    things = list(itertools.product(COLORS, SHAPES))
    combinations = [
        (subject, relation, other)
        for subject, other in itertools.permutations(things, 2)
        for relation in RELATIONS
    ]
    order = _random(seed, "combinations").permutation(len(combinations))
    combinations = [combinations[i] for i in order]
    held_out = round(_HELD_OUT_FRACTION * len(combinations))
    known, new = combinations[held_out:], combinations[:held_out]
    return {"train": known, "dev": known, "test": new}


def _draw(scene, random):
    """Draws a scene as uint8 RGB (H, W, 3)."""
    subject, relation, other = scene
    background = random.randint(0, 50)
    image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), background, np.uint8)
    # The radii never come near each other: which is larger is plain to see.
    large, small = random.randint(14, 17), random.randint(8, 10)
    direction = np.array(RELATIONS[relation])
    # Far enough not to touch (a square reaches `radius` in each direction),
    # and hardly any shift across, so that there is but one relation.
    distance = large + small + random.randint(3, 6)
    across = random.randint(-3, 4) * direction[::-1]
    offset = direction * distance + across  # from the object to the subject
    # Both lie whole in the picture, somewhere near its middle: the extent of
    # the pair is at most 57 pixels along `direction`.
    middle = IMAGE_SIZE // 2 + random.randint(-2, 3, size=2)
    center = middle - direction * (distance + large - small) // 2 - across // 2
    _draw_shape(image, other, center, small, random)
    _draw_shape(image, subject, center + offset, large, random)
    return image


def _draw_shape(image, thing, center, radius, random):
    import cv2  # only where a scene is drawn: reading files needs no OpenCV

    color_name, shape = thing
    jitter = random.randint(-12, 13, size=3)
    color = np.clip(np.array(COLORS[color_name]) + jitter, 0, 255).tolist()
    x, y = (int(value) for value in center)
    if shape == "circle":
        cv2.circle(image, (x, y), radius, color, cv2.FILLED, cv2.LINE_AA)
    elif shape == "square":
        cv2.rectangle(
            image, (x - radius, y - radius), (x + radius, y + radius), color, cv2.FILLED
        )
    else:
        corners = [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        cv2.fillPoly(image, [np.array(corners)], color, cv2.LINE_AA)
