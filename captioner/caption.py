"""Caption photos, folders and archives of photos: `captioner caption`.

The state is in one place, the journal: each batch of photos is written down there, then
their own files are written, and when all photos are done the files of the whole run are
made from it. So a run that was killed goes on where it was, and its outputs are those
that it would have written; and a second run does only what is new.
"""

import contextlib
import dataclasses
import functools
import glob
import hashlib
import itertools
import json
import os
import pathlib
import threading
import zlib

from captioner import presets
from captioner.caption_engine import LocalEngine, default_num_workers
from captioner.caption_files import DISK_TROUBLE, CaptionFiles
from captioner.caption_journal import JOURNAL_FILE, CaptionJournal, Entry
from captioner.caption_outputs import (
    check_outputs,
    result_of,
    styled,
    write_outputs,
    write_report,
)
from captioner.caption_result import CaptionResult
from captioner.caption_style import CaptionStyle
from captioner.caption_writers import EmbeddedCopy, RunInfo, TextSidecar, XmpSidecar
from captioner.caption_writers.existing import EXISTING
from captioner.decode_workers import TIME_LIMIT
from captioner.image_files import MAX_PIXELS, ImageError
from captioner.photo_sources import Photo, count_photos, find_photos
from captioner.progress import RunProgress
from captioner.terminal import import_tensorflow

DEFAULT_PRESET = "efficientnet_lite2_lstm_flickr8k"
BATCH_SIZE = 8
# What may be otherwise the next time, though the file has not changed.
PASSING_KINDS = frozenset("crashed failed missing not_written timeout".split())
PASSING_KINDS |= {"unreadable", "unsupported"}
PLACES = 5_000  # of photos that are known already, written down at a time
KNOWN_AT_ONCE = 256


def caption(
    paths=(),
    preset=DEFAULT_PRESET,
    output=(),
    files_from=None,
    sidecars=False,
    sidecar_suffix=".txt",
    xmp=False,
    sidecar_folder=None,
    copies=None,
    existing="skip",
    dry_run=False,
    run_folder=None,
    sampler=None,
    num_captions=1,
    style=CaptionStyle(),
    batch_size=None,
    workers=None,
    time_limit=TIME_LIMIT,
    max_pixels=MAX_PIXELS,
    shard=None,
    engine="local",
    progress="auto",
):
    """Caption files, folders and archives; a bad photo is reported, the rest goes on.

    Args:
        paths: a path, or an iterable of them, see `find_photos`.
        preset: name or folder of a preset, or an `ImageCaptioner`; or a list of them,
            which write together, see `EnsembleCaptioner`.
        output: a file for all results, or several: `.csv`, `.jsonl` and `.parquet` have
            a row for each photo, bad ones too; `.json` is COCO results, `.html` a
            gallery. They are there whole or not at all.
        files_from: a file that lists more paths; "-" is standard input.
        sidecars: write each caption into a text file beside its photo.
        sidecar_suffix: of those files.
        xmp: write each caption as the description in an `.xmp` file.
        sidecar_folder: put text and XMP files here, under the photos' relative paths.
        copies: a folder for copies of the photos with the caption in their metadata,
            under their relative paths.
        existing: what becomes of captions that a photo's files have before the run:
            "skip" (the photo is not captioned, its caption is taken from there),
            "overwrite", "append", "prepend". An `output` that this run did not write
            is replaced only with "overwrite".
        dry_run: say what would be done and do nothing.
        run_folder: where the journal, `errors.csv` and the manifest `run.json` are; by
            default beside the first output, as `captions.csv.run`, or `.captioner` in
            the first folder. Without outputs there is none.
        sampler: replaces the preset's own.
        num_captions: of each photo, the best first.
        style: a `CaptionStyle`.
        batch_size: photos at a time; by default what is fast.
        workers: decoding processes; by default one for each core.
        time_limit: seconds that decoding one photo may take.
        max_pixels: a picture with more is refused before it is decoded.
        shard: (i, n): only the i-th of n parts, counted from 1; `merge` joins them.
        engine: "local", or "ray" for the machines of a Ray cluster.
        progress: "auto", "json" or "none", on standard error.

    Returns:
        An iterator of `CaptionResult`, one for each photo, as they are done; those that
        an earlier run has done come first. The work is done as it is read.

        The kinds of errors are those of `ImageError`, and "timeout" and "crashed" (of
        the decoder), "failed" (of the model), "unsafe" (a name that leads out of its
        archive), "clash" (two photos would share a file) and "not_written". With
        `dry_run` the kind is "to_caption", "kept", "done", or that of an error.

    Raises:
        ValueError: a path does not exist, there is no photo, an output exists or is of
            another kind, the preset cannot be used, or the run folder is that of a run
            with other settings.
        OSError: something cannot be written, as on a full disk.

    Example:

    ```python
    for result in captioner.caption("photos", output="captions.csv"):
        print(result.path, result.caption or result.error)
    ```
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if isinstance(output, (str, os.PathLike)):
        output = [output]
    counted = paths if isinstance(paths, (list, tuple)) and not files_from else None
    if isinstance(paths, (list, tuple)):
        _check_paths(paths)
    for name, value, allowed in (
        ("existing", existing, EXISTING),
        ("engine", engine, ("local", "ray")),
    ):
        if value not in allowed:
            raise ValueError(
                f"{name} must be one of {', '.join(allowed)}. Received: {name}={value}"
            )
    for name, value in (
        ("num_captions", num_captions),
        ("batch_size", batch_size),
        ("workers", workers),
        ("time_limit", time_limit),
        ("max_pixels", max_pixels),
    ):
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0. Received: {name}={value}")
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(
            f"shard must be (i, n) with 1 <= i <= n. Received: shard={shard}"
        )
    if not sidecar_suffix.startswith(".") or os.sep in sidecar_suffix:
        raise ValueError(
            "sidecar_suffix must begin with a dot and name no folder. "
            f"Received: sidecar_suffix={sidecar_suffix}"
        )
    if engine == "ray":
        if not isinstance(preset, (str, os.PathLike)):
            raise ValueError(
                "With engine=ray the preset is a name or a folder, which each machine "
                f"loads. Received: preset={preset}"
            )
        preset = presets.find_preset(preset).absolute()
        from captioner.ray_engine import RayEngine as Engine
    else:
        Engine = LocalEngine
    sidecar_folder = sidecar_folder and pathlib.Path(sidecar_folder)
    copies = copies and pathlib.Path(copies)
    writers = [(TextSidecar(sidecar_suffix), sidecar_folder)] if sidecars else []
    writers += [(XmpSidecar(), sidecar_folder)] if xmp else []
    writers += [(EmbeddedCopy(existing), copies)] if copies else []
    outputs = [_of_shard(pathlib.Path(each), shard) for each in output]
    if run_folder is None:
        run_folder = _default_run_folder(
            outputs, writers and paths, copies or sidecar_folder, shard
        )
    settings = {
        "preset": _preset_ids(preset),
        "sampler": (
            sampler
            if isinstance(sampler, (str, type(None)))
            else [type(sampler).__name__, sampler.get_config()]
        ),
        "num_captions": num_captions,
        "style": vars(style),
        "max_pixels": max_pixels,
        "caption_files": [
            [writer.name, writer.suffix, folder and str(folder.absolute())]
            for writer, folder in writers
        ],
        "shard": shard and list(shard),
    }
    settings = json.loads(json.dumps(settings, default=str))

    photos = find_photos(paths, files_from)
    first = next(photos, None)
    if first is None:
        what = files_from if not paths else ", ".join(map(str, paths))
        raise ValueError(f"No photos in {what}.")
    photos = itertools.chain([first], photos)

    overwrite = existing == "overwrite"
    if not (run_folder and _journal_path(run_folder).exists()):
        check_outputs(outputs, None, overwrite)
        if dry_run:
            run_folder = None
    journal = CaptionJournal(run_folder)
    try:
        check_outputs(outputs, journal, overwrite)
        anew = _check_settings(journal, settings, overwrite)
        sources = counted and [os.path.abspath(path) for path in counted]
        if outputs and not overwrite:
            _check_sources(journal, sources)
    except BaseException:
        journal.close()
        raise
    run = _Run(photos, journal, writers, existing, style, settings, shard)
    if dry_run:
        return run.plan()
    if anew:
        journal.forget()
    run.wants_thumbnails = any(each.suffix.lower() == ".html" for each in outputs)
    return run.results(
        functools.partial(
            Engine,
            functools.partial(_load, preset, sampler, num_captions),
            num_captions,
            workers or default_num_workers(),
            time_limit,
            max_pixels,
            run.wants_thumbnails,
        ),
        batch_size or BATCH_SIZE,
        outputs,
        RunProgress(progress),
        counted,
        sources,
    )


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


class _Run:
    """One run: what is known of each photo, and what is done about it."""

    def __init__(self, photos, journal, writers, existing, style, settings, shard):
        self.photos, self.journal, self.existing = photos, journal, existing
        self.files = CaptionFiles(writers, existing, journal.token)
        self.style, self.settings, self.shard = style, settings, shard
        self.wants_thumbnails = False
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


def _failed(photo, error, run):
    return Entry(photo.name, photo.stamp, kind=error.kind, reason=error.reason, run=run)


def _not_written(photo, error):
    if isinstance(error, ImageError):
        return ImageError(photo.name, "not_written", error.reason)
    if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
        raise error
    reason = getattr(error, "strerror", None) or str(error)
    return ImageError(photo.name, "not_written", f"its caption: {reason}")


def _load(preset, sampler, num_captions):
    """The `ImageCaptioner`, with a sampler of so many captions."""
    import_tensorflow()
    from captioner.ensemble_captioner import load_captioner

    captioner = load_captioner(preset, sampler)
    if num_captions > 1:
        sampler = captioner.sampler
        config = {**sampler.get_config(), "num_hypotheses": num_captions}
        if "num_beams" in config:
            config["num_beams"] = max(config["num_beams"], num_captions)
        try:
            sampler = type(sampler).from_config(config)
        except TypeError as error:
            raise ValueError(
                f"{type(sampler).__name__} finds one caption. "
                f"Received: num_captions={num_captions}"
            ) from error
        captioner = load_captioner(captioner, sampler)
    return captioner


def _preset_ids(preset):
    """What tells the preset from others, and each of several that write together."""
    members = preset if isinstance(preset, (list, tuple)) else [preset]
    return [_preset_id(member) for member in members]


def _preset_id(preset):
    if not isinstance(preset, (str, os.PathLike)):
        digest = hashlib.sha256()
        for weight in preset.caption_model.weights:
            digest.update(weight.numpy().tobytes())
        return {"name": "in memory", "sha256": digest.hexdigest()}
    folder = presets.find_preset(preset)
    metadata = folder / presets.METADATA_FILE
    digest = presets.file_sha256(metadata) if metadata.is_file() else None
    return {"name": folder.name, "sha256": digest}


def _check_paths(paths):
    for path in map(os.fspath, paths):
        if not (os.path.lexists(path or ".") or glob.has_magic(path)):
            raise ValueError(f"No such file or folder: {path}")


def _check_settings(journal, settings, overwrite):
    """Whether what the journal knows is of other settings and has to be forgotten."""
    known = journal.fact("settings", settings)
    if known == settings or journal.is_empty():
        return False
    if not overwrite:
        changed = [name for name in settings if known.get(name) != settings[name]]
        raise ValueError(
            f"{journal.folder} is of a run with another {' and '.join(changed)}; "
            "choose another output or run folder, or overwrite it."
        )
    return True


def _check_sources(journal, sources):
    """Refuse to leave photos out of an output that has them."""
    left_out = set(journal.fact("sources") or ()) - set(sources or ())
    left_out = sorted(path for path in left_out if os.path.lexists(path))
    if left_out:
        raise ValueError(
            f"{journal.folder} is of a run that had {left_out[0]}, too; name it again, "
            "choose another output, or overwrite it."
        )


def _of_shard(path, shard):
    """captions.csv -> captions-1-of-3.csv"""
    if shard is None:
        return path
    return path.with_stem(f"{path.stem}-{shard[0]}-of-{shard[1]}")


def _default_run_folder(outputs, paths, folder, shard):
    if outputs:
        return outputs[0].with_name(outputs[0].name + ".run")
    if folder is None:
        if not paths or not isinstance(paths, (list, tuple)):
            return pathlib.Path(".captioner") if paths else None
        folder = pathlib.Path(paths[0])
        folder = folder if folder.is_dir() else folder.parent
    return _of_shard(folder / ".captioner", shard)


def _journal_path(run_folder):
    return pathlib.Path(run_folder) / JOURNAL_FILE


def _count(paths, shard, progress):
    """Count photos while the first ones are captioned."""

    def count():
        total = count_photos(paths)
        if total is not None:
            progress.total = total // (shard[1] if shard else 1)

    threading.Thread(target=count, daemon=True).start()
