"""Join the shards of a run over many photos: `captioner merge`."""

import contextlib
import heapq
import os
import pathlib
import secrets

from captioner.captioning.journal import JOURNAL_FILE, CaptionJournal
from captioner.captioning.outputs import (
    check_outputs,
    result_of,
    write_outputs,
    write_report,
)
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import RunInfo


def merge(parts, output, overwrite=False):
    """Write the outputs of a whole run from the run folders of its shards.

    They are what one run without shards would have written, row for row.

    Args:
        parts: list of run folders, one of each shard, in any order.
        output: a file, or several, as for `caption`. `errors.csv` and the manifest go
            beside the first, into `OUTPUT.run`.
        overwrite: replace outputs that are there.

    Returns:
        (captioned, failed): how many photos.

    Raises:
        ValueError: a shard is missing, there twice or not finished; they have different
            settings or saw different photos; or an output exists.
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
    with contextlib.ExitStack() as stack:
        journals = []
        for part in parts:
            if not (pathlib.Path(part) / JOURNAL_FILE).is_file():
                raise ValueError(f"{part} is no run folder")
            journal = CaptionJournal(part)
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
            for _, name, entry, journal in in_order:
                journal_of["now"] = journal
                yield result_of(entry, style)

        def thumbnail(name):
            return journal_of["now"].thumbnail(name)

        info = RunInfo(settings["num_captions"], settings, thumbnail)
        token = secrets.token_hex(8)
        write_outputs(outputs, make_results, info, token)
        run_folder.mkdir(exist_ok=True)
        counts = write_report(
            run_folder,
            make_results,
            info,
            token,
            journals[0].fact("left_aside", {}),  # each shard has met all files
        )
    failed = sum(n for kind, n in counts.items() if kind not in ("captioned", "kept"))
    return counts.total() - failed, failed


def _common_settings(journals):
    """The settings of the shards, which are those of one run."""
    settings, numbers, totals = [], [], set()
    for journal in journals:
        own = dict(journal.fact("settings") or {})
        if not journal.fact("finished"):
            raise ValueError(f"{journal.folder} is not finished")
        shard = own.pop("shard", None)
        if not shard:
            raise ValueError(f"{journal.folder} is of no shard")
        settings.append({**own, "shard": None})
        numbers.append(tuple(shard))
        totals.add(journal.fact("num_photos"))
    if any(own != settings[0] for own in settings):
        raise ValueError("The shards were made with different settings.")
    count = numbers[0][1]
    if sorted(numbers) != [(i + 1, count) for i in range(count)]:
        given = ", ".join(f"{i}/{n}" for i, n in sorted(numbers))
        raise ValueError(f"Each shard is needed once. Received: {given}")
    if len(totals) > 1:
        raise ValueError(
            "Photos have come or gone between the shards' runs: run them again."
        )
    return settings[0]
