"""How a decoder block brings the image in.

A fusion is a layer with two methods, and a name in `FUSIONS` below:

    build_cache(image_features)   (B, P, E) -> what one image needs, once per image
    call(text, cache)             (B, T, D), cache -> (B, T, D)

T counts all the places of an image where text meets it: the tokens of all its
captions in training, its beams in one step of decoding. A fusion never mixes along
T, so captions and beams share the image's cache as it is, without a copy for each.
Shape letters: see `tasks/caption_model.py`.
"""

import keras
from keras import ops

from captioner.decoders.attention import MultiHeadAttention


class Fusion(keras.layers.Layer):
    """The base of every fusion; each uses the arguments that it needs.

    A fusion of your own is a subclass with `build`, `build_cache` and `call`, which is
    given to `CaptionModel(fusion=...)` and registered as Keras' layers are:

    ```python
    @keras.saving.register_keras_serializable(package="mine")
    class MaxFusion(captioner.decoders.Fusion):
        def build(self, text_shape, image_features_shape):
            self.image_dense = self._dense("image_dense")
            self.image_dense.build(image_features_shape)
            self.output_dense.build((None, None, self.hidden_dim))
            self.built = True

        def build_cache(self, image_features, training=None):
            return ops.max(self.image_dense(image_features), axis=1, keepdims=True)

        def call(self, text, cache, training=None):
            return self.output_dense(text + cache)
    ```

    Args:
        hidden_dim: D, the width of the text state.
        intermediate_dim: for fusions that sum an image up: the width of what is
            looked for; None for D, with no second projection.
        num_heads: for attention.
        dropout: rate, on the image.
    """

    def __init__(
        self, hidden_dim, intermediate_dim=None, num_heads=8, dropout=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.dropout = dropout
        # Networks differ a hundredfold in the scale of their features.
        self.image_norm = keras.layers.LayerNormalization(
            dtype=self.dtype_policy, name="image_norm"
        )
        self.image_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="image_dropout"
        )
        self.output_dense = self._dense("output_dense", activation="relu")

    def _dense(self, name, units=None, **kwargs):
        units = units or self.hidden_dim
        return keras.layers.Dense(units, dtype=self.dtype_policy, name=name, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }


class SummaryFusion(Fusion):
    """A fusion that sums the image up once, whatever the text:

        image = dropout(mean over P of relu(W_image norm(image_features) + b_p))

    Over a grid each position p is projected before the mean, with a bias of its own:
    a detail that fills one cell still counts, and so does where it is.

    A network whose features say less than its last layers would, as VGG16 without
    its dense ones, gains from looking for more than D things: with
    `intermediate_dim` W_image is that wide, and a second projection brings the mean
    back to D. It costs nothing in the steps.
    """

    def __init__(self, hidden_dim, intermediate_dim=None, *args, **kwargs):
        super().__init__(hidden_dim, intermediate_dim, *args, **kwargs)
        self.image_dense = self._dense("image_dense", intermediate_dim, use_bias=False)
        self.narrow_dense = None
        if intermediate_dim is not None:
            self.narrow_dense = self._dense("narrow_dense")

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
        self._build_output()
        self.built = True

    def _build_output(self):
        self.output_dense.build((None, None, self.hidden_dim))

    def build_cache(self, image_features, training=None):
        """(B, P, E) -> (B, 1, D): the image in one vector."""
        image = self.image_dense(self.image_norm(image_features))
        image = ops.relu(image + ops.cast(self.position_bias, image.dtype))
        image = ops.mean(image, axis=1, keepdims=True)
        image = self.image_dropout(image, training=training)
        return image if self.narrow_dense is None else self.narrow_dense(image)


@keras.saving.register_keras_serializable(package="captioner")
class AdditiveFusion(SummaryFusion):
    """The field's classic: the text state plus the image.

        out = relu(W_out (text + image))

    With P = 1 (pooled features) it is the "merge" model of Tanti, Gatt and
    Camilleri, "Where to put the image in an image caption generator" (2018). The
    image: see `SummaryFusion`; arguments: see `Fusion`.

    Example:

    >>> import numpy as np
    >>> fusion = AdditiveFusion(hidden_dim=8)
    >>> fusion.build((None, None, 8), (None, 49, 16))
    >>> cache = fusion.build_cache(np.ones((2, 49, 16), "float32"))
    >>> fusion(np.ones((2, 5, 8), "float32"), cache).shape
    TensorShape([2, 5, 8])
    """

    def call(self, text, cache, training=None):
        return self.output_dense(text + cache)


@keras.saving.register_keras_serializable(package="captioner")
class ConcatFusion(SummaryFusion):
    """The text state and the image side by side, projected together.

        out = relu(W_out [text; image])

    The "merge" model with concatenation of Tanti, Gatt and Camilleri (2018). The
    image: see `SummaryFusion`; arguments: see `Fusion`.

    Example:

    >>> import numpy as np
    >>> fusion = ConcatFusion(hidden_dim=8)
    >>> fusion.build((None, None, 8), (None, 49, 16))
    >>> cache = fusion.build_cache(np.ones((2, 49, 16), "float32"))
    >>> fusion(np.ones((2, 5, 8), "float32"), cache).shape
    TensorShape([2, 5, 8])
    """

    def _build_output(self):
        self.output_dense.build((None, None, 2 * self.hidden_dim))

    def call(self, text, cache, training=None):
        return self.output_dense(beside(text, cache))


@keras.saving.register_keras_serializable(package="captioner")
class WeightedFusion(SummaryFusion):
    """A gate weighs the text state against the image, word by word and unit by unit.

        alpha = sigmoid(W_alpha [text; image] + b_alpha)
        out   = relu(W_out (alpha * text + (1 - alpha) * image))

    The gated unit of Arevalo et al., "Gated multimodal units for information
    fusion" (2017). The image: see `SummaryFusion`; arguments: see `Fusion`.

    Example:

    >>> import numpy as np
    >>> fusion = WeightedFusion(hidden_dim=8)
    >>> fusion.build((None, None, 8), (None, 49, 16))
    >>> cache = fusion.build_cache(np.ones((2, 49, 16), "float32"))
    >>> fusion(np.ones((2, 5, 8), "float32"), cache).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate_dense = self._dense("gate_dense", activation="sigmoid")

    def _build_output(self):
        super()._build_output()
        self.gate_dense.build((None, None, 2 * self.hidden_dim))

    def call(self, text, cache, training=None):
        alpha = self.gate_dense(beside(text, cache))
        return self.output_dense(alpha * text + (1 - alpha) * cache)


@keras.saving.register_keras_serializable(package="captioner")
class AttentionFusion(Fusion):
    """Each word looks at the image for itself: multi-head scaled dot-product attention.

        image = dropout(W_o softmax(q k^T / sqrt(D / num_heads)) v)
        q = W_q text,  k = W_k norm(image_features) + b_p,  v = W_v norm(image_features)
        out = relu(W_out (text + image))

    Vaswani et al., "Attention is all you need" (2017), with a bias for each image
    position, since the features themselves do not tell where they are. Arguments: see
    `Fusion`.

    Raises:
        ValueError: `num_heads` does not divide `hidden_dim`, or there is only one
            image position, which leaves nothing to choose from.

    Example:

    >>> import numpy as np
    >>> fusion = AttentionFusion(hidden_dim=8, num_heads=2)
    >>> fusion.build((None, None, 8), (None, 49, 16))
    >>> cache = fusion.build_cache(np.ones((2, 49, 16), "float32"))
    >>> text = np.ones((2, 5, 8), "float32")
    >>> out, scores = fusion(text, cache, return_attention_scores=True)
    >>> out.shape, scores.shape
    (TensorShape([2, 5, 8]), TensorShape([2, 2, 5, 49]))
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.attention = MultiHeadAttention(
            self.hidden_dim, self.num_heads, dtype=self.dtype_policy, name="attention"
        )

    def build(self, text_shape, image_features_shape):
        positions = image_features_shape[1]
        if positions == 1:
            raise ValueError(
                "Attention needs a grid of features, not pooled ones: use "
                'pooling=None, or fusion="additive". '
                f"Received: image_features_shape={tuple(image_features_shape)}"
            )
        self.image_norm.build(image_features_shape)
        self.attention.build((None, None, self.hidden_dim), image_features_shape)
        self.position_bias = self.add_weight(
            (self.num_heads, positions, self.attention.head_dim),
            initializer="zeros",
            name="position_bias",
        )
        self.output_dense.build((None, None, self.hidden_dim))
        self.built = True

    def build_cache(self, image_features, training=None):
        """(B, P, E) -> the image's keys and values, each (B, heads, P, D / heads)."""
        keys, values = self.attention.keys_and_values(self.image_norm(image_features))
        return [keys + ops.cast(self.position_bias, keys.dtype), values]

    def call(self, text, cache, training=None, return_attention_scores=False):
        """With `return_attention_scores` also the scores, (B, heads, T, P)."""
        image, scores = self.attention(self.attention.queries(text), *cache)
        image = self.image_dropout(image, training=training)
        out = self.output_dense(text + image)
        return (out, scores) if return_attention_scores else out


def beside(text, image):
    """(B, T, D) and (B, 1, D) -> (B, T, 2 D)."""
    image = ops.broadcast_to(image, ops.shape(text))
    return ops.concatenate([text, image], axis=-1)


FUSIONS = {
    "additive": AdditiveFusion,
    "concat": ConcatFusion,
    "weighted": WeightedFusion,
    "attention": AttentionFusion,
}
