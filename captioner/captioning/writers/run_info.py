"""What a writer may want to know beside the results."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """About a run.

    Attributes:
        num_captions: int, captions asked for of each photo.
        settings: dict of all that decides what is written; "preset" is a list of dicts
            with a "name", of each that writes.
        thumbnail: function of a photo's name that returns a small JPEG, or None.
    """

    num_captions: int
    settings: dict
    thumbnail: typing.Callable[[str], bytes | None]
