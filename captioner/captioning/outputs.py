"""The files of a whole run, made from what is known of its photos."""

import collections
import hashlib
import json
import os
import pathlib

from captioner.captioning.result import CaptionResult
from captioner.captioning.writers import TABLES, write_errors
from captioner.captioning.writers.parquet import import_pyarrow
from captioner.files import as_text, atomic_write
from captioner.presets import versions

ERRORS_FILE = "errors.csv"
MANIFEST_FILE = "run.json"
# What is at their beginnings, of this version and of 0.1.0.
_BEGINNINGS = {ERRORS_FILE: b"path,kind,reason", MANIFEST_FILE: b'"captioner_version"'}


def result_of(entry, style):
    """The `CaptionResult` of a journal's `Entry`."""
    if entry.failed:
        return CaptionResult(entry.name, error=entry.reason, kind=entry.kind)
    texts = tuple(text for text, _ in captions_of(entry, style))
    scores = tuple(score for _, score in entry.payload["captions"])
    return CaptionResult(
        entry.name,
        texts[0],
        scores[0],
        None,
        entry.kind,
        texts,
        scores,
        entry.payload.get("confidence"),
    )


def captions_of(entry, style):
    """The captions of a journal's `Entry` in their final form, a list of [text, score];
    captions by people stay as they are."""
    captions = entry.payload["captions"]
    if entry.kind == "kept":
        return captions
    return [[style(text), score] for text, score in captions]


def shard_path(path, shard):
    """The path of one shard's file: captions.csv -> captions-1-of-3.csv.

    Args:
        path: `pathlib.Path`.
        shard: (i, n), or None.
    """
    if shard is None:
        return path
    ending = f"-{shard[0]}-of-{shard[1]}"
    # A user may give the name that the file gets anyway.
    return path if path.stem.endswith(ending) else path.with_stem(path.stem + ending)


def check_outputs(outputs, journal=None, overwrite=False):
    """Refuse, before anything starts, outputs that could not be written.

    Args:
        outputs: list of paths.
        journal: the `Journal`, which knows the files that were made from it.
        overwrite: replace files that others made.

    Raises:
        ValueError: an output has an unknown suffix, is a folder, is in a folder that
            does not exist, is given twice, or exists.
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
        if not overwrite and os.path.lexists(output) and not _is_own(output, journal):
            known = journal is not None and output.name in journal.get("outputs", {})
            changed = "has changed since this run wrote it" if known else "exists"
            raise ValueError(f"{output} {changed}; it is replaced only with overwrite.")
    if len({output.absolute() for output in outputs}) < len(outputs):
        raise ValueError("An output is given twice.")


def _is_own(output, journal):
    """Whether a file is one that was made from the journal. Its content tells, not its
    place: a folder may have been moved or copied with all that is in it."""
    known = [] if journal is None else journal.get("outputs", {}).get(output.name, [])
    try:
        size = os.stat(output).st_size
        if size not in (each for each, _ in known):
            return False
        with open(output, "rb") as file:
            return [size, _sha256(file)] in known
    except OSError:
        return False


def write_outputs(
    outputs, make_results, num_results, info, journal=None, overwrite=False
):
    """Write files of a whole run, each whole or not at all.

    Args:
        outputs: list of paths.
        make_results: function that returns an iterator of all `CaptionResult`s.
        num_results: how many they must be.
        info: `RunInfo`.
        journal: the `Journal`, which is told of each file before it is there.
        overwrite: replace files that others made.

    Raises:
        ValueError: results are missing, as in a damaged journal, or a file has appeared
            that others made. It is left as it is.
        OSError: a file cannot be written.
    """
    for output in outputs:
        for token in [] if journal is None else journal.old_tokens:
            output.with_name(f".{token}.part").unlink(missing_ok=True)
        replace = overwrite or _is_own(output, journal)
        token = None if journal is None else journal.token
        try:
            with atomic_write(output, token=token, replace=replace, sync=True) as file:
                results = _Counted(make_results())
                TABLES[output.suffix.lower()](file, results, info)
                results.check(num_results, output)
                if journal is not None:
                    _remember(journal, output, file)
        except FileExistsError as error:
            raise ValueError(
                f"{output} has appeared during the run and is left as it is. Move it "
                "away and give the same command again; no photo is captioned twice."
            ) from error


def _remember(journal, output, file):
    file.flush()
    with open(os.dup(file.fileno()), "rb") as copy:
        copy.seek(0)
        stamp = [os.fstat(file.fileno()).st_size, _sha256(copy)]
    known = journal.get("outputs", {})
    # Both the old and the new one are ours, since either may be there after a crash.
    known[output.name] = [*known.get(output.name, [])[-1:], stamp]
    journal.set("outputs", known)


def _sha256(file):
    return hashlib.file_digest(file, "sha256").hexdigest()


class _Counted:
    """An iterable that knows how many things it has given."""

    def __init__(self, results):
        self._results, self.count = results, 0

    def __iter__(self):
        for result in self._results:
            self.count += 1
            yield result

    def check(self, expected, output):
        """Refuse to write less than there is."""
        if self.count != expected:
            raise ValueError(
                f"The journal is damaged: it has {self.count:,} of {expected:,} "
                f"photos. {output} was not changed."
            )


def check_report(folder):
    """Refuse a run folder with files of other programs that `write_report` would
    replace.

    Raises:
        ValueError: there is an `errors.csv` or a `run.json` that no run has written.
    """
    for name, beginning in _BEGINNINGS.items():
        path = pathlib.Path(folder) / name
        if path.is_symlink() or not path.exists():  # only the link is replaced
            continue
        data = b""
        if path.is_file():
            with open(path, "rb") as file:
                data = file.read(100)
        if beginning not in data:
            raise ValueError(
                f"{path} was not written by captioner; use another --run-folder."
            )


def write_report(folder, make_results, info, left_aside, journal=None):
    """Write `errors.csv` and the manifest `run.json` into a run folder.

    Args:
        folder: the run folder.
        make_results, info, journal: as for `write_outputs`.
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

    for token in [] if journal is None else journal.old_tokens:
        (folder / f".{token}.part").unlink(missing_ok=True)
    token = None if journal is None else journal.token
    with atomic_write(folder / ERRORS_FILE, token=token, sync=True) as file:
        write_errors(file, map(counted, make_results()), info)
    counts = {"photos": kinds.total(), **dict(sorted(kinds.items()))}
    counts["left_aside"] = left_aside
    manifest = {**versions(), **info.settings, "counts": counts}
    with atomic_write(folder / MANIFEST_FILE, token=token, sync=True) as file:
        with as_text(file) as text:
            text.write(json.dumps(manifest, indent=2) + "\n")
    return kinds
