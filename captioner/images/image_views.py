"""The views of a photo that training sees: as it is, mirrored, changed a little."""

import hashlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# How far a photo is changed. Mildly: what a caption speaks of may lie at the edge.
SMALLEST_CROP = 0.8  # of height and width
BRIGHTNESS = 0.1  # of the range of pixels, up or down
CONTRAST = (0.8, 1.2)


class View(NamedTuple):
    """One way to look at a photo.

    Attributes:
        number: 0 for the photo as it is, else which of its changed copies.
        mirrored: left to right.

    Example:

    >>> str(View(2, mirrored=True))
    ' augmented 2 flipped'
    """

    number: int = 0
    mirrored: bool = False

    def __str__(self):
        """What tells it from the other views of a photo; empty for the photo itself."""
        changed = f" augmented {self.number}" if self.number else ""
        return changed + " flipped" * self.mirrored

    def of(self, image, content):
        """The view of a photo.

        Args:
            image: float32 RGB (H, W, 3), 0 to 255, as the converter gives it.
            content: str, what is only this photo's; it decides the changes.
        """
        if self.mirrored:  # the same as to convert the mirrored photo
            image = image[:, ::-1]
        if self.number:
            digest = hashlib.sha256(f"{content}{self}".encode()).digest()
            image = augment(image[None], np.frombuffer(digest[:8], np.int32))[0]
        return np.asarray(image)


def image_views(flips=False, augmentations=0):
    """The views of each photo: as it is, and so many changed copies; with `flips` each
    of these is followed by that of the mirrored photo.

    Example:

    >>> [str(view) for view in image_views(flips=True, augmentations=1)]
    ['', ' flipped', ' augmented 1', ' augmented 1 flipped']
    """
    sides = (False, True) if flips else (False,)
    return [View(n, side) for n in range(1 + augmentations) for side in sides]


def augment(images, seed):
    """Crops, brightens or darkens photos, and changes their contrast.

    Args:
        images: float32 RGB (B, H, W, 3), 0 to 255.
        seed: int32 (2,), decides all of it.

    Returns:
        The same of them.

    Example:

    >>> augment(tf.zeros((2, 32, 32, 3)), [1, 2]).shape
    TensorShape([2, 32, 32, 3])
    """
    number, height, width, _ = images.shape
    seeds = tf.unstack(tf.random.split(seed, 4))

    def draw(index, shape, least, most):
        return tf.random.stateless_uniform(shape, seeds[index], least, most)

    side = draw(0, (number, 2), SMALLEST_CROP, 1.0)
    corner = draw(1, (number, 2), 0.0, 1.0) * (1.0 - side)
    boxes = tf.concat([corner, corner + side], axis=1)
    images = tf.image.crop_and_resize(images, boxes, tf.range(number), (height, width))
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    images = mean + (images - mean) * draw(2, (number, 1, 1, 1), *CONTRAST)
    images += 255.0 * draw(3, (number, 1, 1, 1), -BRIGHTNESS, BRIGHTNESS)
    return tf.clip_by_value(images, 0.0, 255.0)
