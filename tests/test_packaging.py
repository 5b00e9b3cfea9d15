"""What users get: a command that answers at once, and a wheel that works elsewhere."""

import configparser
import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter

import pytest

HEAVY = {"cv2", "keras", "tensorflow"}


def run(*command, **options):
    """Runs a command to its end, and shows what it said where it failed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.parametrize("arguments", [["--help"], ["caption", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    done = run(sys.executable, "-X", "importtime", "-m", "captioner", *arguments)
    assert done.stdout.startswith("Usage:")
    # A line is "import time:  self [us] | cumulative |  package.module".
    lines = [line for line in done.stderr.splitlines() if "import time:" in line]
    imported = {line.rsplit("|", 1)[1].strip() for line in lines}
    assert {"captioner", "captioner.cli", "click"} <= imported
    assert not HEAVY & {name.split(".")[0] for name in imported}


def test_import_of_the_package_imports_nothing_heavy():
    code = "import sys, captioner, captioner.cli; print('\\n'.join(sys.modules))"
    assert not HEAVY & set(run(sys.executable, "-c", code).stdout.splitlines())


def test_setup_cfg_names_every_package(repository):
    config = configparser.ConfigParser()
    config.read(repository / "setup.cfg", encoding="utf-8")
    packages = [
        ".".join(file.parent.relative_to(repository).parts)
        for file in (repository / "captioner").rglob("__init__.py")
    ]
    artefacts = ["captioner.models", "captioner.data"]
    named = config["options"]["packages"].split()
    assert sorted(named) == sorted(packages + artefacts)


def test_each_sample_photo_has_captions_and_a_licence(repository):
    samples = repository / "data" / "samples"
    card = (samples / "README.md").read_text(encoding="utf-8")
    with open(samples / "captions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["image"] for row in rows if row["caption"].strip())
    photos = {file.name for file in samples.glob("*.jpg")}
    assert len(photos) >= 6
    assert photos == set(counts) and min(counts.values()) >= 2
    # A row of the card is: file | what | author | licence | source.
    cells = [line.strip("| ").split(" | ") for line in card.splitlines()]
    licences = {row[0].strip("`"): row[3] for row in cells if len(row) == 5}
    free = {"public domain", "[CC0 1.0]", "[CC BY 2.0]", "[CC BY 4.0]"}
    assert {licences.get(photo) for photo in photos} <= free


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """A wheel of this checkout, made from a copy: a build leaves files behind."""
    source = tmp_path_factory.mktemp("source") / "captioner"
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.pyc")
    shutil.copytree(repository, source, ignore=leave_out)
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("captioner-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of programs of a new environment that has the wheel.

    What captioner depends on is not installed again: a .pth file adds the packages of
    this environment behind those of the new one. Python reads no .pth files there, so
    an editable install of the checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--python", python, "install", "--no-deps", wheel)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = run(python, "-c", code).stdout.strip()
    with open(os.path.join(packages, "dependencies.pth"), "w", encoding="utf-8") as pth:
        pth.write(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.mark.slow
def test_wheel_holds_the_package_and_its_artefacts_only(repository, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    distribution, version = wheel.name.split("-")[:2]
    tops = {name.split("/")[0] for name in names}
    assert tops == {"captioner", f"{distribution}-{version}.dist-info"}
    expected = {
        file.relative_to(repository).as_posix()
        for file in (repository / "captioner").rglob("*")
        # The rest are the templates of pages and what they include.
        if file.suffix in (".py", ".html", ".css", ".js")
    }
    for artefacts in ("models", "data"):
        files = [file for file in (repository / artefacts).rglob("*") if file.is_file()]
        assert files
        expected |= {
            f"captioner/{file.relative_to(repository).as_posix()}" for file in files
        }
    assert {name for name in names if name.startswith("captioner/")} == expected


@pytest.mark.slow
def test_wheel_captions_a_photo_elsewhere(repository, installed, tmp_path):
    photo = tmp_path / "photo.jpg"
    shutil.copy(repository / "data" / "samples" / "german_shepherd.jpg", photo)
    # Nothing of the checkout or of this user: neither path, preset nor cache.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "CAPTIONER_HOME", "VIRTUAL_ENV")
    }
    environment["HOME"] = str(tmp_path)
    here = {"cwd": tmp_path, "env": environment}

    code = "import captioner; print(captioner.__file__)"
    origin = run(installed / "python", "-c", code, **here).stdout.strip()
    assert origin.startswith(str(installed.parent))

    printed = run(installed / "captioner", "caption", "photo.jpg", **here).stdout
    (line,) = printed.strip().splitlines()
    assert len(line.replace("photo.jpg", "").split()) >= 3
