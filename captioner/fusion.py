"""How a decoder block brings the image in.

A fusion is a layer with three methods:

    build_cache(image_features)   (B, P, E) -> what one image needs, once per image
    call(text, cache)             (B, L, D), cache -> (B, L, D)
    FUSIONS                       its name, below

`call` serves the full pass (L = caption length) and one decoding step (L = 1)
alike, since a fusion never mixes along L. Shape letters: see `caption_model.py`.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="captioner")
class AdditiveFusion(keras.layers.Layer):
    """The field's classic: the text state plus a projection of the image.

        image = dropout(mean over P of relu(W_image norm(image_features) + b_p))
        out   = relu(W_out (text + image))

    With P = 1 (pooled features) it is the "merge" model of Tanti, Gatt and
    Camilleri, "Where to put the image in an image caption generator" (2018). Over
    a grid each position p is projected before the mean, with a bias of its own:
    a detail that fills one cell still counts, and so does where it is.

    A network whose features say less than its last layers would, as VGG16 without
    its dense ones, gains from looking for more than D things: with
    `intermediate_dim` W_image is that wide, and a second projection brings the mean
    back to D. It costs nothing in the steps.

    Args:
        hidden_dim: D, the width of the text state.
        intermediate_dim: the width of what is looked for; None for D, with no second
            projection.
        dropout: rate, on the image.

    Example:

    >>> import numpy as np
    >>> fusion = AdditiveFusion(hidden_dim=8)
    >>> fusion.build((None, None, 8), (None, 49, 16))
    >>> cache = fusion.build_cache(np.ones((2, 49, 16), "float32"))
    >>> fusion(np.ones((2, 5, 8), "float32"), cache).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, hidden_dim, intermediate_dim=None, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        # Networks differ a hundredfold in the scale of their features.
        self.image_norm = keras.layers.LayerNormalization(
            dtype=self.dtype_policy, name="image_norm"
        )
        self.image_dense = keras.layers.Dense(
            intermediate_dim or hidden_dim,
            use_bias=False,
            dtype=self.dtype_policy,
            name="image_dense",
        )
        self.image_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="image_dropout"
        )
        self.narrow_dense = None
        if intermediate_dim is not None:
            self.narrow_dense = keras.layers.Dense(
                hidden_dim, dtype=self.dtype_policy, name="narrow_dense"
            )
        self.output_dense = keras.layers.Dense(
            hidden_dim, "relu", dtype=self.dtype_policy, name="output_dense"
        )

    def build(self, text_shape, image_features_shape):
        self.image_norm.build(image_features_shape)
        self.image_dense.build(image_features_shape)
        self.position_bias = self.add_weight(
            (image_features_shape[1], self.image_dense.units),
            initializer="zeros",
            name="position_bias",
        )
        if self.narrow_dense is not None:
            self.narrow_dense.build((None, 1, self.intermediate_dim))
        self.output_dense.build((*text_shape[:-1], self.hidden_dim))
        self.built = True

    def build_cache(self, image_features, training=None):
        """(B, P, E) -> (B, 1, D): the image's part of the sum."""
        image = self.image_dense(self.image_norm(image_features))
        image = ops.relu(image + ops.cast(self.position_bias, image.dtype))
        image = ops.mean(image, axis=1, keepdims=True)
        image = self.image_dropout(image, training=training)
        return image if self.narrow_dense is None else self.narrow_dense(image)

    def call(self, text, cache):
        return self.output_dense(text + cache)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
        }


FUSIONS = {"additive": AdditiveFusion}
