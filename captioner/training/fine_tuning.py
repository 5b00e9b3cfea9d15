"""Fine-tuning: the stage of `train` that also trains the top of the image network.

The other stages read features that were computed once. Here the photos themselves go
through the network, each time a little different, and the gradient of the cross-entropy
reaches its last layers, with a lower learning rate.
"""

import tensorflow as tf

from captioner.images.image_views import augment
from captioner.tasks.train_step import crossentropy
from captioner.training.crossentropy import Crossentropy


class FineTuning(Crossentropy):
    """The stage; see `Crossentropy` for what the loop asks of it.

    The network runs as it does when it captions: norms keep their statistics, and only
    the decoder has dropout.

    Args:
        epochs, patience, label_smoothing: see `Crossentropy`.
        backbone_layers: number of the network's last layers to train, see
            `VisionBackbone.unfreeze`.
    """

    name = "fine_tuning"

    def __init__(self, epochs, patience, label_smoothing, backbone_layers):
        super().__init__(epochs, patience, label_smoothing)
        self.backbone_layers = backbone_layers

    def prepare(self, batch, seed):
        """Change each photo randomly."""
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
