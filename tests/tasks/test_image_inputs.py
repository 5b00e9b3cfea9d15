"""Photos in every form that people have them in."""

import numpy as np
import pytest
import tensorflow as tf
from fake_task import FakeTask

from captioner.images.image_files import load_image

PIL = pytest.importorskip("PIL.Image", reason="pip install pillow")


@pytest.fixture(scope="module")
def photo(repository):
    return repository / "data" / "samples" / "coffee.jpg"


@pytest.fixture(scope="module")
def pixels(photo):
    return load_image(photo)


@pytest.fixture(scope="module")
def caption(pixels):
    return FakeTask().generate(pixels)


@pytest.mark.parametrize(
    "dtype", "uint8 int8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()
)
@pytest.mark.parametrize("make", [np.asarray, tf.constant], ids=["array", "tensor"])
def test_pixels_of_any_type(pixels, caption, dtype, make):
    expected = caption
    if dtype == "int8":  # holds up to 127 only
        pixels = pixels // 2
        expected = FakeTask().generate(pixels)
    assert FakeTask().generate(make(pixels.astype(dtype))) == expected
    assert "mostly red, 0" not in expected


@pytest.mark.parametrize("make", [np.asarray, tf.constant], ids=["array", "tensor"])
def test_many_in_one_array(pixels, caption, make):
    assert FakeTask().generate(make(np.stack([pixels] * 3))) == [caption] * 3
    nested = {"a": make(np.stack([pixels] * 2)), "b": [make(pixels)]}
    assert FakeTask().generate(nested) == {"a": [caption] * 2, "b": [caption]}


@pytest.mark.parametrize(
    "value", [-1, 256, 65535, np.nan, np.inf, -0.5, 255.5], ids=str
)
def test_values_outside_0_to_255_are_refused(pixels, value):
    odd = pixels.astype("float64" if value % 1 or value != value else "int64")
    odd[3, 4, 1] = value
    for image in (odd, [pixels, odd], tf.constant(odd)):
        with pytest.raises(ValueError, match="from 0 to 255; .* Received: pixels"):
            FakeTask().generate(image)


def test_pil_images(photo, pixels, caption):
    with PIL.open(photo) as image:
        found = FakeTask().generate([image, image.convert("RGBA")])
        grey, palette = FakeTask().generate([image.convert("L"), image.convert("P")])
        assert grey != caption
    exact = PIL.fromarray(pixels)
    assert FakeTask().generate(exact) == caption
    assert FakeTask().generate({"x": exact}) == {"x": caption}
    # Pillow's decoder rounds otherwise.
    word, value = caption.rsplit(" ", 1)
    for text in (*found, palette):
        assert text.rsplit(" ", 1)[0] == word
        assert abs(float(text.rsplit(" ", 1)[1]) - float(value)) <= 3


def test_a_pil_image_is_turned_upright(pixels, tmp_path):
    turned = PIL.fromarray(np.rot90(pixels[:100, :60]).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "turned.png", exif=exif)

    class Shape(FakeTask):
        @property
        def convert(self):
            return lambda image: np.array([*image.shape[:2], 0.0])

    with PIL.open(tmp_path / "turned.png") as image:
        by_pil = Shape(num_captions=1).generate_results(image)
    by_path = Shape().generate_results(tmp_path / "turned.png")
    assert by_pil.text == by_path.text == "mostly red, 100"


def test_sixteen_bit_pil_images(pixels):
    grey = pixels[..., 0].astype("uint16") * 257
    assert FakeTask().generate(PIL.fromarray(grey)) == FakeTask().generate(
        pixels[..., 0]
    )


def test_a_tf_data_dataset(photo, pixels, caption):
    one_by_one = tf.data.Dataset.from_tensor_slices(np.stack([pixels] * 5))
    for dataset in (one_by_one, one_by_one.batch(2)):
        assert FakeTask().generate(dataset, batch_size=3) == [caption] * 5
    encoded = tf.data.Dataset.from_tensors(photo.read_bytes()).repeat(3)
    for dataset in (encoded, encoded.batch(2)):
        assert FakeTask().generate(dataset) == [caption] * 3
    with pytest.raises(ValueError, match=r"hold only photos: dataset.map\(lambda"):
        FakeTask().generate(one_by_one.map(lambda image: (image, "a label")))
    with pytest.raises(ValueError, match="one photo or more"):
        FakeTask().generate(one_by_one.take(0))


def test_one_batch_of_a_tf_data_dataset_at_a_time():
    read = []

    def images():
        for number in range(10):
            read.append(number)
            yield np.full((4, 4, 3), number, "uint8")

    class Watching(FakeTask):
        def write(self, batch, prompts=None):
            seen.append(len(read))
            return super().write(batch)

    seen = []
    spec = tf.TensorSpec((4, 4, 3), tf.uint8)
    dataset = tf.data.Dataset.from_generator(images, output_signature=spec)
    assert len(Watching().generate(dataset, batch_size=2)) == 10
    assert seen[0] < 6 and len(seen) == 5


@pytest.mark.parametrize("image", [3, None, object(), np.array(["a"])])
def test_what_is_no_photo(image):
    with pytest.raises(ValueError, match="image array|Received|array"):
        FakeTask().generate([image])
