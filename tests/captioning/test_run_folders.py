"""Run folders: whose they are, what is damaged in them, and where they are moved."""

import contextlib
import csv
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from stand_in import StandIn, make_preset, module, run, stand_in_engine

import captioner
from captioner.cli import main
from captioner.evaluating.predictions import read_predictions
from captioner.journal import Journal

JOURNAL = Path("captions.csv.run", "journal.sqlite")


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Twelve photos in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        photo = Path("photos", str(number % 3), f"{number:02}.jpg")
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_text(f"photo {number}")
    return Path("photos")


def num_done():
    return len(Path("done.log").read_text().splitlines())


def tree(folder="."):
    return {
        path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


def of_another_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of another user"))


def test_a_journal_that_came_with_the_photos_is_refused(monkeypatch, tmp_path):
    run(output=(), sidecars=True)
    for sidecar in Path("photos").rglob("*.txt"):
        sidecar.unlink()
    before = tree()
    of_another_user(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=r"\.captioner/journal.sqlite was not made by"):
        run(output=(), sidecars=True)
    assert {path: before.get(path) for path in before} == {
        path: data for path, data in tree().items() if "state" not in str(path)
    }
    # Its user may say that it is to be trusted, and then it is this user's.
    run(output=(), sidecars=True, trust_run_folder=True)
    run(output=(), sidecars=True)
    assert num_done() == 12 and len(list(Path("photos").rglob("*.txt"))) == 12


@pytest.mark.parametrize("place", ["folder", "journal", "wal", "report"])
def test_nothing_is_written_through_a_planted_link(place, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    database = sqlite3.connect(theirs / "journal.sqlite")
    database.execute("CREATE TABLE bookmarks (url)")
    database.commit()
    database.close()
    for name in ("run.json", "errors.csv"):
        (theirs / name).write_text("precious")
    before = tree(theirs)
    folder = Path("photos", ".captioner")
    if place == "folder":
        folder.symlink_to(theirs)
    else:
        folder.mkdir()
        names = {"journal": ["journal.sqlite"], "wal": ["journal.sqlite-wal"]}
        for name in names.get(place, ["run.json", "errors.csv"]):
            (folder / name).symlink_to(theirs / name.removesuffix("-wal"))
    with contextlib.suppress(ValueError, OSError):
        run(output=(), sidecars=True)
    assert tree(theirs) == before
    if place == "report":
        assert "photos" in json.loads((folder / "run.json").read_text())["counts"]


def test_a_guessed_name_of_an_unfinished_file_is_not_followed(monkeypatch, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    for folder in Path("photos").iterdir():
        (folder / f".{'0' * 16}.part").symlink_to(theirs)
    results = run(output=(), sidecars=True)
    assert {each.kind for each in results} == {"not_written"}
    assert theirs.read_text() == "precious"


def rows():
    with open("captions.csv", newline="") as file:
        return list(csv.reader(file))


def test_a_damaged_journal_costs_no_row_of_an_output():
    run(existing="append", sidecars=True)
    good, journal = rows(), JOURNAL.read_bytes()
    assert len(good) == 13
    sizes = range(0, len(journal), len(journal) // 24)
    damages = [journal[:size] for size in sizes]
    for at in range(0, len(journal), len(journal) // 60):
        damages.append(journal[:at] + bytes([journal[at] ^ 0x55]) + journal[at + 1 :])
    # The bytes of rows, each changed for another letter.
    at = -1
    while (at := journal.find(b"a caption of", at + 1)) >= 0:
        damages.append(journal[:at] + b"A" + journal[at + 1 :])
    refused = 0
    for damaged in damages:
        JOURNAL.write_bytes(damaged)
        # The same photos once more, and a new one, which has the output written anew.
        Path("photos", "1", "new.jpg").write_text("new")
        try:
            run(existing="append", sidecars=True)
            assert [row for row in rows() if "new.jpg" not in row[0]] == good
        except ValueError as error:
            assert "\n" not in str(error)
            assert rows() == good
            refused += 1
        Path("captions.csv").unlink()
        with open("captions.csv", "w", newline="") as file:
            csv.writer(file).writerows(good)
    assert refused > len(damages) / 3


def test_rows_that_a_journal_has_lost_are_noticed(monkeypatch):
    run()
    before = Path("captions.csv").read_bytes()
    listed = Journal.listed
    monkeypatch.setattr(Journal, "listed", lambda self: list(listed(self))[:-1])
    Path("photos", "new.jpg").write_text("new")
    with pytest.raises(
        ValueError, match="12 of 13 photos. captions.csv was not changed"
    ):
        run()
    assert Path("captions.csv").read_bytes() == before


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_folder_that_is_moved_with_all_that_is_in_it_is_continued(how, tmp_path):
    Path("work").mkdir()
    shutil.move("photos", "work/photos")
    os.chdir("work")
    run(sidecars=True, sidecar_folder="texts")
    results = Path("captions.csv").read_bytes()
    Path("photos", "new.jpg").write_text("new")
    os.chdir(tmp_path)
    how("work", "elsewhere")
    os.chdir("elsewhere")
    assert len(run(sidecars=True, sidecar_folder="texts")) == 13 and num_done() == 13
    assert results != Path("captions.csv").read_bytes()
    os.chdir(tmp_path)


def test_an_output_that_appears_during_a_run_is_kept():
    with stand_in_engine():
        results = module.caption(
            "photos", make_preset(), "captions.csv", progress="none"
        )
        next(results)
        Path("captions.csv").write_text("precious")
        with pytest.raises(ValueError, match="captions.csv has appeared during the"):
            list(results)
    assert Path("captions.csv").read_text() == "precious"
    Path("captions.csv").unlink()
    assert len(run()) == 12 and num_done() == 12


def test_a_sidecar_that_appears_during_a_run_is_kept(monkeypatch):
    theirs = Path("photos", "0", "00.txt")
    write = Journal.add_thumbnails

    def appears(self, thumbnails):
        theirs.write_text("my own words")
        write(self, thumbnails)

    monkeypatch.setattr(Journal, "add_thumbnails", appears)
    by_name = {Path(each.path).name: each for each in run(output=(), sidecars=True)}
    assert theirs.read_text() == "my own words"
    assert by_name["00.jpg"].kind == "not_written"
    assert "00.txt cannot be written: File exists" in by_name["00.jpg"].error


def test_a_full_disk_is_one_line(monkeypatch):
    """SQLite's own way: a database that may not grow."""
    begin = Journal.begin

    def begin_on_a_full_disk(self, settings):
        begin(self, settings)
        self._database.execute("PRAGMA max_page_count=1")

    for number in range(300):
        Path("photos", f"{number}.jpg").write_text(f"photo {number}" * 10)
    monkeypatch.setattr(Journal, "begin", begin_on_a_full_disk)
    with pytest.raises(OSError) as raised:
        run()
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(JOURNAL)


def test_a_refused_run_leaves_no_folder_behind(monkeypatch):
    def fail(*_, **__):
        raise ValueError("there is no engine")

    make_preset()
    before = sorted(os.listdir())
    monkeypatch.setattr(StandIn, "__init__", fail)
    with pytest.raises(ValueError, match="there is no engine"):
        run()
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ValueError, match="Ray is missing"):
        run(engine="ray")
    assert sorted(os.listdir()) == before


def test_a_dry_run_needs_no_disk_that_can_be_written(monkeypatch):
    run()
    Path("photos", "new.jpg").write_text("new")
    before = tree()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.W_OK and access(path, mode)
    )
    kinds = [each.kind for each in run(dry_run=True)]
    assert kinds.count("done") == 12 and kinds.count("to_caption") == 1
    assert tree() == before
    with pytest.raises(OSError, match="cannot be written"):
        run()


def test_shards_are_named_once_and_told(monkeypatch):
    make_preset()
    with stand_in_engine():
        done = CliRunner().invoke(
            main,
            "caption photos --preset stand_in_preset -o s-1-of-2.csv -o t.csv "
            "--shard 1/2".split(),
        )
    assert done.exit_code == 0, done.output
    assert "wrote s-1-of-2.csv\nwrote t-1-of-2.csv\n" in done.stderr
    assert Path("s-1-of-2.csv").exists() and Path("s-1-of-2.csv.run").is_dir()
    done = CliRunner().invoke(
        main, "merge s-1-of-2.csv.run ./s-1-of-2.csv.run -o all.csv".split()
    )
    assert done.exit_code == 2
    assert done.stderr == "Error: s-1-of-2.csv.run is given twice.\n"


def test_a_name_of_the_default_preset_is_not_a_folder_nearby(monkeypatch):
    folder = Path(module.DEFAULT_PRESET)
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    seen = []
    monkeypatch.setattr(module, "CaptionRun", lambda *_, **__: seen.append(_) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        captioner.caption("photos")
    (settings,) = [each["preset"] for each in seen[0] if isinstance(each, dict)]
    assert settings[0]["sha256"]  # the shipped one has checksums


def test_formulas_in_csv_cells_are_protected_and_read_back():
    texts = ["=1+1", "+1", "-1", "@x", "'=1", "'s dog", "a dog", "\tx"]
    for photo, text in zip(sorted(Path("photos").rglob("*.jpg")), texts):
        photo.with_suffix(".txt").write_text(text)
    run(sidecars=True)
    cells = [row[1] for row in rows()[1:]]
    assert cells[:8] == ["'=1+1", "'+1", "'-1", "'@x", "''=1", "'s dog"] + cells[6:8]
    found = read_predictions("captions.csv").captions
    assert [found[name][0] for name in sorted(found)][:7] == texts[:7]
    run(sidecars=True, output=("raw.csv",), protect_spreadsheets=False)
    assert Path("raw.csv").read_text().splitlines()[1].split(",")[1] == "=1+1"


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-", "2> >(true)"])
def test_a_closed_standard_error_stops_nothing(streams):
    make_preset()
    code = (
        "from stand_in import stand_in_engine\n"
        "from captioner.cli import main\n"
        "with stand_in_engine():\n"
        "    main('caption photos -o captions.csv --preset stand_in_preset'.split())\n"
    )
    Path("program.py").write_text(code)
    done = subprocess.run(
        ["bash", "-c", f'"$0" program.py {streams}', sys.executable],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
    )
    assert done.returncode == 0 and len(rows()) == 13


def test_a_caption_cannot_steer_the_terminal():
    sample = next(Path("photos").rglob("*.jpg"))
    sample.write_text("\x1b]0;owned\x07 \u202etxt.exe")
    sample.rename(sample.with_name("\x1b[31mred.jpg"))
    Path("photos", "bad\x1b[2J.jpg").write_text("bad")
    make_preset()
    with stand_in_engine():
        done = CliRunner().invoke(
            main, "caption photos --preset stand_in_preset".split()
        )
        named = CliRunner().invoke(main, ["caption", "--\x1b[31m"])
        missing = CliRunner().invoke(main, ["caption", "no\x1b[31m.jpg"])
    assert r"\x1b]0;owned\x07 \u202etxt.exe" in done.stdout
    for each in (done, named, missing):
        assert "\x1b" not in each.output and "\u202e" not in each.output
        assert r"\x1b[" in each.output


@pytest.mark.parametrize("name", ["errors.csv", "run.json"])
def test_a_run_leaves_other_programs_files_in_its_folder_alone(name):
    Path("mine").mkdir()
    Path("mine", name).write_text("my own notes")
    before = tree("mine")
    with pytest.raises(ValueError, match=f"mine/{name} was not written by captioner"):
        run(run_folder="mine")
    assert tree("mine") == before


def test_a_run_replaces_its_own_report():
    run(run_folder="mine")
    Path("mine", "journal.sqlite").unlink()
    Path("captions.csv").unlink()
    Path("photos", "0", "bad.jpg").write_text("bad")
    run(run_folder="mine")
    assert "it is bad" in Path("mine", "errors.csv").read_text()


def test_an_output_that_is_a_link_to_nothing_is_refused_before_the_run():
    Path("captions.csv").symlink_to("nowhere")
    with pytest.raises(ValueError, match="captions.csv exists"):
        run()
    assert not Path("done.log").exists()


def test_sidecars_never_have_the_suffix_of_photos():
    with pytest.raises(ValueError, match="must not be one of photos"):
        run(output=(), sidecars=True, sidecar_suffix=".JPG", existing="overwrite")
