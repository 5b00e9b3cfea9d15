"""A copy of the photo with the caption in its metadata."""

import os

from captioner.captioning.writers.existing import joined
from captioner.captioning.writers.xmp import (
    embed_packet,
    read_description,
    read_packet,
    write_description,
)


class EmbeddedCopy:
    """Writes copies of JPEG, PNG and WebP files with the best caption as their XMP
    description, which photo programs show; pixels and other metadata are unchanged.

    Other formats cannot be written so: their photos are reported.

    Args:
        existing: what becomes of a description that the photo has, see `joined`.
    """

    name = "copy"
    suffix = None  # that of the photo

    def __init__(self, existing):
        self.existing = existing

    def read(self, path):
        """The description in the copy; "" where there is a file without; or None."""
        try:
            packet = read_packet(path.read_bytes())
        except (OSError, ValueError):
            return "" if os.path.lexists(path) else None
        return packet and read_description(packet) or ""

    def content(self, photo, path, text):
        """The copy's bytes.

        Raises:
            ValueError: the photo's format has no place for it.
        """
        data = photo.read()
        packet = read_packet(data)
        before = packet and read_description(packet)
        text = joined(self.existing, before, text)
        return embed_packet(data, write_description(text, packet))
