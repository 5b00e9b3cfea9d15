"""Photos and captions in batches, with `tf.data`."""

import concurrent.futures
import os

import numpy as np
import tensorflow as tf

from captioner.images.image_files import ImageError, load_image
from captioner.images.image_views import View


def image_batches(images, image_converter, batch_size, on_error):
    """Decode photos in parallel and convert them, ahead of the reader.

    Args:
        images: a sequence of paths, encoded bytes or uint8 arrays.
        image_converter: an `ImageConverter`.
        batch_size: photos per batch; the last batch may be smaller.
        on_error: called with (index, ImageError) for each photo that cannot be
            read; the photo is left out.

    Returns:
        A `tf.data.Dataset` of (indices, images): int64 (B,) into the sequence,
        in its order, and float32 (B, H, W, 3).

    Example:

    >>> import numpy as np
    >>> from captioner import ImageConverter
    >>> photos = [np.zeros((40, 60, 3), "uint8")] * 3
    >>> batches = image_batches(photos, ImageConverter((32, 32)), 2, print)
    >>> [images.shape[0] for _, images in batches]
    [2, 1]
    """

    def load(index):
        try:
            return load_image(images[index], image_converter.image_size), True
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


def unreadable_images(images):
    """Which photos cannot be read: all are decoded once, in parallel.

    Args:
        images: a sequence of paths, encoded bytes or uint8 arrays.

    Returns:
        dict of index into `images` -> `ImageError`.

    Example:

    >>> list(unreadable_images([b"not a picture"]))
    [0]
    """

    def error_of(image):
        try:
            load_image(image)
        except ImageError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = enumerate(pool.map(error_of, images))
        return {index: error for index, error in errors if error is not None}


def training_batches(images, captions, batch_size, epochs, seed, first_epoch=0):
    """Batches for `ImageCaptioner.fit`, shuffled anew each epoch.

    The order depends on `seed` and the epoch's number alone, so that a run resumed
    at `first_epoch` sees what an uninterrupted one would have seen.

    Args:
        images: the image side, a pair of (key, read): "image_features" or
            "images", and a function of int64 indices (B,) that returns their
            float array (B, ...) as the model takes it.
        captions: list of lists of str, the captions of each image.
        batch_size: B, images per batch; the images that fill no batch are left out.
        epochs: total number of epochs.
        seed: int.
        first_epoch: the first epoch to give.

    Returns:
        A `tf.data.Dataset` of dicts, with all epochs one after the other; and the
        number of batches per epoch.

    Raises:
        ValueError: there are fewer images than `batch_size`.
    """
    key, read = images
    steps = len(captions) // batch_size
    if not steps:
        raise ValueError(
            f"There are only {len(captions)} images to train on. "
            f"Received: batch_size={batch_size}"
        )
    most = max(len(texts) for texts in captions)
    padded = tf.constant([texts + [""] * (most - len(texts)) for texts in captions])
    sample = read(np.zeros(1, np.int64))

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(captions), dtype=tf.int64), seed=[seed, epoch]
        )
        order = order[: steps * batch_size]
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, True)

    def load(indices):
        image_side = tf.numpy_function(read, [indices], sample.dtype)
        image_side = tf.ensure_shape(image_side, (batch_size, *sample.shape[1:]))
        return {key: image_side, "captions": tf.gather(padded, indices)}

    batches = (
        tf.data.Dataset.range(first_epoch, epochs)
        .flat_map(one_epoch)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        # Lost in `flat_map`; without it Keras warns at each end of the data.
        .apply(tf.data.experimental.assert_cardinality(steps * (epochs - first_epoch)))
    )
    return batches, steps


def image_reader(images, image_converter, views=(View(),)):
    """The images for `training_batches` and `RowBatches`, read from photos.

    Args:
        images: N paths, encoded bytes or uint8 arrays.
        image_converter: an `ImageConverter`.
        views: `View`s of each photo.

    Returns:
        ("images", read): `read` takes int64 indices (B,) and returns float32
        (B, H, W, 3), in the first view; an index plus N is that of the second, and so
        on.
    """

    def read_one(index):
        number, index = divmod(int(index), len(images))
        photo = load_image(images[index], image_converter.image_size)
        photo = image_converter(photo)
        return views[number].of(photo, str(index))

    def read(indices):
        return np.stack([read_one(index) for index in indices])

    return "images", read
