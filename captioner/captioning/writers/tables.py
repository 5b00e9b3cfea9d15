"""CSV and JSON lines: a row for every photo, and the failures alone in `errors.csv`."""

import csv
import json


def write_csv(path, results, info):
    """Columns path, caption, score, error, kind; and caption_2, score_2, ... where
    several captions were asked for."""
    more = range(1, info.num_captions)
    header = ["path", "caption", "score", "error", "kind"]
    header += [f"{name}_{i + 1}" for i in more for name in ("caption", "score")]
    with _open(path) as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for each in results:
            row = [each.path, each.caption, each.score, each.error, each.kind]
            for i in more:
                row += [_at(each.captions, i), _at(each.scores, i)]
            rows.writerow(row)


def write_jsonl(path, results, info):
    """An object a line: path, caption, score, error, kind; and the lists captions and
    scores where several were asked for."""
    with _open(path) as file:
        for each in results:
            file.write(json.dumps(as_json(each, info.num_captions)) + "\n")


def as_json(result, num_captions):
    """A result as a dict that JSON can say."""
    row = {
        name: getattr(result, name)
        for name in ("path", "caption", "score", "error", "kind")
    }
    if num_captions > 1 and result.captions:
        row.update(captions=list(result.captions), scores=list(result.scores))
    return row


def write_errors(path, results, info):
    """Columns path, kind, reason: of each photo that has no caption."""
    with _open(path) as file:
        rows = csv.writer(file)
        rows.writerow(["path", "kind", "reason"])
        for each in results:
            if each.error is not None:
                rows.writerow([each.path, each.kind, each.error])


def _at(values, index):
    return values[index] if index < len(values) else None


def _open(path):
    # surrogateescape: a file name need not be valid text.
    return open(path, "w", encoding="utf-8", errors="surrogateescape", newline="")
