"""The examples in docstrings (`>>>`) give what they show."""

import doctest
import importlib
import pathlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import captioner

GLOBALS = {"captioner": captioner, "keras": keras, "np": np, "pathlib": pathlib}
GLOBALS["tf"] = tf

NEEDS_MORE = {"captioner.__main__", "captioner.backbones.convert_efficientnet_lite"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(captioner.__path__, "captioner.")
    if module.name not in NEEDS_MORE
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, repository, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    examples = [test for test in tests if test.examples]
    if not examples:
        return
    # Examples name the sample photos and a photo.jpg, and may write files.
    (tmp_path / "data").symlink_to(repository / "data")
    (tmp_path / "photo.jpg").symlink_to(repository / "data" / "samples" / "coffee.jpg")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said = []
    for test in examples:
        test.globs.update(GLOBALS)
        runner.run(test, out=said.append, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_there_are_examples():
    assert len(MODULES) > 80
