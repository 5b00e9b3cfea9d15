"""One run of `caption`: what is known of each photo, and what is done about it.

The state is in one place, the journal. Each batch of photos is written there first,
then the photos' own files are written, and when all photos are done, the outputs of the
whole run are made from the journal. So a run that was killed continues where it was,
and its outputs are the same as without the interruption; and a second run captions only
what is new.
"""

import contextlib
import dataclasses
import os
import threading
import zlib

from captioner.captioning.outputs import result_of, write_outputs, write_report
from captioner.captioning.photo_files import DISK_ERRORS, PhotoFiles
from captioner.captioning.result import CaptionResult
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import RunInfo
from captioner.images.image_files import ImageError
from captioner.images.left_aside import LeftAside
from captioner.images.photo import Photo
from captioner.images.photo_sources import count_photos
from captioner.journal import Entry

# Errors that may be gone the next time, though the photo has not changed.
PASSING_KINDS = frozenset("crashed failed missing not_written timeout".split())
PASSING_KINDS |= {"unreadable", "unsupported"}
BATCH_BYTES = 2**26  # of photos that are held in memory, in one batch
PHOTOS_PER_TRANSACTION = 5_000  # of photos that are known already
KNOWN_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Pending:
    """A photo that an engine has to look at.

    Attributes:
        position: int, its place among all photos.
        photo: `Photo`.
        old: its `Entry` from before, or None.
    """

    position: int
    photo: Photo
    old: Entry | None

    @property
    def known_digest(self):
        """The digest of the content whose captions are known, or None."""
        is_captioned = self.old is not None and self.old.kind is None
        return self.old.digest if is_captioned else None


class CaptionRun:
    """The photos of a run on their way from the source to the outputs.

    Args:
        photos: iterator of `Photo`.
        journal: the `Journal` of the run.
        settings: dict, as JSON has it, of what decides the captions.
        outputs: list of paths, of files for the whole run.
        writers: list of (writer, folder), of the files of each photo.
        existing: what to do with existing captions, see `caption`.
        style: the `CaptionStyle`.
        shard: (i, n), or None for all photos.
        sources: list of the files and folders that the photos come from; None where
            only reading them to the end tells.
        protect_spreadsheets: see `caption`.
        left_aside: the `LeftAside` that `photos` fills.
    """

    def __init__(
        self,
        photos,
        journal,
        settings,
        outputs=(),
        writers=(),
        existing="skip",
        style=CaptionStyle(),
        shard=None,
        sources=None,
        protect_spreadsheets=True,
        left_aside=None,
    ):
        self.photos, self.journal, self.settings = photos, journal, settings
        self.outputs, self.existing, self.style = outputs, existing, style
        self.shard, self.sources = shard, sources
        self.left_aside = left_aside or LeftAside()
        self.files = PhotoFiles(
            writers, existing, style, journal.token, journal.old_tokens
        )
        self.wants_thumbnails = any(
            output.suffix.lower() == ".html" for output in outputs
        )
        self.info = RunInfo(
            settings["num_captions"], settings, journal.thumbnail, protect_spreadsheets
        )
        self.num_photos = 0  # of all shards
        self.num_listed = 0  # of this one
        self.places = []  # (position, photo) and
        self.entries = []  # `Entry`s that are not in the journal yet

    def plan(self, progress):
        """What would be done: a `CaptionResult` for each photo."""
        with contextlib.closing(self.journal), progress:
            self.journal.run = self.journal.get("run", 0) + 1
            for _, photo in self._own_photos():
                entry, _ = self._decide(photo)
                if entry is None:
                    yield CaptionResult(photo.name, kind="to_caption")
                elif entry.kind is None:
                    result = result_of(entry, self.style)
                    yield dataclasses.replace(result, kind="done")
                else:
                    yield result_of(entry, self.style)
            progress.left_aside = self.left_aside.counts()

    def results(self, make_engine, batch_size, progress):
        """Caption all photos and write all outputs; yields `CaptionResult`s.

        Args:
            make_engine: function that returns the engine.
            batch_size: how many photos it gets at a time.
            progress: a `RunProgress`.
        """
        with contextlib.closing(self.journal), progress:
            yield from self._results(make_engine, batch_size, progress)

    def _results(self, make_engine, batch_size, progress):
        if self.journal.note:
            progress.note(self.journal.note)
        self.journal.begin(self.settings)
        if self.sources is not None:
            _count(self.sources, self.shard, progress)
        with contextlib.closing(make_engine()) as engine:
            ready = []
            for batch, outcomes in engine.run(self._batches(batch_size, ready)):
                known = ready[:]
                ready.clear()
                progress.update(known=len(known))
                yield from known
                results = self._finish(batch, outcomes)
                failed = sum(each.error is not None for each in results)
                progress.update(done=len(results) - failed, failed=failed)
                yield from results
            progress.update(known=len(ready))
            yield from ready
        self._write_down()
        self._write_outputs()
        progress.left_aside = self.left_aside.counts()

    def _write_outputs(self):
        overwrite = self.existing == "overwrite"
        if self.outputs and not overwrite:
            self._check_left_out()
        write_outputs(
            self.outputs,
            self._all_results,
            self.num_listed,
            self.info,
            self.journal,
            overwrite,
        )
        folder = self.journal.folder
        if folder is not None:
            left_aside = self.left_aside.counts()
            write_report(folder, self._all_results, self.info, left_aside, self.journal)
        self.journal.finish(
            left_aside=self.left_aside.counts(),
            num_photos=self.num_photos,
            num_listed=self.num_listed,
            sources=self.sources and [stored(each, folder) for each in self.sources],
        )

    def _check_left_out(self):
        """Refuse to leave photos out of an output that has them."""
        for name in self.journal.not_listed():
            if _is_there(name):
                raise ValueError(left_out(self.journal.folder, name))

    def _all_results(self):
        return (result_of(entry, self.style) for _, _, entry in self.journal.listed())

    def _own_photos(self):
        for position, photo in enumerate(self.photos):
            self.num_photos = position + 1
            if self.shard is not None:
                # By its name: new photos move no other to another shard.
                number = zlib.crc32(os.fsencode(photo.name)) % self.shard[1]
                if number != self.shard[0] - 1:
                    continue
            yield position, photo

    def _batches(self, batch_size, ready):
        """Lists of `Pending`; the results of other photos go to `ready`."""
        batch, held = [], 0
        for position, photo in self._own_photos():
            entry, old = self._decide(photo)
            if entry is None:
                batch.append(Pending(position, photo, old))
                held += photo.num_bytes_held
                if len(batch) == batch_size or held >= BATCH_BYTES:
                    yield batch
                    batch, held = [], 0
                continue
            entry = self._see_to_files(photo, entry)
            if entry != old:
                self.entries.append(entry)
            self.places.append((position, photo.without_bytes()))
            if len(self.places) >= PHOTOS_PER_TRANSACTION:
                self._write_down()
            ready.append(result_of(entry, self.style))
            if len(ready) >= KNOWN_AT_ONCE:
                yield []
        if batch:
            yield batch

    def _decide(self, photo):
        """(entry, old): what is known of a photo, or None if an engine has to look at
        it; and what an earlier run knew of it, or None."""
        old, run = self.journal.find(photo.name), self.journal.run
        error = photo.error
        if error is None and (reason := self.files.claim(photo)):
            error = ImageError(photo.name, "clash", reason)
        if error is not None:
            return _failed(photo, error, run, old), old
        is_same = old is not None and old.stamp == photo.stamp
        if is_same and old.kind is None and photo.stamp:
            if self.wants_thumbnails and not self.journal.has_thumbnail(photo.name):
                return None, old
            return old, old
        if is_same and old.failed:
            is_lasting = photo.stamp and old.kind not in PASSING_KINDS
            if is_lasting or old.run == run:  # it was tried once in this run
                return old, old
        try:
            before = {} if self.existing == "overwrite" else self._before(photo, old)
        except ValueError as error:
            return _failed(photo, _not_written(photo, error), run, old), old
        if self.existing == "skip":
            text = next(filter(None, before.values()), None)
            if text:
                captions = [[line, None] for line in text.split("\n")]
                kept = Entry(
                    photo.name,
                    photo.stamp,
                    payload={"captions": captions, "before": before},
                    kind="kept",
                    run=run,
                )
                if old is not None and kept._replace(run=old.run) == old:
                    kept = old
                return kept, old
        return None, old

    def _before(self, photo, old):
        return self.files.before(self.files.texts(photo), old)

    def _see_to_files(self, photo, entry):
        """Write the files of a known photo that should exist and do not."""
        if entry.failed or not self.files.writers:
            return entry
        which = "missing"
        if not entry.written:  # a run was killed while it wrote
            which = "untouched"
        elif self.existing == "overwrite" and entry.kind is None:
            which = "all"
        elif entry.kind == "kept" and entry.run == self.journal.run:
            which = "all"  # an older caption of ours would contradict it
        elif self.files.exist(photo):
            return entry
        self.files.clean_up(photo)
        try:
            for path, make, replace in self.files.contents(photo, entry, which):
                self.files.write(path, make, replace)
        except (ValueError, OSError) as error:
            return _failed(photo, _not_written(photo, error), self.journal.run, entry)
        return entry._replace(written=True)

    def _finish(self, batch, outcomes):
        """Note in the journal what became of a batch, then write the photos' files."""
        thumbnails, contents, entries, run = [], {}, {}, self.journal.run
        for pending, outcome in zip(batch, outcomes):
            photo, name = pending.photo, pending.photo.name
            self.places.append((pending.position, photo))
            if isinstance(outcome, ImageError):
                entries[name] = _failed(photo, outcome, run, pending.old)
                continue
            payload = {"captions": outcome.captions, "confidence": outcome.confidence}
            if outcome.captions is None:  # the content is the known one
                payload = {key: pending.old.payload.get(key) for key in payload}
            entry = Entry(name, photo.stamp, outcome.digest, payload, run=run)
            if outcome.thumbnail:
                thumbnails.append((name, outcome.thumbnail))
            if self.files.writers:
                try:
                    found = self.files.texts(photo)
                    payload["before"] = self.files.before(found, pending.old)
                    if found != payload["before"]:
                        payload["found"] = found
                    contents[name] = self.files.contents(photo, entry)
                    entry = entry._replace(written=not contents[name])
                except (ValueError, OSError) as error:
                    error = _not_written(photo, error)
                    entry = _failed(photo, error, run, pending.old)
            entries[name] = entry
        self.entries += entries.values()
        self._write_down(thumbnails)
        photos = {pending.photo.name: pending.photo for pending in batch}
        for name, files in contents.items():
            try:
                for path, make, replace in files:
                    self.files.write(path, make, replace)
                entry = entries[name]._replace(written=True)
            except (ValueError, OSError) as error:
                error = _not_written(photos[name], error)
                entry = _failed(photos[name], error, run, entries[name])
            if entry != entries[name]:
                entries[name] = entry
                self.entries.append(entry)
        return [result_of(entry, self.style) for entry in entries.values()]

    def _write_down(self, thumbnails=()):
        if not (self.entries or self.places):
            return
        with self.journal.transaction():
            self.journal.add(self.entries)
            self.journal.add_thumbnails(thumbnails)
            self.journal.list(self.places)
        self.num_listed += len(self.places)
        self.entries, self.places = [], []


def left_out(folder, path):
    """The message for a photo, or a source of photos, that a run would leave out."""
    return (
        f"{folder} belongs to a run that included {path}; include it again, choose "
        "another output, or overwrite it."
    )


def located(path, folder):
    """The absolute path of what `stored` has made."""
    return os.path.abspath(os.path.join(folder or "", path))


def stored(path, folder):
    """The form of a path in the journal of a run folder: a relative path is relative to
    that folder, so that all may be moved together."""
    if folder is None or os.path.isabs(path):
        return os.path.abspath(path)
    return os.path.relpath(path or os.curdir, folder)


def _is_there(name):
    """Whether a photo of this name exists, or the archive that it was in."""
    while name and not os.path.lexists(name):
        name = os.path.dirname(name)
        if os.path.isdir(name):
            return False
    return bool(name)


def _failed(photo, error, run, old):
    entry = Entry(
        photo.name, photo.stamp, kind=error.kind, reason=error.reason, run=run
    )
    if old is None:
        return entry
    # When the photo can be read again, it is still known which captions were ours.
    return entry._replace(payload=old.payload, written=old.written)


def _not_written(photo, error):
    if isinstance(error, ImageError):
        return ImageError(photo.name, "not_written", error.reason)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        raise error
    reason = getattr(error, "strerror", None) or str(error)
    return ImageError(photo.name, "not_written", f"its caption: {reason}")


def _count(paths, shard, progress):
    """Count photos while the first ones are captioned."""

    def count():
        total = count_photos(paths)
        if total is not None:
            progress.total = total // (shard[1] if shard else 1)

    threading.Thread(target=count, daemon=True).start()
