"""Parquet files with captions and photos or their paths, as Hugging Face has them.

Source: https://huggingface.co/docs/datasets/image_dataset, "Parquet"
"""

import dataclasses
import functools
import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.photo_search import FolderListing, folder_split
from captioner.datasets.rows import IMAGE_COLUMNS
from captioner.datasets.table import is_caption_column

# Rows whose captions are held at once.
_BATCH_SIZE = 10_000


@dataclasses.dataclass(frozen=True)
class ParquetImage:
    """An image in a Parquet file, which is read when it is used.

    Reading one image reads its whole row group; the last ones are kept, so reading in
    order is fast.

    Attributes:
        path: str, the file.
        column: str, the column of the images.
        row_group: int.
        index: int, the row in the row group.
    """

    path: str
    column: str
    row_group: int
    index: int

    @property
    def name(self):
        """What the image is called in messages."""
        return f"{self.path}, row {self.index} of row group {self.row_group}"

    def read(self):
        """The bytes of the image; none where the row has none."""
        value = _row_group(self.path, self.column, self.row_group)[self.index].as_py()
        value = value["bytes"] if isinstance(value, dict) else value
        return b"" if value is None else value


@functools.lru_cache(maxsize=2)
def _row_group(path, column, number):
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read_row_group(number, columns=[column]).column(column)


def find_parquet_files(path, listing) -> list:
    """Paths of the Parquet files that a path is or has, in it or in its folders."""
    if os.path.isfile(path):
        return [path]
    return [
        os.path.join(folder, name)
        for folder in (path, *listing.folders(path))
        for name in sorted(listing.files(folder))
        if name.lower().endswith(".parquet")
    ]


def read_parquet(path, image_dir=None, split_fractions=None):
    """Reads Parquet files: a column of images, and one or several of captions.

    The columns have names as in `read_csv`. The images are their bytes, or structs of
    bytes and path as Hugging Face datasets write them, or paths as in `read_csv`.
    Captions are texts or lists of texts. They are read once and kept; image bytes are
    read when they are used. A file or a folder that is called as a split
    (`train-00000-of-00001.parquet`, `test/0000.parquet`) is that split, if all are and
    there is no column `split`. The id of an image is the name of its file and the
    number of its row, or its path.

    Args:
        path: str. A Parquet file, or a folder of them.
        image_dir: str or None. The folder of the photos, where the column has paths.
        split_fractions: three floats or None. See `DatasetBuilder`.

    Returns:
        A `CaptionDataset`. Images that were bytes have a `read()`.

    Raises:
        ValueError: If pyarrow is not installed, a file cannot be read or lacks the
            columns, or nothing usable is left.

    Example:

    ```python
    dataset = read_parquet("pokemon/data")  # train-00000-of-00001.parquet, ...
    ```
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError(
            f"parquet:{path} needs `pip install captioner[parquet]`: {error}."
        ) from error
    files = find_parquet_files(path, FolderListing())
    if not files:
        raise ValueError(f"{path} has no .parquet files.")
    root = path if os.path.isdir(path) else os.path.dirname(path)
    builder = DatasetBuilder(f"parquet:{path}", root, image_dir, split_fractions)
    names = [os.path.splitext(os.path.relpath(file, root or "."))[0] for file in files]
    splits = [
        folder_split(os.path.basename(name)) or folder_split(os.path.dirname(name))
        for name in names
    ]
    for file, name, split in zip(files, names, splits):
        try:
            _read_file(file, name, split if all(splits) else None, builder)
        except (OSError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"Cannot read {file}: {reason}") from error
    return builder.build()


def _read_file(path, name, split, builder):
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        column = next((each for each in IMAGE_COLUMNS if each in schema.names), None)
        captions = [each for each in schema.names if is_caption_column(each)]
        if column is None or not captions:
            raise ValueError(
                f"{path} needs the columns image and caption. "
                f"Received: {', '.join(schema.names)[:200]}"
            )
        kind = schema.field(column).type
        are_paths = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
        wanted = captions + [each for each in ("split",) if each in schema.names]
        wanted += [column] if are_paths else []
        for group in range(file.num_row_groups):
            start = 0
            for batch in file.iter_batches(
                _BATCH_SIZE, row_groups=[group], columns=wanted
            ):
                for index, row in enumerate(batch.to_pylist(), start):
                    texts = [
                        text
                        for each in captions
                        for text in (
                            row[each] if isinstance(row[each], list) else [row[each]]
                        )
                        if text is not None
                    ]
                    own_split = row.get("split") or split
                    if not are_paths:
                        image = ParquetImage(path, column, group, index)
                        image_id = f"{name}/{group}-{index}".replace(os.sep, "/")
                        builder.add(image_id, texts, own_split, image=image)
                    elif row[column]:
                        builder.add(row[column], texts, own_split)
                start += batch.num_rows
