"""Fine-tuning: the stage of `train` in which the top of the image network learns, too.

The other stages read features that were computed once. Here the photos themselves go
through the network, each time a little otherwise, and the gradient reaches its last
layers: by cross-entropy, as before, with a lower learning rate.
"""

import tensorflow as tf

from captioner.train_step import crossentropy
from captioner.training_run import Crossentropy

# How far a photo is changed. Mildly: what a caption speaks of may lie at the edge.
SMALLEST_CROP = 0.8  # of height and width
BRIGHTNESS = 0.1  # of the range of pixels, up or down
CONTRAST = (0.8, 1.2)


class FineTuning(Crossentropy):
    """The stage, as the loop asks for it; see `training_run.Crossentropy`.

    The network runs as it does when it captions: norms keep the statistics of their
    training, and dropout is the decoder's alone.

    Args:
        epochs, patience, label_smoothing: see `Crossentropy`.
        backbone_layers: how many of the network's last layers learn, see
            `VisionBackbone.unfreeze`.
    """

    name = "fine_tuning"

    def __init__(self, epochs, patience, label_smoothing, backbone_layers):
        super().__init__(epochs, patience, label_smoothing)
        self.backbone_layers = backbone_layers

    def prepare(self, batch, seed):
        """Photos, each changed by chance."""
        x, y, sample_weight = batch
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        images = augment(x["images"], tf.stack([seed, replica]))
        return {**x, "images": images}, y, sample_weight

    def objective(self, model, batch):
        """See `train_step.crossentropy`."""
        x, y, sample_weight = batch
        features = model.encode(x["images"], training=False)
        return crossentropy(
            model, ({**x, "image_features": features}, y, sample_weight)
        )


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
