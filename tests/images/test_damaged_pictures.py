"""Damaged files of every format: an `ImageError` or pixels, and nothing else.

The files are decoded in a process of its own with little memory, since a decoder that
crashes is to fail the test and not to end it.
"""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats import (
    GREY,
    PILLOW_IMAGES,
    RGB,
    RGBA,
    bmp,
    bmp_rows,
    packed,
    planes,
    psd,
    saved,
    text,
    tiff,
)

# A process that answers for each file: whether there are pixels, or what went wrong.
DECODE = """
import resource, signal, struct, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from captioner.images.image_files import ImageError, load_image
files, answers = sys.stdin.buffer, sys.stdout.buffer
while size := files.read(8):
    data = files.read(struct.unpack("<Q", size)[0])
    signal.alarm(120)  # ends the process if a decoder hangs
    try:
        pixels = load_image(data)
        assert pixels.dtype == "uint8" and pixels.ndim == 3 and pixels.shape[2] == 3
        answer = "pixels"
    except ImageError as error:
        answer = "error" if "\\n" not in str(error) else "more than a line"
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    body = answer.encode(errors="replace")
    answers.write(struct.pack("<Q", len(body)) + body)
    answers.flush()
"""


class Decoder:
    """Decodes files in another process, which is started anew after a crash."""

    def __init__(self):
        self.process = None

    def __call__(self, data):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DECODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": str(2**24)},
            )
        self.process.stdin.write(struct.pack("<Q", len(data)) + data)
        self.process.stdin.flush()
        size = self.process.stdout.read(8)
        if len(size) < 8:
            code, self.process = self.process.wait(), None
            return f"the process ended with code {code}"
        return self.process.stdout.read(struct.unpack("<Q", size)[0]).decode()

    def close(self):
        """End it; what it wrote to stderr."""
        process, self.process = self.process, None
        return process.communicate()[1] if process else b""


@pytest.fixture(scope="module")
def decode():
    decoder = Decoder()
    yield decoder
    assert decoder.close() == b""


def whole_files():
    """One small file of every format and of many kinds."""
    for name, modes in {
        "PNG": "1 LA P16 RGBA I;16",
        "JPEG": "L RGB CMYK",
        "GIF": "L P16 RGBA",
        "WEBP": "RGB RGBA",
        "AVIF": "RGB",
        "TIFF": "1 LA P16 RGB I;16",
        "TGA": "L P256 RGBA",
        "ICO": "L RGBA",
        "PCX": "1 P16 RGB",
        "DDS": "L RGBA",
        "QOI": "RGBA",
        "PPM": "1 RGB",
        "JPEG2000": "L RGBA",
    }.items():
        for mode in modes.split():
            yield saved(mode, name)
    yield saved("RGB", "TGA", compression="tga_rle")
    yield saved("RGBA", "DDS", pixel_format="DXT5")
    yield saved("RGBA", "ICO", bitmap_format="bmp")
    yield saved("RGB", "MPO", save_all=True, append_images=[PILLOW_IMAGES["RGB"]])
    for compression in ("tiff_lzw", "zstd", "lzma", "jpeg"):
        yield saved("RGB", "TIFF", compression=compression)
    yield tiff(planes(RGB, ">"), 16, 2, 3, ">", planar=2)
    yield tiff(planes(RGB, "<"), 16, 2, 3, big=True, planar=2)
    yield tiff([packed(GREY >> 4, 4)], 4, 3, 1, palette=[0] * 48)
    yield bmp(8, bmp_rows(GREY, 8), bytes(768), 12)
    yield bmp(24, bmp_rows(RGB, 24))
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF << 24)
    yield bmp(32, bmp_rows(RGBA, 32), b"", 124, 3, masks)
    yield psd(3, np.moveaxis(RGB, -1, 0))
    yield b"P2\n41 30\n99\n" + text(GREY % 99)
    yield b"P7\nWIDTH 41\nHEIGHT 30\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + RGB.tobytes()
    yield b"PF\n41 30\n-1.0\n" + (RGB / 255).astype("f4").tobytes()
    yield b"\0\0\2\0" + saved("RGBA", "ICO", bitmap_format="bmp")[4:]  # a cursor
    yield b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)


FILES = list(whole_files())


@st.composite
def damaged_files(draw):
    """A file with some wrong bytes, most of them in its header, perhaps cut short."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 6))):
        last = draw(st.sampled_from((40, 200, len(data)))) - 1
        at = draw(st.integers(0, min(last, len(data) - 1)))
        width = draw(st.sampled_from((1, 2, 4)))
        # Sizes and places that are none, all, negative or just too large.
        value = draw(
            st.one_of(
                st.binary(min_size=width, max_size=width),
                st.sampled_from((b"\0" * width, b"\xff" * width)),
                st.just(b"\x7f" + b"\xff" * (width - 1)),
            )
        )
        data[at : at + width] = value
    if draw(st.booleans()):
        del data[draw(st.integers(1, len(data))) :]
    return bytes(data)


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_whole_file_is_read(decode, number):
    answer = decode(FILES[number])
    assert answer == ("pixels" if number < len(FILES) - 1 else "error")


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def check_damaged(decode, data):
    assert decode(data) in ("pixels", "error")


@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
@given(data=damaged_files())
def test_a_damaged_file_is_an_image_error_or_pixels(decode, data):
    check_damaged(decode, data)


@pytest.mark.fuzz
@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=CHECKS)
@given(data=damaged_files())
def test_many_damaged_files_are_image_errors_or_pixels(decode, data):
    check_damaged(decode, data)
