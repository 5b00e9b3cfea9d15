"""Captions in a table beside a folder of photos: CSV or JSONL."""

import csv
import io
import json
import os
import re

from captioner.datasets.dataset_builder import DatasetBuilder, read_text, relative_id
from captioner.spreadsheets import unprotect_row

_IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "file", "path")
_CAPTION_COLUMN = re.compile(r"(captions?|text|comment|sentence)[ _-]?\d*")
_DELIMITERS = (",", "\t", ";", "|")
# No header is longer, in characters: a file without line ends is no table.
_MAX_HEADER = 10_000


def read_csv(path, image_dir=None, split_fractions=(0.9, 0.05, 0.05)):
    """Reads captions from a CSV file with a header.

    The columns are `image` (a path relative to the file's folder, or to a
    folder in it), `caption` and, if there is one, `split`. An image may have
    several rows, or several columns `caption_1`, `caption_2`, ...; `file_name`
    and `text`, as Hugging Face names them, are understood too, and columns of
    other names are ignored. The delimiter is the one of comma, tab, semicolon
    and bar by which the header has these columns. The path of the image is its
    id.

    Args:
        path: str. The file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats. Sizes of train, dev and test where the
            file has no splits. A hash of the id decides.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If the header has no such columns, the quotes of a row do
            not match, an image is in two splits, or nothing usable is left.

    Example:

    ```python
    dataset = read_csv("data/samples/captions.csv")
    ```
    """
    builder = DatasetBuilder(f"csv:{path}", split_fractions)
    # `newline=""` leaves line ends inside a quoted caption to the csv module.
    lines = io.StringIO(read_text(path), newline="")
    header = lines.readline()
    columns, delimiter = _find_columns(header)
    if columns is None:
        raise ValueError(
            f"{path} needs a header with the columns image and caption. "
            f"Received: {header.strip()[:80]!r}"
        )
    lines.seek(0)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    entries = []
    try:
        names = next(rows)
        width = len(names)
        for row in rows:
            where = f"line {rows.line_num}"
            if not any(row):
                continue
            if len(row) > width:
                # An unquoted delimiter: the caption would lose its end.
                builder.leave_out(where, "row with too many fields")
                continue
            row = unprotect_row(names, row) + [""] * (width - len(row))
            captions = [row[index] for index in columns["captions"]]
            if len(captions) > 1:
                # Of several columns some may stay empty, but not all of them.
                captions = [caption for caption in captions if caption.strip()]
            split = row[columns["split"]] if "split" in columns else ""
            entries.append((where, row[columns["image"]], captions, split))
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}.") from error
    return _build(builder, path, image_dir, entries)


def read_jsonl(path, image_dir=None, split_fractions=(0.9, 0.05, 0.05)):
    """Reads captions from a file of one JSON object a line.

    An object has `image` (a path, as in `read_csv`), `caption` (a text) or
    `captions` (a list of texts) and, if wanted, `split`. Several objects may
    have the same image.

    Args:
        path: str. The file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats. As in `read_csv`.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If a line is not such an object, an image is in two splits,
            or nothing usable is left.

    Example:

    ```python
    # {"image": "dog.jpg", "captions": ["A dog .", "A brown dog runs ."]}
    dataset = read_jsonl("photos/captions.jsonl")
    ```
    """
    builder = DatasetBuilder(f"jsonl:{path}", split_fractions)
    entries = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        where = f"line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, {where}: not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {where}: not a JSON object.")
        image = next((row[key] for key in _IMAGE_COLUMNS if key in row), None)
        if image is not None and not isinstance(image, str):
            raise ValueError(
                f"{path}, {where}: the image must be a path. Received: image={image!r}"
            )
        captions = []
        for key in filter(_CAPTION_COLUMN.fullmatch, row):
            value = row[key]
            captions.extend(value if isinstance(value, list) else [value])
        entries.append((where, image or "", captions, row.get("split")))
    return _build(builder, path, image_dir, entries)


def has_header(path) -> bool:
    """Whether a file begins with the header of a table of captions."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            columns, _ = _find_columns(file.readline(_MAX_HEADER))
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
    return columns is not None


def _find_columns(header):
    """Finds the columns of a table of captions by the names in its first line.

    Returns:
        `(columns, delimiter)`: the indices of `"image"` (int), `"captions"`
        (list) and, if there is one, `"split"` (int); `(None, None)` if the line
        is not the header of such a table.
    """
    for delimiter in _DELIMITERS:
        names = next(csv.reader([header[:_MAX_HEADER]], delimiter=delimiter), [])
        names = [name.strip().lower() for name in names]
        image = next((name for name in _IMAGE_COLUMNS if name in names), None)
        captions = [i for i, n in enumerate(names) if _CAPTION_COLUMN.fullmatch(n)]
        if image is not None and captions:
            columns = {"image": names.index(image), "captions": captions}
            if "split" in names:
                columns["split"] = names.index("split")
            return columns, delimiter
    return None, None


def _build(builder, path, image_dir, entries):
    names = [image.strip() for _, image, _, _ in entries]
    if image_dir is None:
        image_dir = builder.listing.find_image_dir(os.path.dirname(path), names)
    # Worked out once for each image, which may have many rows.
    ids = {name: relative_id(name, image_dir) for name in set(names) if name}
    for (where, _, captions, split), name in zip(entries, names):
        if not name:
            builder.leave_out(where, "row without an image")
            continue
        image = os.path.join(image_dir, name)
        split = split if split and str(split).strip() else None
        builder.add(ids[name], image, captions, split)
    return builder.build()
