"""Small JPEGs of photos, and how a page holds them."""

import base64

import cv2


def make_thumbnail(pixels, longest_side=240):
    """uint8 RGB (H, W, 3) -> the bytes of a small JPEG, never larger than the photo.

    Example:

    >>> import numpy as np
    >>> make_thumbnail(np.zeros((480, 640, 3), "uint8"))[:3]
    b'\\xff\\xd8\\xff'
    """
    size = thumbnail_size(*pixels.shape[:2], longest_side)
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 75]
    return cv2.imencode(".jpg", pixels[..., ::-1], quality)[1].tobytes()


def thumbnail_size(height, width, longest_side=240):
    """The width and height, in pixels, of the thumbnail of a photo.

    Example:

    >>> thumbnail_size(480, 640)
    (240, 180)
    """
    scale = min(1.0, longest_side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


class JpegUri(str):
    """The `data:` URI of a JPEG, for the `src` of an image in a page.

    Args:
        jpeg: bytes.
        size: its width and height in pixels, where they are known.

    Example:

    >>> JpegUri(b"abc")
    'data:image/jpeg;base64,YWJj'
    """

    def __new__(cls, jpeg, size=None):
        uri = super().__new__(
            cls, "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        )
        uri.size = size
        return uri
