"""What this package starts runs no code from the working folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.images.decode_workers import DecodeWorkers
from captioner.images.photo_sources import find_photos
from captioner.metrics import java_metrics
from captioner.processes import child_environment, python_command

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
MODULES = (
    "captioner click codecs contextlib cv2 encodings fcntl hashlib importlib json "
    "numpy pickle pillow_heif re select sitecustomize struct subprocess tensorflow "
    "usercustomize warnings"
).split()


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """The working folder, full of modules and programs that leave a file when run.

    All that could name it as a place of modules or programs does so.
    """
    folder = tmp_path / "photos"
    mark = tmp_path / "ran"
    mark.mkdir()
    folder.mkdir()
    for name in MODULES:
        code = f"open({str(mark / name)!r}, 'w').close()\n"
        (folder / f"{name}.py").write_text(code)
    java = folder / "java"
    java.write_text(f"#!/bin/sh\ntouch {mark}/java\necho 'version \"99\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.chdir(folder)
    for entry in (str(folder), os.curdir, ""):
        monkeypatch.syspath_prepend(entry)
    for name in ("PYTHONPATH", "PATH", "LD_LIBRARY_PATH"):
        value = os.environ.get(name, "")
        monkeypatch.setenv(name, f":.:{folder}:{folder}/../photos:{value}")
    monkeypatch.setenv("PYTHONSTARTUP", str(folder / "cv2.py"))
    monkeypatch.setenv("PYTHONHOME", "")

    def ran():
        return sorted(path.name for path in mark.iterdir())

    return ran


def test_decoding_processes(planted):
    (photo,) = find_photos(SAMPLES / "coffee.jpg")
    with DecodeWorkers(1) as workers:
        decoded = workers.submit(photo).result()
    assert decoded.pixels.shape == (400, 600, 3)
    assert planted() == []


def test_a_command_of_python(planted):
    command = python_command("captioner.cli")
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Usage:" in done.stderr + done.stdout
    assert planted() == []
    # As it would be otherwise; without this the tests here could not fail.
    Path("encodings.py").unlink()
    Path("codecs.py").unlink()
    subprocess.run([sys.executable, "-c", "import cv2"], capture_output=True)
    assert planted() != []


def test_java(planted):
    try:
        assert java_metrics.java_version() != "99"
    except java_metrics.JavaMetricError:
        pass  # it is not installed
    assert planted() == []


def test_python_m_captioner(planted, repository, monkeypatch):
    # The package is where PYTHONPATH says, and nothing else there is.
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.delenv("PYTHONHOME")
    for name in MODULES:  # what Python itself imports before anybody is asked
        if name not in ("cv2", "numpy", "click", "json", "pickle", "tensorflow"):
            Path(f"{name}.py").unlink()
    command = [sys.executable, "-m", "captioner", "caption", "--dry-run"]
    done = subprocess.run(
        [*command, SAMPLES / "coffee.jpg"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "coffee.jpg\tto caption" in done.stdout
    assert planted() == []


def test_a_checkout_is_found_without_the_working_folder(tmp_path, monkeypatch):
    """A process imports this very package, also where it is the working folder."""
    (tmp_path / "captioner").symlink_to(Path(java_metrics.__file__).parents[1])
    (tmp_path / "cv2.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    code = """
import sys, json, subprocess
from captioner.processes import python_command
from captioner.images import decode_workers, photo_sources
import captioner
assert captioner.__file__.startswith(sys.argv[2])
(photo,) = photo_sources.find_photos(sys.argv[1])
with decode_workers.DecodeWorkers(1) as workers:
    print(json.dumps(workers.submit(photo).result().pixels.shape))
"""
    # As an engineer: with PYTHONPATH, from the checkout. cv2 is there already, as
    # the parent is none of ours.
    code = "import sys\nsys.path.remove(sys.argv[2])\nimport cv2\n" + (
        "sys.path.insert(0, sys.argv[2])\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SAMPLES / "coffee.jpg"), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [400, 600, 3]


def test_the_environment_of_a_child(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"/usr/bin::.:{tmp_path}:lib:/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", ":")
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment = child_environment(OMP_NUM_THREADS="1")
    assert environment["PATH"] == "/usr/bin:/bin"
    assert environment["LC_CTYPE"] == "C.UTF-8"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert not {"LD_LIBRARY_PATH", "AWS_SECRET_ACCESS_KEY"} & set(environment)
