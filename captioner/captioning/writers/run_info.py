"""What is known of a run beside its results."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What the writers of a run's outputs need to know of it.

    Attributes:
        num_captions: int, captions per photo.
        settings: dict of all that decides the captions; "preset" is a list of dicts
            with a "name", of each preset that writes.
        thumbnail: function of a photo's name that returns a small JPEG, or None.
        protect_spreadsheets: bool, whether CSV cells are protected, see
            `spreadsheets.protect`.
    """

    num_captions: int
    settings: dict
    thumbnail: typing.Callable[[str], bytes | None]
    protect_spreadsheets: bool = True
