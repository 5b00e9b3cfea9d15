"""Caption photos and folders of photos: `captioner caption`."""

import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import secrets

from captioner.ensemble_captioner import load_captioner
from captioner.input_pipeline import image_batches
from captioner.progress import progress_bar

DEFAULT_PRESET = "efficientnet_lite2_lstm_flickr8k"

# What is taken for a photo inside a folder; a file named outright is always tried.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .dib .exr .gif .hdr .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm "
    ".ras .tif .tiff .webp".split()
)


@dataclasses.dataclass(frozen=True)
class CaptionResult:
    """What became of one photo.

    Attributes:
        path: str, as it was given or found.
        caption: str, or None where there is an error.
        score: float, the log-probability that the sampler ranks by, or None.
        error: str, why there is no caption, or None.
        kind: str, the error's kind (see `ImageError`), or None.
    """

    path: str
    caption: str | None = None
    score: float | None = None
    error: str | None = None
    kind: str | None = None


def caption(
    paths,
    preset=DEFAULT_PRESET,
    output=None,
    sidecars=False,
    overwrite=False,
    sampler=None,
    batch_size=16,
):
    """Caption files and folders; a bad file is reported and the rest goes on.

    Args:
        paths: a path, or a list of them; folders are searched to the bottom.
        preset: name or folder of a preset, or an `ImageCaptioner`; or a list of them,
            which write together, see `EnsembleCaptioner`.
        output: a `.csv` or `.jsonl` file for all results, bad files included; it
            is there whole or not at all.
        sidecars: write each caption into a `.txt` beside its photo.
        overwrite: replace an `output` or `.txt` that is there already. Without
            it, an existing `output` is refused before anything starts, and a photo
            with a `.txt` is not captioned again.
        sampler: replaces the preset's own.
        batch_size: photos at a time.

    Returns:
        An iterator of `CaptionResult`, one for each photo, as they are done. The
        work is done as it is read.

    Raises:
        ValueError: a path does not exist, there is no photo, `output` exists or is
            of another kind, or the preset cannot be used.
        OSError: `output` or a `.txt` cannot be written, as on a full disk.

    Example:

    ```python
    for result in captioner.caption("photos", output="captions.csv"):
        print(result.path, result.caption or result.error)
    ```
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    folder_errors = []
    photos = list(find_photos(paths, folder_errors.append))
    if not photos and not folder_errors:
        raise ValueError(f"No photos in {', '.join(map(str, paths))}.")
    if output is not None:
        output = pathlib.Path(output)
        if output.suffix.lower() not in (".csv", ".jsonl"):
            raise ValueError(
                f"The output must end in .csv or .jsonl. Received: output={output}"
            )
        if output.is_dir():
            raise ValueError(f"{output}: Is a directory")
        if not output.parent.is_dir():
            raise ValueError(f"{output}: No such file or directory")
        if output.exists() and not overwrite:
            raise ValueError(f"{output} exists; it is replaced only with overwrite.")
    if sidecars and not overwrite:
        photos = [p for p in photos if _sidecar(p) == p or not _sidecar(p).exists()]
    captioner = load_captioner(preset, sampler)
    return _caption_all(photos, folder_errors, captioner, output, sidecars, batch_size)


def find_photos(paths, on_error=None):
    """The photos in files and folders, each once, folders sorted by name.

    Args:
        paths: an iterable of paths.
        on_error: called with an `OSError` for each folder that cannot be read.

    Raises:
        ValueError: a path does not exist.
    """
    seen = set()
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            found = []
            for folder, folders, files in os.walk(path, onerror=on_error):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                found += [
                    pathlib.Path(folder, file)
                    for file in sorted(files)
                    if not file.startswith(".")
                    and pathlib.Path(file).suffix.lower() in IMAGE_SUFFIXES
                ]
        elif os.path.lexists(path):
            found = [path]
        else:
            raise ValueError(f"No such file or folder: {path}")
        for photo in found:
            if photo not in seen:
                seen.add(photo)
                yield photo


def _caption_all(photos, folder_errors, captioner, output, sidecars, batch_size):
    names = [str(photo) for photo in photos]
    errors = {}
    batches = image_batches(
        names,
        captioner.preprocessor.image_converter,
        batch_size,
        errors.__setitem__,
    )
    next_index = 0
    written = set()  # sidecars of this run
    with contextlib.ExitStack() as stack:
        total = len(names) + len(folder_errors)
        bar = stack.enter_context(progress_bar("captions", total=total))
        write = stack.enter_context(_open_output(output)) if output else None

        def finish(result):
            if sidecars and result.caption is not None:
                sidecar = _sidecar(pathlib.Path(result.path))
                reason = None
                if sidecar == pathlib.Path(result.path):
                    reason = "its .txt would replace the photo itself"
                elif sidecar in written:  # a.jpg and a.png have one a.txt
                    reason = f"{sidecar.name} holds the caption of another photo"
                if reason:
                    result = CaptionResult(result.path, error=reason, kind="sidecar")
                else:
                    written.add(sidecar)
                    with _new_file(sidecar) as file:
                        file.write(result.caption + "\n")
            if write:
                write(result)
            bar.update()
            return result

        def failed_before(stop):
            # Bad photos are missing from the batches; they keep their place here.
            for index in range(next_index, stop):
                error = errors.pop(index)
                yield finish(
                    CaptionResult(names[index], error=error.reason, kind=error.kind)
                )

        for indices, images in batches:
            captions, scores = captioner.caption_batch(images)
            for index, text, score in zip(indices.numpy(), captions, scores):
                yield from failed_before(index)
                yield finish(CaptionResult(names[index], text, round(float(score), 4)))
                next_index = index + 1
        yield from failed_before(len(names))
        for error in folder_errors:
            reason = f"cannot be read: {error.strerror}"
            yield finish(CaptionResult(error.filename, error=reason, kind="unreadable"))


@contextlib.contextmanager
def _open_output(path):
    """A function that writes one result; the file appears when all is done."""
    fields = [field.name for field in dataclasses.fields(CaptionResult)]
    with _new_file(path) as file:
        if path.suffix.lower() == ".csv":
            rows = csv.DictWriter(file, fields)
            rows.writeheader()
            yield lambda result: rows.writerow(dataclasses.asdict(result))
        else:
            yield lambda result: file.write(
                json.dumps(dataclasses.asdict(result)) + "\n"
            )


def _sidecar(photo):
    return photo.with_suffix(".txt")


@contextlib.contextmanager
def _new_file(path):
    """A text file to write, that appears under its name when it is whole."""
    # A short name that nobody has: `path.name` may be as long as names may be.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # surrogateescape: a file name need not be valid text.
        with open(
            part, "x", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            yield file
        part.replace(path)
    except OSError as error:
        if error.filename in (None, str(part)):  # a full disk names no file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
