"""The files that hold the captions of single photos: where they are, what they held
before, and how they are written whole or not at all."""

import contextlib
import errno
import functools
import os
import pathlib

from captioner.captioning.outputs import captions_of
from captioner.captioning.writers.existing import joined, plain
from captioner.captioning.writers.photo_metadata import caption_of
from captioner.files import atomic_write
from captioner.images.image_files import ImageError
from captioner.images.seen_names import SeenNames

# Errors of the disk, which end the run; any other is an error of one photo.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}

PHOTO = "photo"  # the name of its own metadata among those of writers


class PhotoFiles:
    """The caption files of single photos in a run.

    Args:
        writers: list of (writer, folder); the folder is None for files beside photos.
        existing: what to do with existing captions, see `joined`.
        style: the `CaptionStyle` of what is written.
        token: a random name for the unfinished files of this process.
        old_tokens: list of str, those of processes that may have been killed.
    """

    def __init__(self, writers, existing, style, token, old_tokens=()):
        self.writers, self.existing, self.style = writers, existing, style
        self._token, self._old_tokens = token, old_tokens
        self._claimed = SeenNames()

    def _paths(self, photo):
        """(writer, path) of each file of a photo."""
        for writer, folder in self.writers:
            path = pathlib.Path(photo.path if folder is None else folder)
            if folder is not None:
                path = path / photo.relative
            yield writer, writer.path(path)

    def claim(self, photo):
        """Reserve the photo's files; returns why that is impossible, or None."""
        reason = None
        if photo.member is not None and any(not folder for _, folder in self.writers):
            return "cannot write sidecars next to an archive; use --sidecar-folder"
        for writer, path in self._paths(photo):
            if _is_same_file(path, photo.path):
                reason = f"its {path.suffix} would replace the photo itself"
            elif not self._claimed.add(os.path.abspath(path)):
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

    def exist(self, photo):
        """Whether all files of a photo exist."""
        return all(os.path.lexists(path) for _, path in self._paths(photo))

    def before(self, texts, entry):
        """What the files held before this run.

        Args:
            texts: dict, what they hold now.
            entry: the photo's `Entry`, whose captions are taken out; or None.
        """
        before = dict(texts)
        payload = None if entry is None else entry.payload
        known = None if payload is None else payload.get("before")
        if known is not None:
            for writer, _ in self.writers:
                old = known.get(writer.name)
                ours = [self._joined(writer, entry, old)]
                if not entry.written:  # then it may be what the run wanted to replace
                    ours += _found(payload, writer)
                if texts[writer.name] in ours:
                    before[writer.name] = old
        return before

    def _joined(self, writer, entry, before):
        """The text for a file that had the text `before`. Where that is none, the
        existing caption is the one in the photo's metadata or in another file."""
        others = entry.payload.get("before") or {}
        found = filter(None, [before, others.get(PHOTO), *others.values()])
        return joined(self.existing, next(found, None), self._text(writer, entry))

    def contents(self, photo, entry, which="all"):
        """The files that have to be written for an entry.

        Args:
            photo: a `Photo`.
            entry: its `Entry`.
            which: "all"; "missing", files that do not exist; or "untouched", files
                that are as they were before.

        Returns:
            list of (path, make, replace), see `write`. The bytes are made when they
            are written, so that no more than one copy of a photo is in memory.

        Raises:
            ValueError: a file cannot be read, or may not be replaced.
        """
        found = []
        for writer, path in self._paths(photo):
            known = entry.payload.get("before") or {}
            before = known.get(writer.name)
            exists = os.path.lexists(path)
            if which == "missing":
                if exists:
                    continue
                before = None
            elif self.existing != "overwrite" and before == "":
                raise ValueError(
                    f"{path.name} exists, without a caption that can be read; it is "
                    "replaced only with overwrite"
                )
            elif self.existing == "skip" and before is not None:
                continue
            is_kept = entry.kind == "kept" and known.get(PHOTO)
            if is_kept and writer.name == "xmp" and not exists:
                continue  # photo programs find the caption where it is
            now = self._read(writer, path)
            text = self._joined(writer, entry, before)
            is_touched = now not in (before, *_found(entry.payload, writer))
            if now != text and not (which == "untouched" and is_touched):
                replace = exists or self.existing == "overwrite"
                make = functools.partial(writer.content, photo, path, text)
                found.append((path, make, replace))
        return found

    def _text(self, writer, entry):
        texts = [plain(text) for text, _ in captions_of(entry, self.style)]
        return "\n".join(texts) if writer.name == "text" else texts[0]

    def write(self, path, make, replace):
        """Write a file, which appears under its name when it is complete.

        Args:
            path: the file.
            make: function that returns its bytes.
            replace: whether to replace a file; if not, one that has appeared since
                `contents` looked is kept.

        Raises:
            ValueError: its bytes cannot be made.
            ImageError: it cannot be written, as in a folder of another user.
            OSError: the disk is full, or the like.
        """
        data = make()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, token=self._token, replace=replace) as file:
                file.write(data)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            reason = f"{path.name} cannot be written: {error.strerror}"
            raise ImageError(str(path), "not_written", reason) from error

    def clean_up(self, photo):
        """Remove what a killed run may have left unfinished beside a photo's files."""
        for token in self._old_tokens:
            for _, path in self._paths(photo):
                with contextlib.suppress(OSError):
                    path.with_name(f".{token}.part").unlink()


def _found(payload, writer):
    """What a file held, if that was a caption of ours: a list of one text or none."""
    found = payload.get("found") or {}
    return [found[writer.name]] if writer.name in found else []


def _is_same_file(path, photo_path):
    try:
        return path == pathlib.Path(photo_path) or os.path.samefile(path, photo_path)
    except OSError:  # one of them does not exist
        return False
