"""The size of a picture, from the beginning of its file."""

import struct

import cv2
import numpy as np
import pytest

from captioner.images.picture_size import picture_size

SUFFIXES = ".jpg .png .gif .bmp .webp .tiff .jp2 .avif".split()


def encode(suffix, *parameters, shape=(123, 45, 3)):
    noise = np.random.default_rng(0).integers(0, 255, shape, "uint8")
    return cv2.imencode(suffix, noise, parameters)[1].tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_says_its_size(suffix):
    assert picture_size(encode(suffix)) == (123, 45)


def test_forms_of_formats():
    lossless = encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
    assert picture_size(lossless) == (123, 45)
    extended = b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\x2c\0\0\x7a\0\0"
    assert picture_size(extended) == (123, 45)
    padded = encode(".jpg").replace(b"\xff\xe0", b"\xff\xff\xff\xe0", 1)
    assert picture_size(padded) == (123, 45)
    progressive = encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert picture_size(progressive) == (123, 45)
    bitmap = bytearray(encode(".bmp"))
    bitmap[22:26] = struct.pack("<i", -123)
    assert picture_size(bitmap) == (123, 45)
    big = struct.pack(">2sHIH", b"MM", 42, 8, 2)
    big += struct.pack(">HHIHH", 256, 3, 1, 45, 0) + struct.pack(
        ">HHII", 257, 4, 1, 123
    )
    assert picture_size(big) == (123, 45)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_picture_or_damaged_has_none_or_some(suffix):
    data = encode(suffix)
    for end in range(0, min(len(data), 300)):
        size = picture_size(data[:end])
        assert size is None or min(size) > 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 100), 5):
            damaged[at] = rng.integers(0, 256)
        size = picture_size(bytes(damaged))
        assert size is None or min(size) > 0


def test_not_known():
    for data in (b"", b"P6 45 123 255 ", b"not a picture", b"\xff\xd8\xff\xd9"):
        assert picture_size(data) is None
