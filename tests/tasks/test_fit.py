"""What `fit` takes: datasets, tf.data of pairs and of dicts; and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import captioner
from captioner.images.image_files import load_image
from captioner.tasks.image_captioner import ImageCaptioner

TEXTS = [["a dog runs", "a dog"], ["two cats"], ["green grass", "the grass", "grass"]]


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))[:3]


@pytest.fixture
def made():
    keras.utils.set_random_seed(2)
    tokenizer = captioner.Tokenizer.from_captions(sum(TEXTS, []))
    network = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 4, strides=8),
        ]
    )
    backbone = captioner.VisionBackbone(network)
    model = captioner.CaptionModel(
        tokenizer.vocabulary_size,
        (4, 4),
        backbone,
        num_layers=1,
        hidden_dim=8,
        dropout=0.0,
    )
    converter = captioner.ImageConverter((16, 16))
    made = ImageCaptioner(model, captioner.CaptionPreprocessor(converter, tokenizer, 5))
    made.compile(keras.optimizers.Adam(0.01))
    return made


def one_by_one(photos, image=load_image, captions=lambda texts: texts, shape=()):
    """A `tf.data.Dataset` of (image, captions) pairs."""

    def pairs():
        for photo, texts in zip(photos, TEXTS):
            yield image(photo), captions(texts)

    first = image(photos[0])
    spec = tf.TensorSpec((None, None, 3), tf.uint8)
    if isinstance(first, bytes):
        spec = tf.TensorSpec((), tf.string)
    elif first.ndim == 2:
        spec = tf.TensorSpec(first.shape, tf.float32)
    return tf.data.Dataset.from_generator(
        pairs, output_signature=(spec, tf.TensorSpec(shape, tf.string))
    )


def first(texts):
    return texts[0]


FORMS = {
    "pixels, several": lambda p: one_by_one(p, shape=(None,)),
    "pixels, one": lambda p: one_by_one(p, captions=first),
    "bytes, several": lambda p: one_by_one(p, lambda x: x.read_bytes(), shape=(None,)),
    "features, one": lambda p: one_by_one(
        p, lambda x: np.ones((4, 4), "float32"), first
    ),
    "dict, one by one": lambda p: one_by_one(p, shape=(None,)).map(
        lambda image, captions: {"image": image, "captions": captions, "id": 1}
    ),
    "pixels in batches": lambda p: tf.data.Dataset.from_tensors(
        (np.zeros((3, 20, 30, 3), "uint8"), ["a dog", "two cats", "grass"])
    ),
    "features in batches": lambda p: tf.data.Dataset.from_tensors(
        (np.zeros((2, 4, 4), "float16"), [["a dog", ""], ["two cats", "grass"]])
    ),
    "dict in batches": lambda p: tf.data.Dataset.from_tensors(
        {"images": np.zeros((2, 16, 16, 3), "float32"), "captions": ["a dog", "grass"]}
    ),
    "examples": lambda p: [
        {"image": photo, "captions": texts} for photo, texts in zip(p, TEXTS)
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(made, photos, form):
    data = FORMS[form](photos)
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"])
    )
    history = made.fit(
        data,
        validation_data=FORMS[form](photos),
        batch_size=2,
        epochs=3,
        callbacks=[callback],
        verbose=0,
    ).history
    assert len(history["loss"]) == len(seen) == 3
    assert np.isfinite(history["loss"]).all()
    assert seen[2] < seen[0]  # it learns


def test_captions_of_one_photo_weigh_as_many(made, photos):
    """The loss of pairs is that of the same photos and captions as dicts."""
    several = FORMS["pixels, several"](photos)
    convert = made.preprocessor.image_converter
    images = np.stack([convert(load_image(photo)) for photo in photos])
    padded = [texts + [""] * (3 - len(texts)) for texts in TEXTS]
    dicts = tf.data.Dataset.from_tensors({"images": images, "captions": padded})
    made.caption_model.optimizer.learning_rate = 0.0
    losses = [
        made.fit(data, batch_size=3, verbose=0).history["loss"][0]
        for data in (several, dicts)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_dataset_of_ours(made, photos, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{photo},{TEXTS[i][0]},train" for i, photo in enumerate(photos)]
    copy = tmp_path / "dev.jpg"
    copy.write_bytes(photos[0].read_bytes())
    rows.append(f"{copy},a dog,dev")
    table.write_text("\n".join(["image,caption,split", *rows]))
    dataset = captioner.load_dataset(table)
    history = made.fit(dataset, epochs=2, batch_size=2, verbose=0).history
    assert len(history["loss"]) == len(history["val_loss"]) == 2


@pytest.mark.parametrize(
    "data",
    [
        lambda p: [str(photo) for photo in p],
        lambda p: np.zeros((3, 16, 16, 3)),
        lambda p: None,
        lambda p: tf.data.Dataset.from_tensors(np.zeros((2, 16, 16, 3), "uint8")),
        lambda p: tf.data.Dataset.from_tensors(
            (np.zeros((2, 16, 16, 3), "uint8"), [1, 2])
        ),
        lambda p: tf.data.Dataset.from_tensors((["a dog"], np.zeros((1, 8, 8, 3)))),
        lambda p: tf.data.Dataset.from_tensors({"photo": [1], "captions": ["a dog"]}),
        lambda p: tf.data.Dataset.from_tensors(
            (np.zeros((2, 9, 9), "float32"), ["a dog", "grass"])
        ),
        lambda p: one_by_one(p, shape=(None,)).map(
            lambda image, text: (image, text, 1)
        ),
    ],
)
def test_another_structure_is_one_line_with_the_right_one(made, photos, data):
    wrong = data(photos)
    with pytest.raises(ValueError, match=r"\(image, captions\) .*Received: ") as caught:
        made.fit(wrong)
    assert "\n" not in str(caught.value)
    if wrong is not None:
        with pytest.raises(ValueError, match="Received: "):
            made.fit(FORMS["features, one"](photos), validation_data=wrong)


def test_keras_habits(made, capsys):
    assert made.backbone is made.caption_model.vision_backbone
    assert made.count_params() == made.caption_model.count_params() > 0
    made.summary()
    assert "logits_dense" in capsys.readouterr().out
