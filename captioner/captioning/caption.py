"""Caption photos, folders and archives of photos: `captioner caption`.

This file says what the arguments mean and what is refused; the run is in `run.py`.
"""

import functools
import glob
import itertools
import json
import os
import pathlib

from captioner import presets
from captioner.captioning.engine import LocalEngine
from captioner.captioning.engine_options import EngineOptions
from captioner.captioning.outputs import check_outputs, check_report, shard_path
from captioner.captioning.run import CaptionRun, left_out, located, stored
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import EmbeddedCopy, TextSidecar, XmpSidecar
from captioner.captioning.writers.existing import EXISTING
from captioner.captioning.writers.xmp_sidecar import XMP_NAMES
from captioner.images.decode_workers import TIME_LIMIT
from captioner.images.image_files import MAX_PIXELS
from captioner.images.left_aside import LeftAside
from captioner.images.photo_sources import check_path, find_photos
from captioner.images.photo_suffixes import PHOTO_SUFFIXES
from captioner.journal import JOURNAL_FILE, Journal
from captioner.presets import DEFAULT_PRESET
from captioner.progress import RunProgress
from captioner.tasks.load_task import load_task, task_identity
from captioner.terminal import import_tensorflow


def caption(
    paths=(),
    preset=DEFAULT_PRESET,
    output=(),
    files_from=None,
    trust_list=False,
    sidecars=False,
    sidecar_suffix=".txt",
    xmp=False,
    xmp_name="photo.xmp",
    sidecar_folder=None,
    copies=None,
    existing="skip",
    dry_run=False,
    run_folder=None,
    trust_run_folder=False,
    protect_spreadsheets=True,
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
    """Caption files, folders and archives. A bad photo costs only its own caption.

    Args:
        paths: a path, or an iterable of them, see `find_photos`.
        preset: name or folder of a preset, or a `Task`; or a list of them, which
            caption together, see `EnsembleCaptioner`. The name of the default always
            means the shipped preset, whatever lies in the working folder.
        output: a file for all results, or several: `.csv`, `.jsonl` and `.parquet` have
            a row for each photo, bad ones too; `.json` is COCO results, `.html` a
            gallery. Each is written whole or not at all.
        files_from: a file that lists more files, folders and archives; "-" is
            standard input. See `read_path_list`.
        trust_list: allow a list to name a folder that contains the working folder, as
            "/" and "..".
        sidecars: write each caption into a text file beside its photo.
        sidecar_suffix: the suffix of those files.
        xmp: write each caption as the description in an `.xmp` file.
        xmp_name: how new XMP files are named, "photo.xmp" as for Lightroom or
            "photo.jpg.xmp" as for digiKam and darktable.
        sidecar_folder: put text and XMP files here, under the photos' relative paths.
        copies: a folder for copies of the photos with the caption in their metadata,
            under their relative paths.
        existing: what to do with captions that a photo's files had before the run:
            "skip" (keep them and do not caption the photo), "overwrite", "append",
            "prepend". An `output` that this run did not write is replaced only with
            "overwrite".
        dry_run: show what would be done and do nothing.
        run_folder: the folder for the journal, `errors.csv` and the manifest
            `run.json`. By default it is beside the first output, as `captions.csv.run`,
            or `.captioner` in the first folder; a run without files has none.
        trust_run_folder: use a run folder that came from another user or computer, or
            from captioner 0.1.0. Only for folders whose origin you trust: a journal
            decides what is written into your files.
        protect_spreadsheets: in `.csv` outputs, put an apostrophe before texts that a
            spreadsheet program would run as formulas (`=`, `+`, `-` or `@` first).
            This package removes it again when it reads such a file.
        sampler: replaces the preset's own.
        num_captions: captions per photo, the best first.
        style: a `CaptionStyle`.
        batch_size: photos per batch; 8 by default.
        workers: decoding processes; by default one for each core.
        time_limit: seconds that decoding one photo may take.
        max_pixels: a picture with more is refused before it is decoded.
        shard: (i, n): only the i-th of n parts, counted from 1; `merge` joins them.
        engine: "local", or "ray" for the machines of a Ray cluster.
        progress: "auto", "json" or "none", on standard error.

    Returns:
        An iterator of `CaptionResult`, one for each photo, as they are done; photos
        that an earlier run has captioned come first. The work is done as it is read.

        The kinds of errors are those of `ImageError`, and "timeout" and "crashed" (of
        the decoder), "failed" (of the model), "unsafe" (a name that leads out of its
        archive, or a file in /proc, /sys or /dev), "clash" (two photos would share a
        file) and "not_written". With `dry_run` the kind is "to_caption", "kept",
        "done", or that of an error.

    Raises:
        ValueError: a path does not exist, there is no photo, an output exists or has an
            unknown suffix, the preset cannot be used, or the run folder belongs to
            another user or to a run with other settings.
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
    # A glob or a list of files has to be read to its end to know all photos.
    is_known = isinstance(paths, (list, tuple)) and paths and not files_from
    is_known = is_known and not any(map(glob.has_magic, map(os.fspath, paths)))
    sources = [os.fspath(path) for path in paths] if is_known else None
    if isinstance(paths, (list, tuple)):
        for path in paths:
            check_path(path)
    for name, value, allowed in (
        ("existing", existing, EXISTING),
        ("xmp_name", xmp_name, XMP_NAMES),
        ("engine", engine, ("local", "ray")),
    ):
        if value not in allowed:
            raise ValueError(
                f"{name} must be one of {', '.join(allowed)}. Received: {name}={value}"
            )
    options = {
        "num_captions": num_captions,
        "batch_size": batch_size,
        "workers": workers,
        "time_limit": time_limit,
        "max_pixels": max_pixels,
        "thumbnails": any(str(each).lower().endswith(".html") for each in output),
    }
    given = {name: value for name, value in options.items() if value is not None}
    options = EngineOptions(**given)
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(
            f"shard must be (i, n) with 1 <= i <= n. Received: shard={shard}"
        )
    if not sidecar_suffix.startswith(".") or os.sep in sidecar_suffix:
        raise ValueError(
            "sidecar_suffix must begin with a dot and name no folder. "
            f"Received: sidecar_suffix={sidecar_suffix}"
        )
    if sidecar_suffix.lower() in PHOTO_SUFFIXES:
        raise ValueError(
            "sidecar_suffix must not be one of photos, which would be overwritten. "
            f"Received: sidecar_suffix={sidecar_suffix}"
        )
    if engine == "ray":
        if not isinstance(preset, (str, os.PathLike)):
            raise ValueError(
                "With engine=ray, preset must be a name or a folder, from which each "
                f"machine loads it. Received: preset={preset}"
            )
        preset = presets.find_preset(preset).absolute()
        from captioner.captioning.ray_engine import RayEngine as Engine
        from captioner.captioning.ray_engine import import_ray

        import_ray()
    else:
        Engine = LocalEngine
    sidecar_folder = sidecar_folder and pathlib.Path(sidecar_folder)
    copies = copies and pathlib.Path(copies)
    if copies:
        _check_copies(copies, sources or ())
    writers = [(TextSidecar(sidecar_suffix), sidecar_folder)] if sidecars else []
    writers += [(XmpSidecar(existing, xmp_name), sidecar_folder)] if xmp else []
    writers += [(EmbeddedCopy(existing), copies)] if copies else []
    outputs = [shard_path(pathlib.Path(each), shard) for each in output]
    if run_folder is None:
        run_folder = _default_run_folder(
            outputs, writers and paths, copies or sidecar_folder, shard
        )
    settings = {
        "preset": task_identity(preset),
        "sampler": (
            sampler
            if isinstance(sampler, (str, type(None)))
            else [type(sampler).__name__, sampler.get_config()]
        ),
        "num_captions": num_captions,
        "style": vars(style),
        "max_pixels": options.max_pixels,
        "caption_files": [
            [writer.name, writer.suffix, folder and stored(folder, run_folder)]
            for writer, folder in writers
        ],
        "shard": shard and list(shard),
    }
    settings = json.loads(json.dumps(settings, default=str))

    left_aside = LeftAside([sidecar_suffix])
    photos = find_photos(paths, files_from, trust_list, left_aside)
    first = next(photos, None)
    if first is None:
        what = files_from if not paths else ", ".join(map(str, paths))
        others = f" Left aside: {left_aside}." if left_aside.counts() else ""
        raise ValueError(f"No photos in {what}.{others}")
    photos = itertools.chain([first], photos)

    overwrite = existing == "overwrite"
    has_journal = run_folder and (pathlib.Path(run_folder) / JOURNAL_FILE).exists()
    if not has_journal:
        check_outputs(outputs, None, overwrite)
    journal = Journal(
        None if dry_run and not has_journal else run_folder,
        trusted=trust_run_folder,
        read_only=dry_run,
    )
    try:
        check_outputs(outputs, journal, overwrite)
        if journal.folder:
            check_report(journal.folder)
        is_anew = _check_settings(journal, settings, overwrite)
        if outputs and not overwrite:
            _check_sources(journal, sources)
        run = CaptionRun(
            photos,
            journal,
            settings,
            outputs=outputs,
            writers=writers,
            existing=existing,
            style=style,
            shard=shard,
            sources=sources,
            protect_spreadsheets=protect_spreadsheets,
            left_aside=left_aside,
        )
        if dry_run:
            return run.plan(RunProgress(progress))
        if is_anew:
            journal.forget()
        progress = RunProgress(progress)
    except BaseException:
        journal.close()
        raise
    return run.results(
        functools.partial(
            Engine,
            functools.partial(_load, preset, sampler),
            options,
        ),
        options.batch_size,
        progress,
    )


def _load(preset, sampler):
    import_tensorflow()
    return load_task(preset, sampler)


def _check_copies(copies, paths):
    """Refuse copies that the next run would find among the photos."""
    for path in map(os.path.realpath, paths):
        if os.path.isdir(path) and pathlib.Path(path) in (
            pathlib.Path(os.path.realpath(copies)).parents
        ):
            raise ValueError(
                "copies must not lie among the photos, where the next run would "
                f"caption them. Received: copies={copies}"
            )


def _check_settings(journal, settings, overwrite):
    """Whether the journal belongs to other settings and has to be forgotten."""
    known = journal.get("settings")
    if known == settings or journal.is_empty():
        return False
    if not overwrite:
        changed = [name for name in settings if known.get(name) != settings[name]]
        raise ValueError(
            f"{journal.folder} belongs to a run with another "
            f"{' and '.join(changed)}; choose another output or run folder, or "
            "overwrite it."
        )
    return True


def _check_sources(journal, sources):
    """Refuse to leave photos out of an output that has them."""
    known = {located(each, journal.folder) for each in journal.get("sources") or ()}
    for path in sorted(known - set(map(os.path.abspath, sources or ()))):
        if os.path.lexists(path):
            raise ValueError(left_out(journal.folder, path))


def _default_run_folder(outputs, paths, folder, shard):
    if outputs:
        return outputs[0].with_name(outputs[0].name + ".run")
    if folder is None:
        if not paths or not isinstance(paths, (list, tuple)):
            return pathlib.Path(".captioner") if paths else None
        folder = pathlib.Path(paths[0])
        while glob.has_magic(str(folder)) and not folder.exists():
            folder = folder.parent
        folder = folder if folder.is_dir() else folder.parent
    return shard_path(folder / ".captioner", shard)
