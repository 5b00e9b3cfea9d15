"""The files that hold the captions of single photos: where they lie, what was in them
before, and how they come to be there whole or not at all."""

import errno
import os
import pathlib

from captioner.captioning.writers.existing import joined, plain
from captioner.captioning.writers.photo_metadata import caption_of
from captioner.images.image_files import ImageError
from captioner.images.photo_sources import SeenNames

# The trouble of a disk, which ends the run; any other is that of one photo.
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}

PHOTO = "photo"  # the name of its own metadata among those of writers


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
        return writer.path(path)

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
                stem = pathlib.PurePath(photo.path).stem
                if writer.name == "xmp" and path.stem == stem:
                    reason += "; use --xmp-name photo.jpg.xmp"
        return reason

    def texts(self, photo):
        """What a photo's files hold.

        Returns:
            dict of writer name to the text, None where there is no caption. `PHOTO` is
            the caption in the photo's own metadata and in XMP files that this run does
            not write; it is left out where all captions are overwritten.

        Raises:
            ValueError: a file cannot be read, and may not be overwritten.
        """
        paths = list(self._paths(photo))
        texts = {writer.name: self._read(writer, path) for writer, path in paths}
        if paths and self.existing != "overwrite":
            texts[PHOTO] = caption_of(photo, [path for _, path in paths])
        return texts

    def _read(self, writer, path):
        try:
            return writer.read(path)
        except ValueError:
            if self.existing != "overwrite":
                raise
            return ""

    def are_there(self, photo):
        """Whether all files of a photo exist."""
        return all(os.path.lexists(path) for _, path in self._paths(photo))

    def before(self, texts, entry):
        """What was there before this run: `texts`, without what `entry` wrote."""
        before = dict(texts)
        if entry is not None and entry.captions and entry.before is not None:
            for writer, _ in self.writers:
                own = self._joined(writer, entry, entry.before.get(writer.name))
                if texts[writer.name] == own:
                    before[writer.name] = entry.before.get(writer.name)
        return before

    def _joined(self, writer, entry, before):
        """The text for a file that had the text `before`. Where that is none, the
        existing caption is the one in its metadata or in another file."""
        others = entry.before or {}
        found = filter(None, [before, others.get(PHOTO), *others.values()])
        before = next(found, None)
        return joined(self.existing, before, self._text(writer, entry))

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
            elif self.existing != "overwrite" and before == "":
                raise ValueError(
                    f"{path.name} exists, without a caption that can be read; it is "
                    "replaced only with overwrite"
                )
            elif self.existing == "skip" and before is not None:
                continue
            is_kept = entry.kind == "kept" and (entry.before or {}).get(PHOTO)
            if is_kept and writer.name == "xmp" and not os.path.lexists(path):
                continue  # programs find the caption where it is
            now = self._read(writer, path)
            text = self._joined(writer, entry, before)
            if now != text and not (which == "untouched" and now != before):
                found.append((path, writer.content(photo, path, text)))
        return found

    @staticmethod
    def _text(writer, entry):
        texts = [plain(text) for text, _ in entry.captions]
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
