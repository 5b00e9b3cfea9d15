"""Readers and builders of datasets: `load_dataset(spec)` is the way in.

A dataset is named splits of examples `{"image/id", "image", "captions"}`; see
`CaptionDataset`. A new reader is one file with one function, and one line in
`_READERS`.
"""

import inspect
import os
import re

from captioner.datasets import (
    coco,
    flickr8k,
    label_studio,
    parquet,
    sidecars,
    table,
    webdataset,
)
from captioner.datasets.caption_dataset import CaptionDataset, DatasetSummary
from captioner.datasets.download import DownloadError, download
from captioner.datasets.karpathy import is_karpathy, read_karpathy
from captioner.datasets.mix import mix_datasets, part_names, split_mix
from captioner.datasets.photo_search import FolderListing
from captioner.datasets.rows import read_json
from captioner.datasets.scenes import build_scenes
from captioner.datasets.spec import split_options
from captioner.datasets.tfds import read_tfds

__all__ = [
    "CaptionDataset",
    "DatasetSummary",
    "DownloadError",
    "build_scenes",
    "download",
    "load_dataset",
    "mix_datasets",
]

_READERS = {
    "flickr8k": flickr8k.read_flickr8k,
    "karpathy": read_karpathy,
    "coco": coco.read_coco,
    "csv": table.read_csv,
    "jsonl": table.read_jsonl,
    "json": table.read_json_list,
    "imagefolder": table.read_imagefolder,
    "label_studio": label_studio.read_label_studio,
    "parquet": parquet.read_parquet,
    "webdataset": webdataset.read_webdataset,
    "txt": sidecars.read_sidecars,
    "tfds": read_tfds,
}


def load_dataset(spec, **options) -> CaptionDataset:
    """Loads a dataset.

    | spec | what it reads |
    |---|---|
    | `flickr8k:DIR` | Flickr8k in its original layout |
    | `karpathy:FILE` | a Karpathy JSON, such as `dataset_flickr8k.json` |
    | `coco:FILE`, `coco:DIR` | COCO captions JSON |
    | `csv:FILE`, `jsonl:FILE`, `json:FILE` | a table beside a folder of photos |
    | `imagefolder:DIR` | `train/`, `validation/`, `test/` with a `metadata.csv` each |
    | `label_studio:FILE` | Label Studio's JSON export |
    | `parquet:FILE`, `parquet:DIR` | Parquet with photos in it, or their paths |
    | `webdataset:FILE`, `webdataset:DIR` | tars of `.jpg` with `.txt` or `.json` |
    | `txt:DIR` | photos with a `.txt` or `.caption` beside each |
    | `tfds:NAME` | TensorFlow Datasets, such as `tfds:coco_captions` |
    | `scenes`, `scenes:N` | N drawn scenes to train on; 2000 without N |
    | `PATH` | any of the above that is a path, recognised by its files |
    | `mix:SPEC*N+SPEC*M` | several of them joined; see below |

    In a mix the splits are joined by name, and an epoch sees each training image of a
    part N times; N is a whole number, and 1 if it is absent. Dev and test images are
    never repeated. The id of an image begins with the name of its part, which is the
    last name in its spec without the suffix (for `everyday/captions.jsonl` and other
    general names that of the folder, `everyday`). A spec that contains `+`, `*` or a
    quotation mark needs quotation marks: `mix:'my+photos.csv'*2+flickr8k:DIR`.

    A spec may end in options: `FILE?image_dir=DIR&dev_fraction=0.1&test_fraction=0.1`,
    with `%26`, `%27` and `%3F` for `&`, `'` and `?` in a name. The options at the end
    of a mix belong to the whole mix; to give options to a part, put it in quotation
    marks.

    A dataset without splits is split 90 / 5 / 5 by a hash of the image ids, so
    that an image stays in its split whatever joins or leaves the dataset. A
    small one may get no test split in this way. No image is opened.

    A captions file may name photos outside its own folder: load only files from people
    you trust, or the photos that it names may end up in what you publish.

    Args:
        spec: str or path.
        **options: What the reader takes: `image_dir` (all but txt, webdataset,
            tfds and scenes), the folder of the photos where they are elsewhere;
            `split_fractions` (all but tfds and scenes), the shares of train, dev and
            test, with which a dataset without a dev split gets one; `data_dir` and
            `download` (tfds); `seed` (scenes).

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If the spec is not understood, an option is not one of the
            reader, the files are not what they should be, an image is in two
            splits, or there is no usable image.

    Example:

    ```python
    import captioner

    dataset = captioner.datasets.load_dataset("scenes:500")
    print(dataset.summary())
    for example in dataset.examples("dev"):
        print(example["image/id"], example["captions"])
    ```
    """
    spec, own_options = split_options(os.fspath(spec))
    options = {**own_options, **options}
    if spec.startswith("mix:"):
        return _load_mix(spec, options)
    return _read(*_find_reader(spec), options, spec)


def _read(reader, arguments, options, spec):
    known = _options_of(reader)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"{spec!r} takes the options {', '.join(known) or 'none'}. "
            f"Received: {', '.join(unknown)}"
        )
    return reader(*arguments, **options)


def _find_reader(spec):
    """The function that reads a spec, and its arguments."""
    name, colon, where = spec.partition(":")
    if name == "scenes":
        if colon and not where.isdecimal():
            raise ValueError(
                "The number of scenes must be a positive integer. "
                f"Received: spec={spec!r}"
            )
        return build_scenes, ([int(where)] if colon else [])
    if colon and name in _READERS:
        if not where:
            raise ValueError(
                f"Name a file or a folder after {name}:. Received: spec={spec!r}"
            )
        if name != "tfds" and not os.path.exists(where):
            raise ValueError(f"No such file or folder: {where}")
        return _READERS[name], [where]
    if os.path.exists(spec):
        reader, path = _recognise(spec)
        return reader, [path]
    if colon and re.fullmatch(r"[a-z0-9_]{2,}", name):
        raise ValueError(
            f"There is no reader {name!r}; the readers are {', '.join(_READERS)}. "
            f"Received: spec={spec!r}"
        )
    raise ValueError(
        f"No such file or folder: {spec}. A dataset is a path, scenes, or READER:PATH "
        f"with a reader of {', '.join(_READERS)}."
    )


def _options_of(reader):
    return list(inspect.signature(reader).parameters)[1:]


def _load_mix(spec, options):
    if "image_dir" in options:
        raise ValueError(
            "Each part of a mix has its own folder, so a mix takes no image_dir. "
            f"Received: image_dir={options['image_dir']!r} for {spec!r}"
        )
    parts = split_mix(spec.removeprefix("mix:"))
    if any(part.startswith("mix:") for part, _ in parts):
        raise ValueError(f"A mix cannot be a part of a mix. Received: spec={spec!r}")
    names = part_names([split_options(part)[0] for part, _ in parts])
    own = [split_options(part) for part, _ in parts]
    readers = [_find_reader(part) for part, _ in own]
    unknown = set(options).difference(*(_options_of(reader) for reader, _ in readers))
    if unknown:
        raise ValueError(
            f"No part of {spec!r} takes the options {', '.join(sorted(unknown))}."
        )
    mixed = []
    for name, (reader, arguments), (_, own_options), (_, weight) in zip(
        names, readers, own, parts
    ):
        shared = {key: options[key] for key in _options_of(reader) if key in options}
        data = _read(reader, arguments, {**shared, **own_options}, name)
        mixed.append((name, data, weight))
    return mix_datasets(mixed, spec)


def _recognise(path):
    """The reader of a bare path, and the path to give to it."""
    if os.path.isfile(path):
        reader = _recognise_file(path)
        if reader is not None:
            return reader, path
        if path.lower().endswith((".csv", ".tsv", ".txt")):
            raise ValueError(table.name_columns(path))
        raise ValueError(
            f"{path} is no captions file: neither a table (.csv, .tsv, .jsonl) nor "
            "JSON of Karpathy, COCO or Label Studio, nor a list of objects."
        )
    if not os.path.isdir(path):
        raise ValueError(f"{path} is neither a file nor a folder.")
    listing = FolderListing()
    if flickr8k.find_captions_file(path, listing):
        return flickr8k.read_flickr8k, path
    if coco.find_captions_files(path, listing):
        return coco.read_coco, path
    if table.find_split_tables(path, listing):
        return table.read_imagefolder, path
    files = [
        os.path.join(path, name)
        for name in sorted(listing.files(path))
        # Any other text file may belong to a photo, and there may be a million. Of
        # archives and Parquet files all are read.
        if name == "captions.txt"
        or not name.lower().endswith((".txt", ".tar", ".parquet"))
    ]
    found = [(reader, file) for file in files if (reader := _recognise_file(file))]
    if len(found) > 1:
        names = ", ".join(os.path.basename(file) for _, file in found)
        raise ValueError(
            f"{path} has several captions files; name one of them. Received: {names}"
        )
    if found:
        return found[0]
    if parquet.find_parquet_files(path, listing):
        return parquet.read_parquet, path
    if webdataset.find_shards(path, listing):
        return webdataset.read_webdataset, path
    if sidecars.has_sidecars(path, listing):
        return sidecars.read_sidecars, path
    raise ValueError(
        f"{path} has no captions: neither a captions file nor .txt or .caption files "
        "beside its photos."
    )


def _recognise_file(path):
    extension = os.path.splitext(path)[1].lower()
    if extension in (".jsonl", ".ndjson"):
        return table.read_jsonl
    if extension in (".csv", ".tsv", ".txt"):
        return table.read_csv if table.has_header(path) else None
    if extension == ".parquet":
        return parquet.read_parquet
    if extension == ".tar":
        return webdataset.read_webdataset
    if extension == ".json":
        data = read_json(path)
        if is_karpathy(data):
            return read_karpathy
        if isinstance(data, dict) and "annotations" in data:
            return coco.read_coco
        if label_studio.is_label_studio(data):
            return label_studio.read_label_studio
        if isinstance(data, list):
            return table.read_json_list
    return None
