import concurrent.futures
import ctypes
import io
import os
import pathlib
import pickle
import struct
import sys
import zlib

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from captioner.images.image_converter import ImageConverter
from captioner.images.image_decoder import why_not_decoded
from captioner.images.image_files import ImageError, jpeg_scale, load_image

PHOTOS = pathlib.Path(__file__).parents[2] / "../shared/flickr8k/Flicker8k_Dataset"
WHITE = (255, 255, 255)
UPRIGHT = {  # from the pixels as stored to the picture as seen, by EXIF orientation
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


def picture(height=30, width=41, channels=3, dtype="uint8", seed=0):
    """Soft coloured noise."""
    noise = np.random.default_rng(seed).random((height, width, channels))
    soft = cv2.GaussianBlur(noise, (5, 5), 0).reshape(height, width, channels)
    return (soft * np.iinfo(dtype).max).astype(dtype)


def encode(image, extension, *params):
    """RGB or RGBA or grey array -> file."""
    if image.ndim == 3 and image.shape[-1] > 2:
        image = image[..., [2, 1, 0, 3][: image.shape[-1]]]
    return cv2.imencode(extension, image, params)[1].tobytes()


def exif(orientation, order="little"):
    sign = "<" if order == "little" else ">"
    head = struct.pack(sign + "2sHI", b"II" if sign == "<" else b"MM", 42, 8)
    make = struct.pack(sign + "HHI4s", 0x010F, 2, 4, b"abc\0")
    entry = struct.pack(sign + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return head + struct.pack(sign + "H", 2) + make + entry + bytes(4)


def jpeg_with(block, jpeg):
    body = b"Exif\0\0" + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def chunk(tag, body):
    return (
        struct.pack(">I", len(body))
        + tag
        + body
        + struct.pack(">I", zlib.crc32(tag + body))
    )


def png(rows, width, height, depth, colour_type, *chunks):
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", pixels),
            chunk(b"IEND", b""),
        )
    )


def png_with(block, file):
    return file[:33] + chunk(b"eXIf", block) + file[33:]


def webp_with(block, image):
    file = encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)  # lossless
    height, width = image.shape[:2]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<IB3x", 10, 0x08) + size + file[12:]
    chunks += b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def tiff(image, orientation=1):
    """An uncompressed TIFF; a fourth channel is alpha that is not multiplied in."""
    height, width, channels = image.shape
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 1, 8),  # one value for all channels, as many readers accept
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, image.nbytes),
        *([(338, 3, 1, 2)] if channels == 4 else []),
    ]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHI", b"II", 42, 8 + image.nbytes)
    return head + image.tobytes() + struct.pack("<H", len(entries)) + table + bytes(4)


def cmyk_jpeg(stored, adobe):
    """A JPEG of 8 x 8 pixels of one colour, its four channels stored as given."""

    def segment(marker, body):
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    bits = ""
    for value in stored:  # one DC coefficient each: its size, its bits, end of block
        level = int(value) - 128
        size = abs(level).bit_length()
        level += (1 << size) - 1 if level < 0 else 0
        bits += f"{size:04b}" + (f"{level:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    channels = b"".join(bytes((i, 0x11, 0)) for i in range(1, 5))
    dc = bytes((0x00, 0, 0, 0, 9, *[0] * 12, *range(9)))
    ac = bytes((0x10, 1, *[0] * 15, 0))
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") if adobe else b"",
            segment(0xDB, b"\0" + b"\x08" * 64),
            segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + channels),
            segment(0xC4, dc),
            segment(0xC4, ac),
            segment(
                0xDA, b"\4" + b"".join(bytes((i, 0)) for i in range(1, 5)) + b"\0?\0"
            ),
            scan,
            b"\xff\xd9",
        )
    )


def animation(extension, frames):
    film = cv2.Animation()
    film.frames = [frame[..., ::-1] for frame in frames]
    film.durations = [100] * len(frames)
    return cv2.imencodeanimation(extension, film)[1].tobytes()


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def decode(image_bytes):
    return ImageConverter().decode(image_bytes)


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def why_not(image_bytes):
    return why_not_decoded(image_bytes)


def read_both(file):
    """The pixels of a file, which are the same for OpenCV and in the graph."""
    image = load_image(file)
    np.testing.assert_array_equal(decode(file), image)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    return image


# Resizing ---------------------------------------------------------------------------


def bands(height, width, axis):
    """Red, green, blue in thirds along an axis."""
    image = np.zeros((height, width, 3), "uint8")
    for channel, part in enumerate(np.array_split(image, 3, axis=axis)):
        part[..., channel] = 255
    return image


@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_squash_crop_and_pad(shape):
    axis = int(shape[1] > shape[0])
    image = bands(*shape, axis)

    def across(mode):  # 30 positions along the long side, through the middle
        result = ImageConverter((30, 30), mode, "nearest")(image).numpy()
        assert result.shape == (30, 30, 3) and result.dtype == np.float32
        return result[15] if axis else result[:, 15]

    red, green, blue = np.eye(3) * 255
    np.testing.assert_array_equal(
        across("squash")[[0, 9, 10, 19, 20, 29]], [red, red, green, green, blue, blue]
    )
    np.testing.assert_array_equal(across("crop"), [green] * 30)
    np.testing.assert_array_equal(
        across("pad")[[0, 9, 10, 19, 20, 29]], [red, red, green, green, blue, blue]
    )
    padded = ImageConverter((30, 30), "pad", "nearest")(image).numpy()
    padded = padded if axis else padded.swapaxes(0, 1)
    assert padded[10:20].any(axis=-1).all()
    assert not padded[:10].any() and not padded[20:].any()


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_right_size_is_left_alone(mode, interpolation):
    image = picture(24, 31)
    converter = ImageConverter((24, 31), mode, interpolation)
    dynamic = tf.function(
        converter, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)]
    )
    np.testing.assert_array_equal(converter(image), image)
    np.testing.assert_array_equal(dynamic(image), image)
    np.testing.assert_array_equal(converter(image.astype("float64")), image)


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (37, 53), (500, 333)])
def test_every_shape_in_every_way_to_run(mode, shape):
    image = picture(*shape)
    converter = ImageConverter((20, 26), mode)
    eager = converter(image).numpy()
    graph = tf.function(
        converter, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)]
    )
    dataset = tf.data.Dataset.from_tensors(image).map(converter)
    batched = converter(np.stack([image, image[::-1]]))
    assert dataset.element_spec.shape == (20, 26, 3)
    assert 0 <= eager.min() and eager.max() <= 255
    np.testing.assert_array_equal(graph(image), eager)
    np.testing.assert_array_equal(next(iter(dataset)), eager)
    np.testing.assert_array_equal(batched[0], eager)
    np.testing.assert_array_equal(converter(image.astype("float32")), eager)


def test_shrinking_averages():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    checks = np.repeat(checks[..., None], 3, axis=-1)
    result = ImageConverter((8, 8))(checks).numpy()
    assert np.abs(result - 127.5).max() < 8


def test_pixels_are_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        result = ImageConverter((30, 41))(np.full((30, 41, 3), 254.9, "float32"))
    finally:
        keras.config.set_dtype_policy(policy)
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, np.float32(254.9))


def test_in_a_keras_model_and_back_from_its_config():
    converter = ImageConverter([20, 26], "crop", "bicubic", name="images")
    config = keras.saving.serialize_keras_object(converter)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == converter.get_config()
    assert copy.image_size == (20, 26) and copy.name == "images"
    inputs = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(inputs, copy(inputs))
    assert model.output_shape == (None, 20, 26, 3)
    image = picture()
    np.testing.assert_array_equal(model(image[None])[0], converter(image))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 224}, "image_size=224"),
        ({"image_size": (224,)}, "image_size="),
        ({"image_size": (0, 224)}, "image_size="),
        ({"image_size": (224.5, 224)}, "image_size="),
        ({"resize_mode": "stretch"}, "resize_mode=stretch"),
        ({"interpolation": "cubic"}, "interpolation=cubic"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        ImageConverter(**arguments)


@pytest.mark.parametrize("shape", [(30, 41), (30, 41, 4), (1, 2, 30, 41, 3)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="Received: images.shape="):
        ImageConverter()(np.zeros(shape))


# Files ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation, order):
    image = picture()
    block = exif(orientation, order)
    jpeg = encode(image, ".jpg")
    for file, stored in [
        (jpeg_with(block, jpeg), load_image(jpeg)),
        (png_with(block, encode(image, ".png")), image),
        (webp_with(block, image), image),
        (webp_with(b"Exif\0\0" + block, image), image),
    ]:
        np.testing.assert_array_equal(read_both(file), UPRIGHT[orientation](stored))
    file = tiff(image, orientation)
    np.testing.assert_array_equal(load_image(file), UPRIGHT[orientation](image))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_avif_is_turned_as_its_properties_say(orientation):
    Image = pytest.importorskip("PIL.Image")
    image = bands(40, 60, 1)
    image[:20] //= 2
    block = Image.Exif()
    block[0x0112] = orientation
    file = io.BytesIO()
    # Pillow does not keep the EXIF orientation, but turns it into these properties.
    Image.fromarray(image).save(file, "AVIF", exif=block, quality=100)
    found = load_image(file.getvalue()).astype(int)
    expected = UPRIGHT[orientation](image)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 12


def test_heic():
    Image = pytest.importorskip("PIL.Image")
    pillow_heif = pytest.importorskip("pillow_heif")
    image, file = bands(40, 60, 1), io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(image)).save(file, quality=100)
    assert np.abs(load_image(file.getvalue()).astype(int) - image).mean() < 12
    for size in (len(file.getvalue()) // 2, 40):
        with pytest.raises(ImageError) as caught:
            load_image(file.getvalue()[:size])
        assert caught.value.kind == "truncated"


def test_heic_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install captioner\[heic\]") as caught:
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert caught.value.kind == "unsupported"


def test_jpeg_2000():
    image = picture().repeat(3, axis=0).repeat(3, axis=1)  # none of a few pixels
    file = encode(image, ".jp2", cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)
    np.testing.assert_array_equal(load_image(file), image)
    with pytest.raises(ImageError, match="JPEG 2000") as caught:
        load_image(file[: len(file) // 2])
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("extension", [".avif", ".ppm", ".bmp"])
def test_what_is_cut_short_is_told_by_its_format(extension):
    file = encode(picture(), extension)
    for size in (len(file) // 2, 40):
        with pytest.raises(ImageError, match="truncated") as caught:
            load_image(file[:size])
        assert caught.value.kind == "truncated"


def test_exif_orientation_agrees_with_opencv():
    for orientation in UPRIGHT:
        file = jpeg_with(exif(orientation), encode(picture(), ".jpg"))
        other = cv2.imdecode(np.frombuffer(file, "uint8"), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(load_image(file), other)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        b"junk" * 9,
        exif(0),
        exif(9),
        exif(65535),
        exif(6)[:10],
        exif(6)[:24],
        exif(6)[:8] + b"\xff\xff" + b"\1" * 20,
        exif(6)[:4] + b"\xff\xff\xff\xff" + exif(6)[8:],
        exif(6).replace(b"\x12\x01\x03\0", b"\x12\x01\x05\0"),
    ],
)
def test_damaged_exif_is_ignored(block):
    jpeg = encode(picture(), ".jpg")
    expected = load_image(jpeg)
    np.testing.assert_array_equal(read_both(jpeg_with(block, jpeg)), expected)
    file = png_with(block, encode(picture(), ".png"))
    np.testing.assert_array_equal(read_both(file), picture())


def test_the_first_exif_block_counts_and_padding_is_skipped():
    jpeg = encode(picture(), ".jpg")
    expected = np.rot90(load_image(jpeg), -1)
    file = jpeg_with(exif(6), jpeg_with(exif(3), jpeg))
    np.testing.assert_array_equal(read_both(file), expected)
    padded = jpeg[:2] + b"\xff\xff\xff" + jpeg_with(exif(6), jpeg)[2:]
    np.testing.assert_array_equal(read_both(padded), expected)
    # A marker that lies about its length must not make the walk go wrong or on.
    xmp = (
        b"\xff\xe1"
        + struct.pack(">H", 40)
        + b"http://ns.adobe.com/xap/1.0/\0".ljust(38)
    )
    file = jpeg[:2] + xmp + jpeg_with(exif(6), jpeg)[2:]
    np.testing.assert_array_equal(read_both(file), expected)


@pytest.mark.parametrize("extension", [".png", ".bmp", ".jpg", ".webp"])
def test_rgb_and_grey(extension):
    image = picture()
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == ".webp" else []
    tolerance = 60 if extension == ".jpg" else 0
    grey = np.repeat(image[..., :1], 3, axis=-1)
    for stored, expected in [(image, image), (grey[..., 0], grey)]:
        result = read_both(encode(stored, extension, *lossless)).astype(int)
        assert np.abs(result - expected).max() <= tolerance
        assert np.abs(result - expected).mean() <= tolerance / 6


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("sampling", [0x411111, 0x221111, 0x211111, 0x111111])
def test_jpeg_is_the_same_in_the_graph_to_the_last_bit(progressive, sampling):
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    options += (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
    read_both(encode(picture(61, 83), ".jpg", *options))


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg(adobe):
    # Adobe's programs store 255 for "no ink".
    cyan, magenta, yellow, black = 200, 30, 90, 64
    inks = np.array((cyan, magenta, yellow, black))
    file = cmyk_jpeg(255 - inks if adobe else inks, adobe)
    expected = (255 - inks[:3]) * (255 - black) / 255
    image = read_both(file)
    assert image.shape == (8, 8, 3)
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_laid_over_white(dtype):
    most = np.iinfo(dtype).max
    image = picture(channels=4, dtype=dtype)
    image[:5, :, 3], image[5:10, :, 3] = 0, most
    alpha = image[..., 3:] / most
    expected = (image[..., :3] * alpha / most + 1 - alpha) * 255
    result = read_both(encode(image, ".png"))
    assert np.abs(result - expected).max() <= 1
    assert (result[:5] == 255).all()


def test_lossless_alpha_in_webp_and_tiff():
    image = picture(channels=4)
    expected = read_both(encode(image, ".png"))
    webp = encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
    np.testing.assert_array_equal(read_both(webp), expected)
    assert np.abs(load_image(tiff(image)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [False, True])
def test_palette_png(depth, clear):
    palette = [(250, 10, 20), (30, 40, 200)]
    chunks = [chunk(b"PLTE", bytes(sum(palette, ())))]
    if clear:
        chunks.append(chunk(b"tRNS", b"\x80\xff"))
    row = int("".join(f"{i % 2:0{depth}b}" for i in range(8)), 2).to_bytes(depth, "big")
    first = tuple((c * 128 + 255 * 127) / 255 for c in palette[0])
    image = read_both(png([row] * 3, 8, 3, depth, 3, *chunks))
    expected = [first if clear else palette[0], palette[1]] * 4
    assert np.abs(image - np.array([expected] * 3)).max() <= 0.5


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_png_with_a_clear_grey(depth, clear):
    most = 2**depth - 1
    chunks = [chunk(b"tRNS", struct.pack(">H", 0))] if clear else []
    row = int("".join(f"{i % 2 * most:0{depth}b}" for i in range(8)), 2)
    row = (row >> 0).to_bytes(depth, "big")
    image = read_both(png([row] * 3, 8, 3, depth, 0, *chunks))
    black = WHITE if clear else (0, 0, 0)
    np.testing.assert_array_equal(image, [[black, WHITE] * 4] * 3)


def test_grey_and_alpha_png():
    pixels = [(100, 255), (100, 0), (100, 51)]
    row = bytes(sum(pixels, ()))
    image = read_both(png([row], 3, 1, 8, 4))
    np.testing.assert_array_equal(image[0, :, 0], [100, 255, 224])


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled(channels):
    image = picture(channels=channels, dtype="uint16").squeeze()
    result = read_both(encode(image, ".png"))
    expected = image.reshape(30, 41, channels) / 257
    assert np.abs(result - expected).max() <= 0.5
    np.testing.assert_array_equal(load_image(encode(image, ".tiff")), result)


def test_palette_bmp():
    palette = picture(1, 256, 3)[0]
    index = picture(channels=1)[..., 0]
    height, width = index.shape
    stride = (width + 3) // 4 * 4
    head = struct.pack("<2sIHHI", b"BM", 1078 + stride * height, 0, 0, 1078)
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, 256, 0)
    colours = np.pad(palette[:, ::-1], [(0, 0), (0, 1)]).tobytes()
    rows = np.pad(index[::-1], [(0, 0), (0, stride - width)]).tobytes()
    np.testing.assert_array_equal(read_both(head + colours + rows), palette[index])


def test_gif_with_a_clear_colour():
    # 4 x 1 pixels 0 1 2 1 after a comment and a graphic control extension.
    file = b"GIF89a" + struct.pack("<HHBBB", 4, 1, 0x81, 0, 0)
    file += bytes((255, 0, 0, 9, 9, 9, 0, 0, 255, 0, 0, 0))
    codes = sum(code << 3 * i for i, code in enumerate((4, 0, 1, 4, 2, 1, 5)))
    comment, pixels = (
        b"\x21\xfe\3abc\2de\0",
        b"\2\3" + codes.to_bytes(3, "little") + b"\0",
    )
    frame = b"," + struct.pack("<HHHHB", 0, 0, 4, 1, 0) + pixels + b";"
    red, grey, blue = (255, 0, 0), (9, 9, 9), (0, 0, 255)
    for flags, second in [(0, grey), (1, WHITE)]:
        control = b"\x21\xf9\4" + bytes((flags, 0, 0, 1, 0))
        image = read_both(file + comment + control + frame)
        np.testing.assert_array_equal(image, [[red, second, blue, second]])


@pytest.mark.parametrize("clear", [False, True])
def test_a_gif_whose_first_frame_is_smaller_than_the_picture(clear):
    # 4 x 1 pixels 0 1 2 1 at (2, 1) of 7 x 3; what follows is damaged.
    file = b"GIF89a" + struct.pack("<HHBBB", 7, 3, 0x81, 0, 0)
    file += bytes((255, 0, 0, 9, 9, 9, 0, 0, 255, 0, 0, 0))
    codes = sum(code << 3 * i for i, code in enumerate((4, 0, 1, 4, 2, 1, 5)))
    pixels = b"\2\3" + codes.to_bytes(3, "little") + b"\0"
    control = b"\x21\xf9\4" + bytes((clear, 0, 0, 1, 0))
    frame = b"," + struct.pack("<HHHHB", 2, 1, 4, 1, 0) + pixels
    red, grey, blue = (255, 0, 0), (9, 9, 9), (0, 0, 255)
    expected = np.full((3, 7, 3), WHITE if clear else red)
    expected[1, 2:6] = red, WHITE if clear else grey, blue, WHITE if clear else grey
    for rest in (b";", b"", frame[:-9], b",junk"):
        image = read_both(file + control + frame + rest)
        np.testing.assert_array_equal(image, expected)


def test_bitmaps_with_masks_in_the_graph():
    image = picture(channels=4)
    rows = image[::-1, :, [2, 1, 0, 3]].tobytes()
    height, width = image.shape[:2]

    def bitmap(compression, *masks):
        head = struct.pack("<IiiHHII", 124, width, height, 1, 32, compression, 0)
        head = (head.ljust(40, b"\0") + struct.pack("<4I", *masks)).ljust(124, b"\0")
        size = 14 + len(head)
        return struct.pack("<2sIII", b"BM", size + len(rows), 0, size) + head + rows

    usual = 0xFF0000, 0xFF00, 0xFF
    expected = read_both(encode(image, ".png"))
    np.testing.assert_array_equal(read_both(bitmap(3, *usual, 0xFF << 24)), expected)
    np.testing.assert_array_equal(read_both(bitmap(3, *usual, 0)), image[..., :3])
    np.testing.assert_array_equal(read_both(bitmap(0, *usual, 0)), image[..., :3])
    # TensorFlow knows only those masks. It must not give wrong colours.
    for wrong in (bitmap(3, *usual[::-1], 0), bitmap(1, *usual, 0)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="BMP"):
            decode(wrong)


def test_texts_of_a_png_are_skipped():
    file = encode(picture(), ".png")
    texts = b"".join(
        chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(10**6))) for _ in range(20)
    )
    np.testing.assert_array_equal(read_both(file[:33] + texts + file[33:]), picture())


def test_a_file_of_nothing_but_padding_ends_soon():
    with pytest.raises(ImageError):
        load_image(b"\xff" * 10**6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(b"\xff\xd8" + b"\xff" * 10**6)


@pytest.mark.parametrize("extension", [".gif", ".png", ".webp"])
def test_first_frame_of_an_animation(extension):
    frames = [np.full((20, 30, 3), WHITE, "uint8"), np.zeros((20, 30, 3), "uint8")]
    file = animation(extension, frames)
    assert (load_image(file) > 250).all()  # OpenCV's GIF has few colours
    if extension == ".webp":
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(file)
    else:
        read_both(file)


def test_floating_point_files():
    image = np.random.default_rng(0).random((30, 41, 3)).astype("float32")
    result = load_image(encode(image, ".tiff"))
    assert np.abs(result - image * 255).max() <= 0.51
    linear = np.zeros((9, 9, 3), "float32")
    linear[3:6], linear[6:] = 0.214, 7
    result = load_image(encode(linear, ".hdr")).astype(int)
    assert np.abs(result[::3, 0, 0] - [0, 127, 255]).max() <= 2


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.uint8([[[1, 2, 3]]]), (1, 2, 3)),
        (np.uint8([[7]]), (7, 7, 7)),
        (np.uint8([[[7]]]), (7, 7, 7)),
        (np.uint8([[[100, 0]]]), WHITE),
        (np.uint8([[[1, 2, 3, 255]]]), (1, 2, 3)),
        (np.uint8([[[1, 2, 3, 0]]]), WHITE),
        (np.uint16([[[257, 514, 65535]]]), (1, 2, 255)),
        (np.int64([[[-5, 0, 2**63 - 1]]]), (0, 0, 255)),
        (np.array([[[True, False, True]]]), (255, 0, 255)),
        (np.array([[[0.0, 0.2, 1.0]]]), (0, 51, 255)),
        (np.array([[[0.0, 51.0, 200.0]]]), (0, 51, 200)),
        (np.array([[[0.0, 65535.0, 257.0]]]), (0, 255, 1)),
        (np.array([[[np.nan, -np.inf, 1.0]]]), (0, 0, 255)),
    ],
)
def test_arrays(array, expected):
    result = load_image(array)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, [[expected]])


def test_path_bytes_and_array_are_the_same(tmp_path):
    path = tmp_path / "photo \u00e9.jpg"
    path.write_bytes(encode(picture(), ".jpg"))
    image = load_image(path)
    for source in (str(path), path.read_bytes(), bytearray(path.read_bytes()), image):
        np.testing.assert_array_equal(load_image(source), image)


def test_real_photos_are_the_same_in_the_graph():
    if not PHOTOS.is_dir():
        pytest.skip("no photos in ../shared/flickr8k")
    for path in sorted(PHOTOS.glob("*.jpg"))[:25]:
        read_both(path.read_bytes())


SAMPLINGS = [getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{n}") for n in (420, 422, 444)]


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "channels, sampling, progressive",
    [(3, sampling, mode) for sampling in SAMPLINGS for mode in (0, 1)]
    + [(1, SAMPLINGS[0], 0)],
)
def test_large_jpegs_are_decoded_at_a_scale_of_the_decoder(
    scale, channels, sampling, progressive
):
    size = (12, 15)
    image = picture(24 * scale + 3, 30 * scale + 5, channels).squeeze()
    image = cv2.GaussianBlur(image, (0, 0), 2 * scale)
    file = encode(
        image,
        ".jpg",
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling),
        *(cv2.IMWRITE_JPEG_PROGRESSIVE, progressive),
    )
    for orientation, upright in UPRIGHT.items():
        wanted = size[::-1] if orientation >= 5 else size
        turned = jpeg_with(exif(orientation), file)
        found = load_image(turned, wanted)
        # Rounded up, as the decoder does it.
        shape = -(-image.shape[0] // scale), -(-image.shape[1] // scale), 3
        assert found.shape == upright(np.empty(shape)).shape
        np.testing.assert_array_equal(ImageConverter(wanted).decode(turned), found)
        np.testing.assert_array_equal(load_image(turned), upright(load_image(file)))
        # It shows the same: its colours are those of the whole, averaged.
        expected = cv2.resize(load_image(turned), found.shape[1::-1], None, 0, 0, 3)
        assert np.abs(expected.astype(int) - found).mean() < 3


@pytest.mark.parametrize("adobe", [True, False])
def test_large_cmyk_jpegs_too(adobe):
    file = cmyk_jpeg((10, 60, 110, 160), adobe)
    for wanted, side in ((5, 8), (2, 4), (1, 2)):
        found = load_image(file, (wanted, wanted))
        assert found.shape == (side, side, 3)
        decoded = ImageConverter((wanted, wanted)).decode(file)
        np.testing.assert_array_equal(decoded, found)
        np.testing.assert_array_equal(found[0, 0], load_image(file)[0, 0])


def test_the_scale_leaves_twice_the_size_of_the_model():
    for height in (1, 99, 159, 160, 319, 320, 1279, 1280, 3000):
        for width in (1, 119, 120, 239, 240, 479, 960, 4000):
            for size in ((10, 15), (80, 60), (320, 320)):
                scale = jpeg_scale(height, width, size)
                enough = [
                    each
                    for each in (1, 2, 4, 8)
                    if height >= 2 * each * size[0] and width >= 2 * each * size[1]
                ]
                assert scale == max(enough, default=1)
    assert jpeg_scale(3000, 4000, (320, 320)) == 4
    assert jpeg_scale(100, 40_000, (320, 320)) == 1


def test_only_jpegs_are_scaled():
    image = picture(200, 300)
    for extension in (".png", ".bmp", ".webp", ".tiff"):
        assert load_image(encode(image, extension), (10, 10)).shape == image.shape
    np.testing.assert_array_equal(load_image(image, (10, 10)), image)


def test_bytes_and_floats_of_a_picture_are_resized_alike():
    image = picture(130, 90)
    for mode in ("squash", "crop", "pad"):
        for interpolation in ("nearest", "bilinear", "bicubic"):
            converter = ImageConverter((48, 64), mode, interpolation)
            expected = converter(image.astype("float32"))
            np.testing.assert_array_equal(converter(image), expected)


def test_same_floats_from_file_bytes_and_a_saved_model(tmp_path):
    converter = ImageConverter((48, 64), "crop")
    module = tf.Module()

    def convert(files):
        return tf.map_fn(
            lambda file: converter(converter.decode(file)),
            files,
            fn_output_signature=tf.TensorSpec((48, 64, 3), tf.float32),
        )

    module.convert = tf.function(
        convert, input_signature=[tf.TensorSpec((None,), tf.string)]
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    served = tf.saved_model.load(str(tmp_path / "model"))
    jpeg = encode(picture(70, 90), ".jpg")
    files = [
        jpeg,
        jpeg_with(exif(6), jpeg),
        encode(picture(400, 600), ".jpg"),
        jpeg_with(exif(6), encode(picture(999, 1001), ".jpg")),
        encode(picture(channels=4, dtype="uint16"), ".png"),
        encode(picture()[..., 0], ".bmp"),
        encode(picture(), ".webp"),
        encode(picture(), ".gif"),
    ]
    size = converter.image_size
    expected = np.stack([converter(load_image(file, size)) for file in files])
    assert load_image(files[2], size).shape == (100, 150, 3)
    dataset = tf.data.Dataset.from_tensor_slices(files)
    dataset = dataset.map(lambda file: converter(converter.decode(file))).batch(9)
    assert dataset.element_spec.shape == (None, 48, 64, 3)
    for result in (convert(tf.constant(files)), served.convert(files), *dataset):
        np.testing.assert_array_equal(result, expected)


# Bad files --------------------------------------------------------------------------


def giant(extension):
    """A small file whose header asks for 60,000 x 60,000 pixels."""
    file = bytearray(encode(picture(), extension))
    if extension == ".png":
        rest = bytes(file[33:])
        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        return bytes(file[:8]) + chunk(b"IHDR", header) + rest
    at, sign = {
        ".jpg": (file.find(b"\xff\xc0") + 5, ">HH"),
        ".gif": (6, "<HH"),
        ".bmp": (18, "<ii"),
    }[extension]
    struct.pack_into(sign, file, at, 60000, 60000)
    return bytes(file)


@pytest.mark.parametrize(
    "content, kind",
    [
        (b"", "empty"),
        (b"hello", "not_an_image"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(24), "not_an_image"),
        (b"<html><body>404 Not Found</body></html>", "not_an_image"),
        (np.random.default_rng(0).bytes(5000), "not_an_image"),
        (encode(picture(), ".jpg")[:-1], "truncated"),
        (encode(picture(), ".jpg")[:800], "truncated"),
        (encode(picture(), ".jpg")[:20], "truncated"),
        (encode(picture(), ".jpg")[:3], "truncated"),
        (encode(picture(), ".png")[:-5], "truncated"),
        (encode(picture(), ".png")[:500], "truncated"),
        (encode(picture(), ".png")[:20], "truncated"),
        (encode(picture(), ".png").replace(b"IDAT", b"IDAX"), "truncated"),
        (encode(picture(), ".gif")[:500], "truncated"),
        (encode(picture(), ".bmp")[:500], "truncated"),
        (encode(picture(), ".webp")[:500], "truncated"),
        (encode(picture(), ".tiff")[:500], "truncated"),
        (cmyk_jpeg((9, 9, 9, 9), True)[:-6], "truncated"),
        (giant(".jpg"), "too_large"),
        (giant(".png"), "too_large"),
        (giant(".gif"), "too_large"),
        (giant(".bmp"), "too_large"),
    ],
)
def test_bad_content(content, kind, tmp_path, capfd):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for source, name in [(path, str(path)), (content, "image bytes")]:
        with pytest.raises(ImageError) as caught:
            load_image(source)
        assert caught.value.kind == kind and caught.value.name == name
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)
    if kind != "not_an_image" and not content.startswith(b"II*"):
        reason = why_not(content).numpy().decode()
        assert reason == caught.value.reason


def test_bad_paths(tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(encode(picture(), ".jpg"))
    os.mkfifo(tmp_path / "pipe.jpg")
    huge = tmp_path / "huge.jpg"
    with open(huge, "wb") as sparse:
        sparse.truncate(2**33)
    for path, kind in [
        (tmp_path / "none.jpg", "missing"),
        (tmp_path, "unreadable"),
        (tmp_path / "pipe.jpg", "unreadable"),
        (file / "photo.jpg", "unreadable"),
        (tmp_path / ("long" * 100 + ".jpg"), "unreadable"),
        ("null\0byte.jpg", "unreadable"),
        ("line\nbreak.jpg", "missing"),
        (huge, "too_large"),
    ]:
        with pytest.raises(ImageError) as caught:
            load_image(path)
        assert caught.value.kind == kind
        assert "\n" not in str(caught.value)


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(picture(), ".jpg"))

    def forbidden(*_):  # modes do not bind a superuser
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(ImageError, match="Permission denied") as caught:
        load_image(path)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    "array, kind",
    [
        (np.zeros((0, 5, 3), "uint8"), "empty"),
        (np.zeros((5,), "uint8"), "not_an_image"),
        (np.zeros((5, 5, 5), "uint8"), "not_an_image"),
        (np.zeros((1, 5, 5, 3), "uint8"), "not_an_image"),
        (np.zeros((5, 5, 3), "complex64"), "not_an_image"),
        (np.array([["a"]]), "not_an_image"),
    ],
)
def test_bad_arrays(array, kind):
    with pytest.raises(ImageError) as caught:
        load_image(array)
    assert caught.value.kind == kind


def test_other_sources():
    with pytest.raises(ValueError, match="Received: source=7"):
        load_image(7)


def test_an_error_comes_back_from_another_process():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "missing", "no such file")))
    assert isinstance(error, ImageError) and isinstance(error, ValueError)
    assert (error.name, error.kind) == ("a.jpg", "missing")
    assert str(error) == "a.jpg: no such file"


def test_odd_chunks_make_no_noise(capfd):
    file = encode(picture(), ".png")
    odd = file[:33] + chunk(b"iCCP", b"x\0\0junk") + chunk(b"gAMA", b"") + file[33:]
    np.testing.assert_array_equal(read_both(odd), picture())
    load_image(encode(picture(channels=4, dtype="uint16"), ".tiff"))
    assert capfd.readouterr() == ("", "")


def test_other_libraries_can_still_print_errors(capfd):
    jpeg = encode(picture(), ".jpg")
    odd = jpeg[:-2] + bytes(99) + jpeg[-2:]
    cv2.imdecode(np.frombuffer(odd, "uint8"), cv2.IMREAD_UNCHANGED)
    assert "extraneous bytes" in capfd.readouterr().err  # what is to be muted
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for image in pool.map(load_image, [odd] * 50):
            np.testing.assert_array_equal(image, load_image(jpeg))
    assert capfd.readouterr() == ("", "")
    ctypes.CDLL(None).perror(b"a native library")
    assert capfd.readouterr().err.startswith("a native library")


@pytest.mark.parametrize(
    "extension", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tiff", ".hdr", ".avif"]
)
def test_any_damage_is_an_image_error_or_a_picture(extension, capfd):
    rng = np.random.default_rng(7)
    image = picture()
    image = image.astype("float32") / 255 if extension == ".hdr" else image
    file = encode(image, extension)
    if extension == ".jpg":
        file = jpeg_with(exif(6), file)
    for trial in range(60):
        damaged = bytearray(file[: rng.integers(1, len(file) + 1)])
        if trial % 2:  # whole, with wrong bytes, most of them in the header
            damaged = bytearray(file)
            for at in rng.integers(0, rng.choice((60, len(file))), 3):
                damaged[at] = rng.integers(256)
        try:
            result = load_image(bytes(damaged))
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert result.dtype == np.uint8 and result.shape[-1] == 3
    for _ in range(20):
        with pytest.raises(ImageError):
            load_image(file[:4] + rng.bytes(300))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "beginning",
    [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBPVP8X"],
)
@pytest.mark.parametrize("rest", [b"\0", b"\xff"])
def test_a_file_of_any_length_has_a_reason(beginning, rest):
    # In an exported model an error here would cost the whole batch.
    for length in range(len(beginning) + 40):
        assert why_not((beginning + 40 * rest)[:length]).numpy()
