"""`captioner caption`, by the API and as a command: good photos and all bad ones."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_captioner import SAMPLES, tiny_captioner

import captioner
from captioner import files
from captioner.cli import main

COMMAND = [sys.executable, "-m", "captioner", "caption"]


@pytest.fixture(scope="module")
def task():
    return tiny_captioner()


@pytest.fixture(scope="module")
def preset(task, tmp_path_factory):
    return task.save_to_preset(tmp_path_factory.mktemp("presets") / "tiny")


@pytest.fixture
def run(task, monkeypatch):
    """`captioner caption ...` in this process, with a captioner that is loaded."""
    monkeypatch.setattr(captioner.ImageCaptioner, "from_preset", lambda *_: task)
    monkeypatch.setattr("captioner.progress.LINE_INTERVAL", 1e9)  # where it is slow

    def run(*arguments):
        return CliRunner().invoke(main, ["caption", *map(str, arguments)])

    return run


@pytest.fixture
def good(tmp_path):
    """A folder of three good photos."""
    folder = tmp_path / "good"
    folder.mkdir()
    for name in ("coffee.jpg", "horses.jpg", "kitten.jpg"):
        shutil.copy(SAMPLES / name, folder)
    return folder


# What is wrong with a photo of the folder `mixed`, in the order of results.
KINDS = {
    "astronaut.jpg": None,
    "broken.jpg": "truncated",
    "empty.jpg": "empty",
    "gone.jpg": "missing",
    "text.jpg": "not_an_image",
    "two\nlines.jpg": None,
    "ünïcödé 🐈.jpg": None,
    os.fsdecode(b"\xff.jpg"): None,
    "folder.jpg/horses.jpg": None,
    "nested/deeper/KITTEN.JPG": None,
    "nested/deeper/empty.png": "empty",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "folder.jpg").mkdir()
    (folder / "nested" / "deeper").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for sample, name in (
        ("astronaut.jpg", "astronaut.jpg"),
        ("mariachi.jpg", "two\nlines.jpg"),
        ("kitten.jpg", "ünïcödé 🐈.jpg"),
        ("pagoda.jpg", os.fsdecode(b"\xff.jpg")),
        ("horses.jpg", "folder.jpg/horses.jpg"),
        ("kitten.jpg", "nested/deeper/KITTEN.JPG"),
        ("coffee.jpg", ".coffee.jpg"),
        ("coffee.jpg", ".cache/coffee.jpg"),
    ):
        shutil.copy(SAMPLES / sample, folder / name)
    coffee = (SAMPLES / "coffee.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(coffee[: len(coffee) // 2])
    (folder / "empty.jpg").touch()
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "text.jpg").write_text("Dear diary")
    (folder / "nested" / "deeper" / "empty.png").touch()
    (folder / "astronaut.txt").write_text("not a photo")
    (folder / "notes.md").write_text("not a photo")
    return folder


def unescaped(text):
    """A name of which what is not printable was printed as escapes."""
    text = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def names(results, folder):
    return [os.path.relpath(result.path, folder) for result in results]


def test_each_photo_of_a_folder_has_one_result_in_order(task, mixed):
    results = list(captioner.caption(mixed, task, batch_size=2))
    assert names(results, mixed) == list(KINDS)
    assert [result.kind for result in results] == list(KINDS.values())
    for result in results:
        if result.kind is None:
            assert result.caption == task.generate(result.path)
            assert result.score < 0 and result.error is None
        else:
            assert result.caption is None and result.score is None
            assert result.error and "\n" not in result.error


def test_files_and_folders_are_captioned_once_in_the_order_given(task, good):
    paths = [good / "kitten.jpg", good, str(good / "coffee.jpg")]
    results = list(captioner.caption(paths, task))
    assert names(results, good) == ["kitten.jpg", "coffee.jpg", "horses.jpg"]
    assert all(result.caption for result in results)


def test_a_file_named_outright_is_tried_whatever_its_name(task, tmp_path):
    photo = tmp_path / ".photo"
    shutil.copy(SAMPLES / "coffee.jpg", photo)
    (result,) = captioner.caption(str(photo), task)
    assert result.caption == task.generate(SAMPLES / "coffee.jpg")


def test_a_sampler_replaces_that_of_a_captioner_in_memory(task, good):
    greedy = captioner.GreedySampler(length_penalty=1.0)
    own = [result.score for result in captioner.caption(good, task)]
    results = list(captioner.caption(good, task, sampler=greedy))
    assert [result.score for result in results] != own
    assert type(task.sampler) is captioner.BeamSampler


def test_the_command_says_one_line_a_photo(mixed, preset):
    done = subprocess.run(
        [*COMMAND, str(mixed), "--preset", str(preset), "--batch-size", "3"],
        capture_output=True,
        encoding="utf-8",
    )
    good = [name for name, kind in KINDS.items() if kind is None]
    bad = [name for name, kind in KINDS.items() if kind is not None]
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) == len(good)
    for line, name in zip(lines, good):
        path, caption = line.split("\t")
        path = path if name.isprintable() else unescaped(path)
        assert path == str(mixed / name)
        assert caption and not {"[", "]"} & set(caption)
    errors = done.stderr.splitlines()
    errors = [line for line in errors if not line.startswith("captions: ")]
    assert len(errors) == len(bad) + 2, done.stderr
    for line, name in zip(errors, bad):
        assert line.startswith(f"skipped: {mixed / name}: ")
    assert errors[-2] == "left aside: 1 .md"
    assert errors[-1] == f"{len(good)} captioned, {len(bad)} skipped"


def test_csv_has_a_row_for_every_photo(task, mixed, tmp_path):
    output = tmp_path / "captions.csv"
    results = list(captioner.caption(mixed, task, output))
    with open(output, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(mixed / name) for name in KINDS]
    for row, result in zip(rows, results):
        assert row["caption"] == (result.caption or "")
        assert row["error"] == (result.error or "")
        assert row["kind"] == (result.kind or "")
        assert row["score"] == ("" if result.score is None else str(result.score))
    assert sorted(os.listdir(tmp_path)) == ["captions.csv", "captions.csv.run"]
    with open(tmp_path / "captions.csv.run" / "errors.csv", encoding="utf-8") as file:
        errors = list(csv.reader(file))
    assert errors == [["path", "kind", "reason"]] + [
        [result.path, result.kind, result.error] for result in results if result.error
    ]
    counts = json.loads((tmp_path / "captions.csv.run" / "run.json").read_text())
    assert counts["counts"] == {
        "photos": 11,
        "captioned": 6,
        "empty": 2,
        "missing": 1,
        "not_an_image": 1,
        "truncated": 1,
        "left_aside": {".md": 1},
    }


def test_jsonl_has_a_row_for_every_photo(run, mixed, tmp_path):
    output = tmp_path / "captions.jsonl"
    done = run(mixed, "-o", output)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.endswith("6 captioned, 5 skipped\n")
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [row["path"] for row in rows] == [str(mixed / name) for name in KINDS]
    assert [row["kind"] for row in rows] == list(KINDS.values())
    for row in rows:
        keys = ["path", "caption", "score", "error", "kind", "confidence"]
        assert list(row) == keys


def test_an_existing_output_is_kept_unless_asked(run, good, tmp_path):
    output = tmp_path / "captions.csv"
    output.write_text("precious")
    done = run(good, "-o", output)
    assert done.exit_code == 2
    assert done.stderr.strip().startswith(f"Error: {output} exists")
    assert output.read_text() == "precious"
    assert run(good, "-o", output, "--existing", "overwrite").exit_code == 0
    assert output.read_text().count("\n") == 4


def texts(folder, suffix=".txt"):
    return {
        path.stem: path.read_text()
        for path in sorted(folder.rglob(f"*{suffix}"))
        if ".captioner" not in path.parts
    }


def test_sidecars_are_kept_unless_asked(run, task, good):
    new = {path.stem: task.generate(path) + "\n" for path in sorted(good.iterdir())}
    (good / "horses.txt").write_text("my own words")
    done = run(good, "--sidecars")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "2 captioned, 0 skipped, 1 kept\n"
    assert texts(good) == {**new, "horses": "my own words"}
    before = {path: path.stat().st_mtime_ns for path in good.glob("*.txt")}
    assert run(good, "--sidecars").exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in good.glob("*.txt")}
    (good / "coffee.txt").write_text("edited by hand")
    (good / "kitten.txt").unlink()
    assert run(good, "--sidecars").exit_code == 0
    edited = {"horses": "my own words", "coffee": "edited by hand"}
    assert texts(good) == {**new, **edited}
    assert run(good, "--sidecars", "--existing", "overwrite").exit_code == 0
    assert texts(good) == new


def test_new_words_join_those_that_are_there(run, task, good):
    words = {path.stem: task.generate(path) for path in sorted(good.iterdir())}
    (good / "horses.txt").write_text("my own words\n")
    for existing, lines in (
        ("append", ["my own words", words["horses"]]),
        ("prepend", [words["horses"], "my own words"]),
    ):
        for _ in range(2):  # and they are not joined twice
            run_folder = good.parent / existing
            arguments = ("--sidecars", "--existing", existing, "--run-folder")
            folder = good.parent / f"{existing}ed"
            if not folder.exists():
                shutil.copytree(good, folder)
            assert run(folder, *arguments, run_folder).exit_code == 0
            assert texts(folder)["horses"].splitlines() == lines
            assert texts(folder)["coffee"] == words["coffee"] + "\n"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(run, good):
    (good / "horses.txt").write_text("my own words")
    shutil.copy(SAMPLES / "pagoda.jpg", good / "horses.png")
    before = sorted(good.rglob("*"))
    arguments = (good, "--sidecars", "-o", good / "captions.csv")
    done = run(*arguments, "--dry-run")
    assert done.stdout.splitlines() == [
        f"{good / 'coffee.jpg'}\tto caption",
        f"{good / 'horses.jpg'}\tmy own words",
        f"{good / 'kitten.jpg'}\tto caption",
    ]
    assert "skipped: " in done.stderr and "horses.png: horses.txt holds" in done.stderr
    assert sorted(good.rglob("*")) == before
    assert run(*arguments).exit_code == 1
    done = run(*arguments, "--dry-run")
    assert done.stdout.splitlines()[0].startswith(f"{good / 'coffee.jpg'}\tdone\t")


def test_two_photos_never_share_a_sidecar(task, good):
    shutil.copy(SAMPLES / "pagoda.jpg", good / "horses.png")
    results = list(captioner.caption(good, task, sidecars=True))
    by_name = dict(zip(names(results, good), results))
    assert by_name["horses.png"].kind == "clash"
    assert (
        by_name["horses.png"].error == "horses.txt holds the caption of another photo"
    )
    assert (good / "horses.txt").read_text() == by_name["horses.jpg"].caption + "\n"


def test_a_link_to_nothing_is_one_row(task, good):
    (good / "gone.jpg").symlink_to("nowhere")
    (good / "gone.txt").write_text("once upon a time")
    for dry_run in (True, False):
        results = list(captioner.caption(good, task, sidecars=True, dry_run=dry_run))
        assert len(results) == 4
    kinds = {Path(result.path).name: result.kind for result in results}
    assert kinds["gone.jpg"] == "kept" and kinds["coffee.jpg"] is None


def test_what_holds_no_caption_is_kept_and_said(task, good, tmp_path):
    (good / "kitten.xmp").write_text("no XMP at all")
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(good / "coffee.jpg", copies)
    results = list(
        captioner.caption(
            good, task, xmp=True, copies=copies, run_folder=tmp_path / "run"
        )
    )
    by_name = {Path(result.path).name: result for result in results}
    assert by_name["horses.jpg"].error is None
    for name, reason in (
        ("kitten.jpg", "kitten.xmp is not XMP"),
        ("coffee.jpg", "coffee.jpg exists, without a caption"),
    ):
        assert by_name[name].kind == "not_written"
        assert reason in by_name[name].error
    assert (good / "kitten.xmp").read_text() == "no XMP at all"
    assert (copies / "coffee.jpg").read_bytes() == (good / "coffee.jpg").read_bytes()


def test_copies_are_not_put_where_the_next_run_would_find_them(task, good):
    with pytest.raises(ValueError, match="must not lie among the photos"):
        captioner.caption(good, task, copies=good / "captioned")
    assert not (good / "captioned").exists()


def test_an_archive_has_no_place_for_files_beside_its_photos(task, good, tmp_path):
    archive = Path(shutil.make_archive(tmp_path / "shard", "zip", good))
    results = [*captioner.caption(archive, task, sidecars=True)]
    assert {result.kind for result in results} == {"clash"}
    assert "use --sidecar-folder" in results[0].error
    texts = tmp_path / "texts"
    results = [*captioner.caption(archive, task, sidecars=True, sidecar_folder=texts)]
    assert {result.kind for result in results} == {None}
    assert (texts / "shard" / "coffee.txt").exists()


def test_another_list_never_drops_rows(task, good, tmp_path):
    output, listed = tmp_path / "captions.csv", tmp_path / "list"

    def run(*names, **arguments):
        listed.write_text("\n".join(str(good / name) for name in names))
        return [
            *captioner.caption((), task, output, files_from=str(listed), **arguments)
        ]

    run("coffee.jpg", "horses.jpg")
    before = output.read_bytes()
    with pytest.raises(
        ValueError, match="a run that included .*coffee.jpg; include it"
    ):
        run("horses.jpg", "kitten.jpg")
    assert output.read_bytes() == before
    assert len(run("coffee.jpg", "horses.jpg", "kitten.jpg")) == 3
    (good / "coffee.jpg").unlink()  # what is gone has no row
    assert len(run("horses.jpg", "kitten.jpg")) == 2
    assert b"coffee.jpg" not in output.read_bytes()


def test_quiet_says_what_went_wrong(preset, good, tmp_path):
    (good / "empty.jpg").touch()
    (good / "kitten.txt").write_bytes("chat ôté".encode("latin-1"))
    command = [*COMMAND, str(good), "--preset", str(preset), "-q", "--sidecars"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and done.stdout == ""
    said = [
        f"skipped: {good / 'empty.jpg'}: the file is empty",
        f"skipped: {good / 'kitten.jpg'}: its caption: kitten.txt is not UTF-8 text; "
        "save it as UTF-8",
    ]
    assert sorted(done.stderr.splitlines()) == said
    done = subprocess.run(
        [*command, "--dry-run"], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 1 and said[1] in done.stderr.splitlines()
    assert "kitten" not in done.stdout


def test_two_spellings_of_a_photo_do_not_clash(task, good, monkeypatch):
    monkeypatch.chdir(good)
    paths = ["coffee.jpg", "./coffee.jpg", good / "coffee.jpg", "../good/coffee.jpg"]
    (result,) = captioner.caption(paths, task, sidecars=True)
    assert result.error is None and texts(good) == {"coffee": result.caption + "\n"}
    results = captioner.caption("", task, sidecars=True, existing="overwrite")
    assert {result.path for result in results} == {
        "coffee.jpg",
        "horses.jpg",
        "kitten.jpg",
    }


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_a_sidecar_never_replaces_its_own_photo(task, tmp_path, existing):
    photo = tmp_path / "coffee.txt"
    shutil.copy(SAMPLES / "coffee.jpg", photo)
    before = photo.read_bytes()
    (result,) = captioner.caption(photo, task, sidecars=True, existing=existing)
    assert result.kind == "clash" and "replace the photo" in result.error
    folder = tmp_path / "link"
    folder.symlink_to(tmp_path)  # by another name
    (result,) = captioner.caption(
        photo, task, copies=folder, existing=existing, run_folder=tmp_path / "run"
    )
    assert result.kind == "clash"
    assert photo.read_bytes() == before


def test_bad_photos_get_no_sidecar(task, mixed, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(mixed, folder, symlinks=True)
    results = list(captioner.caption(folder, task, sidecars=True, existing="overwrite"))
    for result in results:
        sidecar = Path(result.path).with_suffix(".txt")
        if result.error is None:
            assert sidecar.read_text() == result.caption + "\n"
    assert len(list(folder.rglob("*.txt"))) == 6
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_work_that_is_given_up_leaves_no_half_output(task, good, tmp_path, name):
    results = captioner.caption(good, task, tmp_path / name, batch_size=1)
    next(results)
    results.close()
    assert not (tmp_path / name).exists()
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    run, good, tmp_path, monkeypatch
):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")

    def full(path):
        path.touch()
        return os.open("/dev/full", os.O_RDWR)

    with monkeypatch.context() as patch:
        patch.setattr("captioner.files._create", full)
        done = run(good, "-o", tmp_path / "captions.csv")
    assert done.exit_code == 2
    expected = f"Error: {tmp_path / 'captions.csv'}: No space left on device\n"
    assert done.stderr == expected
    assert not list(tmp_path.glob("captions.csv")) and not list(tmp_path.glob(".*"))
    # What was done is not done again.
    captions = run(good, "-o", tmp_path / "captions.csv", "--dry-run").stdout
    assert captions.count("\tdone\t") == 3

    create, room = files._create, iter([True, False])
    monkeypatch.setattr(
        "captioner.files._create",
        lambda path: create(path) if next(room) else full(path),
    )
    done = run(good, "--sidecars")
    assert done.exit_code == 2
    assert re.fullmatch(
        rf"Error: {good}/\w+\.txt: No space left on device\n", done.stderr
    )
    assert len(texts(good)) == 1 and not list(good.glob(".*.part"))
    monkeypatch.undo()


def test_a_terminal_that_takes_no_more_is_one_line(good, preset):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, str(good), "--preset", str(preset)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.endswith("Error: No space left on device\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "Error: No such file or folder: nowhere"),
        (["."], "Error: No photos in ."),
        (
            ["photo.jpg", "-o", "captions.xml"],
            "must end in .csv, .jsonl, .parquet, .json, .html",
        ),
        (["photo.jpg", "-o", "no/folder.csv"], "no/folder.csv: No such file"),
        (["photo.jpg", "--preset", "nothing"], "Error: No preset 'nothing'"),
        (["photo.jpg", "--preset", "."], "Error: No preset '.'"),
        (["photo.jpg", "--num-beams", "0"], "--num-beams"),
        (["photo.jpg", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    preset, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    if "photo.jpg" in arguments:
        shutil.copy(SAMPLES / "coffee.jpg", "photo.jpg")
    if "--preset" not in arguments:
        arguments = [*arguments, "--preset", str(preset)]
    before = sorted(os.listdir())
    done = CliRunner().invoke(main, ["caption", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("file", ["config.json", "model.weights.h5", "assets"])
def test_a_damaged_preset_is_refused_by_name(preset, good, tmp_path, file):
    damaged = tmp_path / "damaged"
    shutil.copytree(preset, damaged)
    path = damaged / file
    if path.is_dir():
        path = path / "vocabulary.txt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = CliRunner().invoke(main, ["caption", str(good), "--preset", str(damaged)])
    assert done.exit_code == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == f"Error: {path}: does not match its checksum (damaged?)"


def test_a_preset_of_something_else_is_refused(good):
    arguments = ["caption", str(good), "--preset", "efficientnet_lite2_imagenet"]
    done = CliRunner().invoke(main, [*arguments, "--num-beams", "2"])
    assert done.exit_code == 2
    assert "holds a VisionBackbone, not an ImageCaptioner" in done.stderr


def test_flags_change_the_presets_own_sampler(task, good, tmp_path):
    # With no more than --length-penalty, five beams stay five beams.
    five = captioner.BeamSampler(num_beams=5, length_penalty=0.0)
    own = captioner.ImageCaptioner.from_preset(task, five)
    preset = own.save_to_preset(tmp_path / "five")
    expected = [
        result.score
        for result in captioner.caption(good, task, sampler=captioner.BeamSampler(5, 1))
    ]
    output = tmp_path / "captions.jsonl"
    arguments = ["caption", str(good), "--preset", str(preset), "-o", str(output)]
    done = CliRunner().invoke(main, [*arguments, "--length-penalty", "1"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "flags, sampler",
    [
        (["--num-beams", "1"], captioner.BeamSampler(1)),
        (["--sampler", "greedy"], captioner.GreedySampler(0.7)),
        (
            ["--length-normalization", "gnmt", "--max-length", "7", "--min-length=6"]
            + ["--no-repeat-ngram-size", "2", "--repetition-penalty", "1.5"]
            + ["--banned", "dog", "--banned", "the grass", "--prefix", "A man"]
            + ["--bad-ending", "a", "--bad-ending", "in the"],
            captioner.BeamSampler(
                length_normalization="gnmt",
                constraints=captioner.Constraints(
                    min_length=6,
                    max_length=7,
                    no_repeat_ngram_size=2,
                    repetition_penalty=1.5,
                    banned=["dog", "the grass"],
                    prefix="A man",
                    bad_endings=["a", "in the"],
                ),
            ),
        ),
        (
            ["--sampler=diverse_beam", "--num-groups=3", "--diversity-penalty=2"],
            captioner.DiverseBeamSampler(3, 3, 2.0),
        ),
        (
            ["--sampler=random", "--temperature=0.5", "--top-k=9", "--top-p=0.9"]
            + ["--seed=3"],
            captioner.RandomSampler(0.5, 9, 0.9, seed=3, length_penalty=0.7),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_flag_is_an_argument_of_a_sampler(run, task, preset, good, flags, sampler):
    made = []

    def from_preset(given, sampler):
        made.append(sampler)
        return task

    # Patched once more: here it matters what is asked for.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner.ImageCaptioner, "from_preset", from_preset)
        assert run(good, "--preset", preset, *flags).exit_code == 0
    assert type(made[0]) is type(sampler)
    assert made[0].get_config() == sampler.get_config()


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--temperature", "0.5"], "BeamSampler does not have this option.*temp"),
        (["--sampler", "greedy", "--num-beams", "2"], "GreedySampler.*num_beams=2"),
        (["--min-length", "9", "--max-length", "5"], "min_length=9, max_length=5"),
        (["--min-length", "50"], "min_length=50"),
        (["--prefix", "a zzyzx of"], "prefix='a zzyzx of'"),
        (["--banned", "man", "--prefix", "a man"], "banned='man', prefix='a man'"),
        (["--num-beams", "1000"], "words of the vocabulary.*num_beams=1000"),
        (["--sampler", "random", "--top-p", "3"], "top_p=3.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_are_one_line(preset, good, flags, complaint):
    arguments = ["caption", str(good), "--preset", str(preset), *flags]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert re.search(complaint, line)


def test_ctrl_c_ends_with_130_and_the_count(preset, tmp_path):
    for number in range(300):
        (tmp_path / f"{number:03}.jpg").symlink_to(SAMPLES / "horses.jpg")
    command = [*COMMAND, str(tmp_path), "--preset", str(preset), "--batch-size", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, Ctrl-C may be off.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        # Not `communicate`: it loses what came together with the first line.
        stdout, stderr = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, stderr
    count = 1 + stdout.count("\n")
    assert first.startswith(str(tmp_path / "000.jpg")) and count < 300
    said = [line for line in stderr.splitlines() if not line.startswith("captions: ")]
    assert said == [f"interrupted: {count} captioned, 0 skipped"]
