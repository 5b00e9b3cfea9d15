"""One run of `caption`: what is known of each photo, and what is done about it.

The state is in one place, the journal: each batch of photos is written down there, then
their own files are written, and when all photos are done the files of the whole run are
made from it. So a run that was killed goes on where it was, and its outputs are those
that it would have written; and a second run does only what is new.
"""

import contextlib
import dataclasses
import os
import threading
import zlib

from captioner.captioning.journal import Entry
from captioner.captioning.outputs import result_of, styled, write_outputs, write_report
from captioner.captioning.photo_files import DISK_TROUBLE, CaptionFiles
from captioner.captioning.result import CaptionResult
from captioner.captioning.writers import RunInfo
from captioner.images.image_files import ImageError
from captioner.images.photo import Photo
from captioner.images.photo_sources import count_photos

# What may be otherwise the next time, though the file has not changed.
PASSING_KINDS = frozenset("crashed failed missing not_written timeout".split())
PASSING_KINDS |= {"unreadable", "unsupported"}
PLACES = 5_000  # of photos that are known already, written down at a time
KNOWN_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Pending:
    """A photo that an engine has to look at.

    Attributes:
        position: int, its place among all photos.
        photo: `Photo`.
        old: its `Entry` of before, or None.
    """

    position: int
    photo: Photo
    old: Entry | None

    @property
    def known_digest(self):
        """The digest of the content of which the captions are known, or None."""
        is_captioned = self.old is not None and self.old.kind is None
        return self.old.digest if is_captioned else None


class CaptionRun:
    """The photos of a run on their way from the source to the outputs.

    Args:
        photos: iterator of `Photo`.
        journal: `CaptionJournal`.
        writers: list of (writer, folder), of the files of each photo.
        existing, style, shard: see `caption`.
        settings: dict, as JSON has it, of what decides the captions.
    """

    def __init__(self, photos, journal, writers, existing, style, settings, shard):
        self.photos, self.journal, self.existing = photos, journal, existing
        self.files = CaptionFiles(writers, existing, journal.token)
        self.style, self.settings, self.shard = style, settings, shard
        self.wants_thumbnails = False
        self.refuses_to_lose = False  # rows that an output has and would not have
        self.num_photos = 0  # of all shards
        self.places = []  # (position, photo) and
        self.entries = []  # Entry, and
        self.written = []  # names whose files are there: all to be written down

    def plan(self):
        """What would be done: a `CaptionResult` of each photo."""
        with contextlib.closing(self.journal):
            self.journal.run = self.journal.fact("run", 0) + 1
            for _, photo in self._own_photos():
                entry, old = self._decide(photo)
                if entry is None:
                    yield CaptionResult(photo.name, kind="to_caption")
                elif entry.captions and entry.kind is None:
                    result = result_of(entry, self.style)
                    yield dataclasses.replace(result, kind="done")
                else:
                    yield result_of(entry, self.style)

    def results(self, make_engine, batch_size, outputs, progress, counted, sources):
        """Caption all photos and write all outputs; yields `CaptionResult`s."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.journal.close)
            stack.enter_context(progress)
            self.journal.set_fact("settings", self.settings)
            self.journal.begin()
            if counted is not None:
                _count(counted, self.shard, progress)
            engine = make_engine()
            stack.callback(engine.close)
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
            self._write_down()  # what the first one wrote
            if self.refuses_to_lose:
                self._check_left_out()
            info = RunInfo(
                self.settings["num_captions"], self.settings, self.journal.thumbnail
            )
            make_results = self._all_results
            write_outputs(outputs, make_results, info, self.journal.token, self.journal)
            if self.journal.folder is not None:
                write_report(
                    self.journal.folder, make_results, info, self.journal.token
                )
            with self.journal.transaction():
                self.journal.set_fact("num_photos", self.num_photos)
                self.journal.set_fact("sources", sources)
                self.journal.set_fact("finished", True)

    def _check_left_out(self):
        for name in self.journal.not_listed():
            if _is_there(name):
                raise ValueError(
                    f"{self.journal.folder} is of a run that had {name}, too; name it "
                    "again, choose another output, or overwrite it."
                )

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
        batch = []
        for position, photo in self._own_photos():
            entry, old = self._decide(photo)
            if entry is None:
                batch.append(Pending(position, photo, old))
                if len(batch) == batch_size:
                    yield batch
                    batch = []
                continue
            entry = self._see_to_files(photo, entry)
            if entry != old:
                self.entries.append(entry)
            self.places.append((position, photo))
            if len(self.places) >= PLACES:
                self._write_down()
            ready.append(result_of(entry, self.style))
            if len(ready) >= KNOWN_AT_ONCE:
                yield []
        if batch:
            yield batch

    def _decide(self, photo):
        """(entry, old): what is known of a photo, None if an engine has to look at it;
        and what an earlier run knew of it, or None."""
        old, run = self.journal.find(photo.name), self.journal.run
        error = photo.error
        if error is None and (reason := self.files.take(photo)):
            error = ImageError(photo.name, "clash", reason)
        if error is not None:
            return _failed(photo, error, run), old
        is_same = old is not None and old.stamp == photo.stamp
        if is_same and old.captions and old.kind is None and photo.stamp:
            if self.wants_thumbnails and not self.journal.has_thumbnail(photo.name):
                return None, old
            return old, old
        if is_same and not old.captions:
            lasting = photo.stamp and old.kind not in PASSING_KINDS
            if lasting or old.run == run:  # it was tried once in this run
                return old, old
        if self.existing == "skip":
            before = self._before(photo, old)
            text = next(filter(None, before.values()), None)
            if text:
                captions = [[line, None] for line in text.split("\n")]
                kept = Entry(
                    photo.name,
                    photo.stamp,
                    captions=captions,
                    kind="kept",
                    before=before,
                    run=run,
                )
                if old is not None and kept._replace(run=old.run) == old:
                    kept = old
                return kept, old
        return None, old

    def _before(self, photo, old):
        return self.files.before(
            self.files.texts(photo), old and styled(old, self.style)
        )

    def _see_to_files(self, photo, entry):
        """Write what should be there of a known photo and is not."""
        if not entry.captions or not self.files.writers:
            return entry
        which = "missing"
        if not entry.written:  # a run was killed while it wrote
            self.files.clean_up(photo)
            which = "untouched"
        elif self.existing == "overwrite" and entry.kind is None:
            which = "all"
        elif self.files.are_there(photo):
            return entry
        try:
            for path, data in self.files.contents(
                photo, styled(entry, self.style), which
            ):
                self.files.write(path, data)
        except (ValueError, OSError) as error:
            return _failed(photo, _not_written(photo, error), self.journal.run)
        return entry._replace(written=True)

    def _finish(self, batch, outcomes):
        """Write down what became of a batch, and then the photos' own files."""
        thumbnails, contents, entries = [], [], {}
        for pending, outcome in zip(batch, outcomes):
            photo, name = pending.photo, pending.photo.name
            self.places.append((pending.position, photo))
            if isinstance(outcome, ImageError):
                entries[name] = _failed(photo, outcome, self.journal.run)
                continue
            captions = outcome.captions
            if captions is None:  # the content is the known one
                captions = pending.old.captions
            entry = Entry(
                name, photo.stamp, outcome.digest, captions, run=self.journal.run
            )
            if outcome.thumbnail:
                thumbnails.append((name, outcome.thumbnail))
            if self.files.writers:
                try:
                    entry = entry._replace(before=self._before(photo, pending.old))
                    found = self.files.contents(photo, styled(entry, self.style))
                    entry = entry._replace(written=not found)
                    contents += [(photo, *each) for each in found]
                except (ValueError, OSError) as error:
                    entry = _failed(photo, _not_written(photo, error), self.journal.run)
            entries[name] = entry
        self.entries += entries.values()
        self._write_down(thumbnails)
        for photo, path, data in contents:
            try:
                self.files.write(path, data)
                self.written.append(photo.name)
            except ImageError as error:
                entries[photo.name] = _failed(photo, error, self.journal.run)
                self.entries.append(entries[photo.name])
        return [result_of(entry, self.style) for entry in entries.values()]

    def _write_down(self, thumbnails=()):
        if not (self.entries or self.places or self.written):
            return
        with self.journal.transaction():
            self.journal.mark_written(self.written)
            self.journal.add(self.entries)
            self.journal.add_thumbnails(thumbnails)
            self.journal.list(self.places)
        self.entries, self.places, self.written = [], [], []


def _is_there(name):
    """Whether there is a photo of this name, or the archive that it was in."""
    while name and not os.path.lexists(name):
        name = os.path.dirname(name)
        if os.path.isdir(name):
            return False
    return bool(name)


def _failed(photo, error, run):
    return Entry(photo.name, photo.stamp, kind=error.kind, reason=error.reason, run=run)


def _not_written(photo, error):
    if isinstance(error, ImageError):
        return ImageError(photo.name, "not_written", error.reason)
    if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
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
