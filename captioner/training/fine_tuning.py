"""Fine-tuning: the stage of `train` in which the top of the image network learns, too.

The other stages read features that were computed once. Here the photos themselves go
through the network, each time a little otherwise, and the gradient reaches its last
layers: by cross-entropy, as before, with a lower learning rate.
"""

import tensorflow as tf

from captioner.images.image_views import augment
from captioner.tasks.train_step import crossentropy
from captioner.training.crossentropy import Crossentropy


class FineTuning(Crossentropy):
    """The stage, as the loop asks for it; see `Crossentropy`.

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
