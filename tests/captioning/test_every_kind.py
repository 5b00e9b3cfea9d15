"""A folder with one file of each kind ends with exactly the expected rows.

The table in `docs/what_happens_to.md` says the same in words.
"""

import codecs
import csv
import gzip
import importlib
import io
import json
import os
import shutil
import socket
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from fake_task import FakeTask

from captioner.cli import main

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
PHOTO = (SAMPLES / "coffee.jpg").read_bytes()
LONG = "n" * 251 + ".jpg"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`captioner caption ...` in this process, in a folder of its own."""
    module = importlib.import_module("captioner.captioning.caption")
    monkeypatch.setattr(module, "load_task", lambda *_: FakeTask())
    monkeypatch.setattr("captioner.progress.LINE_INTERVAL", 1e9)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(main, ["caption", *map(str, arguments)])

    return run


@pytest.fixture
def server():
    with socket.socket(socket.AF_UNIX) as server:
        yield server


def encoded(suffix):
    pixels = cv2.imread(str(SAMPLES / "coffee.jpg"))[::8, ::8]
    return cv2.imencode(suffix, pixels)[1].tobytes()


def large_png():
    """A PNG that says that it has 10 thousand million pixels."""

    def chunk(tag, data):
        checksum = struct.pack(">I", zlib.crc32(tag + data))
        return struct.pack(">I", len(data)) + tag + data + checksum

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


# In the order of the rows. Of each name: its content, and the kind of its error.
FILES = {
    "-option.jpg": (PHOTO, ""),
    "=1+1.jpg": (PHOTO, ""),
    "LOUD.JPG": (PHOTO, ""),
    "another_format.jpg": (encoded(".png"), ""),
    "bmp.bmp": (encoded(".bmp"), ""),
    "cut_off.jpg": (PHOTO[:2_000], "truncated"),
    "empty.jpg": (b"", "empty"),
    "escapes\x1b[31m.jpg": (PHOTO, ""),
    "jfi.jfi": (PHOTO, ""),
    "jfif.jfif": (PHOTO, ""),
    "mpo.mpo": (PHOTO + PHOTO, ""),
    LONG: (PHOTO, ""),
    "pjpeg.pjpeg": (PHOTO, ""),
    "png.png": (encoded(".png"), ""),
    "ppm.ppm": (encoded(".ppm"), ""),
    "text.jpg": (b"Dear diary", "not_an_image"),
    "tiff.tiff": (encoded(".tiff"), ""),
    "too_many_pixels.png": (large_png(), "too_large"),
    "two\nlines.jpg": (PHOTO, ""),
    "webp.webp": (encoded(".webp"), ""),
    "with space .jpg": (PHOTO, ""),
    "ünïcödé 🐈.jpg": (PHOTO, ""),
    os.fsdecode(b"\xff.jpg"): (PHOTO, ""),
}
TRAPS = {
    "link_round.jpg": "unreadable",
    "link_to_a_device.jpg": "unsafe",
    "link_to_a_photo.jpg": "",
    "link_to_nothing.jpg": "missing",
    "named_pipe.jpg": "unreadable",
    "socket.jpg": "unreadable",
    "sparse.jpg": "too_large",
    "folder.jpg/photo.jpg": "",  # a folder that is called as a photo
}
OTHERS = "film.mp4 README raw.CR2 archive.zip notes.txt old.csv .hidden.jpg".split()
ARCHIVES = {
    "..zip/photo.jpg": "",
    "...tar.gz/photo.jpg": "",
    "photos.zip/folder/photo.jpg": "",
    "photos.zip/../out.jpg": "unsafe",
    "photos.zip/folder/photo.jpg (2)": "clash",
    "photos.tar/photo.jpg": "",
    "photos.tar/link.jpg": "unreadable",
    "damaged.tar/photo.jpg": "",
    "damaged.tar": "unreadable",
    "no_archive.zip": "unreadable",
}


def make_folder(folder, server):
    (folder / "folder.jpg").mkdir(parents=True)
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg" / "photo.jpg").write_bytes(PHOTO)
    (folder / "link_round.jpg").symlink_to("link_round.jpg")
    (folder / "link_to_a_device.jpg").symlink_to("/dev/zero")
    (folder / "link_to_a_photo.jpg").symlink_to(SAMPLES / "kitten.jpg")
    (folder / "link_to_nothing.jpg").symlink_to("nothing")
    os.mkfifo(folder / "named_pipe.jpg")
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket has to be short
    server.bind("socket.jpg")
    os.chdir(here)
    with open(folder / "sparse.jpg", "wb") as file:
        file.truncate(2**40)
    (folder / "folder.jpg" / "up").symlink_to("..")
    for name in OTHERS:
        (folder / name).write_bytes(b"something")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "photo.jpg").write_bytes(PHOTO)


def make_archives(folder):
    def add(archive, name, data=PHOTO, **fields):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(data))

    with zipfile.ZipFile(folder / "..zip", "w") as archive:
        archive.writestr("photo.jpg", PHOTO)
    with tarfile.open(folder / "...tar.gz", "w:gz") as archive:
        add(archive, "./photo.jpg")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("folder/photo.jpg", PHOTO)
        archive.writestr("../out.jpg", PHOTO)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("folder/photo.jpg", PHOTO)
        archive.writestr("film.mp4", b"film")
    with tarfile.open(folder / "photos.tar", "w") as archive:
        add(archive, "photo.jpg")
        add(archive, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    with tarfile.open(folder / "damaged.tar", "w") as archive:
        add(archive, "photo.jpg")
        add(archive, "lost.jpg")
    data = bytearray((folder / "damaged.tar").read_bytes())
    data[512 + -(-len(PHOTO) // 512) * 512 + 3] ^= 1
    (folder / "damaged.tar").write_bytes(data)
    (folder / "no_archive.zip").write_bytes(gzip.compress(b"something else"))


def rows_of(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_every_kind_of_file_name_and_archive(run, tmp_path, server):
    make_folder(tmp_path / "photos", server)
    make_archives(tmp_path)
    archives = list(dict.fromkeys(name.partition("/")[0] for name in ARCHIVES))
    result = run(
        "photos",
        *archives,
        *("-o", "captions.csv", "-o", "captions.jsonl", "--json"),
        *("--sidecars", "--sidecar-folder", "texts/all"),
    )
    assert result.exit_code == 1, result.output
    expected = {name: kind for name, (_, kind) in FILES.items()} | TRAPS
    folders = [name for name in expected if "/" in name]
    in_order = sorted(set(expected) - set(folders), key=os.fsencode) + folders
    expected = {f"photos/{name}": expected[name] for name in in_order} | {
        name.replace("...tar.gz/", "...tar.gz/./"): kind
        for name, kind in ARCHIVES.items()
    }
    lines = (tmp_path / "captions.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    kinds = {row["path"]: row["kind"] or "" for row in found}
    assert list(kinds) == list(expected) and len(found) == len(expected)
    assert kinds == expected
    for row in found:
        assert bool(row["caption"]) == (not row["kind"])
        assert bool(row["error"]) == bool(row["kind"])
    assert len(rows_of(tmp_path / "captions.csv")) == len(expected)

    *_, told, finished = (json.loads(line) for line in result.stderr.splitlines())
    left_aside = {
        ".mp4": 2,
        ".cr2": 1,
        ".zip": 1,
        "linked folder(s)": 1,
        "without a suffix": 1,
    }
    assert told == {"event": "left_aside", "files": left_aside}
    assert finished["event"] == "finished"
    manifest = json.loads((tmp_path / "captions.csv.run" / "run.json").read_text())
    assert manifest["counts"]["left_aside"] == left_aside
    # Nothing was written in another place.
    assert sorted(os.listdir()) == sorted(
        ["photos", "texts", "captions.csv", "captions.csv.run", "captions.jsonl"]
        + archives
    )
    assert os.listdir("texts") == ["all"]
    texts = [path for path in (tmp_path / "texts").rglob("*") if path.is_file()]
    assert len(texts) == list(expected.values()).count("")


def xmp(text, depth=0):
    """An XMP file with a description, below so many elements more."""
    return (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='"
        "http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
        "xmlns:dc='http://purl.org/dc/elements/1.1/'>"
        + "<a>" * depth
        + f"<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>{text}</rdf:li>"
        "</rdf:Alt></dc:description>"
        + "</a>" * depth
        + "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


# In the order of the rows. Of each photo: the file beside it, what is in it, and what
# happens to the photo with `--existing skip`.
EXISTING = {
    "blank.jpg": ("blank.txt", b" \r\n\n", ""),
    "camera.jpg": ("camera.xmp", xmp("OLYMPUS DIGITAL CAMERA"), ""),
    "cp1252.jpg": ("cp1252.txt", "ein Hund läuft".encode("cp1252"), "not_written"),
    "crlf.jpg": ("crlf.txt", b"a dog\r\nruns\r\n", "kept"),
    "deep.jpg": ("deep.xmp", xmp("a dog", depth=3_000), "not_written"),
    "device.jpg": ("device.txt", "/dev/zero", "not_written"),
    "digikam.jpg": ("digikam.jpg.xmp", xmp("a dog"), "kept"),
    "large.jpg": ("large.txt", b"a dog" * 1_000_000, "not_written"),
    "lightroom.jpg": ("lightroom.xmp", xmp("a dog"), "kept"),
    "mark.jpg": ("mark.txt", codecs.BOM_UTF8 + b"a dog runs\n", "kept"),
    "none.jpg": (None, b"", ""),
    "pipe.jpg": ("pipe.txt", None, "not_written"),
    "secret.jpg": ("secret.txt", "../secret", "not_written"),
    "upper.jpg": ("upper.XMP", xmp("a dog"), "kept"),
    "utf16.jpg": ("utf16.txt", "ein Hund läuft\r\n".encode("utf-16"), "kept"),
    "utf8.jpg": ("utf8.txt", "ein Hund läuft\n".encode(), "kept"),
}


def test_every_kind_of_existing_caption(run, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "secret").write_text("a password")
    for photo, (name, data, _) in EXISTING.items():
        shutil.copy(SAMPLES / "coffee.jpg", photos / photo)
        if data is None:
            os.mkfifo(photos / name)
        elif isinstance(data, str):
            (photos / name).symlink_to(data)
        elif name is not None:
            (photos / name).write_bytes(data)
    result = run("photos", "--sidecars", "-o", "captions.csv", "--quiet")
    assert result.exit_code == 1, result.output
    rows = rows_of(tmp_path / "captions.csv")
    found = {os.path.basename(row["path"]): row["kind"] for row in rows}
    assert found == {photo: kind for photo, (_, _, kind) in EXISTING.items()}
    assert "password" not in (tmp_path / "captions.csv").read_text("utf-8")
    for photo, (name, data, kind) in EXISTING.items():
        text = (photos / photo).with_suffix(".txt")
        if not kind:
            assert text.read_bytes().decode("utf-8").strip()
        elif isinstance(data, bytes):  # what a person wrote stays as it is
            assert (photos / name).read_bytes() == data


@pytest.mark.parametrize(
    "data, words",
    [
        (b"/\n", "--yes"),
        (b"photos/none.jpg\0..\0", "--yes"),
        ("photos\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("photos/ä.jpg\n".encode("cp1252"), "iconv -f CP1252"),
        (b"", "No photos in list"),
        (b"photos\n", "No photos in list. Left aside: 1 .mp4."),
    ],
)
def test_lists_that_are_refused(run, tmp_path, data, words):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "film.mp4").touch()
    (tmp_path / "list").write_bytes(data)
    result = run("--files-from", "list")
    assert result.exit_code == 2 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_list_with_yes(run, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "list").write_text("..\n/proc/self/mem\n")
    result = run("--files-from", "list", "--yes", "--dry-run")
    assert result.stdout.splitlines() == ["../coffee.jpg\tto caption"]
    assert "in /proc, a folder of the system" in result.stderr


@pytest.mark.parametrize("path", ["/proc", "/dev/zero", "/sys/kernel"])
def test_folders_of_the_system_are_refused(run, path):
    result = run(path, "--dry-run")
    assert result.exit_code == 2 and "a folder of the system" in result.stderr
