"""Join the shards of a run over many photos: `captioner merge`."""

import contextlib
import heapq
import os
import pathlib

from captioner.captioning.outputs import (
    check_outputs,
    check_report,
    result_of,
    write_outputs,
    write_report,
)
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import RunInfo
from captioner.journal import JOURNAL_FILE, Journal


def merge(
    run_folders,
    output,
    overwrite=False,
    trust_run_folders=False,
    protect_spreadsheets=True,
):
    """Write the outputs of a whole run from the run folders of its shards.

    They are what one run without shards would have written, row for row.

    Args:
        run_folders: list of the run folders, one per shard, in any order.
        output: a file, or several, as for `caption`. `errors.csv` and the manifest
            `run.json` are written into a folder beside the first, `OUTPUT.run`.
        overwrite: replace existing outputs.
        trust_run_folders: see `trust_run_folder` of `caption`.
        protect_spreadsheets: see `caption`.

    Returns:
        (captioned, failed): the numbers of photos.

    Raises:
        ValueError: a shard is missing, given twice or not finished; the shards have
            different settings or saw different photos; or an output exists.
        OSError: an output cannot be written.

    Example:

    ```python
    for i in (1, 2):
        list(captioner.caption("photos", output="captions.csv", shard=(i, 2)))
    captioner.merge(["captions-1-of-2.csv.run", "captions-2-of-2.csv.run"], "all.csv")
    ```
    """
    outputs = [output] if isinstance(output, (str, os.PathLike)) else output
    outputs = [pathlib.Path(each) for each in outputs]
    check_outputs(outputs, overwrite=overwrite)
    run_folder = outputs[0].with_name(outputs[0].name + ".run")
    if run_folder.is_symlink():
        raise ValueError(f"{run_folder} is a symbolic link; remove it.")
    if (run_folder / JOURNAL_FILE).exists() and not overwrite:
        raise ValueError(f"{run_folder} belongs to another run; choose another output.")
    check_report(run_folder)
    given = [os.path.realpath(folder) for folder in run_folders]
    for folder in run_folders:
        if not os.path.isfile(os.path.join(folder, JOURNAL_FILE)):
            raise ValueError(f"{folder} is not a run folder.")
        if given.count(os.path.realpath(folder)) > 1:
            raise ValueError(f"{folder} is given twice.")
    with contextlib.ExitStack() as stack:
        journals = []
        for folder in run_folders:
            journal = Journal(folder, trusted=trust_run_folders)
            stack.callback(journal.close)
            journals.append(journal)
        settings = _common_settings(journals)
        style = CaptionStyle(**settings["style"])
        journal_of = {}

        def rows(journal):
            for position, _, entry in journal.listed():
                yield position, entry.name, entry, journal

        def make_results():
            in_order = heapq.merge(*map(rows, journals), key=lambda row: row[:2])
            for _, _, entry, journal in in_order:
                journal_of["now"] = journal
                yield result_of(entry, style)

        def thumbnail(name):
            return journal_of["now"].thumbnail(name)

        info = RunInfo(
            settings["num_captions"], settings, thumbnail, protect_spreadsheets
        )
        num_results = sum(journal.get("num_listed", 0) for journal in journals)
        write_outputs(outputs, make_results, num_results, info, overwrite=overwrite)
        run_folder.mkdir(exist_ok=True)
        left_aside = journals[0].get("left_aside", {})  # each shard has met all files
        counts = write_report(run_folder, make_results, info, left_aside)
    failed = sum(n for kind, n in counts.items() if kind not in ("captioned", "kept"))
    return counts.total() - failed, failed


def _common_settings(journals):
    """The settings of the shards, which are those of one run."""
    settings, numbers, totals = [], [], set()
    for journal in journals:
        own = dict(journal.get("settings") or {})
        if not journal.get("finished"):
            raise ValueError(f"The run in {journal.folder} is not finished.")
        shard = own.pop("shard", None)
        if not shard:
            raise ValueError(f"The run in {journal.folder} is not a shard.")
        settings.append({**own, "shard": None})
        numbers.append(tuple(shard))
        totals.add(journal.get("num_photos"))
    if any(own != settings[0] for own in settings):
        raise ValueError("The shards were made with different settings.")
    count = numbers[0][1]
    if sorted(numbers) != [(i + 1, count) for i in range(count)]:
        given = ", ".join(f"{i}/{n}" for i, n in sorted(numbers))
        raise ValueError(f"Each shard must be given once. Received: {given}")
    if len(totals) > 1:
        raise ValueError(
            "Photos were added or removed between the runs of the shards; run them "
            "again."
        )
    return settings[0]
