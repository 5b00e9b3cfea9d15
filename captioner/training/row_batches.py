"""The batches of `train`: packed captions and an image reader, with `tf.data`."""

import numpy as np
import tensorflow as tf

from captioner.tasks.preprocessor import padded_length

# Rows of like length come together; this many batches are sorted at a time.
POOL = 32


class RowBatches:
    """The batches of each epoch; the seed and the number of the epoch decide them.

    All captions of an image stand in one row (`CaptionPreprocessor.rows`), and a batch
    has images whose rows are about equally long, so that there is little padding and
    there are few lengths. Each epoch has other batches in another order.

    Args:
        images: pair of (key, read), as of `training_batches`.
        rows: for each image an int32 array (3, T).
        batch_size: B; images that fill no batch are left out of an epoch.
        seed: int.
        views: bool (V, N), which views of each image may be seen, as drawn anew each
            epoch; `read` takes the index of an image plus v N for its view v. None for
            the first view alone.

    Attributes:
        steps: number of batches per epoch.

    Raises:
        ValueError: there are fewer images than `batch_size`.
    """

    def __init__(self, images, rows, batch_size, seed, views=None):
        if len(rows) < batch_size:
            raise ValueError(
                f"There are only {len(rows)} images to train on. "
                f"Received: batch_size={batch_size}"
            )
        self.key, self.read = images
        self.rows = rows
        self.lengths = np.array([row.shape[1] for row in rows])
        self.batch_size = batch_size
        self.seed = seed
        self.views = views
        self.steps = len(rows) // batch_size
        self.feature_spec = tf.TensorSpec(
            (None, *self.read(np.zeros(1, np.int64)).shape[1:]),
            self.read(np.zeros(1, np.int64)).dtype,
        )

    def epoch(self, epoch):
        """The images of an epoch: int64 (steps, B); plus v N for the view v."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.rows))[: self.steps * self.batch_size]
        pool = POOL * self.batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[
                np.argsort(self.lengths[part], kind="stable")
            ]
        batches = order.reshape(self.steps, self.batch_size)
        batches = batches[random.permutation(self.steps)]
        if self.views is not None:
            allowed = self.views[:, batches].cumsum(axis=0)  # how many so far
            drawn = (random.random(batches.shape) * allowed[-1]).astype(int)
            batches = batches + len(self.rows) * (allowed > drawn).argmax(axis=0)
        return batches

    def padded_length(self, indices):
        """The length of the batch of these images: its longest row, rounded up."""
        return padded_length(self.lengths[indices % len(self.rows)])

    def dataset(self, epoch, first_step=0, worker=0, workers=1, replicas=1):
        """The batches of an epoch, or of one worker's share of each of them.

        Args:
            epoch: its number.
            first_step: the first step to give.
            worker, workers: which of how many.
            replicas: into how many parts each of the worker's shares is cut, which
                come one after the other.

        Returns:
            A `tf.data.Dataset` of (x, y, sample_weight), as `fit` takes them; the
            dict x also has `index`, int64 (B,), which images.
        """
        batches = self.epoch(epoch)[first_step:]
        lengths = np.array([self.padded_length(batch) for batch in batches], int)
        share = batches.reshape(len(batches), workers, replicas, -1)[:, worker]
        parts = share.reshape(len(batches) * replicas, -1)

        def load(indices, length):
            rows = [self.rows[index] for index in indices % len(self.rows)]
            return self.read(indices), padded(rows, length)

        def load_batch(indices, length):
            features, packed = tf.numpy_function(
                load, [indices, length], (self.feature_spec.dtype, tf.int32)
            )
            features.set_shape((parts.shape[1], *self.feature_spec.shape[1:]))
            packed.set_shape((parts.shape[1], 3, None))
            x = {
                self.key: features,
                "token_ids": packed[:, 0],
                "segment_ids": packed[:, 2],
                "index": indices % len(self.rows),
            }
            return x, packed[:, 1], tf.cast(packed[:, 2] > 0, tf.float32)

        dataset = tf.data.Dataset.from_tensor_slices((parts, lengths.repeat(replicas)))
        dataset = dataset.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.OFF  # each worker has its own share
        )
        return dataset.prefetch(2).with_options(options)


def padded(rows, length):
    """Rows (..., T) of several T -> one array (B, ..., length), filled up with 0."""
    rows = [np.asarray(row) for row in rows]
    filled = np.zeros((len(rows), *rows[0].shape[:-1], length), rows[0].dtype)
    for place, row in zip(filled, rows):
        place[..., : row.shape[-1]] = row
    return filled
