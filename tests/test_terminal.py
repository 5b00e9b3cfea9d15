"""What reaches the terminal: no control characters of others, and progress."""

import json
import sys

import pytest
from click.testing import CliRunner

from captioner import progress as progress_module
from captioner.cli import main
from captioner.progress import RunProgress
from captioner.terminal import one_line, printable, printable_lines, say


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a dog, ünd 犬 🐈.jpg", "a dog, ünd 犬 🐈.jpg"),
        (
            "👩\u200d👩\u200d👧 می\u200cخواهم a\u00a0b\u3000c",
            None,
        ),  # joiners and spaces
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("two\nlines\r\t\x7f\x9b", r"two\nlines\r\t\x7f\x9b"),
        ("\u202egpj.exe\u2066\u200f\ufeff", r"\u202egpj.exe\u2066\u200f\ufeff"),
        ("\udcff\u2028", r"\udcff\u2028"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == (text if shown is None else shown)


def test_lines_stay_lines_and_errors_become_one():
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"
    assert one_line(ValueError("a\x1b[2J\n  b")) == r"a\x1b[2J b"
    assert one_line(OSError(28, "No space", "a\x1b")) == r"a\x1b: No space"


def test_a_preset_cannot_steer_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONER_HOME", str(tmp_path))
    for name, config in (
        ("one\x1b[31m", {"class_name": "\x1b]0;title\x07"}),
        ("two\x1b[31m", None),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    done = CliRunner().invoke(main, ["presets"])
    assert "\x1b" not in done.output and r"one\x1b[31m" in done.stdout
    assert r"two\x1b[31m" in done.stderr


def test_nobody_has_to_read_standard_error(monkeypatch):
    class Broken:
        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

        def isatty(self):
            return False

    for stream in (None, Broken()):
        monkeypatch.setattr(sys, "stderr", stream)
        say("text")
        with RunProgress("json", 3) as progress:
            progress.note("text")
        with progress_module.progress_bar("features", 3) as bar:
            bar.update(3)


def test_the_time_left_does_not_count_the_start(monkeypatch, capsys):
    now = 0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    progress = RunProgress("json", 100)
    now = 600
    progress.update(done=8)  # after ten minutes in which the model was loaded
    assert json.loads(capsys.readouterr().err)["remaining_seconds"] is None
    now = 610
    progress.update(done=8)
    told = json.loads(capsys.readouterr().err)
    assert told["rate"] == 0.8 and told["remaining_seconds"] == 105
