"""Text and XMP files beside photos and copies of photos, in whole runs: people's words
are found wherever they are, and no file costs more than its own photo."""

import csv
import os
import shutil
from pathlib import Path

import pytest
from fake_task import FakeTask
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.captioning import caption as module
from captioner.captioning.engine import Captioned
from captioner.captioning.writers import EmbeddedCopy, TextSidecar, XmpSidecar
from captioner.captioning.writers.exif import write_exif_text
from captioner.captioning.writers.existing import plain
from captioner.captioning.writers.photo_metadata import caption_in_file, with_caption
from captioner.captioning.writers.sidecar_file import MAX_SIDECAR_BYTES, read_sidecar
from captioner.captioning.writers.text_sidecar import decoded
from captioner.captioning.writers.xmp import read_description, write_description
from captioner.datasets import load_dataset
from captioner.images.photo_sources import find_photos
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
WORDS = "Anna with her horses, 2019"


class StandIn:
    """An engine that needs no model: it captions a photo with its name."""

    def __init__(self, *arguments):
        pass

    def run(self, batches):
        for batch in batches:
            yield batch, [
                Captioned([[f"machine: {Path(each.photo.path).stem}", -1.0]], b"", None)
                for each in batch
            ]

    def close(self):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Captions the folder `photos`; gives dict of file name to its `CaptionResult`."""
    monkeypatch.setattr(module, "LocalEngine", StandIn)
    numbers = iter(range(100))

    def run(run_folder=None, **options):
        options.setdefault("progress", "none")
        results = module.caption(
            tmp_path / "photos",
            FakeTask(),
            run_folder=run_folder or tmp_path / f"run{next(numbers)}",
            **options,
        )
        return {Path(each.path).name: each for each in results}

    return run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(COFFEE)
    return folder


def write_exif(photo):
    data = photo.read_bytes()
    block = write_exif_text(WORDS)
    head = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0"
    photo.write_bytes(data[:2] + head + block + data[2:])


def write_all(photo):
    photo.write_bytes(with_caption(photo.read_bytes(), WORDS))


def write_xmp(name):
    return lambda photo: photo.with_name(name).write_bytes(write_description(WORDS))


PLACES = {
    "metadata": write_all,
    "exif": write_exif,
    "a.xmp": write_xmp("a.xmp"),
    "a.XMP": write_xmp("a.XMP"),
    "a.jpg.xmp": write_xmp("a.jpg.xmp"),
}


# People's words ---------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", [{"sidecars": True}, {"xmp": True}, {"copies": 1}])
def test_a_caption_of_a_person_is_kept_wherever_it_is(
    run, photos, tmp_path, place, options
):
    PLACES[place](photos / "a.jpg")
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    if "copies" in options:
        options = {"copies": tmp_path / "copies"}
    result = run(**options)["a.jpg"]
    assert (result.kind, result.caption) == ("kept", WORDS)
    after = {path.name: path.read_bytes() for path in photos.iterdir()}
    if "sidecars" in options:  # which are for programs that read nothing else
        assert after.pop("a.txt") == WORDS.encode() + b"\n"
    if "copies" in options:
        assert caption_in_file(tmp_path / "copies" / "a.jpg") == WORDS
    assert after == before  # no new file hides what is there


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("existing", ["append", "prepend", "overwrite"])
def test_new_words_join_the_words_of_a_person(run, photos, tmp_path, place, existing):
    PLACES[place](photos / "a.jpg")
    run_folder, copies = tmp_path / "run", tmp_path / "copies"
    for _ in range(2):  # and are not joined twice
        results = run(
            run_folder, existing=existing, sidecars=True, xmp=True, copies=copies
        )
        assert results["a.jpg"].error is None
    new = "machine: a"
    text = {
        "append": f"{WORDS}\n{new}",
        "prepend": f"{new}\n{WORDS}",
        "overwrite": new,
    }[existing]
    xmp = photos / (place if "xmp" in place.lower() else "a.xmp")
    assert (photos / "a.txt").read_text() == text + "\n"
    assert read_description(xmp.read_bytes()) == text
    assert caption_in_file(copies / "a.jpg") == text
    # One XMP file for a photo.
    assert [p.name for p in photos.iterdir() if "xmp" in p.name.lower()] == [xmp.name]


def test_a_camera_text_is_no_caption(run, photos):
    block = write_exif_text("OLYMPUS DIGITAL CAMERA         ")
    head = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0"
    (photos / "a.jpg").write_bytes(COFFEE[:2] + head + block + COFFEE[2:])
    (photos / "a.xmp").write_bytes(write_description("OLYMPUS DIGITAL CAMERA"))
    assert run(xmp=True)["a.jpg"].caption == "machine: a"
    assert read_description((photos / "a.xmp").read_bytes()) == "machine: a"


def test_words_that_a_person_adds_later_replace_those_of_the_machine(run, photos):
    folder = photos.parent / "run"
    assert run(folder, xmp=True, sidecars=True)["a.jpg"].kind is None
    write_exif(photos / "a.jpg")
    result = run(folder, xmp=True, sidecars=True)["a.jpg"]
    assert (result.kind, result.caption) == ("kept", WORDS)
    assert (photos / "a.txt").read_text() == WORDS + "\n"
    assert read_description((photos / "a.xmp").read_bytes()) == WORDS


def test_captions_in_archives_are_kept(photos, tmp_path):
    write_all(photos / "a.jpg")
    for form in ("zip", "tar"):
        shutil.make_archive(tmp_path / "shard", form, photos, "a.jpg")
    for name in ("shard.zip", "shard.tar"):
        (result,) = module.caption(
            tmp_path / name,
            FakeTask(),
            sidecars=True,
            sidecar_folder=tmp_path / f"{name}.texts",
            progress="none",
        )
        assert (result.kind, result.caption) == ("kept", WORDS)


# Names ------------------------------------------------------------------------------


def test_two_photos_of_one_stem_lose_nothing(run, photos, tmp_path):
    shutil.copy(photos / "a.jpg", photos / "a.png")
    results = run(xmp=True)
    assert results["a.jpg"].caption == "machine: a"
    assert results["a.png"].kind == "clash"
    assert results["a.png"].error == (
        "a.xmp holds the caption of another photo; use --xmp-name photo.jpg.xmp"
    )
    (photos / "a.xmp").unlink()
    copies = tmp_path / "copies"
    results = run(xmp=True, xmp_name="photo.jpg.xmp", copies=copies)
    assert {each.error for each in results.values()} == {None}
    for name in ("a.jpg", "a.png"):
        packet = (photos / f"{name}.xmp").read_bytes()
        assert read_description(packet) == "machine: a"
        assert caption_in_file(copies / name) == "machine: a"
    assert not (photos / "a.xmp").exists()


def test_another_pattern_is_refused(run, photos):
    with pytest.raises(ValueError, match="Received: xmp_name=a.xmp"):
        run(xmp=True, xmp_name="a.xmp")


def test_captions_of_every_kind_of_photo_come_back_as_a_dataset(run, photos):
    (photos / "a.jpg").unlink()
    names = {suffix[1:]: f"{suffix[1:]}{suffix}" for suffix in PHOTO_SUFFIXES}
    for name in names.values():
        (photos / name).write_bytes(COFFEE)
    results = run(sidecars=True)
    assert {each.error for each in results.values()} == {None}
    dataset = load_dataset(f"txt:{photos}")
    examples = [each for split in dataset.splits for each in dataset.examples(split)]
    assert {each["image/id"]: each["captions"] for each in examples} == {
        name: [f"machine: {stem}"] for stem, name in names.items()
    }


# Encodings --------------------------------------------------------------------------

ENCODINGS = {
    "utf8": "Ein Hund läuft\n".encode(),
    "mark": "Ein Hund läuft".encode("utf-8-sig"),
    "utf16le": b"\xff\xfe" + "Ein Hund läuft\r\n".encode("utf-16-le"),
    "utf16be": b"\xfe\xff" + "Ein Hund läuft".encode("utf-16-be"),
    "utf32": "Ein Hund läuft".encode("utf-32"),
    "crlf": "Ein Hund läuft\r\n".encode(),
}
NO_ENCODINGS = {
    "cp1252": "Ein Hund läuft".encode("cp1252"),
    "unmarked": "Ein Hund".encode("utf-16-le"),
    "odd": b"\xff\xfea",
}
BLANK = {"empty": b"", "spaces": b"  \r\n", "mark": b"\xef\xbb\xbf", "16": b"\xff\xfe"}


@pytest.mark.parametrize("existing", ["skip", "append", "prepend", "overwrite"])
def test_what_is_written_is_utf8_whatever_was_there(run, photos, tmp_path, existing):
    (photos / "a.jpg").unlink()
    for name, data in {**ENCODINGS, **NO_ENCODINGS}.items():
        (photos / f"{name}.jpg").write_bytes(COFFEE)
        (photos / f"{name}.txt").write_bytes(data)
    output = tmp_path / "captions.csv"
    results = run(existing=existing, sidecars=True, output=output)
    with open(output, encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(results)
    for name, data in ENCODINGS.items():
        assert results[f"{name}.jpg"].error is None
        text = (photos / f"{name}.txt").read_bytes()
        if existing == "skip":
            assert text == data and results[f"{name}.jpg"].kind == "kept"
            assert results[f"{name}.jpg"].caption == "Ein Hund läuft"
        elif existing == "overwrite":
            assert text == f"machine: {name}\n".encode()
        else:
            lines = ["Ein Hund läuft", f"machine: {name}"]
            lines = lines if existing == "append" else lines[::-1]
            assert text.decode() == "\n".join(lines) + "\n"
    for name, data in NO_ENCODINGS.items():
        text = (photos / f"{name}.txt").read_bytes()
        if existing == "overwrite":
            assert text == f"machine: {name}\n".encode()
        else:
            assert results[f"{name}.jpg"].kind == "not_written"
            assert "save it as UTF-8" in results[f"{name}.jpg"].error
            assert text == data


@pytest.mark.parametrize("data", BLANK.values(), ids=BLANK)
@pytest.mark.parametrize("existing", ["skip", "append"])
def test_a_blank_file_is_no_caption(run, photos, existing, data):
    (photos / "a.txt").write_bytes(data)
    assert run(existing=existing, sidecars=True)["a.jpg"].kind is None
    assert (photos / "a.txt").read_bytes() == b"machine: a\n"


@pytest.mark.parametrize(
    "examples", [300, pytest.param(50_000, marks=(pytest.mark.slow, pytest.mark.fuzz))]
)
def test_any_text_and_any_bytes_in_a_text_file(examples):
    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.text(st.characters(exclude_categories=())), st.binary())
    def check(text, data):
        written = TextSidecar().content(None, None, text)
        kept = plain(text).rstrip("\n") if plain(text).strip() else None
        assert decoded(written, "a.txt") == kept
        for marked in (data, b"\xff\xfe" + data, b"\xef\xbb\xbf" + data):
            try:
                found = decoded(marked, "a.txt")
            except ValueError:
                continue
            assert found is None or found.strip() and found.encode()

    check()


# What is no file of captions --------------------------------------------------------


@pytest.fixture(params=["pipe", "device", "sparse", "elsewhere", "nothing", "folder"])
def odd_file(request, tmp_path):
    """Makes something that is no caption file at a path."""

    def make(path):
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        elif request.param == "sparse":
            with open(path, "wb") as file:
                file.truncate(3 * 2**30)
        elif request.param == "elsewhere":
            secret = tmp_path / "secret"
            secret.write_text("my password")
            path.symlink_to(secret)
        elif request.param == "nothing":
            path.symlink_to("nowhere")
        else:
            path.mkdir()

    return make


@pytest.mark.parametrize("name", ["a.txt", "a.xmp", "a.jpg.xmp", "a.XMP"])
@pytest.mark.parametrize("existing", ["skip", "append"])
def test_what_is_no_caption_file_costs_one_row(
    run, photos, odd_file, tmp_path, name, existing
):
    (photos / "b.jpg").write_bytes(COFFEE)
    odd_file(photos / name)
    output = tmp_path / "captions.csv"
    results = run(existing=existing, sidecars=True, xmp=True, output=output)
    assert results["a.jpg"].kind == "not_written" and name in results["a.jpg"].error
    assert results["b.jpg"].caption == "machine: b"
    assert "password" not in output.read_text()


def test_overwrite_replaces_a_link_and_not_what_it_points_to(run, photos, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("my password")
    (photos / "a.txt").symlink_to(secret)
    os.mkfifo(photos / "b.txt")
    (photos / "b.jpg").write_bytes(COFFEE)
    results = run(existing="overwrite", sidecars=True)
    assert {each.error for each in results.values()} == {None}
    assert secret.read_text() == "my password"
    for name in "ab":
        assert not (photos / f"{name}.txt").is_symlink()
        assert (photos / f"{name}.txt").read_text() == f"machine: {name}\n"


def test_a_link_within_the_folder_is_read(run, photos):
    (photos / "texts").mkdir()
    (photos / "texts" / "a.txt").write_text("my own words")
    (photos / "a.txt").symlink_to("texts/a.txt")
    assert run(sidecars=True)["a.jpg"].caption == "my own words"


def test_no_more_is_read_than_a_caption_may_have(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(MAX_SIDECAR_BYTES))
    assert len(read_sidecar(path)) == MAX_SIDECAR_BYTES
    path.write_bytes(bytes(MAX_SIDECAR_BYTES + 1))
    with pytest.raises(ValueError, match="a.txt is larger than"):
        read_sidecar(path)


def test_xmp_that_is_too_deep_costs_one_row(run, photos, tmp_path):
    packet = (
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b"<rdf:Description>%s%s</rdf:Description></rdf:RDF>"
    ) % (b"<a>" * 3_000, b"</a>" * 3_000)
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    head = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big")
    (photos / "deep.jpg").write_bytes(COFFEE[:2] + head + body + COFFEE[2:])
    (photos / "side.jpg").write_bytes(COFFEE)
    (photos / "side.xmp").write_bytes(packet)
    for existing in ("skip", "append", "overwrite"):
        results = run(
            xmp=True, copies=tmp_path / f"copies{existing}", existing=existing
        )
        assert results["a.jpg"].error is None
        for name in ("deep.jpg", "side.jpg"):
            assert results[name].kind == "not_written"
            assert "nested more than 100 deep" in results[name].error
    assert (photos / "side.xmp").read_bytes() == packet


@pytest.mark.parametrize("existing", ["skip", "append"])
def test_another_file_among_the_copies_is_kept(run, photos, tmp_path, existing):
    copies = tmp_path / "copies"
    copies.mkdir()
    for data in (b"no photo at all", COFFEE):
        (copies / "a.jpg").write_bytes(data)
        result = run(copies=copies, existing=existing)["a.jpg"]
        assert result.kind == "not_written"
        assert "a.jpg exists, without a caption" in result.error
        assert (copies / "a.jpg").read_bytes() == data


def test_files_of_single_photos(tmp_path):
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path)
    (photo,) = find_photos(tmp_path)
    for writer, name in (
        (TextSidecar(".caption"), "coffee.caption"),
        (XmpSidecar(), "coffee.xmp"),
        (XmpSidecar(pattern="photo.jpg.xmp"), "coffee.jpg.xmp"),
    ):
        path = writer.path(Path(photo.path))
        assert path.name == name and writer.read(path) is None
        path.write_bytes(writer.content(photo, path, "a dog"))
        assert writer.read(path) == "a dog"
    copy = tmp_path / "copy.jpg"
    assert EmbeddedCopy("append").read(copy) is None
    copy.write_bytes(EmbeddedCopy("append").content(photo, copy, "a dog"))
    assert EmbeddedCopy("append").read(copy) == "a dog"
    xmp = tmp_path / "coffee.xmp"
    xmp.write_text("precious")  # whatever it is, it is not replaced
    with pytest.raises(ValueError, match="coffee.xmp is not XMP"):
        XmpSidecar().content(photo, xmp, "a dog")
