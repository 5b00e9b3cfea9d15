"""Reads captions that a captioner wrote to a file, for `captioner evaluate`."""

import collections
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping

from captioner.datasets.caption_markers import END, START
from captioner.datasets.rows import (
    csv_rows,
    json_rows,
    jsonl_rows,
    read_json,
    read_text,
)
from captioner.images.folder_walk import walk_folder
from captioner.metrics import name_ids

_ID_NAMES = "image_id image path file_name filename file image_name".split()
# A file name need not be valid text.
_ERRORS = "surrogateescape"


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Captions by the image that they are of.

    Attributes:
        source: str, where they were read.
        captions: dict of image id to a list of str, the best caption first.
        scores: dict of image id to the float that the captioner gave its caption.
        errors: dict of image id to why it has no caption.
        notes: dict of what else is worth telling of them.
        have_suffix: False where the ids are file names without their suffix.
        confidences: dict of image id to how likely its caption is right, 0 to 1, where
            the captioner knows.
    """

    source: str
    captions: Mapping[str, list[str]]
    scores: Mapping[str, float]
    errors: Mapping[str, str]
    notes: Mapping[str, object]
    have_suffix: bool = True
    confidences: Mapping[str, float] = dataclasses.field(default_factory=dict)


def read_predictions(path):
    """Reads captions of images.

    | path | what it is |
    |---|---|
    | `.json` | COCO results: `[{"image_id": 7, "caption": "a dog"}, ...]` |
    | `.jsonl` | the same objects, one a line |
    | `.csv`, `.tsv` | a table with a header |
    | a folder | `photo.txt` for each photo, one caption a line, the best first |

    The image of an object or a row is `image_id`, or else `image`, `path` or
    `file_name`: a text or a whole number. Its caption is `caption`, or in JSON
    `captions`, a list with the best first. It may have a `score`, and an `error`
    instead of a caption, as `captioner caption` writes them. Start and end markers
    ("<s>", "<end>", "endseq", ...) and what follows an end are cut from captions.

    Args:
        path: str or path.

    Returns:
        `Predictions`.

    Raises:
        ValueError: the file cannot be read or is of another form, an image is there
            twice, or an id, a caption or a score has the wrong type; the line or row
            is named.

    Example:

    ```python
    predictions = read_predictions("captions.csv")  # of `captioner caption -o`
    predictions.captions["photos/dog.jpg"]  # ["a dog runs"]
    ```
    """
    path = pathlib.Path(path)
    if path.is_dir():
        rows = _read_folder(path)
    else:
        suffix = path.suffix.lower()
        if suffix not in READERS:
            raise ValueError(
                f"{path}: predictions are a folder of .txt files, or a file that ends "
                f"in {', '.join(READERS)}."
            )
        rows = READERS[suffix](path)
    captions, scores, confidences, errors, places = {}, {}, {}, {}, {}
    num_stripped = 0
    for place, row in rows:
        where = f"{path}, {place}"
        image_id = _image_id(row, where)
        if image_id in places:
            raise ValueError(
                f"{where}: the image {image_id!r} occurs twice, first in "
                f"{places[image_id]}."
            )
        places[image_id] = place
        if row.get("error"):
            errors[image_id] = " ".join(str(row["error"]).split())
            continue
        texts = _captions(row, where)
        stripped = [_strip_markers(text) for text in texts]
        num_stripped += stripped[0] != texts[0]
        captions[image_id] = stripped
        for name, values in (("score", scores), ("confidence", confidences)):
            number = _number(row, name, where)
            if number is not None:
                values[image_id] = number
    if not places:
        kind = " .txt files with" if path.is_dir() else ""
        raise ValueError(f"{path} has no{kind} predictions.")
    notes = {"captions": "read from a file"}
    if num_stripped:
        notes["markers_cut"] = num_stripped
    return Predictions(
        str(path), captions, scores, errors, notes, not path.is_dir(), confidences
    )


def _strip_markers(text):
    return END.split(START.sub("", text), maxsplit=1)[0]


def _image_id(row, where):
    name = next((name for name in _ID_NAMES if name in row), None)
    if name is None:
        raise ValueError(f"{where}: no image_id. Received: {list(row)}")
    value = row[name]
    # A bool is an int to Python.
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise ValueError(
            f"{where}: an image must be a text or a whole number. "
            f"Received: {name}={value!r}"
        )
    return str(value)


def _captions(row, where):
    texts = row.get("captions")
    if texts is None:
        texts = [row.get("caption")]
    if not isinstance(texts, list) or not texts or not all(map(_is_text, texts)):
        shown = repr(row.get("captions", row.get("caption")))[:80]
        raise ValueError(f"{where}: a caption must be text. Received: {shown}")
    return texts


def _is_text(value):
    # What was no UTF-8 in a table comes as surrogates.
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _number(row, name, where):
    number = row.get(name)
    if number is None or number == "":
        return None
    try:
        number = math.nan if isinstance(number, bool) else float(number)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"{where}: a {name} must be a number. Received: {name}={row[name]!r}"
        )
    return number


def _read_json(path):
    return json_rows(path, read_json(path, _ERRORS))


def _read_jsonl(path):
    return jsonl_rows(path, _ERRORS)


def _read_csv(path):
    def is_header(names):
        return "caption" in names and any(name in names for name in _ID_NAMES)

    names, rows = csv_rows(path, is_header, "image_id and caption", _ERRORS)
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise ValueError(f"{path} has two columns {' and '.join(sorted(twice))!r}.")
    for line, row in rows:
        if len(row) != len(names):  # an unquoted delimiter in a caption
            raise ValueError(
                f"{path}, line {line}: {len(row)} fields, {len(names)} columns."
            )
        yield f"line {line}", dict(zip(names, row))


def _read_folder(folder):
    for visit in walk_folder(folder, lambda name: name.endswith(".txt")):
        for name in visit.names:
            file = pathlib.Path(visit.folder, name)
            place = file.relative_to(folder).as_posix()
            texts = read_text(file, _ERRORS).splitlines()
            texts = [text for text in texts if text.strip()] or [""]
            yield place, {"image": place.removesuffix(".txt"), "captions": texts}


READERS = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}


def match_predictions(predictions, data, split):
    """Finds the image of a dataset that each prediction is of.

    An id stands for the image with that id. What is no id stands for the image whose
    id or file ends as it does: the longest common end counts, of whole names, the
    file name at least. So "photos/1.jpg" is the image "1.jpg", where there is but one.
    Predictions for images of other splits, or for what the dataset left out (as an
    image without captions), are counted in `notes` and go no further.

    Args:
        predictions: `Predictions`.
        data: `CaptionDataset`.
        split: str, one of its splits.

    Returns:
        `Predictions` by the ids of the split, one for each of its images.

    Raises:
        ValueError: none is of the split, one is of no image of the dataset or could be
            of several, two are of the same image, or an image has none.
    """
    source = predictions.source
    examples = data.examples(split)
    ids = [example["image/id"] for example in examples]
    known = set(ids)
    given = [*predictions.captions, *predictions.errors]
    if predictions.have_suffix and known.issuperset(given):
        names, absent = None, {}
    else:
        names = _ImageNames(predictions.have_suffix)
        for other_split in data.splits:
            for example in data.examples(other_split):
                names.add(example["image/id"], example["image"])
        absent = dict(data.summary().left_out)
        for what in absent:
            names.add(what, what)
    found, unknown, not_scored, by_file_name = {}, [], collections.Counter(), 0
    for name in given:
        try:
            image_id = name if names is None else names.find(name)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        if image_id in found:
            raise ValueError(
                f"{source}: two predictions for the image {image_id!r}. "
                f"Received: {found[image_id]!r} and {name!r}"
            )
        if image_id is None:
            unknown.append(name)
        elif image_id in known:
            found[image_id] = name
            by_file_name += name != image_id
        else:
            not_scored[absent.get(image_id, "of another split")] += 1
    if not found:
        raise ValueError(
            f"{source}: no prediction belongs to an image of the {split} split of "
            f"{data.name}. Received: {name_ids(given)}"
        )
    if unknown:
        raise ValueError(
            f"{source}: predictions of images that are not in {data.name}: "
            + name_ids(unknown)
        )
    missing = [image_id for image_id in ids if image_id not in found]
    if missing:
        raise ValueError(
            f"{source}: some of the {len(ids)} images of the {split} split have no "
            f"prediction: {name_ids(missing)}"
        )
    notes = dict(predictions.notes)
    if by_file_name:
        notes["by_file_name"] = by_file_name
    if not_scored:
        notes["not_scored"] = ", ".join(f"{n} {why}" for why, n in not_scored.items())

    def by_id(values):
        return {i: values[name] for i, name in found.items() if name in values}

    return Predictions(
        source,
        by_id(predictions.captions),
        by_id(predictions.scores),
        {i: f"{i}: {error}" for i, error in by_id(predictions.errors).items()},
        notes,
        confidences=by_id(predictions.confidences),
    )


class _ImageNames:
    """Images by their ids, and by the ends of their paths."""

    def __init__(self, have_suffix):
        self.have_suffix = have_suffix
        self.ids = set()
        self.by_end = {}

    def add(self, image_id, image):
        self.ids.add(image_id)
        paths = {image_id, image} if isinstance(image, str) else {image_id}
        for path in paths:
            if not self.have_suffix:
                path = os.path.splitext(path)[0]
            for end in _ends(path):
                # None where several images end so.
                if self.by_end.setdefault(end, image_id) != image_id:
                    self.by_end[end] = None

    def find(self, name):
        """The id of an image, or None if there is no such image."""
        if name in self.ids:
            return name
        end = next((end for end in _ends(name) if end in self.by_end), None)
        if end is not None and self.by_end[end] is None:
            raise ValueError(f"several images are called {end!r}. Received: {name!r}")
        return self.by_end.get(end)


def _ends(path):
    """'a/b/c.jpg' -> 'a/b/c.jpg', 'b/c.jpg', 'c.jpg'."""
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]
