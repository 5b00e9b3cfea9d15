"""Apache Parquet, with `captioner[parquet]`."""

import itertools

ROWS_AT_ONCE = 10_000  # in memory


def write_parquet(file, results, info):
    """Columns path, caption, score, error, kind, confidence, and the lists captions and
    scores.

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
            ("confidence", number),
            ("captions", pyarrow.list_(text)),
            ("scores", pyarrow.list_(number)),
        ]
    )
    results = iter(results)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while rows := list(itertools.islice(results, ROWS_AT_ONCE)):
            columns = {
                name: [_plain(getattr(row, name)) for row in rows]
                for name in schema.names
            }
            writer.write_table(pyarrow.table(columns, schema))


def import_pyarrow():
    """Import pyarrow; one line says how to install it where it is missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "Parquet needs pyarrow: pip install captioner[parquet]"
        ) from error
    return pyarrow


def _plain(value):
    # Text in Parquet is valid Unicode; other bytes of a file name become escapes.
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return list(value) if isinstance(value, tuple) else value
