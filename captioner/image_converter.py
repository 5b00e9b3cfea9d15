"""Image files, bytes or arrays in; float32 RGB of one size out."""

import os

# Read once by OpenCV, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**31 - 1))

import cv2  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


class ImageError(ValueError):
    """One picture cannot be used: one line that names it, and a `kind`."""

    def __init__(self, name, kind, reason):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.kind = kind


@keras.saving.register_keras_serializable(package="captioner")
class ImageConverter(keras.layers.Layer):
    """Resize RGB pictures to one size."""

    def __init__(
        self,
        image_size=(224, 224),
        resize_mode="squash",
        interpolation="bilinear",
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, trainable=False, **kwargs)
        self.image_size = tuple(image_size)
        self.resize_mode = resize_mode
        self.interpolation = interpolation

    def call(self, images):
        images = tf.cast(images, tf.float32)
        height, width = (tf.constant(side, tf.int64) for side in self.image_size)
        size = tf.shape(images, out_type=tf.int64)
        in_height, in_width = size[-3], size[-2]
        if self.resize_mode == "squash":
            images = self._resize(images, self.image_size)
        else:
            # Whole numbers, so that eager and graph never differ by a rounding.
            by_width = (2 * in_height * width + in_width) // (2 * in_width)
            by_height = (2 * in_width * height + in_height) // (2 * in_height)
            tall = in_height * width >= in_width * height
            use_width = tall if self.resize_mode == "crop" else ~tall
            new_height = tf.where(use_width, tf.maximum(by_width, 1), height)
            new_width = tf.where(use_width, width, tf.maximum(by_height, 1))
            images = self._resize(images, (new_height, new_width))
            images = tf.image.resize_with_crop_or_pad(images, *self.image_size)
        return tf.ensure_shape(images, images.shape[:-3] + (*self.image_size, 3))

    def _resize(self, images, size):
        return tf.image.resize(
            images,
            tf.cast(tf.stack(size), tf.int32),
            self.interpolation,
            antialias=True,
        )

    def decode(self, image_bytes):
        image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        return tf.ensure_shape(image, (None, None, 3))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], *self.image_size, 3)

    def get_config(self):
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "resize_mode": self.resize_mode,
            "interpolation": self.interpolation,
        }


def load_image(source):
    """Read a picture as uint8 RGB of shape (H, W, 3)."""
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, bytes):
        name, data = "image bytes", source
    else:
        name = os.fspath(source)
        with open(name, "rb") as file:
            data = file.read()
    if not data:
        raise ImageError(name, "empty", "the file is empty")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ImageError(name, "not_an_image", "not an image of a known format")
    return image
