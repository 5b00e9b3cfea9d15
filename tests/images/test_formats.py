"""Every format and kind of picture: the pixels are those of Pillow.

Where Pillow does not read a kind, they are those of which the file was made.
"""

import io
import lzma
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from captioner.images.image_files import ImageError, load_image

HEIGHT, WIDTH = 30, 41
# Levels of 255 by which decoders may differ: they round, and scale 16 bits to 8.
TOLERANCE = 1


def soft_noise(channels, seed=0):
    noise = np.random.default_rng(seed).random((HEIGHT, WIDTH, channels))
    soft = cv2.GaussianBlur(noise, (5, 5), 0).reshape(HEIGHT, WIDTH, channels)
    return (soft * 255).astype("uint8")


GREY, RGB, RGBA = soft_noise(1)[..., 0], soft_noise(3), soft_noise(4)
LA = soft_noise(2)


def over_white(image):
    alpha = image[..., -1:] / 255
    return image[..., :-1] * alpha + 255 * (1 - alpha)


def as_rgb(image):
    return np.stack([image] * 3, axis=-1)


def pillow_pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits
            return as_rgb(np.asarray(image) / 257)
        if image.has_transparency_data:
            if image.mode == "La":
                image = image.convert("LA")
            return over_white(np.asarray(image.convert("RGBA")))
        return np.asarray(image.convert("RGB"))


def check(data, expected=None, tolerance=TOLERANCE):
    found = load_image(data)
    assert found.dtype == np.uint8
    expected = pillow_pixels(data) if expected is None else expected
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(float)).max() <= tolerance
    assert len(np.unique(found)) > 1


PILLOW_IMAGES = {
    "1": Image.fromarray(GREY).convert("1"),
    "L": Image.fromarray(GREY),
    "LA": Image.fromarray(LA),
    "P2": Image.fromarray(RGB).quantize(2),
    "P16": Image.fromarray(RGB).quantize(16),
    "P256": Image.fromarray(RGB).quantize(256),
    "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(RGBA),
    "CMYK": Image.fromarray(RGB).convert("CMYK"),
    "YCbCr": Image.fromarray(RGB).convert("YCbCr"),
    "I;16": Image.fromarray(GREY.astype("uint16") * 257),
}


def saved(mode, format_name, **options):
    file = io.BytesIO()
    PILLOW_IMAGES[mode].save(file, format_name, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "format_name, modes, options",
    [
        ("PNG", "1 L LA P2 P16 P256 RGB RGBA I;16", [{}]),
        ("BMP", "1 L P2 P16 P256 RGB RGBA", [{}]),
        ("GIF", "1 L P2 P16 P256 RGB RGBA", [{"interlace": 0}, {"interlace": 1}]),
        ("TGA", "1 L LA P256 RGB RGBA", [{}]),
        ("TGA", "L LA P256 RGB RGBA", [{"compression": "tga_rle"}]),
        ("ICO", "1 L P256 RGB RGBA", [{"bitmap_format": f} for f in ("png", "bmp")]),
        ("PCX", "1 L P16 P256 RGB", [{}]),
        ("DDS", "L LA RGB RGBA", [{}]),
        ("DDS", "RGBA", [{"pixel_format": f} for f in ("DXT1", "DXT3", "DXT5")]),
        ("QOI", "RGB RGBA", [{}]),
        ("PPM", "1 L RGB I;16", [{}]),
        ("JPEG2000", "L LA RGB RGBA I;16", [{}, {"irreversible": True}]),
        ("WEBP", "RGB RGBA", [{"lossless": True, "exact": True}]),
        ("TIFF", "1", [{"compression": c} for c in ("group3", "group4")]),
        (
            "TIFF",
            "1 L LA P2 P16 P256 RGB RGBA CMYK I;16",
            [
                {"compression": c}
                for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
                + ("zstd", "lzma")
            ],
        ),
    ],
)
def test_what_pillow_writes(format_name, modes, options):
    for mode in modes.split():
        for each in options:
            check(saved(mode, format_name, **each))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg(progressive, subsampling):
    # Both have libjpeg-turbo; other releases may round an inverse DCT otherwise.
    options = {"progressive": progressive, "subsampling": subsampling}
    for mode in ("L", "RGB", "CMYK"):
        check(saved(mode, "JPEG", quality=90, **options), tolerance=2)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_large_cmyk_jpeg_is_decoded_at_a_fraction(scale):
    image = Image.fromarray(RGB).resize((8 * WIDTH, 8 * HEIGHT)).convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    size = 4 * HEIGHT // scale, 4 * WIDTH // scale
    found = load_image(file.getvalue(), size)
    assert found.shape == (8 * HEIGHT // scale, 8 * WIDTH // scale, 3)
    expected = image.convert("RGB").resize(found.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(found - np.asarray(expected).astype(float)).mean() < 3


def test_of_several_jpegs_in_an_mpo_it_is_the_first():
    file = io.BytesIO()
    other = Image.fromarray(RGB[::-1])
    PILLOW_IMAGES["RGB"].save(file, "MPO", save_all=True, append_images=[other])
    np.testing.assert_array_equal(
        load_image(file.getvalue()), load_image(saved("RGB", "JPEG"))
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_lossy_webp_and_avif(mode):
    check(saved(mode, "WEBP", quality=80), tolerance=2)
    # Both have libavif, which leaves it to the caller how colours are upsampled.
    check(saved(mode, "AVIF", quality=90, subsampling="4:4:4"), tolerance=3)


@pytest.mark.parametrize("colour_type, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_with_interlacing(colour_type, channels, depth):
    pixels = soft_noise(channels)
    big = pixels.astype(">u2") * 257 if depth == 16 else pixels
    rows = b""
    for x, y, dx, dy in (
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
    ):
        for row in big[y::dy, x::dx]:
            rows += b"\0" + row.tobytes() if row.size else b""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour_type, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n"
    for tag, body in (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(body)) + tag + body
        data += struct.pack(">I", zlib.crc32(tag + body))
    if depth == 8 or channels != 2:  # Pillow has no mode for the other
        check(data)
    expected = over_white(pixels) if channels in (2, 4) else pixels
    check(data, np.broadcast_to(expected, (HEIGHT, WIDTH, 3)))


# TIFF -------------------------------------------------------------------------------


def packed(values, bits):
    """Rows of numbers of 1 to 16 bits, each row filled up to whole bytes."""
    rows = []
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(rows)


def tiff(parts, bits, photometric, samples, order="<", big=False, **more):
    """A TIFF file. `more` has the values of other tags: compression, planar, ..."""
    names = {"compression": 259, "planar": 284, "palette": 320, "extra": 338}
    names |= {"sample_format": 339, "orientation": 274}
    word, header = ("Q", 16) if big else ("I", 8)
    blob, places = bytearray(header), []
    for part in parts:
        places.append(len(blob))
        blob += part + b"\0" * (-len(part) % 2)
    sizes = [len(part) for part in parts]
    tags = {256: (WIDTH,), 257: (HEIGHT,), 258: (bits,) * samples, 262: (photometric,)}
    tags |= {273: places, 277: (samples,), 278: (HEIGHT,), 279: sizes}
    tags |= {names[name]: np.atleast_1d(value) for name, value in more.items()}
    table = b""
    for tag, values in sorted(tags.items()):
        kind, form = (4, "I") if tag in (273, 279) else (3, "H")
        body = struct.pack(f"{order}{len(values)}{form}", *values)
        table += struct.pack(f"{order}HH{word}", tag, kind, len(values))
        if len(body) > struct.calcsize(word):
            table += struct.pack(order + word, len(blob))
            blob += body + b"\0" * (-len(body) % 2)
        else:
            table += body.ljust(struct.calcsize(word), b"\0")
    start = struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), len(blob)
    )
    blob[:header] = (b"II" if order == "<" else b"MM") + start
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return bytes(blob) + count + table + bytes(8)


def planes(image, order, times=257):
    wide = image.astype(order + "u2") * times if times > 1 else image
    return [np.ascontiguousarray(plane).tobytes() for plane in np.moveaxis(wide, -1, 0)]


ORDERS = pytest.mark.parametrize("order", "<>")


@pytest.mark.parametrize("order, big", [("<", False), (">", False), ("<", True)])
def test_tiff_with_a_plane_for_each_colour(order, big):
    for times, bits in ((1, 8), (257, 16)):
        options = {"order": order, "big": big, "planar": 2}
        check(tiff(planes(RGB, order, times), bits, 2, 3, **options), RGB)
        file = tiff(planes(RGBA, order, times), bits, 2, 4, extra=2, **options)
        check(file, over_white(RGBA))


@ORDERS
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_tiff_greys_and_palettes(order, bits):
    values = (GREY.astype(int) * 257) >> (16 - bits)
    data = values.astype(order + "u2").tobytes() if bits > 8 else packed(values, bits)
    expected = as_rgb(values * 255 / (2**bits - 1))
    check(tiff([data], bits, 1, 1, order), expected)
    check(tiff([data], bits, 0, 1, order), 255 - expected)
    if bits <= 8:
        palette = np.random.default_rng(0).integers(0, 256, (3, 2**bits))
        file = tiff([data], bits, 3, 1, order, palette=palette.ravel() * 257)
        check(file, palette.T[values])
        check(file)


@ORDERS
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_tiff_of_odd_depths(order, bits):
    values = GREY.astype(int) << (bits - 8)
    file = tiff([packed(values, bits)], bits, 1, 1, order)
    check(file, as_rgb(values * 255 / (2**bits - 1)))


def test_tiff_of_12_bits_with_lzma():
    values = GREY.astype(int) << 4
    data = lzma.compress(packed(values, 12))
    check(tiff([data], 12, 1, 1, compression=34925), as_rgb(values * 255 / 4095))


@ORDERS
def test_tiff_with_more_than_colours(order):
    def file(image, extra, times, photometric):
        wide = image.astype(order + "u2") * 257 if times > 1 else image
        bits, samples = 16 if times > 1 else 8, image.shape[-1]
        return tiff([wide.tobytes()], bits, photometric, samples, order, extra=extra)

    multiplied = RGBA.copy()
    multiplied[..., :3] = (RGBA[..., :3] * (RGBA[..., 3:] / 255)).round()
    for times in (1, 257):
        check(file(RGBA, 2, times, 2), over_white(RGBA))
        check(file(multiplied, 1, times, 2), over_white(RGBA), tolerance=2)
        check(file(RGBA, 0, times, 2), RGBA[..., :3])  # such as infrared
        check(file(LA, 0, times, 1), as_rgb(LA[..., 0]))
    grey = np.broadcast_to(over_white(LA), (HEIGHT, WIDTH, 3))
    check(file(LA, 2, 1, 1), grey)
    with pytest.raises(ImageError, match="unsupported TIFF"):  # rather than no alpha
        load_image(file(LA, 2, 257, 1))


@ORDERS
def test_tiff_with_other_colours_and_numbers(order):
    inks = np.asarray(PILLOW_IMAGES["CMYK"])
    check(tiff([inks.tobytes()], 8, 5, 4, order))
    check(tiff([(inks.astype(order + "u2") * 257).tobytes()], 16, 5, 4, order))
    lab = cv2.cvtColor(RGB.astype("float32") / 255, cv2.COLOR_RGB2LAB)
    lab = np.stack([lab[..., 0] * 2.55, lab[..., 1] % 256, lab[..., 2] % 256], -1)
    check(tiff([lab.astype("uint8").tobytes()], 8, 8, 3, order))
    floats = (RGB / 255).astype(order + "f4")
    check(tiff([floats.tobytes()], 32, 2, 3, order, sample_format=(3, 3, 3)), RGB)
    wide = RGB.astype(order + "u4") * 0x1010101
    check(tiff([wide.tobytes()], 32, 2, 3, order), RGB)


@pytest.mark.parametrize(
    "orientation, turned",
    [(1, RGB), (3, np.rot90(RGB, 2)), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB))],
)
def test_a_tiff_that_pillow_reads_is_turned_once(orientation, turned):
    file = tiff(planes(RGB, "<"), 16, 2, 3, planar=2, orientation=orientation)
    check(file, turned)


def test_a_tiff_whose_fields_overlap_takes_no_memory():
    # Each of 4,000 fields names the same 4 MB; Pillow would read them all.
    file = tiff(planes(RGB, "<"), 16, 2, 3, planar=2)
    at = struct.unpack_from("<I", file, 4)[0]
    field = struct.pack("<HHII", 258, 3, 2_000_000, 8)
    table = struct.pack("<H", 4000) + field * 4000 + bytes(4)
    data = file[:4] + struct.pack("<I", 8 + 4_000_000) + file[8:at]
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            load_image(data.ljust(8 + 4_000_000, b"\0") + table)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


# Bitmaps ----------------------------------------------------------------------------


def bmp(bits, rows, palette=b"", header=40, compression=0, masks=b"", height=HEIGHT):
    if header == 12:  # of OS/2
        head = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        sizes = header, WIDTH, height, 1, bits, compression, len(rows), 0, 0, 0, 0
        head = struct.pack("<IiiHHIIiiII", *sizes) + masks
        head = head.ljust(header, b"\0")
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + (
        head + palette + rows
    )


def bmp_rows(values, bits):
    rows = [packed([r], bits) if bits < 8 else r.tobytes() for r in values[::-1]]
    return b"".join(row + b"\0" * (-len(row) % 4) for row in rows)


@pytest.mark.parametrize("header", [12, 40, 108, 124])
def test_bitmaps(header):
    for bits in (1, 4, 8):
        palette = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), "uint8")
        fill = b"" if header == 12 else b"\0"
        table = b"".join(colour[::-1].tobytes() + fill for colour in palette)
        values = GREY >> (8 - bits)
        check(bmp(bits, bmp_rows(values, bits), table, header), palette[values])
    check(bmp(24, bmp_rows(RGB[..., ::-1], 24), b"", header), RGB)
    if header > 12:
        rows = bmp_rows(RGB[::-1, :, ::-1], 24)
        check(bmp(24, rows, b"", header, height=-HEIGHT), RGB)
        rows = bmp_rows(RGBA[..., [2, 1, 0, 3]], 32)
        check(bmp(32, rows, b"", header), RGBA[..., :3])
        few = RGB >> 3
        rows = (few.astype("<u2") << np.array([10, 5, 0], "<u2")).sum(-1, dtype="<u2")
        check(bmp(16, bmp_rows(rows, 16), b"", header), few / 31 * 255)


def test_bitmaps_with_masks():
    few = np.stack([RGB[..., 0] >> 3, RGB[..., 1] >> 2, RGB[..., 2] >> 3], -1)
    rows = (few.astype("<u2") << np.array([11, 5, 0], "<u2")).sum(-1, dtype="<u2")
    masks = struct.pack("<4I", 0xF800, 0x7E0, 0x1F, 0)
    file = bmp(16, bmp_rows(rows, 16), b"", 108, 3, masks)
    check(file, few / np.array([31, 63, 31]) * 255)
    rows = bmp_rows(RGBA[..., [2, 1, 0, 3]], 32)
    for alpha, expected in ((0xFF << 24, over_white(RGBA)), (0, RGBA[..., :3])):
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, alpha)
        check(bmp(32, rows, b"", 124, 3, masks), expected)


def test_run_length_bitmap():
    rows = b"".join(
        b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in GREY[::-1]
    )
    palette = np.arange(256, dtype="<u4") * 0x10101
    check(bmp(8, rows + b"\0\1", palette.tobytes(), 40, 1), as_rgb(GREY))


# Others -----------------------------------------------------------------------------


def text(values):
    return b"\n".join(b" ".join(b"%d" % value for value in row) for row in values)


@pytest.mark.parametrize("maximum", [1, 15, 100, 255, 1000, 65535])
def test_pnm(maximum):
    def scaled(image):
        return (image / 255 * maximum).round().astype(int)

    def binary(values):
        return values.astype(">u2" if maximum > 255 else "u1").tobytes()

    size = b"# a comment\n41 30\n%d\n" % maximum
    grey, rgb = scaled(GREY), scaled(RGB)
    for kind, values in ((b"P2", grey), (b"P3", rgb.reshape(HEIGHT, -1))):
        expected = as_rgb(grey) if kind == b"P2" else rgb
        check(kind + b"\n" + size + text(values), expected * 255 / maximum)
    for kind, values in ((b"P5", as_rgb(grey)), (b"P6", rgb)):
        body = binary(grey if kind == b"P5" else rgb)
        check(kind + b"\n" + size + body, values * 255 / maximum)
    for kind, image in (
        *((b"GRAYSCALE", GREY[..., None]), (b"GRAYSCALE_ALPHA", LA)),
        *((b"RGB", RGB), (b"RGB_ALPHA", RGBA)),
    ):
        head = b"P7\nWIDTH 41\nHEIGHT 30\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n"
        depth, values = image.shape[-1], scaled(image)
        expected = values * 255 / maximum
        if depth in (2, 4):
            expected = over_white(expected)
        file = head % (depth, maximum, kind) + binary(values)
        check(file, np.broadcast_to(expected, (HEIGHT, WIDTH, 3)))


def test_bits_and_floats_of_pnm():
    expected = as_rgb(np.where(GREY > 127, 0, 255))
    check(b"P1\n41 30\n" + text(GREY >> 7), expected)
    check(b"P4\n41 30\n" + packed(GREY >> 7, 1), expected)
    for order, scale in (("<", b"-1.0"), (">", b"1.0")):
        rows = (RGB[::-1] / 255).astype(order + "f4").tobytes()
        check(b"PF\n41 30\n" + scale + b"\n" + rows, RGB)


def psd(mode, planes, depth=8):
    """A Photoshop file with nothing but its composite; planes (C, H, W)."""
    count, height, width = planes.shape
    head = struct.pack(
        ">4sH6sHIIHH", b"8BPS", 1, b"", count, height, width, depth, mode
    )
    return head + bytes(12) + struct.pack(">H", 0) + planes.tobytes()


@pytest.mark.parametrize(
    "mode, image, expected",
    [
        (1, GREY[..., None], as_rgb(GREY)),
        (3, RGB, RGB),
        (3, RGBA, over_white(RGBA)),
        (4, 255 - np.asarray(PILLOW_IMAGES["CMYK"]), None),
    ],
)
def test_the_composite_of_a_photoshop_file(mode, image, expected):
    check(psd(mode, np.moveaxis(image, -1, 0)), expected)


def test_tga_whose_fourth_byte_is_not_alpha():
    file = bytearray(saved("RGBA", "TGA"))
    assert file[17] & 15 == 8
    file[17] &= ~15
    check(bytes(file), RGBA[..., :3])


def test_the_largest_picture_of_an_icon():
    file = io.BytesIO()
    large = Image.fromarray(RGBA).resize((64, 64))
    large.save(file, "ICO", sizes=[(16, 16), (32, 32), (64, 64)])
    check(file.getvalue(), over_white(np.asarray(large)))


def test_jpeg_2000_of_odd_depths():
    """12 bits, as of satellites and scanners: 4095 is white."""
    file = io.BytesIO()
    Image.fromarray(GREY.astype("uint16") << 4).save(file, "JPEG2000")
    data = bytearray(file.getvalue())
    # The depth is in two headers, less one.
    assert data[data.index(b"ihdr") + 14] == 15
    data[data.index(b"ihdr") + 14] = 11
    at = data.index(b"\xff\x51") + 40
    assert data[at] == 15
    data[at] = 11
    found, expected = load_image(bytes(data)), pillow_pixels(bytes(data))
    assert np.abs(found - expected).max() <= 1


# What is refused ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TGA", "DDS", "PSD", "ICO", "QOI", "PCX", "TIFF"])
def test_the_header_is_checked_before_anything_is_decoded(name):
    if name == "PSD":
        file = bytearray(psd(3, np.moveaxis(RGB, -1, 0)))
        struct.pack_into(">II", file, 14, 20_000, 20_000)
    elif name == "TIFF":
        file = tiff(planes(RGB, "<"), 16, 2, 3, planar=2)
        file = file.replace(
            struct.pack("<HHIH", 256, 3, 1, WIDTH), b"\0\1\3\0\1\0\0\0\x20\x4e"
        )
        file = file.replace(
            struct.pack("<HHIH", 257, 3, 1, HEIGHT), b"\1\1\3\0\1\0\0\0\x20\x4e"
        )
    elif name == "ICO":
        file = bytearray(saved("RGB", "ICO", bitmap_format="bmp"))
        (start,) = struct.unpack_from("<I", file, 18)
        struct.pack_into("<ii", file, start + 4, 20_000, 40_000)
    else:
        file = bytearray(saved("RGB", name))
        place, form = {
            "TGA": (12, "<HH"),
            "DDS": (12, "<II"),
            "QOI": (4, ">II"),
            "PCX": (8, "<HH"),
        }[name]
        struct.pack_into(form, file, place, 20_000, 20_000)
    with pytest.raises(ImageError, match="more than 178,956,970 pixels") as caught:
        load_image(bytes(file))
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("name", ["TGA", "DDS", "ICO", "QOI", "PCX", "GIF", "JPEG2000"])
def test_what_is_cut_short_is_refused(name):
    file = saved("RGB", name)
    for size in (len(file) // 2, 60):
        with pytest.raises(ImageError) as caught:
            load_image(file[:size])
        assert caught.value.kind == "truncated"


def test_formats_that_start_programs_are_never_tried():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    windows_metafile = b"\xd7\xcd\xc6\x9a" + bytes(40)
    script = "import sys; from captioner.images.image_files import load_image\n"
    script += f"for data in {[postscript, windows_metafile, saved('RGB', 'TGA')]!r}:\n"
    script += " try: load_image(data)\n except ValueError as error: print(error)\n"
    script += "print([n for n in sys.modules if n.startswith(('PIL.Eps', 'PIL.Wmf'))])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    unknown = "image bytes: not an image of a known format\n"
    assert done.stdout == 2 * unknown + "[]\n", done.stderr
