"""The files of a whole run, made from what is known of its photos."""

import collections
import json
import os
import pathlib

from captioner.captioning.result import CaptionResult
from captioner.captioning.writers import TABLES, write_errors
from captioner.captioning.writers.parquet import import_pyarrow
from captioner.presets import versions

ERRORS_FILE = "errors.csv"
MANIFEST_FILE = "run.json"


def result_of(entry, style):
    """The `CaptionResult` of a journal's `Entry`."""
    if not entry.captions:
        return CaptionResult(entry.name, error=entry.reason, kind=entry.kind)
    texts = tuple(text for text, _ in styled(entry, style).captions)
    scores = tuple(score for _, score in entry.captions)
    return CaptionResult(
        entry.name, texts[0], scores[0], None, entry.kind, texts, scores
    )


def styled(entry, style):
    """The entry with its captions in their final form; those of people stay theirs."""
    if not entry.captions or entry.kind == "kept":
        return entry
    return entry._replace(
        captions=[[style(text), score] for text, score in entry.captions]
    )


def check_outputs(outputs, journal=None, overwrite=False):
    """Refuse, before anything starts, outputs that could not be written.

    Args:
        outputs: list of paths.
        journal: the `CaptionJournal`, which knows the files that it made.
        overwrite: replace files that others made.

    Raises:
        ValueError: one ends in no known suffix, lies in no folder, is one, or is there.
    """
    for output in outputs:
        if output.suffix.lower() not in TABLES:
            raise ValueError(
                f"The output must end in {', '.join(TABLES)}. Received: output={output}"
            )
        if output.suffix.lower() == ".parquet":
            import_pyarrow()
        if output.is_dir():
            raise ValueError(f"{output}: Is a directory")
        if not output.parent.is_dir():
            raise ValueError(f"{output}: No such file or directory")
        if output.exists() and not overwrite:
            own = [] if journal is None else journal.fact(_fact(output), [])
            if _stamp(output) not in own:
                changed = "has changed since this run wrote it" if own else "exists"
                raise ValueError(
                    f"{output} {changed}; it is replaced only with overwrite."
                )
    if len({output.absolute() for output in outputs}) < len(outputs):
        raise ValueError("An output is there twice.")


def write_outputs(outputs, make_results, info, token, journal=None):
    """Write files of a whole run, each there whole or not at all.

    Args:
        outputs: list of paths.
        make_results: function that returns an iterator of all `CaptionResult`s.
        info: `RunInfo`.
        token: a random name for unfinished files.
        journal: a `CaptionJournal`, which is told of each file before it is there.
    """
    for output in outputs:
        part = output.with_name(f".{token}.part")
        try:
            TABLES[output.suffix.lower()](part, make_results(), info)
            _settle(part)
            if journal is not None:
                # Both the old and the new one are ours while either may be there.
                stamps = journal.fact(_fact(output), [])
                journal.set_fact(_fact(output), [*stamps[-1:], _stamp(part)])
            part.replace(output)
            _settle(output.parent)
        except OSError as error:
            if error.filename in (None, str(part)):  # a full disk names no file
                error.filename = str(output)
                error.filename2 = None
            raise
        finally:
            part.unlink(missing_ok=True)


def write_report(folder, make_results, info, token, left_aside):
    """Write `errors.csv` and the manifest `run.json` into a run folder.

    Args:
        folder, make_results, info, token: see `write_outputs`.
        left_aside: dict of suffix to number of files that are not photos.

    Returns:
        `collections.Counter` of how many photos were "captioned", "kept", or failed,
        by the kinds of their errors.
    """
    folder = pathlib.Path(folder)
    kinds = collections.Counter()

    def counted(result):
        kinds[result.kind or "captioned"] += 1
        return result

    # One name for what is unfinished, so that a run that goes on leaves none behind.
    part = folder / f".{token}.part"
    try:
        write_errors(part, map(counted, make_results()), info)
        _settle(part)
        part.replace(folder / ERRORS_FILE)
        counts = {"photos": kinds.total(), **dict(sorted(kinds.items()))}
        counts["left_aside"] = left_aside
        manifest = {**versions(), **info.settings, "counts": counts}
        part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _settle(part)
        part.replace(folder / MANIFEST_FILE)
    finally:
        part.unlink(missing_ok=True)
    return kinds


def _fact(output):
    return f"output {output.absolute()}"


def _stamp(path):
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _settle(path):
    """See a file, or the names in a folder, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
