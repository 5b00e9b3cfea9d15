"""What `ImageCaptioner.fit` takes, as the batches that the preprocessor takes."""

import itertools

import numpy as np
import tensorflow as tf

from captioner.features.input_pipeline import image_reader, training_batches

EXPECTED = (
    "fit takes a dataset of load_dataset, or a tf.data.Dataset of (image, captions) "
    'pairs or of dicts such as {"images": (B, H, W, 3), "captions": (B,) or (B, C)}'
)


def fit_batches(data, captioner, batch_size, epochs, seed):
    """Batches of dicts for a `CaptionPreprocessor`.

    Args:
        data: see `ImageCaptioner.fit`.
        captioner: the `ImageCaptioner`.
        batch_size: images a batch, for data that is not in batches.
        epochs: how many epochs of a `CaptionDataset` there are to be.
        seed: of their order; None for the order of the examples.

    Returns:
        A `tf.data.Dataset`, and the number of batches in an epoch, or None.

    Raises:
        ValueError: the data has another structure.
    """
    if isinstance(data, (list, tuple)) and data and _is_example(data[0]):
        return _from_examples(data, captioner, batch_size, epochs, seed)
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(f"{EXPECTED}. Received: {type(data).__name__}")
    spec = data.element_spec
    if isinstance(spec, dict) and "captions" in spec:
        images = [key for key in ("images", "image_features") if key in spec]
        if len(images) == 1 and _rank(spec["captions"]) in (1, 2):
            return data, None
        if "image" in spec:  # as TensorFlow Datasets have it
            data = data.map(lambda example: (example["image"], example["captions"]))
            spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"{EXPECTED}. Received: elements {_shown(spec)}")
    image, captions = spec
    if getattr(captions, "dtype", None) != tf.string:
        raise ValueError(f"{EXPECTED}. Received: elements {_shown(spec)}")
    features = tuple(captioner.feature_spec.shape)
    rank, tail = _rank(image), tuple(image.shape)[-2:]
    converter = captioner.preprocessor.image_converter
    if image.dtype.is_floating and rank in (2, 3) and tail == features:
        key, convert, of_one = "image_features", lambda x: x, 2
    elif image.dtype == tf.string and rank == 0:
        key, of_one = "images", 0
        convert = lambda x: converter(converter.decode(x))  # noqa: E731
    elif image.dtype != tf.string and rank in (3, 4) and tail[-1] in (3, None):
        key, convert, of_one = "images", converter, 3
    else:
        raise ValueError(f"{EXPECTED}. Received: elements {_shown(spec)}")
    if _rank(captions) not in ((0, 1) if rank == of_one else (1, 2)):
        raise ValueError(f"{EXPECTED}. Received: elements {_shown(spec)}")
    data = data.map(
        lambda image, captions: {key: convert(image), "captions": captions},
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Ragged, since images may have different numbers of captions.
    return (data.ragged_batch(batch_size) if rank == of_one else data), None


def _from_examples(examples, captioner, batch_size, epochs, seed):
    images = [example["image"] for example in examples]
    captions = [list(example["captions"]) for example in examples]
    key, read = image_reader(images, captioner.preprocessor.image_converter)
    if seed is not None:
        batch_size = min(batch_size, len(images))
        return training_batches((key, read), captions, batch_size, epochs, seed)
    most = max(map(len, captions))
    padded = [texts + [""] * (most - len(texts)) for texts in captions]

    def batches():
        rows = iter(range(len(images)))
        while indices := list(itertools.islice(rows, batch_size)):
            yield {
                key: read(np.array(indices)),
                "captions": [padded[i] for i in indices],
            }

    spec = captioner.image_spec
    data = tf.data.Dataset.from_generator(
        batches,
        output_signature={
            key: tf.TensorSpec((None, *spec.shape), spec.dtype),
            "captions": tf.TensorSpec((None, most), tf.string),
        },
    )
    # Without it Keras warns at the end of the data.
    count = -(-len(images) // batch_size)
    return data.apply(tf.data.experimental.assert_cardinality(count)), None


def _is_example(value):
    return isinstance(value, dict) and {"image", "captions"} <= value.keys()


def _rank(spec):
    return len(spec.shape) if spec.shape.rank is not None else None


def _shown(spec):
    return " ".join(str(spec).split())[:200]
