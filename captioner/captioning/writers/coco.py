"""COCO results: what the COCO caption evaluation reads."""

import json
import pathlib
import re

# COCO_val2014_000000391895.jpg, and 000000391895.jpg since 2017.
_COCO_NAME = re.compile(r"(?:COCO_\w+_)?(\d{12})")


def write_coco(path, results, info):
    """`[{"image_id": ..., "caption": ...}, ...]`, without the photos that failed.

    A file that is named as in COCO has its number for an id, any other its path.
    """
    separator = "[\n"
    with open(path, "w", encoding="utf-8") as file:
        for each in results:
            if each.error is None:
                row = {"image_id": _image_id(each.path), "caption": each.caption}
                file.write(separator + json.dumps(row))
                separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def _image_id(path):
    found = _COCO_NAME.fullmatch(pathlib.PurePath(path).stem)
    return int(found[1]) if found else path
