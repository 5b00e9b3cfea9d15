"""The rules between the rooms of the package, read from the imports of its sources.

A room is one folder of `captioner/`, or a module beside them. Imports point up `ROOMS`
only, so that a room can be read, tested and replaced without those below it.
"""

import ast
import configparser
import re
import sys
from pathlib import PurePosixPath

import pytest

ROOMS = [
    # Ground: all others may use it.
    "files",
    "keras_settings",
    "processes",
    "spreadsheets",
    "terminal",
    "progress",
    "presets",
    "journal",
    # What photos, datasets and scores are; nothing here knows a model.
    "images",
    "datasets",
    "metrics",
    # Families, from which one is chosen.
    "tokenizers",
    "backbones",
    "decoders",
    "samplers",
    # What several verbs share.
    "features",
    "tasks",
    "pages",
    # Verbs.
    "training",
    "evaluating",
    "captioning",
    "exporting",
    "commands",
    "cli",
]
VERBS = {"training", "evaluating", "captioning", "exporting"}  # know no other verb
# These know nothing of models; of the rooms above them they use the ground, and what a
# photo is.
INDEPENDENT = {"datasets", "metrics"}
GROUND = set(ROOMS[: ROOMS.index("images") + 1])
# `import captioner` and `captioner --help` answer before TensorFlow could be loaded.
HEAVY = {"cv2", "keras", "tensorflow", "tensorflow_datasets"}
LIGHT = {  # file or folder: what it does not load when it is itself imported
    **dict.fromkeys(
        ("__init__", "__main__", "keras_settings", "processes", "terminal")
        + ("commands", "cli"),
        HEAVY,
    ),
    # Decoding processes start at once, and so does a run with nothing to do.
    **dict.fromkeys(
        ("images/image_files", "images/photo_sources", "images/decode_workers")
        + ("captioning", "tasks/task", "tasks/load_task"),
        {"keras", "tensorflow"},
    ),
    # The flags of `captioner train` are made from these.
    **dict.fromkeys(("training/training_options", "tasks/captioner_options"), HEAVY),
    "datasets": {"keras", "tensorflow", "tensorflow_datasets"},
    "metrics": {"keras", "tensorflow", "tensorflow_datasets"},
}
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow"}
ARTEFACTS = {".csv", ".h5", ".jpg", ".json", ".md", ".npz", ".png", ".txt"}


def imports(path, source):
    """All imports of a source: (line, dotted name, whether importing runs it)."""
    package = list(PurePosixPath(path).parent.parts)
    tree = ast.parse(source)
    package_imported = any(
        isinstance(node, ast.Import)
        and any(alias.name.split(".")[0] == "captioner" for alias in node.names)
        for node in ast.walk(tree)
    )
    deferred = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            deferred.update(ast.walk(node))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            deferred.update(child for part in node.body for child in ast.walk(part))
    for node in ast.walk(tree):
        at_import = node not in deferred
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, at_import
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join(base + (node.module or "").split("."))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}".replace(
                    "..", "."
                ), at_import
        # `import captioner` reaches every room through its attributes; a local
        # variable of that name does not.
        elif (
            package_imported
            and isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "captioner"
        ):
            yield node.lineno, f"captioner.{node.attr}", at_import


def broken_rules(path, source, required, optional):
    """The rules that one source of the package breaks, a line each.

    Args:
        path: of the source, from the root of the checkout.
        source: its text.
        required: names of the distributions that are always installed.
        optional: names of those that only an extra installs.
    """
    room = PurePosixPath(path).parts[1].removesuffix(".py")
    file = str(PurePosixPath(*PurePosixPath(path).parts[1:]).with_suffix(""))
    light = set().union(
        *(names for where, names in LIGHT.items() if f"{file}/".startswith(f"{where}/"))
    )
    free = room in ("__init__", "__main__")
    if room not in ROOMS and not free:
        return [f"{path}: the room {room} is not in ROOMS"]
    broken = []
    for line, name, at_import in imports(path, source):
        top, *rest = name.split(".")
        where = f"{path}:{line}"
        if top == "captioner":
            target = rest[0] if rest else None
            if free or target is None or target == room or target.startswith("__"):
                continue
            if target not in ROOMS:
                broken.append(f"{where}: imports {name}, which is no room")
            elif room in INDEPENDENT and target not in GROUND:
                broken.append(f"{where}: {room} imports {target}")
            elif room in VERBS and target in VERBS:
                broken.append(f"{where}: {room} imports {target}, another verb")
            elif ROOMS.index(target) > ROOMS.index(room):
                broken.append(f"{where}: {room} imports {target}, which is below it")
        elif top not in sys.stdlib_module_names:
            if at_import and top in light:
                broken.append(f"{where}: imports {top} when it is itself imported")
            distribution = normal(DISTRIBUTIONS.get(top, top))
            if distribution not in required | optional:
                broken.append(f"{where}: {top} is not declared in setup.cfg")
            elif at_import and distribution not in required:
                broken.append(f"{where}: {top} comes with an extra, so import it late")
    return broken


def normal(name):
    """The normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(requirements):
    """The names in a list of requirements of setup.cfg."""
    lines = [line for line in requirements.splitlines() if line.strip()]
    return {normal(re.match(r"\s*([\w.-]+)", line)[1]) for line in lines}


def not_artefacts(folder):
    """The files under an artefact folder that look like code, or could be run."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        runs = file.stat().st_mode & 0o111 or file.read_bytes()[:2] == b"#!"
        if runs or file.suffix.lower() not in ARTEFACTS:
            found.append(str(file.relative_to(folder.parent)))
    return found


@pytest.fixture(scope="module")
def declared(repository):
    config = configparser.ConfigParser()
    config.read(repository / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    optional = (
        distributions(extras[name])
        for name in ("tfds", "java", "notebook", "convert", "heic", "parquet", "ray")
    )
    return distributions(config["options"]["install_requires"]), set().union(*optional)


def test_the_package_keeps_the_rules(repository, declared):
    broken = []
    files = sorted((repository / "captioner").rglob("*.py"))
    assert files
    for file in files:
        path = file.relative_to(repository).as_posix()
        broken += broken_rules(path, file.read_text(encoding="utf-8"), *declared)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("folder", ["models", "data"])
def test_artefact_folders_hold_no_code(repository, folder):
    assert not_artefacts(repository / folder) == []


@pytest.mark.parametrize(
    "path, source, words",
    [
        # A room may not import one that comes after it, in whatever way it is written.
        (
            "decoders/fusion.py",
            "from captioner.samplers import GreedySampler",
            "below it",
        ),
        ("decoders/fusion.py", "import captioner.samplers.beam_sampler", "below it"),
        ("decoders/fusion.py", "from captioner import samplers", "below it"),
        ("decoders/fusion.py", "from ..samplers import GreedySampler", "below it"),
        ("decoders/fusion.py", "from .. import samplers", "below it"),
        ("decoders/fusion.py", "def f():\n    import captioner.samplers", "below it"),
        (
            "decoders/fusion.py",
            "import captioner\ncaptioner.samplers.Sampler",
            "below it",
        ),
        ("backbones/vgg.py", "from ..decoders import AdditiveFusion", "below it"),
        ("backbones/deep/vgg.py", "from ...decoders import Additive", "below it"),
        # Nor go round the list by the public names.
        ("decoders/fusion.py", "from captioner import ImageCaptioner", "no room"),
        (
            "decoders/fusion.py",
            "import captioner\ncaptioner.ImageCaptioner()",
            "no room",
        ),
        # Datasets and metrics know no model.
        ("datasets/coco.py", "from captioner.tokenizers import Tokenizer", "imports"),
        ("metrics/bleu.py", "from captioner.datasets import load_dataset", "imports"),
        # One verb does not know another.
        ("training/a.py", "from captioner.captioning import run", "another verb"),
        # Light rooms load nothing heavy.
        ("__init__.py", "import tensorflow as tf", "itself imported"),
        (
            "cli.py",
            "try:\n    from keras import ops\nexcept ImportError:\n    pass",
            "it",
        ),
        ("cli.py", "class A:\n    import cv2", "itself imported"),
        ("datasets/coco.py", "import tensorflow", "itself imported"),
        ("metrics/bleu.py", "from keras import ops", "itself imported"),
        # Dependencies are declared, and those of an extra not needed at once.
        ("training/train.py", "import pandas", "not declared"),
        ("training/train.py", "def f():\n    import pandas.core", "not declared"),
        ("training/train.py", "import tensorflow_datasets", "import it late"),
        # A new room has its place in the list.
        ("utils.py", "import os", "not in ROOMS"),
    ],
)
def test_a_broken_rule_is_found(declared, path, source, words):
    (broken,) = broken_rules(f"captioner/{path}", source, *declared)
    assert words in broken


@pytest.mark.parametrize(
    "path, source",
    [
        (
            "decoders/fusion.py",
            "from captioner.tokenizers import Tokenizer\nimport keras",
        ),
        ("backbones/vgg.py", "from .resnet import ResNet\nfrom .. import presets"),
        ("backbones/vgg.py", "import captioner\nprint(captioner.__version__)"),
        ("cli.py", "import click\ndef f():\n    import keras"),
        ("cli.py", "if TYPE_CHECKING:\n    import keras"),
        ("datasets/tfds.py", "def f():\n    import tensorflow_datasets as tfds"),
        ("images/image_converter.py", "import cv2"),
        ("__init__.py", "def __getattr__(name):\n    from captioner import cli"),
    ],
)
def test_a_kept_rule_is_not_reported(declared, path, source):
    assert broken_rules(f"captioner/{path}", source, *declared) == []


@pytest.mark.parametrize(
    "name, content, mode",
    [
        ("preset/layers.py", b"", 0o644),
        ("preset/weights.pkl", b"", 0o644),
        ("demo.ipynb", b"{}", 0o644),
        ("preset/fast.so", b"\x7fELF", 0o644),
        ("vocabulary.txt", b"#!/bin/sh\n", 0o644),
        ("config.json", b"{}", 0o755),
    ],
)
def test_code_among_artefacts_is_found(tmp_path, name, content, mode):
    for file, data in [
        ("models/preset/config.json", b"{}"),
        (f"models/{name}", content),
    ]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(data)
    (tmp_path / "models" / name).chmod(mode)
    assert not_artefacts(tmp_path / "models") == [f"models/{name}"]
