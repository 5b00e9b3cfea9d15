"""Pictures in; float32 RGB pictures of one size out, with the same ops everywhere.

Shape letters: B batch, H W pixels.
"""

import operator

import keras
import tensorflow as tf

from captioner.images.image_decoder import decode_image

RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@keras.saving.register_keras_serializable(package="captioner")
class ImageConverter(keras.layers.Layer):
    """Resizes RGB pictures to one size, with TensorFlow ops only.

    The same picture gives exactly the same floats eagerly, in `tf.data` and in an
    exported graph. A picture that has the size already comes out unchanged.

    Args:
        image_size: pair of ints, the height and width that come out, in pixels.
        resize_mode: "squash" stretches to the size; "crop" scales until the
            picture covers the size and cuts out the centre; "pad" scales until
            it fits inside and centres it on black.
        interpolation: "nearest", "bilinear" or "bicubic". Shrinking is
            antialiased, except with "nearest".
        **kwargs: passed to `keras.layers.Layer`.

    Call arguments:
        images: `(H, W, 3)` or `(B, H, W, 3)`, any real dtype, RGB of 0 to 255; of a
            file, what `load_image(path, converter.image_size)` gives.

    Returns:
        float32 tensor of the same rank, RGB of 0 to 255.

    Raises:
        ValueError: an argument is not one of the above.

    Example:

    >>> converter = ImageConverter(image_size=(224, 224), resize_mode="crop")
    >>> converter(np.zeros((480, 640, 3), "uint8")).shape
    TensorShape([224, 224, 3])
    """

    def __init__(
        self,
        image_size=(224, 224),
        resize_mode="squash",
        interpolation="bilinear",
        **kwargs,
    ):
        # Pixels stay float32 under a global policy of mixed precision.
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        try:
            height, width = (operator.index(side) for side in image_size)
        except (TypeError, ValueError):
            height = width = 0
        if height < 1 or width < 1:
            raise ValueError(
                "`image_size` must be two positive integers, (height, width). "
                f"Received: image_size={image_size}"
            )
        if resize_mode not in RESIZE_MODES:
            raise ValueError(
                f"`resize_mode` must be one of {RESIZE_MODES}. "
                f"Received: resize_mode={resize_mode}"
            )
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {INTERPOLATIONS}. "
                f"Received: interpolation={interpolation}"
            )
        self.image_size = (height, width)
        self.resize_mode = resize_mode
        self.interpolation = interpolation

    def call(self, images):
        if len(images.shape) not in (3, 4) or images.shape[-1] not in (3, None):
            raise ValueError(
                "`images` must have shape (H, W, 3) or (B, H, W, 3). "
                f"Received: images.shape={tuple(images.shape)}"
            )
        # Resizing takes bytes as they are, and gives the same floats; a copy of a large
        # photo as floats would take four times its memory.
        if images.dtype != tf.uint8:
            images = tf.cast(images, tf.float32)
        if self.resize_mode == "squash":
            size = self.image_size
        else:
            size = self._scaled_size(tf.shape(images, out_type=tf.int64))
        images = tf.image.resize(images, size, self.interpolation, antialias=True)
        if self.resize_mode != "squash":
            images = tf.image.resize_with_crop_or_pad(images, *self.image_size)
        # Bicubic overshoots at edges.
        images = tf.clip_by_value(tf.cast(images, tf.float32), 0.0, 255.0)
        return tf.ensure_shape(images, (*images.shape[:-3], *self.image_size, 3))

    def _scaled_size(self, shape):
        """The size that covers (crop) or fits inside (pad) the image size."""
        from_height, from_width = shape[-3], shape[-2]
        height, width = (tf.constant(side, tf.int64) for side in self.image_size)
        # Rounded in whole numbers, which are the same eagerly and in every graph.
        by_width = (2 * from_height * width + from_width) // (2 * from_width)
        by_height = (2 * from_width * height + from_height) // (2 * from_height)
        tall = from_height * width >= from_width * height
        fill_width = tall if self.resize_mode == "crop" else ~tall
        size = (
            tf.where(fill_width, tf.maximum(by_width, 1), height),
            tf.where(fill_width, width, tf.maximum(by_height, 1)),
        )
        return tf.cast(tf.stack(size), tf.int32)

    def decode(self, image_bytes):
        """Decodes an image file inside a graph, with core TensorFlow ops only.

        Reads JPEG, PNG, BMP, the first frame of a GIF and, where TensorFlow
        does, a still WebP. The pixels are those of `load_image` for this size: a
        JPEG that is much larger is decoded at a fraction of its size.

        Args:
            image_bytes: scalar string tensor, a whole image file.

        Returns:
            uint8 tensor of shape `(H, W, 3)`, RGB, upright.

        Raises:
            tf.errors.InvalidArgumentError: the bytes are not such a file.

        Example:

        >>> converter = ImageConverter()
        >>> images = converter(converter.decode(tf.io.read_file("photo.jpg")))
        """
        return decode_image(image_bytes, self.image_size)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], *self.image_size, 3)

    def get_config(self):
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "resize_mode": self.resize_mode,
            "interpolation": self.interpolation,
        }
