"""Captions in a table beside a folder of photos: CSV, JSON lines or a JSON list."""

import os
import re

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import FolderListing, folder_split
from captioner.datasets.rows import (
    IMAGE_COLUMNS,
    MAX_HEADER,
    csv_header,
    csv_rows,
    json_rows,
    jsonl_rows,
    read_json,
)
from captioner.files import text_encoding

_CAPTION_COLUMN = re.compile(r"(captions?|text|comment|sentence)[ _-]?\d*")
_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


def read_csv(path, image_dir=None, split_fractions=None):
    """Reads captions from a CSV file with a header.

    The columns are `image` (a path relative to the file's folder, or to a
    folder in it), `caption` and, if there is one, `split`. An image may have
    several rows, or several columns `caption_1`, `caption_2`, ...; `file_name`
    and `text`, as Hugging Face names them, `path`, as `captioner caption` does, and
    `comment` are understood too, and columns of other names are ignored. The delimiter
    is the one of comma, tab, semicolon and bar by which the header has these columns.
    The path of the image is its id.

    Args:
        path: str. The file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. Sizes of train, dev and test where the
            file has no splits; see `DatasetBuilder`.

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
    return _read("csv", path, image_dir, split_fractions)


def read_jsonl(path, image_dir=None, split_fractions=None):
    """Reads captions from a file of one JSON object a line.

    An object has `image` (a path, as in `read_csv`), `caption` (a text) or
    `captions` (a list of texts) and, if wanted, `split`. Where it has both, as
    `captioner caption` writes them, a caption that is in the list counts once. Several
    objects may have the same image.

    Args:
        path: str. The file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. As in `read_csv`.

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
    return _read("jsonl", path, image_dir, split_fractions)


def read_json_list(path, image_dir=None, split_fractions=None):
    """Reads captions from a JSON list of objects, each as in `read_jsonl`.

    Label Studio's JSON-MIN export is such a list, and so are COCO results whose
    `image_id` is a file name.

    Args:
        path: str. The file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. As in `read_csv`.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: As for `read_jsonl`.

    Example:

    ```python
    # [{"image": "dog.jpg", "caption": "A dog ."}, ...]
    dataset = read_json_list("photos/captions.json")
    ```
    """
    return _read("json", path, image_dir, split_fractions)


def find_split_tables(folder, listing) -> dict:
    """The table in each split folder of a Hugging Face image folder.

    Returns:
        dict of the name of a sub folder, such as `"train"`, to the path of its
        `metadata.csv` or its only other table; empty if it is no such folder.
    """
    tables = {}
    for child in listing.folders(folder):
        if folder_split(os.path.basename(child)):
            paths = [
                os.path.join(child, name)
                for name in sorted(listing.files(child))
                if name.lower().endswith(_TABLE_SUFFIXES)
            ]
            named = [p for p in paths if os.path.basename(p).startswith("metadata.")]
            if len(named or paths) == 1:
                tables[os.path.basename(child)] = (named or paths)[0]
    return tables


def read_imagefolder(folder, image_dir=None, split_fractions=None):
    """Reads folders `train/`, `validation/` and `test/` with a `metadata.csv` in each.

    This is the `imagefolder` of Hugging Face datasets. The metadata are a table as in
    `read_csv` or `read_jsonl`, beside the photos. The id of an image is its path in
    the folder, such as `train/0001.png`.

    Args:
        folder: str.
        image_dir: str or None. A folder with the same folders of photos, where they
            are elsewhere.
        split_fractions: three floats or None. See `DatasetBuilder`.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If no folder of a split has a table, or as for `read_csv`.

    Example:

    ```python
    dataset = read_imagefolder("pokemon")  # pokemon/train/metadata.csv, ...
    ```
    """
    tables = find_split_tables(folder, FolderListing())
    if not tables:
        raise ValueError(
            f"{folder} has no folders train, validation or test with a metadata.csv."
        )
    builder = DatasetBuilder(
        f"imagefolder:{folder}", folder, image_dir, split_fractions
    )
    for child, table in tables.items():
        kind = "csv" if table.lower().endswith((".csv", ".tsv")) else "jsonl"
        for where, image, captions, _ in _entries(kind, table, builder):
            if image:
                builder.add(f"{child}/{image}", captions, folder_split(child))
            else:
                builder.leave_out(f"{child}, {where}", "row without an image")
    return builder.build()


def has_header(path) -> bool:
    """Whether a file begins with the header of a table of captions."""
    return csv_header(_first_line(path), _is_header)[0] is not None


def name_columns(path):
    """Words for a message: the columns of a table that has none of the usual names."""
    line = _first_line(path).strip()
    return (
        f"{path} needs a first line with the columns image and caption, and split if "
        f"there are splits. Received: {line[:80]!r}"
    )


def is_caption_column(name) -> bool:
    """Whether a column has captions: `caption`, `caption_2`, `text`, ..."""
    return bool(_CAPTION_COLUMN.fullmatch(name))


def json_captions(row) -> list:
    """The captions of a JSON object: texts and lists of texts under the usual keys.

    A text that is in a list, too, as `captioner caption` writes the best caption,
    counts once.
    """
    captions = []
    keys = filter(is_caption_column, row)
    for key in sorted(keys, key=lambda key: not isinstance(row[key], list)):
        value = row[key]
        if isinstance(value, list):
            captions.extend(value)
        elif value is not None and value not in captions:
            captions.append(value)
    return captions


def _first_line(path):
    try:
        with open(path, "rb") as file:
            start = file.read(4 * MAX_HEADER)
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
    text = start.decode(text_encoding(start[:4]), "replace")
    return re.split(r"\r\n|\r|\n", text, maxsplit=1)[0]


def _is_header(names):
    return bool(_image_column(names)) and any(map(is_caption_column, names))


def _image_column(names):
    return next((name for name in IMAGE_COLUMNS if name in names), None)


def _read(kind, path, image_dir, split_fractions):
    base = os.path.dirname(path)
    builder = DatasetBuilder(f"{kind}:{path}", base, image_dir, split_fractions)
    for where, image, captions, split in _entries(kind, path, builder):
        if image:
            split = split if split and str(split).strip() else None
            builder.add(image, captions, split)
        else:
            builder.leave_out(where, "row without an image")
    return builder.build()


def _entries(kind, path, builder):
    """The rows of a table: (where, image, captions, split)."""
    if kind == "csv":
        return _csv_entries(path, builder)
    if kind == "jsonl":
        return _json_entries(path, jsonl_rows(path))
    return _json_entries(path, json_rows(path, read_json(path)))


def _csv_entries(path, builder):
    names, rows = csv_rows(path, _is_header, "image and caption")
    image_column = names.index(_image_column(names))
    caption_columns = [i for i, n in enumerate(names) if is_caption_column(n)]
    split_column = names.index("split") if "split" in names else None
    for line, row in rows:
        if len(row) > len(names):
            # An unquoted delimiter: the caption would lose its end.
            builder.leave_out(
                f"line {line}",
                "row with too many fields (put a caption that contains the delimiter "
                "in quotation marks)",
            )
            continue
        row += [""] * (len(names) - len(row))
        captions = [row[index] for index in caption_columns]
        if len(captions) > 1:
            # Of several columns some may stay empty, but not all of them.
            captions = [caption for caption in captions if caption.strip()]
        split = "" if split_column is None else row[split_column]
        yield f"line {line}", row[image_column].strip(), captions, split


def _json_entries(path, rows):
    keys, with_both = {}, 0
    for where, row in rows:
        column = _image_column(row)
        image = "" if column is None else row[column]
        if not isinstance(image, str):
            raise ValueError(
                f"{path}, {where}: the image must be a path. Received: image={image!r}"
            )
        keys.update(row)
        with_both += column is not None and any(map(is_caption_column, row))
        yield where, image.strip(), json_captions(row), row.get("split")
    if keys and not with_both:
        raise ValueError(
            f'{path}: every object needs the keys "image", with the path of the image, '
            f'and "caption". Received: the keys {", ".join(keys)[:200]}'
        )
