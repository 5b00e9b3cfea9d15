"""What `generate` takes: photos in all forms and nestings that people have them in."""

import importlib
import itertools
import numbers

import keras
import numpy as np
import tensorflow as tf

from captioner.images.image_files import load_image
from captioner.samplers.constraints import check_number


def in_batches(write, images, batch_size, prompts=None, holds_many=None):
    """Call `write` on photos, some at a time, and nest its results as the photos are.

    Args:
        write: function of a list of photos, and of a list of as many prompts or None,
            to a list of as many results.
        images, batch_size, prompts: see `Task.generate`.
        holds_many: function that says of an array of other than four dimensions
            whether it is a batch, too.

    Raises:
        ValueError: there is no photo, not one prompt for each photo, or `batch_size` is
            no whole number above 0.
    """
    check_number("batch_size", batch_size, 1, 2**31 - 1, numbers.Integral)

    def unbatched(image):
        many = holds_many is not None and holds_many(image)
        return list(image) if many or _is_batch(image) else image

    if isinstance(images, tf.data.Dataset):
        # One batch in memory at a time.
        elements = map(unbatched, map(_checked_element, images))
        photos = itertools.chain.from_iterable(map(keras.tree.flatten, elements))
        nest = None
    else:
        nest = keras.tree.map_structure(unbatched, images)
        photos = iter(keras.tree.flatten(nest))
    if prompts is not None and not isinstance(prompts, str):
        if nest is not None:
            keras.tree.assert_same_structure(nest, prompts)
        prompts = iter(keras.tree.flatten(prompts))
    results = []
    while batch := list(itertools.islice(photos, batch_size)):
        of_batch = prompts
        if isinstance(prompts, str):
            of_batch = [prompts] * len(batch)
        elif prompts is not None:
            of_batch = list(itertools.islice(prompts, len(batch)))
        results += write(batch, of_batch)
    if not results:
        raise ValueError(
            f"images must hold one photo or more. Received: images={images}"
        )
    return results if nest is None else keras.tree.pack_sequence_as(nest, results)


def to_pixels(image, image_size=None):
    """One photo, in any form -> uint8 RGB (H, W, 3), upright.

    Args:
        image: a path, encoded bytes, a PIL image, or an array or tensor of pixels from
            0 to 255, (H, W) or (H, W, channels).
        image_size: see `load_image`.

    Raises:
        ImageError: it cannot be read, or has no shape of a photo.
        ValueError: pixels are not from 0 to 255.
    """
    if is_pil_image(image):
        return load_image(_pil_pixels(image))
    if isinstance(image, tf.Tensor) and image.dtype == tf.string:
        image = image.numpy()
    if hasattr(image, "__array__"):
        image = np.asarray(image)
        if image.dtype.kind in "iuf" and image.dtype != np.uint8 and image.size:
            low, high = image.min(), image.max()
            if not (low >= 0 and high <= 255):  # nor NaN
                raise ValueError(
                    "Pixels must be from 0 to 255; divide 16-bit pixels by 257. "
                    f"Received: pixels from {low} to {high}"
                )
        if image.dtype.kind in "iu":
            image = image.astype(np.uint8)
    return load_image(image, image_size)


def is_pil_image(image):
    """Whether it is a `PIL.Image.Image`, where PIL need not be installed."""
    return any(base.__module__ == "PIL.Image" for base in type(image).__mro__)


def _pil_pixels(image):
    # Not a dependency of ours, but it is there, since this is one of its images.
    image = importlib.import_module("PIL.ImageOps").exif_transpose(image)
    if image.mode in ("I;16", "I;16L", "I;16B"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.asarray(image)


def _is_batch(image):
    if not hasattr(image, "shape") or is_pil_image(image):
        return False
    of_strings = getattr(image, "dtype", None) == tf.string
    return len(image.shape) == (1 if of_strings else 4)


def _checked_element(element):
    """An element of a `tf.data.Dataset`, which is a photo or a batch of them."""
    if not isinstance(element, tf.Tensor):
        raise ValueError(
            "A tf.data.Dataset for generate must hold only photos: dataset.map(lambda "
            f"image, label: image). Received: an element of type {type(element)}"
        )
    return element
