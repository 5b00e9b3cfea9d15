"""EfficientNet-Lite 0, 1 and 2: EfficientNets made for phones and for quantising.

They differ from EfficientNet in three ways: no squeeze-and-excitation, ReLU6 where
swish was, and a stem, a head and a first and last stage that do not grow with the
network. `keras.applications` has no such family, so it is built here.
"""

import math

import keras
from keras import layers

#: The side in pixels at which each network was trained.
IMAGE_SIZES = {
    "efficientnet_lite0": 224,
    "efficientnet_lite1": 240,
    "efficientnet_lite2": 260,
}

# Width multiplier (channels) and depth multiplier (repeats of a block).
_MULTIPLIERS = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}

# One stage a row: repeats, kernel size, stride, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

_STEM_FILTERS = 32
_HEAD_FILTERS = 1280


def efficientnet_lite(name, input_shape=(260, 260, 3)):
    """Builds an EfficientNet-Lite without its classifier, randomly initialised.

    The input is float32 of shape `(B, H, W, 3)`, RGB, already normalised as
    `(x - 127) / 128` from 0..255. The output is the feature map of the head (1x1
    convolution, batch norm, ReLU6) of shape `(B, ceil(H / 32), ceil(W / 32), 1280)`,
    each value in 0..6: 7x7, 8x8 and 9x9 positions at the sizes of `IMAGE_SIZES`.

    The original drops whole blocks at random while it trains ("drop connect"); this
    one does not, which is the same network at inference and with frozen weights.

    Args:
        name: str. One of `IMAGE_SIZES`; also the name of the model.
        input_shape: tuple. `(H, W, 3)`; H and W may be `None` for any size.

    Returns:
        A functional `keras.Model`. Its layers are named `stem_conv`, `stem_bn`,
        `stem_relu6`, then `block1a_expand_conv` and so on, and last `head_relu6`.

    Raises:
        ValueError: an unknown name, or an input that is not `(H, W, 3)`.

    Reference:
        Tan and Le, EfficientNet (https://arxiv.org/abs/1905.11946), and the Lite
        variants in
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

    Example:

    ```python
    model = efficientnet_lite("efficientnet_lite0", input_shape=(224, 224, 3))
    model.load_weights("model.weights.h5")
    image = (keras.random.uniform((1, 224, 224, 3), 0, 255) - 127) / 128
    image_features = model(image)  # (1, 7, 7, 1280)
    ```
    """
    if name not in IMAGE_SIZES:
        raise ValueError(
            f"`name` must be one of {', '.join(IMAGE_SIZES)}. Received: name={name!r}"
        )
    if len(input_shape) != 3 or input_shape[-1] != 3:
        raise ValueError(
            "`input_shape` must be (height, width, 3). "
            f"Received: input_shape={input_shape}"
        )
    width, depth = _MULTIPLIERS[name]

    image = keras.Input(shape=input_shape, name="image")
    x = _conv(image, _STEM_FILTERS, kernel_size=3, strides=2, name="stem")
    for stage, (repeats, kernel_size, stride, expansion, filters) in enumerate(_STAGES):
        # The first and the last stage keep their depth, like stem and head.
        if 0 < stage < len(_STAGES) - 1:
            repeats = math.ceil(repeats * depth)
        for repeat in range(repeats):
            x = _block(
                x,
                filters=_round_filters(filters * width),
                kernel_size=kernel_size,
                strides=stride if repeat == 0 else 1,
                expansion=expansion,
                name=f"block{stage + 1}{chr(ord('a') + repeat)}",
            )
    x = _conv(x, _HEAD_FILTERS, kernel_size=1, strides=1, name="head")
    return keras.Model(image, x, name=name)


def _round_filters(filters, divisor=8):
    """The multiple of `divisor` nearest to `filters`, never more than 10 % below."""
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * filters else rounded


def _conv(x, filters, kernel_size, strides, name):
    """Convolution, batch norm, ReLU6."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = _batch_norm(x, name=f"{name}_bn")
    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x)


def _block(x, filters, kernel_size, strides, expansion, name):
    """Inverted bottleneck: expand 1x1, filter each channel, project 1x1 (linear)."""
    inputs = x
    if expansion != 1:
        x = _conv(x, x.shape[-1] * expansion, 1, 1, name=f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise_conv",
    )(x)
    x = _batch_norm(x, name=f"{name}_depthwise_bn")
    x = layers.ReLU(max_value=6.0, name=f"{name}_depthwise_relu6")(x)
    x = layers.Conv2D(
        filters,
        1,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_project_conv",
    )(x)
    x = _batch_norm(x, name=f"{name}_project_bn")
    if strides == 1 and inputs.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _batch_norm(x, name):
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)
