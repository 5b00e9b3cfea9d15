"""Caption photos, folders and archives of photos: `captioner caption`.

Here is what the arguments mean and what is refused; `run.py` has the run.
"""

import functools
import glob
import hashlib
import itertools
import json
import os
import pathlib

from captioner import presets
from captioner.captioning.engine import LocalEngine, default_num_workers
from captioner.captioning.journal import JOURNAL_FILE, CaptionJournal
from captioner.captioning.outputs import check_outputs
from captioner.captioning.run import CaptionRun
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import EmbeddedCopy, TextSidecar, XmpSidecar
from captioner.captioning.writers.existing import EXISTING
from captioner.captioning.writers.xmp_sidecar import XMP_NAMES
from captioner.images.decode_workers import TIME_LIMIT
from captioner.images.image_files import MAX_PIXELS
from captioner.images.photo_sources import find_photos
from captioner.progress import RunProgress
from captioner.terminal import import_tensorflow

DEFAULT_PRESET = "efficientnet_lite2_lstm_flickr8k"
BATCH_SIZE = 8


def caption(
    paths=(),
    preset=DEFAULT_PRESET,
    output=(),
    files_from=None,
    sidecars=False,
    sidecar_suffix=".txt",
    xmp=False,
    xmp_name="photo.xmp",
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
        xmp_name: how new XMP files are named, "photo.xmp" as for Lightroom or
            "photo.jpg.xmp" as for digiKam and darktable.
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
        ("xmp_name", xmp_name, XMP_NAMES),
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
        from captioner.captioning.ray_engine import RayEngine as Engine
    else:
        Engine = LocalEngine
    sidecar_folder = sidecar_folder and pathlib.Path(sidecar_folder)
    copies = copies and pathlib.Path(copies)
    if copies:
        _check_copies(copies, counted or ())
    writers = [(TextSidecar(sidecar_suffix), sidecar_folder)] if sidecars else []
    writers += [(XmpSidecar(existing, xmp_name), sidecar_folder)] if xmp else []
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
    run = CaptionRun(photos, journal, writers, existing, style, settings, shard)
    if dry_run:
        return run.plan()
    if anew:
        journal.forget()
    # Of a list or a glob, only reading it to its end tells what it leaves out.
    is_open = not counted or any(map(glob.has_magic, map(os.fspath, counted)))
    run.refuses_to_lose = bool(outputs) and not overwrite and is_open
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


def _load(preset, sampler, num_captions):
    """The `ImageCaptioner`, with a sampler of so many captions."""
    import_tensorflow()
    from captioner.tasks.ensemble_captioner import load_captioner

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
        while glob.has_magic(str(folder)) and not folder.exists():
            folder = folder.parent
        folder = folder if folder.is_dir() else folder.parent
    return _of_shard(folder / ".captioner", shard)


def _journal_path(run_folder):
    return pathlib.Path(run_folder) / JOURNAL_FILE
