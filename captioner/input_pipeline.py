"""From a dataset's examples to batches, with `tf.data`."""

import numpy as np
import tensorflow as tf

from captioner.image_converter import ImageError, load_image


def image_batches(images, image_converter, batch_size, on_error):
    """Photos, decoded in parallel and converted, ahead of whoever reads them.

    Args:
        images: a sequence of paths, encoded bytes or uint8 arrays.
        image_converter: an `ImageConverter`.
        batch_size: photos a batch; the last batch may be smaller.
        on_error: called with (index, ImageError) for each photo that cannot be
            read; the photo is left out and the rest goes on.

    Returns:
        A `tf.data.Dataset` of (indices, images): int64 (B,) into the sequence,
        in its order, and float32 (B, H, W, 3).

    Example:

    >>> import numpy as np
    >>> from captioner.image_converter import ImageConverter
    >>> photos = [np.zeros((40, 60, 3), "uint8")] * 3
    >>> batches = image_batches(photos, ImageConverter((32, 32)), 2, print)
    >>> [images.shape[0] for _, images in batches]
    [2, 1]
    """

    def load(index):
        try:
            return load_image(images[index]), True
        except ImageError as error:
            on_error(int(index), error)
            return np.zeros((1, 1, 3), np.uint8), False

    def load_one(index):
        image, ok = tf.numpy_function(load, [index], (tf.uint8, tf.bool))
        return index, tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(ok, ())

    return (
        tf.data.Dataset.range(len(images))
        .map(load_one, num_parallel_calls=tf.data.AUTOTUNE)
        .filter(lambda index, image, ok: ok)
        .map(
            lambda index, image, ok: (index, image_converter(image)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size)
        .prefetch(2)
    )
