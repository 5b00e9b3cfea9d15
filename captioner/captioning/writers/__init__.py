"""The forms in which captions are written: one file for all photos, or one per photo.

`TABLES` are the files of a whole run, by their suffix. Each is a function of a binary
file to write to, an iterable of `CaptionResult` in order, and a `RunInfo`. What it
writes does not depend on when it is written.

`TextSidecar`, `XmpSidecar` and `EmbeddedCopy` write the files of single photos.
"""

from captioner.captioning.writers.coco import write_coco
from captioner.captioning.writers.embedded_copy import EmbeddedCopy
from captioner.captioning.writers.gallery import write_gallery
from captioner.captioning.writers.parquet import write_parquet
from captioner.captioning.writers.run_info import RunInfo
from captioner.captioning.writers.tables import write_csv, write_errors, write_jsonl
from captioner.captioning.writers.text_sidecar import TextSidecar
from captioner.captioning.writers.xmp_sidecar import XmpSidecar

TABLES = {
    ".csv": write_csv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
    ".json": write_coco,
    ".html": write_gallery,
}

__all__ = [
    "TABLES",
    "EmbeddedCopy",
    "RunInfo",
    "TextSidecar",
    "XmpSidecar",
    "write_errors",
]
