"""CSV and JSON lines with a row for every photo, and `errors.csv` with the failures."""

import csv
import json

from captioner.files import as_text
from captioner.spreadsheets import COLUMNS, protect


def write_csv(file, results, info):
    """Columns path, caption, score, error, kind, confidence; and caption_2, score_2,
    ... for several captions per photo."""
    more = range(1, info.num_captions)
    header = [*COLUMNS, "confidence"]
    header += [f"{name}_{i + 1}" for i in more for name in ("caption", "score")]
    with _as_text(file) as text:
        rows = csv.writer(text)
        rows.writerow(header)
        for each in results:
            row = [getattr(each, name) for name in header[: len(COLUMNS) + 1]]
            for i in more:
                row += [_at(each.captions, i), _at(each.scores, i)]
            rows.writerow(_cells(row, info))


def write_jsonl(file, results, info):
    """One object per line: path, caption, score, error, kind, confidence; and the lists
    captions and scores for several captions per photo."""
    with _as_text(file) as text:
        for each in results:
            text.write(json.dumps(as_json(each, info.num_captions)) + "\n")


def as_json(result, num_captions):
    """A result as a dict for JSON."""
    row = {name: getattr(result, name) for name in (*COLUMNS, "confidence")}
    if num_captions > 1 and result.captions:
        row.update(captions=list(result.captions), scores=list(result.scores))
    return row


def write_errors(file, results, info):
    """Columns path, kind, reason, for each photo without a caption."""
    with _as_text(file) as text:
        rows = csv.writer(text)
        rows.writerow(["path", "kind", "reason"])
        for each in results:
            if each.error is not None:
                rows.writerow(_cells([each.path, each.kind, each.error], info))


def _cells(row, info):
    if not info.protect_spreadsheets:
        return row
    return [protect(cell) if isinstance(cell, str) else cell for cell in row]


def _at(values, index):
    return values[index] if index < len(values) else None


def _as_text(file):
    # surrogateescape: a file name need not be valid text.
    return as_text(file, errors="surrogateescape", newline="")
