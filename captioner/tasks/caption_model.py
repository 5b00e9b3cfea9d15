"""Image features and token ids in, logits of the next token out.

Shape letters, here and everywhere in captioner:

    B  images in a batch            L  caption length in tokens
    H  W  image height and width    D  hidden_dim, width of the text state
    P  image positions              V  vocabulary size
    E  image feature width          C  captions of one image
    K  beams                        N  captions in a batch: B * C or B * K
"""

import keras
from keras import ops

from captioner.backbones import VisionBackbone
from captioner.decoders import FUSIONS, MIXERS, DecoderBlock
from captioner.decoders.fusion import AttentionFusion
from captioner.keras_settings import check_settings
from captioner.tasks.captioner_options import CaptionerOptions, default_fusion
from captioner.tasks.forked import refuse_if_forked
from captioner.tasks.train_step import train_step


@keras.saving.register_keras_serializable(package="captioner")
class CaptionModel(keras.Model):
    """A caption decoder, with the backbone that feeds it.

    Takes `images` or, where they are kept, the `image_features` that the backbone
    made of them; and the captions so far. Several captions of one image share one
    pass of the image side.

    Args:
        vocabulary_size: V.
        image_feature_shape: (P, E), what one image is to the decoder.
        vision_backbone: a `VisionBackbone`, or None for a model that only ever
            sees image features.
        mixer: "lstm" or "transformer", what mixes along the caption; or a class of your
            own, see `captioner.decoders.TextMixer`.
        fusion: "additive", "concat", "weighted" or "attention", what brings the
            image in; or a class of your own, see `captioner.decoders.Fusion`; by
            default attention, and additive where P is 1.
        num_layers: decoder blocks.
        hidden_dim: D.
        intermediate_dim: width of a Transformer's feed-forward network, by default
            4 D; and of what additive, concat and weighted fusion look for in the
            image, by default D.
        num_heads: of a Transformer, and of attention fusion.
        dropout: rate, on embeddings, images, in mixers and on block outputs.

    Raises:
        ValueError: unknown `mixer` or `fusion`, or one that refuses its arguments,
            as `num_heads` that do not divide `hidden_dim`; or the backbone gives
            features of another shape.

    Call arguments:
        inputs: dict of `token_ids`, int (B, L) or (B, C, L), and either
            `image_features`, float (B, P, E), or `images`, float32 RGB
            (B, H, W, 3) from 0 to 255. With `segment_ids`, int (B, L), all captions
            of an image stand in its row one after the other, without padding between
            them: positions of one caption have one number.

    Returns:
        Logits, float32 (B, L, V) or (B, C, L, V), of the token after each.

    Example:

    >>> import numpy as np
    >>> model = CaptionModel(vocabulary_size=100, image_feature_shape=(49, 16))
    >>> model({"image_features": np.ones((2, 49, 16), "float32"),
    ...        "token_ids": np.ones((2, 5, 7), "int32")}).shape
    TensorShape([2, 5, 7, 100])
    """

    def __init__(
        self,
        vocabulary_size,
        image_feature_shape,
        vision_backbone=None,
        mixer=CaptionerOptions.mixer,
        fusion=CaptionerOptions.fusion,
        num_layers=CaptionerOptions.num_layers,
        hidden_dim=CaptionerOptions.hidden_dim,
        intermediate_dim=CaptionerOptions.intermediate_dim,
        num_heads=CaptionerOptions.num_heads,
        dropout=CaptionerOptions.dropout,
        **kwargs,
    ):
        check_settings()
        refuse_if_forked()
        if num_layers < 1:
            raise ValueError(
                f"num_layers must be 1 or more. Received: num_layers={num_layers}"
            )
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.image_feature_shape = tuple(image_feature_shape)
        if vision_backbone is not None:
            if self.image_feature_shape != vision_backbone.feature_shape:
                raise ValueError(
                    f"The backbone's features have shape "
                    f"{vision_backbone.feature_shape}. "
                    f"Received: image_feature_shape={self.image_feature_shape}"
                )
        self.vision_backbone = vision_backbone
        fusion = fusion or default_fusion(self.image_feature_shape)
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.token_embedding = keras.layers.Embedding(
            vocabulary_size,
            hidden_dim,
            dtype=self.dtype_policy,
            name="token_embedding",
        )
        self.embedding_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="embedding_dropout"
        )
        self.blocks = [
            DecoderBlock(
                mixer,
                fusion,
                hidden_dim,
                intermediate_dim,
                num_heads,
                dropout,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.mixer = self.blocks[0].mixer_name
        self.fusion = self.blocks[0].fusion_name
        self.norm = keras.layers.LayerNormalization(
            dtype=self.dtype_policy, name="norm"
        )
        # float32 under mixed precision too: a softmax over V needs it.
        self.logits_dense = keras.layers.Dense(
            vocabulary_size, dtype="float32", name="logits_dense"
        )
        self._build_layers()

    def _build_layers(self):
        # At once rather than at the first call: a model can then be loaded,
        # counted and exported before it has seen a photo.
        text_shape = (None, None, self.hidden_dim)
        self.token_embedding.build((None, None))
        for block in self.blocks:
            block.build(text_shape, (None, *self.image_feature_shape))
        self.norm.build(text_shape)
        self.logits_dense.build(text_shape)
        self.built = True

    def encode(self, images, training=None):
        """Float32 RGB (B, H, W, 3) -> image features (B, P, E)."""
        if self.vision_backbone is None:
            raise ValueError("This model has no vision_backbone: give image_features.")
        return self.vision_backbone(images, training=training)

    def build_image_cache(self, image_features, training=None):
        """(B, P, E) -> list of each block's image cache; once per image."""
        return [
            block.build_image_cache(image_features, training=training)
            for block in self.blocks
        ]

    def build_text_cache(self, batch_size, max_length):
        """The list of each block's text cache, before the first of `max_length`
        tokens."""
        return [block.build_text_cache(batch_size, max_length) for block in self.blocks]

    def call(self, inputs, training=None):
        image_features = inputs.get("image_features")
        if image_features is None:
            image_features = self.encode(inputs["images"], training=training)
        image_cache = self.build_image_cache(image_features, training=training)

        token_ids = ops.convert_to_tensor(inputs["token_ids"])
        shape = ops.shape(token_ids)
        if len(shape) == 3:  # (B, C, L): from here on each caption is a row.
            token_ids = ops.reshape(token_ids, (-1, shape[2]))
        text = self.token_embedding(token_ids)
        text = self.embedding_dropout(text, training=training)
        segment_ids = inputs.get("segment_ids")
        for block, cache in zip(self.blocks, image_cache):
            text = block(text, cache, segment_ids, training=training)
        logits = self.logits_dense(self.norm(text))
        return ops.reshape(logits, (*shape, self.vocabulary_size))

    def train_step(self, data):
        """What Keras' `fit` does with a batch."""
        return train_step(self, data)

    def step(self, token_ids, text_cache, image_cache, index):
        """One decoding step, without the past and without the backbone.

        Args:
            token_ids: int (N,), the tokens at position `index`.
            text_cache: as built above, for N captions.
            image_cache: as built above, for B images. N is B, or B times the
                number of captions or beams of each image, side by side.
            index: int, the position.

        Returns:
            Logits, float32 (N, V), of the token after; and the next text cache.
        """
        text = self.token_embedding(token_ids)
        next_cache = []
        for block, text_state, image in zip(self.blocks, text_cache, image_cache):
            text, text_state = block.step(text, text_state, image, index)
            next_cache.append(text_state)
        return self.logits_dense(self.norm(text)), next_cache

    def own_classes(self):
        """The set of a user's own classes in this model: of image networks with their
        layers, mixers and fusions."""
        mixer, fusion = self.blocks[0].mixer, self.blocks[0].fusion
        found = {type(mixer), type(fusion)} - {*MIXERS.values(), *FUSIONS.values()}
        if self.vision_backbone is not None and self.vision_backbone.is_own_network:
            network = self.vision_backbone.network
            found |= {type(layer) for layer in network._flatten_layers()}
        return found

    @property
    def has_attention(self):
        """Whether there are attention scores to ask for."""
        return isinstance(self.blocks[0].fusion, AttentionFusion)

    def attention_scores(self, inputs):
        """Where the model looks for each next word.

        Args:
            inputs: as for a call, with `token_ids` (B, L).

        Returns:
            Float32 (B, L, P), the mean over heads and blocks; adds up to 1 over P.

        Raises:
            ValueError: the fusion is not attention.
        """
        if not self.has_attention:
            raise ValueError(
                "Only attention fusion has attention scores. "
                f"Received: fusion={self.fusion}"
            )
        image_features = inputs.get("image_features")
        if image_features is None:
            image_features = self.encode(inputs["images"])
        text, scores = self.token_embedding(inputs["token_ids"]), []
        for block, cache in zip(self.blocks, self.build_image_cache(image_features)):
            scores.append(ops.mean(block.attention_scores(text, cache), axis=1))
            text = block(text, cache)
        return sum(scores) / len(scores)

    def get_config(self):
        backbone = self.vision_backbone
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "vocabulary_size": self.vocabulary_size,
            "image_feature_shape": self.image_feature_shape,
            "vision_backbone": None if backbone is None else backbone.get_config(),
            "mixer": self.mixer,
            "fusion": self.fusion,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if config["vision_backbone"] is not None:
            # By class, not by whatever name a file brings: nothing that is
            # loaded chooses the code that runs.
            config["vision_backbone"] = VisionBackbone.from_config(
                config["vision_backbone"]
            )
        return cls(**config)
