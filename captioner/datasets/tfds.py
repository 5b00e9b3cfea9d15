"""Any dataset of TensorFlow Datasets that has images and captions."""

import dataclasses
from collections.abc import Sequence

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import canonical_split

_CAPTION_FEATURES = ("captions", "caption", "text")
_ID_FEATURES = ("image/filename", "filename", "file_name", "image/id", "image_id", "id")


def read_tfds(name, data_dir=None, download=True):
    """Reads a dataset of TensorFlow Datasets by name, and downloads it if necessary.

    It must have a feature `image` and a feature `captions`, `caption` or
    `text`: a text, a sequence of texts, or a sequence of dicts with a text in
    them. The captions are read once and kept; images stay on disk, as encoded
    bytes, and are read when they are used. So the dataset is prepared as ArrayRecord,
    which has random access; a copy that TFDS has prepared in its older default
    format cannot be read, and needs another `data_dir`. The id of an image is
    the name of its split in TFDS and its file name, or its number, there; that
    no image is in two splits is the promise of the dataset's script.

    Args:
        name: str. As for `tfds.builder`: `"coco_captions"`,
            `"coco_captions/2014:1.1.0"`.
        data_dir: str or None. Where TFDS keeps its data.
        download: bool. Whether to download and prepare a dataset that is not there.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If TFDS is not installed or does not know the name, the
            dataset has no images with captions or cannot be prepared, or
            nothing usable is left; or if it is not there and may not be
            downloaded.

    Example:

    ```python
    dataset = read_tfds("coco_captions")
    ```
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"tfds:{name} needs `pip install captioner[tfds]`: {error}."
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"TFDS has no dataset {name!r}.") from error
    except (ValueError, AssertionError) as error:
        hint = ""
        if "File format is already set" in str(error):
            hint = "It was prepared without random access; give another data_dir. "
        raise ValueError(f"tfds:{name} cannot be used: {hint}{_line(error)}") from error
    features = builder.info.features
    caption_feature = next((key for key in _CAPTION_FEATURES if key in features), None)
    if "image" not in features or caption_feature is None:
        raise ValueError(
            f"tfds:{name} has no images with captions. Received: "
            f"features={sorted(features)}"
        )
    if not download and not builder.is_prepared():
        size = builder.info.download_size
        raise ValueError(
            f"tfds:{name} is not in {builder.data_dir} yet. Training on it, or "
            f"evaluating, downloads it first ({size or 'of unknown size'})."
        )
    id_feature = next((key for key in _ID_FEATURES if key in features), None)
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever the script of a dataset may raise
        raise ValueError(f"tfds:{name} cannot be prepared: {_line(error)}") from error

    dataset = DatasetBuilder(f"tfds:{name}")
    # The splits are unknown only where a test mocks the data; then any will do.
    for split in builder.info.splits or ("train", "validation", "test"):
        if canonical_split(split) is None:
            dataset.leave_out(split, "split that is not train, dev or test")
        else:
            # The bytes as they are in the file, since all images are decoded in one
            # way. Set here and not above: `tfds.testing.mock_data` has no fake encoded
            # examples of datasets with nested features, such as COCO.
            source = builder.as_data_source(split)
            source.decoders = {"image": tfds.decode.SkipDecoding()}
            _read_split(source, split, caption_feature, id_feature, dataset)
    return dataset.build()


def _read_split(source, split, caption_feature, id_feature, dataset):
    for index in range(len(source)):
        example = source[index]
        own_id = _text(example[id_feature]) if id_feature else str(index)
        image_id = f"{split}/{own_id}"
        if image_id in dataset:
            image_id = f"{split}/{own_id}#{index}"
        captions = _captions(example[caption_feature])
        dataset.add(image_id, captions, split, image=TfdsImage(source, split, index))


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsImage:
    """An image in a dataset of TFDS, which is read when it is used.

    Attributes:
        source: the data source of a split.
        split: str, its name in TFDS.
        index: int, the number of the example in it.
    """

    source: Sequence
    split: str
    index: int

    @property
    def name(self):
        """What the image is called in messages."""
        return f"example {self.index} of the split {self.split}"

    def read(self):
        """The bytes of the image."""
        return self.source[self.index]["image"]


def _captions(value):
    """Texts of a feature: a text, a sequence of them, or dicts with a text."""
    if isinstance(value, dict):
        # A sequence of dicts comes as a dict of sequences.
        key = next((key for key in ("text", "caption", "raw") if key in value), None)
        value = value[key] if key else ()
    if isinstance(value, (str, bytes)):
        value = [value]
    return [_text(caption) for caption in value]


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _line(error):
    return " ".join(str(error).split())[:300]
