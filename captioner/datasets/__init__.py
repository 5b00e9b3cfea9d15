"""Readers and builders of datasets: `load_dataset(spec)` is the way in."""

from captioner.datasets.caption_dataset import CaptionDataset, DatasetSummary
from captioner.datasets.flickr8k import read_flickr8k

__all__ = ["CaptionDataset", "DatasetSummary", "load_dataset"]

_READERS = {"flickr8k": read_flickr8k}


def load_dataset(spec) -> CaptionDataset:
    """Loads a dataset by its spec, `"READER:WHERE"`.

    Raises:
        ValueError: If the spec is unknown or the dataset has no usable image.
    """
    reader, colon, where = str(spec).partition(":")
    if reader not in _READERS or not colon:
        raise ValueError(
            f"A dataset is given as READER:WHERE with one of the readers "
            f"{sorted(_READERS)}. Received: spec={spec!r}"
        )
    return _READERS[reader](where)
