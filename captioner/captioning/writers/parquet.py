"""Apache Parquet, with `captioner[parquet]`."""

import itertools

ROWS = 10_000  # in memory at a time


def write_parquet(path, results, info):
    """Columns path, caption, score, error, kind, and the lists captions and scores.

    Raises:
        ValueError: pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    text, number = pyarrow.string(), pyarrow.float64()
    schema = pyarrow.schema(
        [
            ("path", text),
            ("caption", text),
            ("score", number),
            ("error", text),
            ("kind", text),
            ("captions", pyarrow.list_(text)),
            ("scores", pyarrow.list_(number)),
        ]
    )
    results = iter(results)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while rows := list(itertools.islice(results, ROWS)):
            columns = {
                name: [_plain(getattr(row, name)) for row in rows]
                for name in schema.names
            }
            writer.write_table(pyarrow.table(columns, schema))


def import_pyarrow():
    """pyarrow, or one line that says how to get it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "Parquet needs pyarrow: pip install captioner[parquet]"
        ) from error
    return pyarrow


def _plain(value):
    # Parquet's text is valid Unicode; a file name that is not keeps its bytes' names.
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return list(value) if isinstance(value, tuple) else value
