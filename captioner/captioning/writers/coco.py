"""COCO results: what the COCO caption evaluation reads."""

import json
import pathlib
import re

from captioner.files import as_text

# COCO_val2014_000000391895.jpg, and 000000391895.jpg since 2017.
_COCO_NAME = re.compile(r"(?:COCO_\w+_)?(\d{12})")


def write_coco(file, results, info):
    """`[{"image_id": ..., "caption": ...}, ...]`, without the photos that failed.

    The id of a file that is named as in COCO is its number, that of others their path.
    """
    separator = "[\n"
    with as_text(file) as text:
        for each in results:
            if each.error is None:
                row = {"image_id": _image_id(each.path), "caption": each.caption}
                text.write(separator + json.dumps(row))
                separator = ",\n"
        text.write("[]\n" if separator == "[\n" else "\n]\n")


def _image_id(path):
    found = _COCO_NAME.fullmatch(pathlib.PurePath(path).stem)
    return int(found[1]) if found else path
