"""A run that is killed goes on, and its outputs are those of one that was not."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_captioner import SAMPLES, tiny_captioner

import captioner
import captioner.captioning.engine

HERE = Path(__file__).parent


def without_tensorflow(script, *arguments):
    """What a script beside this file says, in a process that may fork."""
    command = [sys.executable, HERE / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def killed_runs(folder, kills, seed):
    said = without_tensorflow("killed_runs.py", folder, kills, seed)
    assert int(re.match(r"(\d+) kills", said)[1]) >= kills


def test_killed_at_random_moments(tmp_path):
    killed_runs(tmp_path, 40, 1)


@pytest.mark.exhaustive
def test_killed_at_very_many_random_moments(tmp_path):
    killed_runs(tmp_path, 500, 2)


def test_photos_people_and_kills_in_any_order():
    without_tensorflow("journal_machine.py", 10, 12)


@pytest.mark.fuzz
@pytest.mark.slow
def test_photos_people_and_kills_in_very_many_orders():
    seed = random.randrange(2**32)
    without_tensorflow("journal_machine.py", 400, 30, seed)


@pytest.fixture(scope="module")
def task():
    return tiny_captioner()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(SAMPLES, folder, ignore=shutil.ignore_patterns("*.md", "*.csv"))
    return folder


def run(task, photos, **arguments):
    """The results by name; and the names of those that the model saw."""
    seen = []
    seen_by = captioner.captioning.engine.BatchCaptioner.__call__

    def spy(self, images):
        seen.append(len(images))
        return seen_by(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner.captioning.engine.BatchCaptioner, "__call__", spy)
        output = photos.parent / "captions.csv"
        results = list(captioner.caption(photos, task, output, **arguments))
    return {Path(each.path).name: each for each in results}, sum(seen)


def test_only_new_and_changed_photos_are_captioned(task, photos):
    first, seen = run(task, photos)
    assert seen == 10
    whole = (photos.parent / "captions.csv").read_bytes()
    assert run(task, photos) == (first, 0)
    os.utime(photos / "coffee.jpg")  # touched: the content is what counts
    assert run(task, photos) == (first, 0)
    assert (photos.parent / "captions.csv").read_bytes() == whole

    shutil.copy(SAMPLES / "horses.jpg", photos / "kitten.jpg")
    shutil.copy(SAMPLES / "coffee.jpg", photos / "new.jpg")
    (photos / "pagoda.jpg").unlink()
    second, seen = run(task, photos)
    assert seen == 2 and "pagoda.jpg" not in second
    assert second["kitten.jpg"].caption == first["horses.jpg"].caption
    assert second["new.jpg"].caption == first["coffee.jpg"].caption
    rows = (photos.parent / "captions.csv").read_text().splitlines()[1:]
    assert [Path(row.split(",")[0]).name for row in rows] == sorted(second)


def test_a_changed_photo_has_its_own_sidecar_replaced(task, photos):
    run(task, photos, sidecars=True)
    (photos / "horses.txt").write_text("my own words")
    for name in ("kitten", "horses"):
        shutil.copy(SAMPLES / "coffee.jpg", photos / f"{name}.jpg")
    results, seen = run(task, photos, sidecars=True)
    coffee = results["coffee.jpg"].caption + "\n"
    assert (photos / "kitten.txt").read_text() == coffee
    assert (photos / "horses.txt").read_text() == "my own words"
    assert results["horses.jpg"].kind == "kept" and seen == 1


def test_what_may_pass_is_tried_again_and_what_stays_is_not(task, photos):
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "gone.jpg").symlink_to("later.jpg")
    first, seen = run(task, photos)
    assert (first["bad.jpg"].kind, first["gone.jpg"].kind) == ("truncated", "missing")
    shutil.copy(SAMPLES / "coffee.jpg", photos / "later.jpg")
    second, seen = run(task, photos)
    assert second["gone.jpg"].caption == second["later.jpg"].caption
    assert second["bad.jpg"] == first["bad.jpg"] and seen == 2


def test_two_runs_at_once_are_refused(task, photos):
    results = captioner.caption(photos, task, photos.parent / "captions.csv")
    next(results)
    with pytest.raises(ValueError, match="is used by another run"):
        captioner.caption(photos, task, photos.parent / "captions.csv")
    results.close()
    assert len(run(task, photos)[0]) == 10


def test_other_settings_or_photos_are_refused(task, photos):
    output = photos.parent / "captions.csv"
    run(task, photos)
    before = output.read_bytes()
    style = captioner.CaptionStyle(case="upper")
    with pytest.raises(ValueError, match="a run with another style"):
        captioner.caption(photos, task, output, style=style)
    with pytest.raises(ValueError, match="included .*/photos; include it again"):
        captioner.caption(photos / "coffee.jpg", task, output)
    output.write_text("edited")
    with pytest.raises(ValueError, match="has changed since this run wrote it"):
        captioner.caption(photos, task, output)
    assert output.read_text() == "edited"
    results, seen = run(task, photos, style=style, existing="overwrite")
    assert seen == 10 and results["coffee.jpg"].caption.isupper()
    assert before != output.read_bytes()


def test_a_damaged_journal_is_one_line(task, photos):
    run(task, photos)
    journal = photos.parent / "captions.csv.run" / "journal.sqlite"
    journal.write_bytes(b"no journal" * 1000)
    with pytest.raises(ValueError, match="journal.sqlite is damaged"):
        captioner.caption(photos, task, photos.parent / "captions.csv")


def test_shards_joined_are_the_whole(task, photos):
    folder = photos.parent
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    names = ["captions.csv", "captions.jsonl", "gallery.html"]
    whole = list(captioner.caption(photos, task, [folder / name for name in names]))
    (folder / "shards").mkdir()
    outputs = [folder / "shards" / name for name in names]
    parts, seen = [], []
    for number in (1, 2, 3):
        shard = list(captioner.caption(photos, task, outputs, shard=(number, 3)))
        seen += shard
        parts.append(folder / "shards" / f"captions-{number}-of-3.csv.run")
    assert sorted(seen, key=str) == sorted(whole, key=str) and len(seen) == 11
    joined = [folder / "shards" / f"all_{name}" for name in names]
    assert captioner.merge(parts, joined) == (10, 1)
    for name, path in zip(names, joined):
        assert path.read_bytes() == (folder / name).read_bytes(), name
    for file in ("errors.csv", "run.json"):
        expected = (folder / "captions.csv.run" / file).read_bytes()
        assert (folder / "shards/all_captions.csv.run" / file).read_bytes() == expected

    other = folder / "other.csv"
    for wrong, complaint in (
        (parts[:2], "Each shard must be given once. Received: 1/3, 2/3"),
        ([*parts, parts[0]], "1-of-3.csv.run is given twice"),
        ([folder / "captions.csv.run"], "is not a shard"),
        ([photos], "is not a run folder"),
    ):
        with pytest.raises(ValueError, match=complaint):
            captioner.merge(wrong, other)
    with pytest.raises(ValueError, match="exists"):
        captioner.merge(parts, joined)
    assert not other.exists()


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on(task, photos, tmp_path):
    preset = task.save_to_preset(tmp_path / "tiny")
    for number in range(200):
        shutil.copy(SAMPLES / "horses.jpg", photos / f"{number}.jpg")

    def command(folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        outputs = [f"-o{tmp_path / folder / name}" for name in ("a.csv", "b.jsonl")]
        options = ["--preset", preset, "--sidecar-folder", tmp_path / folder / "txt"]
        options += ["--sidecars", "--batch-size", "4"]
        command = [sys.executable, "-m", "captioner", "caption", photos]
        return subprocess.Popen(
            [*command, *outputs, *options],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    whole = command("whole")
    journal = tmp_path / "whole" / "a.csv.run" / "journal.sqlite-wal"
    while not (tmp_path / "whole" / "txt").exists():
        time.sleep(0.05)
    begun = time.monotonic()
    assert whole.wait() == 0
    seconds = time.monotonic() - begun
    assert not journal.exists()
    random.seed(3)
    for _ in range(4):
        process = command("killed")
        known = len(list((tmp_path / "killed").rglob("*.txt")))
        while len(list((tmp_path / "killed").rglob("*.txt"))) <= known:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(random.uniform(0, seconds / 5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert command("killed").wait() == 0

    def tree(folder):
        return {
            path.relative_to(tmp_path / folder): path.read_bytes()
            for path in (tmp_path / folder).rglob("*")
            # The manifest says where the sidecars are.
            if path.is_file() and path.name not in ("journal.sqlite", "run.json")
        }

    assert tree("killed") == tree("whole")
