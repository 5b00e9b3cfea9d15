"""Preset folders: where they are found, how they are written and checked.

A preset is a folder:

    config.json          everything needed to rebuild the objects
    model.weights.h5     their weights
    assets/              the vocabulary
    recipe.json          how it was trained, to the seed
    scores.json          how good it is, on which split, by which command
    metadata.json        versions, and the sha256 of each file above
    README.md            the model card

This file knows nothing of models: it reads and writes files. Nothing in a preset
is ever run as code.
"""

import collections
import contextlib
import importlib.metadata
import io
import json
import math
import os
import pathlib
import secrets
import stat
import zipfile

from captioner.files import atomic_folder, file_sha256, write_json

DEFAULT_PRESET = "efficientnet_lite2_transformer_everyday"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"
METADATA_FILE = "metadata.json"
# Files that people edit after a preset is made, so without a checksum.
UNCHECKED_FILES = (METADATA_FILE, "README.md")
MAX_JSON_BYTES = 2**24  # far more than any preset needs
MAX_STORED = 100_000  # groups and tensors in a weights file


class PresetError(ValueError):
    """A preset that is missing, damaged, or cannot be written; one line."""


def preset_folders():
    """The folders that presets are looked up in, in this order:
    `$CAPTIONER_HOME`, the checkout or the installed package, the user's cache."""
    package = pathlib.Path(__file__).parent
    folders = []
    if os.environ.get("CAPTIONER_HOME"):
        folders.append(pathlib.Path(os.environ["CAPTIONER_HOME"]))
    # In a wheel models/ lies inside the package, in a checkout beside it.
    folders += [package / "models", package.parent / "models"]
    folders.append(pathlib.Path.home() / ".cache" / "captioner")
    return [folder for folder in folders if folder.is_dir()]


def list_presets():
    """All presets that can be named, each as its folder; the first found wins.

    Example:

    >>> from captioner import presets
    >>> names = [preset.name for preset in presets.list_presets()]
    """
    found = {}
    for folder in preset_folders():
        # Hidden folders are those that `new_preset` had no time to finish.
        for config in sorted(folder.glob(f"[!.]*/{CONFIG_FILE}")):
            found.setdefault(config.parent.name, config.parent)
    return list(found.values())


def find_preset(name):
    """The folder of a preset, from its name or its path.

    A folder here with the name of a known preset is meant only as `./NAME`.

    Raises:
        PresetError: there is no such preset; the message lists the known ones.

    Example:

    >>> from captioner import presets
    >>> presets.find_preset("efficientnet_lite2_imagenet").name
    'efficientnet_lite2_imagenet'
    """
    path = pathlib.Path(name).expanduser()
    with contextlib.suppress(PresetError):
        return find_named_preset(name)
    if _is_file(path / CONFIG_FILE):
        return path
    return find_named_preset(name)  # which lists the names


def find_named_preset(name):
    """The folder of a preset from its name alone, whatever lies in the working folder.

    Raises:
        PresetError: there is no such preset; the message lists the known ones.

    Example:

    >>> from captioner import presets
    >>> presets.find_named_preset("efficientnet_lite2_imagenet").name
    'efficientnet_lite2_imagenet'
    """
    # A bare name only: "../x" must not climb out of the folders.
    if pathlib.Path(name).name == str(name):
        for folder in preset_folders():
            if _is_file(folder / name / CONFIG_FILE):
                return folder / name
    known = ", ".join(preset.name for preset in list_presets()) or "none"
    raise PresetError(f"No preset {str(name)!r} (neither a folder nor one of: {known})")


def _is_file(path):
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def read_json(preset, file_name):
    """One of a preset's JSON files, as a dict.

    Raises:
        PresetError: the file is missing or holds no such dict.
    """
    path = pathlib.Path(preset) / file_name
    try:
        value = json.loads(read_bytes(preset, file_name, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, PresetError):
            raise
        raise PresetError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise PresetError(f"{path}: holds a {type(value).__name__}, not a dict")
    return value


def read_bytes(preset, file_name, most):
    """The bytes of one of a preset's files.

    Raises:
        PresetError: the file is missing, is no plain file, or has more than `most`
            bytes.
    """
    path = pathlib.Path(preset) / file_name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ValueError("not a file")
        if status.st_size > most:
            raise ValueError(f"{status.st_size:,} bytes, more than {most:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: cannot be read ({error})") from error


def verify_preset(preset):
    """Compare every file of a preset with its checksum in `metadata.json`.

    Raises:
        PresetError: a file is missing, has changed, or is not listed.
    """
    preset = pathlib.Path(preset)
    expected = read_json(preset, METADATA_FILE).get("files")
    if not isinstance(expected, dict):
        raise PresetError(f"{preset / METADATA_FILE}: lists no files")
    assets = (path for path in (preset / "assets").rglob("*") if not path.is_dir())
    assets = (path.relative_to(preset).as_posix() for path in assets)
    for required in (CONFIG_FILE, WEIGHTS_FILE, *assets):
        if required not in expected:
            raise PresetError(f"{preset / METADATA_FILE}: no checksum of {required}")
    for file_name, checksum in expected.items():
        path = preset / file_name
        try:
            inside = path.resolve().is_relative_to(preset.resolve())
            is_there = path.is_file()
        except (OSError, ValueError) as error:  # a name that no file can have
            raise PresetError(
                f"{preset / METADATA_FILE}: names a file {file_name!r} ({error})"
            ) from error
        if not inside:
            raise PresetError(f"{preset}: names a file outside itself, {file_name}")
        if not is_there:
            raise PresetError(f"{path}: missing from the preset")
        if file_sha256(path) != checksum:
            raise PresetError(f"{path}: does not match its checksum (damaged?)")


@contextlib.contextmanager
def new_preset(path):
    """Write a preset: yields a temporary folder to fill, then adds
    `metadata.json` and moves it to `path` in one step, so that a half-written
    preset never exists under its name. An existing preset is replaced; any
    other existing folder with something in it is refused, and so is a preset with
    files that are not its own.

    Example:

    ```python
    with presets.new_preset("my_preset") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "model.weights.h5").write_bytes(b"...")
    ```

    Raises:
        PresetError: `path` is something other than a preset or an empty folder.
        OSError: the disk is full or the folder cannot be written.
    """
    path = pathlib.Path(path)
    if path.exists() and not _may_replace(path):
        raise PresetError(f"{path}: exists and is not a preset, not overwritten")
    with atomic_folder(path) as folder:
        yield folder
        write_metadata(folder)


def _may_replace(path):
    """Whether it is an empty folder, or a preset with nothing else in it."""
    if not path.is_dir():
        return False
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    if not names:
        return not any(path.iterdir())
    try:
        files = read_json(path, METADATA_FILE).get("files")
    except PresetError:
        return False
    known = {METADATA_FILE, *UNCHECKED_FILES}
    return isinstance(files, dict) and names <= known | set(files)


def write_metadata(preset):
    """Write `metadata.json`: versions and the sha256 of each file."""
    preset = pathlib.Path(preset)
    files = sorted(path for path in preset.rglob("*") if path.is_file())
    names = [path.relative_to(preset).as_posix() for path in files]
    metadata = {
        **versions(),
        "files": {
            name: file_sha256(preset / name)
            for name in names
            if name not in UNCHECKED_FILES
        },
    }
    write_json(preset / METADATA_FILE, metadata)


def versions():
    """The versions that a preset and a recipe were made with."""
    return {
        f"{package}_version": importlib.metadata.version(package)
        for package in ("captioner", "keras", "tensorflow")
    }


def save_weights(model, path, dtype="float32"):
    """Write the weights of a Keras model as `model.save_weights` does, on a disk that
    may be full: there HDF5 leaves behind files that it can neither write nor close,
    and crashes the process with them later. So they are put together in memory.

    Args:
        model: the weights of its optimizer are left out.
        path: a `.weights.h5` file.
        dtype: "float32", or "float16", see `shrink_weights`.
    """
    path = pathlib.Path(path)
    whole = path.with_name(f"{secrets.token_hex(8)}.keras")
    optimizer, model.optimizer = getattr(model, "optimizer", None), None
    try:
        model.save(whole)  # unlike `save_weights`, it writes from memory
        with zipfile.ZipFile(whole) as archive:
            weights = archive.read(WEIGHTS_FILE)
    finally:
        model.optimizer = optimizer
        whole.unlink(missing_ok=True)
    path.write_bytes(shrink_weights(weights) if dtype == "float16" else weights)


def check_weights(model, path):
    """Refuse a weights file that does not hold what a model needs, before it is read.

    A file of HDF5 may name other files, claim tensors of any size that it does not
    hold, and hold others than those of the model. Nothing of that reaches the memory.

    Args:
        model: a Keras model; its variables need not have values yet.
        path: a `.weights.h5` file.

    Raises:
        PresetError: it is such a file, or none of HDF5.
    """
    stored = collections.Counter(_stored_shapes(path))
    wanted = collections.Counter(tuple(variable.shape) for variable in model.variables)
    # Keras itself refuses a file that lacks weights.
    for shape in stored - wanted:
        raise PresetError(
            f"{path}: holds weights of the shape {shape}, which the model of "
            f"{CONFIG_FILE} does not have"
        )
    needed = sum(math.prod(variable.shape) for variable in model.weights)
    held = sum(n * math.prod(shape) for shape, n in stored.items())
    if needed > held:
        raise PresetError(
            f"{path}: holds {held:,} numbers, and the model of {CONFIG_FILE} has "
            f"{needed:,} weights"
        )


def load_weights(model, path):
    """Give a Keras model the weights of a file that `check_weights` has passed.

    Raises:
        PresetError: the file is damaged, or weights are not finite numbers.
    """
    import numpy as np

    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PresetError(f"{path}: cannot be read ({reason})") from error
    for weight in model.weights:
        if not np.isfinite(np.asarray(weight)).all():
            raise PresetError(
                f"{path}: {weight.path} holds values that are not finite numbers"
            )


def _stored_shapes(path):
    """The shapes of all tensors that a file of HDF5 holds in itself."""
    import h5py

    def refuse(name, what):
        raise PresetError(f"{path}: {name} {what}, which a preset must not")

    shapes, seen = [], set()
    try:
        with h5py.File(path, "r") as file:
            groups = [file]
            while groups:
                group = groups.pop()
                for name in group:
                    # Before it is opened, which may open other files.
                    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                        refuse(name, "is a link to another place")
                    item = group[name]
                    place = h5py.h5o.get_info(item.id).addr
                    if place in seen or len(seen) > MAX_STORED:
                        refuse(name, "is stored twice, or one of too many")
                    seen.add(place)
                    if isinstance(item, h5py.Group):
                        groups.append(item)
                        continue
                    if not isinstance(item, h5py.Dataset) or item.dtype.kind in "OSU":
                        refuse(name, "is no tensor")
                    if item.external or item.is_virtual:
                        refuse(name, "is stored outside the file")
                    if item.size and item.id.get_storage_size() < item.nbytes:
                        refuse(name, "is not stored in full")
                    shapes.append(item.shape)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, PresetError):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise PresetError(f"{path}: cannot be read ({reason})") from error
    return shapes


def shrink_weights(weights):
    """The bytes of a `.weights.h5` file -> those of one about half the size.

    Large tensors become float16; Keras casts them back when it loads the file.
    Those of up to 4,096 numbers (norms, biases) stay exact: they are a small part
    of the file, and rounding them would do most of the harm.
    """
    # Here and not above: the rest of this file answers `captioner presets` fast.
    import h5py

    shrunk = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(shrunk, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                tensor = item[()]
                if tensor.size > 4096 and tensor.dtype == "float32":
                    tensor = tensor.astype("float16")
                copied = target.create_dataset(name, data=tensor)
            else:
                copied = target.require_group(name)
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return shrunk.getvalue()
