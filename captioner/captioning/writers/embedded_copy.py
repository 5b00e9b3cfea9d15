"""A copy of the photo with the caption in its metadata."""

import os

from captioner.captioning.writers.photo_metadata import caption_in_file, with_caption


class EmbeddedCopy:
    """Writes copies of JPEG, PNG and WebP files with the best caption in their
    metadata, which photo programs show: in XMP, IPTC and EXIF, so that none contradicts
    the others. Pixels and other metadata are unchanged.

    Other formats cannot be written so: their photos are reported.

    Args:
        existing: what to do with an existing caption, see `joined`.
    """

    name = "copy"
    suffix = None  # that of the photo

    def __init__(self, existing):
        self.existing = existing

    def path(self, photo_path):
        """The file's path for the path of a photo."""
        return photo_path

    def read(self, path):
        """The caption in the copy; "" where there is a file without; None if there is
        no file."""
        try:
            return caption_in_file(path) or ""
        except OSError:
            return "" if os.path.lexists(path) else None

    def content(self, photo, path, text):
        """The bytes of the copy.

        Raises:
            ValueError: the photo's format has no place for a caption.
        """
        keep = self.existing != "overwrite"
        return with_caption(photo.read(), text, keep_translations=keep)
