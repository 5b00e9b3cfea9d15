"""The files that hold the captions of single photos: where they lie, what was in them
before, and how they come to be there whole or not at all."""

import errno
import os
import pathlib

from captioner.captioning.writers.existing import joined
from captioner.images.image_files import ImageError
from captioner.images.seen_names import SeenNames

# The trouble of a disk, which ends the run; any other is that of one photo.
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}


class CaptionFiles:
    """The caption files of a run.

    Args:
        writers: list of (writer, folder); the folder is None for files beside photos.
        existing: what becomes of captions that are there, see `joined`.
        token: a random name for unfinished files.
    """

    def __init__(self, writers, existing, token):
        self.writers, self.existing, self.token = writers, existing, token
        self._taken = SeenNames()

    def path(self, photo, writer, folder):
        """Where a photo's file is."""
        path = pathlib.Path(photo.path if folder is None else folder)
        if folder is not None:
            path = path / photo.relative
        return path if writer.suffix is None else path.with_suffix(writer.suffix)

    def _paths(self, photo):
        for writer, folder in self.writers:
            yield writer, self.path(photo, writer, folder)

    def take(self, photo):
        """Take the photo's files for it alone; why that cannot be, or None."""
        reason = None
        if photo.member is not None and any(not folder for _, folder in self.writers):
            return "beside an archive is no place for its files; name a sidecar folder"
        for writer, path in self._paths(photo):
            if _is_same_file(path, photo.path):
                reason = f"its {path.suffix} would replace the photo itself"
            elif not self._taken.add(os.path.abspath(path)):
                reason = f"{path.name} holds the caption of another photo"
        return reason

    def texts(self, photo):
        """dict of writer name to the text that its file has; None for no file."""
        return {writer.name: writer.read(path) for writer, path in self._paths(photo)}

    def are_there(self, photo):
        """Whether all files of a photo exist."""
        return all(os.path.lexists(path) for _, path in self._paths(photo))

    def before(self, texts, entry):
        """What was there before this run: `texts`, without what `entry` wrote."""
        before = {}
        for writer, _ in self.writers:
            text = before[writer.name] = texts[writer.name]
            if entry is not None and entry.captions and entry.before is not None:
                own = entry.before.get(writer.name)
                if text == joined(self.existing, own, self._text(writer, entry)):
                    before[writer.name] = own
        return before

    def contents(self, photo, entry, which="all"):
        """The (path, bytes) that have to be written for an entry.

        Args:
            photo: a `Photo`.
            entry: its `Entry`, with `before`; its captions are in their final form.
            which: "all"; "missing", files that are not there; or "untouched", files
                that are as they were before.

        Raises:
            ValueError: one cannot be made.
            OSError: one cannot be read.
        """
        found = []
        for writer, path in self._paths(photo):
            before = (entry.before or {}).get(writer.name)
            if which == "missing":
                if os.path.lexists(path):
                    continue
                before = None
            elif self.existing == "skip" and before is not None:
                if not before:
                    raise ValueError(
                        f"{path.name} is there, without a caption that can be read; it "
                        "is replaced only with overwrite"
                    )
                continue
            now = writer.read(path)
            text = joined(self.existing, before, self._text(writer, entry))
            if now != text and not (which == "untouched" and now != before):
                found.append((path, writer.content(photo, path, text)))
        return found

    @staticmethod
    def _text(writer, entry):
        texts = [text for text, _ in entry.captions]
        return "\n".join(texts) if writer.name == "text" else texts[0]

    def write(self, path, data):
        """Write a file, which appears under its name when it is whole.

        Raises:
            ImageError: it cannot be there, as in a folder that is not ours.
            OSError: the disk is full, or the like.
        """
        part = path.with_name(f".{self.token}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(data)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in DISK_TROUBLE:
                reason = f"{path.name} cannot be written: {error.strerror}"
                raise ImageError(str(path), "not_written", reason) from error
            if error.filename in (None, str(part)):  # a full disk names no file
                error.filename = str(path)
                error.filename2 = None
            raise

    def clean_up(self, photo):
        """Remove what a killed run may have left unfinished beside a photo's files."""
        for _, path in self._paths(photo):
            path.with_name(f".{self.token}.part").unlink(missing_ok=True)


def _is_same_file(path, photo_path):
    try:
        return path == pathlib.Path(photo_path) or os.path.samefile(path, photo_path)
    except OSError:  # one of them is not there
        return False
