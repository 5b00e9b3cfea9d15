"""How an engine works: what is the same on this machine and on a Ray cluster."""

import dataclasses
import os

from captioner.images.decode_workers import TIME_LIMIT
from captioner.images.image_files import MAX_PIXELS


def default_workers():
    """A decoding process for each core that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """How an engine captions photos.

    Args:
        num_captions: number of captions of each photo.
        batch_size: number of photos that the model sees at a time.
        workers: number of decoding processes; by default one for each core.
        time_limit: seconds that decoding one photo may take.
        max_pixels: a picture with more pixels is refused before it is decoded.
        thumbnails: whether each photo gets a thumbnail.

    Raises:
        ValueError: a number is not above 0.

    Example:

    >>> EngineOptions(workers=2).batch_size
    8
    """

    num_captions: int = 1
    batch_size: int = 8
    workers: int = dataclasses.field(default_factory=default_workers)
    time_limit: float = TIME_LIMIT
    max_pixels: int = MAX_PIXELS
    thumbnails: bool = False

    def __post_init__(self):
        for name, value in vars(self).items():
            if name != "thumbnails" and not value > 0:
                raise ValueError(f"{name} must be above 0. Received: {name}={value}")
