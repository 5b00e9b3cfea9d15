"""A photo whose reading does something else, in whatever process that is."""

import dataclasses

from captioner.images.photo import Photo


@dataclasses.dataclass(frozen=True)
class Trap(Photo):
    """A `Photo` that runs `action` when it is read."""

    action: str = ""

    def read(self):
        exec(self.action)
        return super().read()
