"""Text, JSON, JSON lines and CSV files, read in one way for datasets and predictions.

Each reader names the file and the line in what it raises.
"""

import csv
import io
import json
import os
import stat

from captioner.files import text_encoding
from captioner.spreadsheets import unprotect_row

# The columns that may name the image, in the order of preference.
IMAGE_COLUMNS = (
    "image",
    "image_name",
    "file_name",
    "filename",
    "file",
    "path",
    "filepath",
    "file_path",
    "image_path",
    "image_id",
)
DELIMITERS = (",", "\t", ";", "|")
MAX_TABLE_BYTES = 2**31
# No header is longer, in characters: a file without line ends is no table.
MAX_HEADER = 10_000


def read_text(path, errors="strict", max_bytes=MAX_TABLE_BYTES) -> str:
    """Reads a text file: UTF-8, or what its byte order mark says.

    Args:
        path: str or path.
        errors: what to do with bytes that are not UTF-8, see `bytes.decode`.
        max_bytes: int. A larger file is refused.

    Raises:
        ValueError: If the file is missing, unreadable, no regular file, too large, or
            not of that encoding; the line is named.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a file.")
        if status.st_size > max_bytes:
            raise ValueError(f"{path} is larger than {max_bytes >> 20:,} MB.")
        with open(path, "rb") as file:
            data = file.read(max_bytes)
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
    encoding = text_encoding(data[:4])
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not {name} text: {error.reason} in line {line}. Save it as "
            "UTF-8, or as UTF-16 with a byte order mark."
        ) from error


def parse_json(text, where):
    """Parses JSON; `where` is the file, or the file and its line.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}.") from error


def read_json(path, errors="strict"):
    """Reads a JSON file.

    Raises:
        ValueError: If the file cannot be read or is not JSON.
    """
    return parse_json(read_text(path, errors), path)


def json_rows(path, data):
    """The objects of a JSON list, each with its place: `("object 1", {...})`.

    Raises:
        ValueError: If `data` is no list of objects.
    """
    if not isinstance(data, list):
        raise ValueError(
            f"{path}: expected a list of objects. Received: a {type(data).__name__}"
        )
    for number, row in enumerate(data, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, object {number}: not a JSON object.")
        yield f"object {number}", row


def jsonl_rows(path, errors="strict"):
    """The objects of a file of JSON lines, each with its place: `("line 1", {...})`.

    Empty lines are passed over.

    Raises:
        ValueError: If the file cannot be read or a line is no JSON object.
    """
    for number, line in enumerate(read_text(path, errors).split("\n"), 1):
        if line.strip():
            row = parse_json(line, f"{path}, line {number}")
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: not a JSON object.")
            yield f"line {number}", row


def csv_header(line, is_header):
    """The names in the first line of a table, and the delimiter between them.

    The delimiter is the one of comma, tab, semicolon and bar by which the line has the
    columns that are looked for.

    Args:
        line: str.
        is_header: function of a list of lower-case names: whether the columns that are
            looked for are among them.

    Returns:
        `(names, delimiter)`; `(None, None)` if the line is no such header.
    """
    for delimiter in DELIMITERS:
        try:
            names = next(csv.reader([line[:MAX_HEADER]], delimiter=delimiter), [])
        except csv.Error:  # a line break in the middle of a field
            continue
        names = [name.strip().lower() for name in names]
        if is_header(names):
            return names, delimiter
    return None, None


def csv_rows(path, is_header, expected, errors="strict"):
    """The rows of a table with a header.

    Args:
        path: str or path.
        is_header: see `csv_header`.
        expected: str. The columns that are looked for, for the message.
        errors: see `read_text`.

    Returns:
        `(names, rows)`: the list of lower-case column names, and an iterator of
        `(line, fields)` over the rows that are not empty, with the number of the first
        line of each row.

    Raises:
        ValueError: If the file cannot be read, the header lacks the columns, or the
            quotation marks of a row do not match.
    """
    # `newline=""` leaves line ends inside a quoted caption to the csv module.
    lines = io.StringIO(read_text(path, errors), newline="")
    header = lines.readline()
    names, delimiter = csv_header(header, is_header)
    if names is None:
        raise ValueError(
            f"{path} needs a first line with the columns {expected}. "
            f"Received: {header.strip()[:80]!r}"
        )
    return names, _csv_rows(path, lines, delimiter, names)


def _csv_rows(path, lines, delimiter, names):
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 2
    try:
        for row in rows:
            if any(row):
                yield line, unprotect_row(names, row)
            # A row may have many lines, and it is known by its first one.
            line = rows.line_num + 2
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line}: a quotation mark is not closed, or is not doubled "
            f"inside a quoted caption ({error})."
        ) from error
