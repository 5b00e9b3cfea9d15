"""The image network of a captioner: pixels in, feature vectors out."""

import hashlib
import json
import warnings

import keras

from captioner import presets
from captioner.backbones import efficientnet_lite
from captioner.backbones.own_network import deserialize_network, network_grid
from captioner.keras_settings import check_settings

# name: (constructor in keras.applications, module with its preprocess_input,
#        side in pixels that its ImageNet weights were trained at)
KERAS_APPLICATIONS = {
    "vgg16": ("VGG16", "vgg16", 224),
    "vgg19": ("VGG19", "vgg19", 224),
    "resnet50": ("ResNet50", "resnet", 224),
    "resnet101": ("ResNet101", "resnet", 224),
    "resnet152": ("ResNet152", "resnet", 224),
    "resnet50_v2": ("ResNet50V2", "resnet_v2", 224),
    "resnet101_v2": ("ResNet101V2", "resnet_v2", 224),
    "resnet152_v2": ("ResNet152V2", "resnet_v2", 224),
    "xception": ("Xception", "xception", 299),
    "inception_v3": ("InceptionV3", "inception_v3", 299),
    "inception_resnet_v2": ("InceptionResNetV2", "inception_resnet_v2", 299),
    "mobilenet": ("MobileNet", "mobilenet", 224),
    "mobilenet_v2": ("MobileNetV2", "mobilenet_v2", 224),
    "mobilenet_v3_small": ("MobileNetV3Small", "mobilenet_v3", 224),
    "mobilenet_v3_large": ("MobileNetV3Large", "mobilenet_v3", 224),
    "densenet121": ("DenseNet121", "densenet", 224),
    "densenet169": ("DenseNet169", "densenet", 224),
    "densenet201": ("DenseNet201", "densenet", 224),
    "nasnet_mobile": ("NASNetMobile", "nasnet", 224),
    "nasnet_large": ("NASNetLarge", "nasnet", 331),
    "efficientnet_b0": ("EfficientNetB0", "efficientnet", 224),
    "efficientnet_b1": ("EfficientNetB1", "efficientnet", 240),
    "efficientnet_b2": ("EfficientNetB2", "efficientnet", 260),
    "efficientnet_b3": ("EfficientNetB3", "efficientnet", 300),
    "efficientnet_b4": ("EfficientNetB4", "efficientnet", 380),
    "efficientnet_b5": ("EfficientNetB5", "efficientnet", 456),
    "efficientnet_b6": ("EfficientNetB6", "efficientnet", 528),
    "efficientnet_b7": ("EfficientNetB7", "efficientnet", 600),
    "efficientnet_v2_b0": ("EfficientNetV2B0", "efficientnet_v2", 224),
    "efficientnet_v2_b1": ("EfficientNetV2B1", "efficientnet_v2", 240),
    "efficientnet_v2_b2": ("EfficientNetV2B2", "efficientnet_v2", 260),
    "efficientnet_v2_b3": ("EfficientNetV2B3", "efficientnet_v2", 300),
    "efficientnet_v2_s": ("EfficientNetV2S", "efficientnet_v2", 384),
    "efficientnet_v2_m": ("EfficientNetV2M", "efficientnet_v2", 480),
    "efficientnet_v2_l": ("EfficientNetV2L", "efficientnet_v2", 480),
    "convnext_tiny": ("ConvNeXtTiny", "convnext", 224),
    "convnext_small": ("ConvNeXtSmall", "convnext", 224),
    "convnext_base": ("ConvNeXtBase", "convnext", 224),
    "convnext_large": ("ConvNeXtLarge", "convnext", 224),
    "convnext_xlarge": ("ConvNeXtXLarge", "convnext", 224),
}


def backbone_names():
    """The names that `VisionBackbone` takes, sorted.

    Example:

    >>> from captioner.backbones import backbone_names
    >>> "vgg16" in backbone_names()
    True
    """
    return sorted([*KERAS_APPLICATIONS, *efficientnet_lite.IMAGE_SIZES])


@keras.saving.register_keras_serializable(package="captioner")
class VisionBackbone(keras.Model):
    """An image network without its classifier, by name, or a network of your own.

    Takes RGB pixels from 0 to 255 for every network: the scaling, channel order
    and mean that its weights expect are applied inside. A network of your own does
    that itself, with `keras.layers.Rescaling` for example.

    Args:
        architecture: one of `backbone_names()`, as "vgg16" or "resnet50"; or a
            `keras.Model` that makes a grid of features, float32 (B, h, w, E), of
            pixels (B, H, W, 3). To be saved in a preset it consists of Keras' own
            layers and of classes that are registered, as those of any Keras model; it
            needs no `Lambda`.
        image_size: (height, width) in pixels; by default the size that the
            network's ImageNet weights were trained at, or that of your network's
            input.
        pooling: None for the grid of features, one vector per image position;
            "avg" for their mean, one vector per image.
        weights: "imagenet" (downloaded by Keras, or shipped with captioner for
            EfficientNet-Lite), the path of a `.weights.h5` file, or None for
            random ones. A network of your own keeps those that it has.
        trainable: whether the network learns in `fit`; see also `unfreeze`.

    Input: float32 (B, H, W, 3), RGB, 0 to 255.
    Output: float32 (B, P, E); P is 1 with `pooling="avg"`.

    Raises:
        ValueError: unknown `architecture` or `pooling`, the weights are those
            of another network, or a network of your own has another input or output.
        OSError: the weights cannot be found, read or downloaded.

    Example:

    >>> import numpy as np
    >>> backbone = VisionBackbone("vgg16", image_size=(64, 64), weights=None)
    >>> backbone(np.zeros((1, 64, 64, 3), "float32")).shape
    TensorShape([1, 4, 512])
    >>> own = keras.Sequential([
    ...     keras.Input((64, 64, 3)), keras.layers.Rescaling(1 / 255),
    ...     keras.layers.Conv2D(32, 3, strides=16, activation="relu")])
    >>> VisionBackbone(own).feature_shape
    (16, 32)
    """

    def __init__(
        self,
        architecture,
        image_size=None,
        pooling=None,
        weights="imagenet",
        trainable=False,
        **kwargs,
    ):
        if pooling not in (None, "avg"):
            raise ValueError(
                f"pooling must be None or 'avg'. Received: pooling={pooling}"
            )
        check_settings()
        own = isinstance(architecture, keras.Model)
        if not own and architecture not in backbone_names():
            raise ValueError(
                f"architecture must be one of {', '.join(backbone_names())}, or a "
                f"keras.Model. Received: architecture={architecture}"
            )
        super().__init__(**kwargs)
        if own:
            self.architecture = architecture.name
            self.network, self.normalize = architecture, _as_they_are
            self.image_size, grid_shape = network_grid(architecture, image_size)
        else:
            self.architecture = architecture
            if image_size is None:
                image_size = (default_image_side(architecture),) * 2
            self.image_size = tuple(image_size)
            self.network, self.normalize = _build_network(
                architecture, (*self.image_size, 3), weights
            )
            grid_shape = self.network.output_shape[1:]
        self.is_own_network = own
        self.pooling = pooling
        # After the network exists, so that freezing reaches its layers.
        self.trainable = trainable
        height, width, channels = grid_shape
        self.grid = (height, width)
        self.feature_shape = (1 if pooling else height * width, channels)
        self.built = True

    def call(self, images, training=None):
        features = self.network(self.normalize(images), training=training)
        _, height, width, channels = features.shape
        features = keras.ops.reshape(features, (-1, height * width, channels))
        if self.pooling == "avg":
            features = keras.ops.mean(features, axis=1, keepdims=True)
        return features

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.feature_shape)

    def unfreeze(self, number):
        """Make the last layers trainable and freeze all others.

        Normalisation layers stay frozen: their statistics come from far more photos
        than a captioner is trained on.

        Args:
            number: number of layers with a kernel; 0 freezes the whole network.

        Raises:
            ValueError: the network has fewer.

        Example:

        >>> backbone = VisionBackbone("vgg16", image_size=(32, 32), weights=None)
        >>> backbone.unfreeze(3)
        >>> [weight.path for weight in backbone.trainable_weights][::2]
        ['block5_conv1/kernel', 'block5_conv2/kernel', 'block5_conv3/kernel']
        """
        layers = [
            layer
            for layer in self.network.layers
            if any(len(weight.shape) > 1 for weight in layer.weights)
        ]
        if number > len(layers):
            raise ValueError(
                f"{self.architecture} has {len(layers)} layers to train. "
                f"Received: {number}"
            )
        self.trainable = number > 0
        learning = {id(layer) for layer in layers[len(layers) - number :]}
        for layer in self.network.layers:
            layer.trainable = id(layer) in learning

    def fingerprint(self):
        """A sha256 of the configuration and of every weight: it changes if the same
        photo gives other features."""
        digest = hashlib.sha256(
            f"{self.architecture} {self.image_size} {self.pooling}".encode()
        )
        if self.is_own_network:
            config = keras.saving.serialize_keras_object(self.network)
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for weight in self.network.weights:
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
        return digest.hexdigest()

    def get_config(self):
        # The weights lie beside the configuration, in the preset's weights file.
        architecture = self.architecture
        if self.is_own_network:
            architecture = keras.saving.serialize_keras_object(self.network)
            architecture.pop("compile_config", None)
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "architecture": architecture,
            "image_size": self.image_size,
            "pooling": self.pooling,
            "weights": None,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config):
        """The network that `get_config` describes, with random weights.

        A configuration names no file and no download to take weights from, whatever it
        holds; and no class but Keras' own and those that are registered.
        """
        config = {**config, "weights": None}
        if isinstance(config["architecture"], dict):
            config["architecture"] = deserialize_network(config["architecture"])
        return cls(**config)


def default_image_side(architecture):
    """The side, in pixels, of the photos that a network was trained with."""
    if architecture in efficientnet_lite.IMAGE_SIZES:
        return efficientnet_lite.IMAGE_SIZES[architecture]
    return KERAS_APPLICATIONS[architecture][2]


def _build_network(architecture, input_shape, weights):
    if architecture in efficientnet_lite.IMAGE_SIZES:
        network = efficientnet_lite.efficientnet_lite(architecture, input_shape)
        if weights == "imagenet":
            preset = presets.find_preset(f"{architecture}_imagenet")
            presets.verify_preset(preset)
            weights = preset / presets.WEIGHTS_FILE
        if weights is not None:
            _load_weights(network, weights)
        return network, _normalize_lite
    constructor, module, _ = KERAS_APPLICATIONS[architecture]
    try:
        network = getattr(keras.applications, constructor)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=input_shape,
        )
    except Exception as error:
        if type(error) is not Exception:  # which Keras raises for a failed download
            raise
        raise OSError(
            f"The ImageNet weights of {architecture} cannot be downloaded ({error}). "
            "Connect to the network, or give the path of a .weights.h5 file as weights."
        ) from error
    if weights not in (None, "imagenet"):
        _load_weights(network, weights)
    return network, getattr(keras.applications, module).preprocess_input


def _as_they_are(images):
    return images


def _normalize_lite(images):
    return (images - 127.0) / 128.0


def _load_weights(network, path):
    try:
        with warnings.catch_warnings():
            # Keras has one for each layer that does not fit, before it gives up.
            warnings.simplefilter("ignore", UserWarning)
            network.load_weights(str(path))
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"The weights cannot be read ({reason}). Received: weights={path}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"The weights do not fit {network.name}. Received: weights={path}"
        ) from error
