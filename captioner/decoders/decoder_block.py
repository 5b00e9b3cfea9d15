"""One block of a caption decoder: a text mixer, then a fusion."""

import keras
from keras import ops

from captioner.decoders.fusion import FUSIONS, Fusion
from captioner.decoders.lstm import LSTMMixer
from captioner.decoders.text_mixer import TextMixer
from captioner.decoders.transformer import TransformerMixer

MIXERS = {"lstm": LSTMMixer, "transformer": TransformerMixer}


@keras.saving.register_keras_serializable(package="captioner")
class DecoderBlock(keras.layers.Layer):
    """text + dropout(fusion(mixer(norm(text)), image)).

    Args:
        mixer: a name in `MIXERS`, or a subclass of `TextMixer` or its registered name.
        fusion: a name in `FUSIONS`, or a subclass of `Fusion` or its registered name.
        hidden_dim: D, the width of the text state.
        intermediate_dim, num_heads: see `TextMixer` and `Fusion`.
        dropout: rate, on the image, in the mixer, and on the block's output.

    Raises:
        ValueError: unknown `mixer` or `fusion`, or one refuses its arguments.

    Example:

    >>> import numpy as np
    >>> block = DecoderBlock("lstm", "additive", hidden_dim=8)
    >>> block.build((None, None, 8), (None, 49, 16))
    >>> image = block.build_image_cache(np.ones((2, 49, 16), "float32"))
    >>> block(np.ones((2, 5, 8), "float32"), image).shape
    TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        mixer,
        fusion,
        hidden_dim,
        intermediate_dim=None,
        num_heads=8,
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        mixer_class = _layer_class("mixer", mixer, MIXERS, TextMixer)
        fusion_class = _layer_class("fusion", fusion, FUSIONS, Fusion)
        self.mixer_name = _name(mixer_class, MIXERS)
        self.fusion_name = _name(fusion_class, FUSIONS)
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm = keras.layers.LayerNormalization(
            dtype=self.dtype_policy, name="norm"
        )
        options = (hidden_dim, intermediate_dim, num_heads, dropout)
        self.mixer = mixer_class(*options, dtype=self.dtype_policy, name="mixer")
        self.fusion = fusion_class(*options, dtype=self.dtype_policy, name="fusion")
        self.output_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="output_dropout"
        )

    def build(self, text_shape, image_features_shape):
        self.norm.build(text_shape)
        self.mixer.build(text_shape)
        self.fusion.build(text_shape, image_features_shape)
        self.built = True

    def build_image_cache(self, image_features, training=None):
        """(B, P, E) -> what the fusion keeps of an image for all its steps."""
        return self.fusion.build_cache(image_features, training=training)

    def build_text_cache(self, batch_size, max_length):
        """What the mixer keeps of a caption, before its first token."""
        return self.mixer.build_cache(batch_size, max_length)

    def call(self, text, image_cache, segment_ids=None, training=None):
        """(N, L, D), cache of B images -> (N, L, D); the captions of one image lie
        side by side, or in one row with `segment_ids` (see `TextMixer`)."""
        mixed = self.mixer(self.norm(text), segment_ids, training=training)
        fused = self.fusion(
            _by_image(mixed, image_cache), image_cache, training=training
        )
        fused = ops.reshape(fused, ops.shape(mixed))
        return text + self.output_dropout(fused, training=training)

    def step(self, text, text_cache, image_cache, index):
        """One token: (N, D), caches -> (N, D), next text cache."""
        mixed, text_cache = self.mixer.step(self.norm(text), text_cache, index)
        fused = self.fusion(_by_image(mixed, image_cache), image_cache)
        return text + ops.reshape(fused, ops.shape(mixed)), text_cache

    def attention_scores(self, text, image_cache):
        """Where each token looks: (B, L, D), cache -> float32 (B, heads, L, P)."""
        mixed = self.mixer(self.norm(text))
        _, scores = self.fusion(mixed, image_cache, return_attention_scores=True)
        return scores

    def get_config(self):
        return {
            **super().get_config(),
            "mixer": self.mixer_name,
            "fusion": self.fusion_name,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }


def _layer_class(option, value, known, base):
    """The class that a name or a class means."""
    found = value
    if isinstance(value, str):
        found = known.get(value) or keras.saving.get_registered_object(value)
    if isinstance(found, type) and issubclass(found, base):
        return found
    raise ValueError(
        f"{option} must be one of {', '.join(known)}, or a subclass of {base.__name__} "
        "that is registered with keras.saving.register_keras_serializable. "
        f"Received: {option}={value}"
    )


def _name(layer_class, known):
    names = {found: name for name, found in known.items()}
    return names.get(layer_class) or keras.saving.get_registered_name(layer_class)


def _by_image(text, image_cache):
    """(N, ..., D) -> (B, N / B * ..., D): all that meets an image in one row."""
    images = ops.shape(keras.tree.flatten(image_cache)[0])[0]
    return ops.reshape(text, (images, -1, text.shape[-1]))
