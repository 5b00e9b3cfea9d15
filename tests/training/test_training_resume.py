"""Trainings that were stopped: what they continue with, and what they refuse."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import captioner
from captioner.cli import main
from captioner.datasets import CaptionDataset, load_dataset
from captioner.training.checkpoints import Checkpoints
from captioner.training.step import Step

SETTINGS = {
    "image_size": 64,
    "num_layers": 1,
    "hidden_dim": 16,
    "batch_size": 8,
    "epochs": 1,
    "fine_tune_epochs": 1,
    "fine_tune_layers": 2,
    "learning_rate": 0.01,
    "flips": False,
}
STEPS = 8  # an epoch


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_dir):
    """A run of both stages that nothing interrupted."""
    output = tmp_path_factory.mktemp("train") / "run"
    captioner.train("scenes:64", output, cache_dir=cache_dir, **SETTINGS)
    return output


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def state(output):
    checkpoint = tf.train.load_checkpoint(Checkpoints(output / "checkpoint").newest())
    names = checkpoint.get_variable_to_shape_map()
    values = {name: checkpoint.get_tensor(name) for name in sorted(names)}
    return {k: v for k, v in values.items() if isinstance(v, np.ndarray)}


def history(output):
    return json.loads((output / "history.json").read_text())["epochs"]


def read_json(path):
    return json.loads(path.read_text())


class Killed(BaseException):
    pass


def test_killed_between_two_stages(run, cache_dir, tmp_path, monkeypatch):
    """After the last checkpoint of one, and before the first of the next."""
    output, whole_step, steps = tmp_path / "run", Step.__call__, []

    def step(self, batch, seed):
        steps.append(seed)
        if len(steps) == STEPS + 3:
            raise Killed
        return whole_step(self, batch, seed)

    monkeypatch.setattr(Step, "__call__", step)
    with pytest.raises(Killed):
        captioner.train("scenes:64", output, cache_dir=cache_dir, **SETTINGS)
    monkeypatch.undo()
    assert [row["stage"] for row in history(output)] == ["crossentropy"]
    captioner.train(output=output, resume=True)
    expected = state(run)
    seeds = [v for v in expected.values() if v.dtype == np.int64 and v.shape == (2,)]
    assert len(seeds) > 3  # of dropout
    for name, value in state(output).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert history(output)[1]["loss"] == history(run)[1]["loss"]


def test_resume_needs_nothing_but_the_folder_and_extends_the_run(copy):
    command = ["train", "--resume", str(copy), "--fine-tune-epochs", "2"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.stderr
    rows = history(copy)
    assert [row["stage"] for row in rows] == ["crossentropy", *["fine_tuning"] * 2]
    recipe = read_json(copy / "recipe.json")
    assert recipe["train"]["fine_tune_epochs"] == 2
    assert recipe["changes"] == [{"after_epoch": 2, "fine_tune_epochs": [1, 2]}]
    # A short line for the epoch, with three captions, and how to clean up.
    lines = done.stdout.splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("epoch 3")]
    assert lines[place].startswith("epoch 3 (fine_tuning): loss ") and "e-" not in (
        lines[place].partition(": ")[2]
    )
    assert len(lines[place]) < 80
    assert all(line.startswith("    dev-") for line in lines[place + 1 : place + 4])
    assert lines[-1].endswith(f"captioner train --resume {copy} --clean")

    with pytest.raises(ValueError, match="is over.*epochs=9"):
        captioner.train(output=copy, resume=True, epochs=9)


def test_a_complete_run_is_cleaned_up(copy):
    captioner.train(output=copy, resume=True, clean=True)
    assert not (copy / "checkpoint").exists() and not (copy / "features").exists()
    captioner.ImageCaptioner.from_preset(copy / "preset")
    # It is still complete, and says why it cannot be extended.
    assert captioner.train(output=copy, resume=True) == copy / "preset"
    with pytest.raises(ValueError, match="deleted with --clean.*--init-from"):
        captioner.train(output=copy, resume=True, fine_tune_epochs=9)


def test_a_changed_dataset_is_refused_and_nothing_is_touched(copy):
    data = load_dataset("scenes:64")
    splits = {
        split: [dict(each) for each in data.examples(split)] for split in data.splits
    }
    # The words of each caption stay, so that the vocabulary does: its ids are another
    # image's.
    first, second = splits["train"][:2]
    first["captions"], second["captions"] = second["captions"], first["captions"]
    before = state(copy)
    with pytest.raises(ValueError, match="^the dataset changed since the training in"):
        captioner.train(CaptionDataset("scenes", splits), copy, resume=True)
    for name, value in state(copy).items():
        np.testing.assert_array_equal(value, before[name])


def test_damage_is_one_line(copy):
    (data,) = (copy / "checkpoint").glob("*.data*")
    damaged = bytearray(data.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    data.write_bytes(damaged)
    done = CliRunner().invoke(main, ["train", "--resume", str(copy)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert f"{data.name} has changed" in line and "--init-from" in line
    shutil.rmtree(copy / "checkpoint")
    with pytest.raises(ValueError, match="there is no checkpoint"):
        captioner.train(output=copy, resume=True)


def test_a_dataset_object_is_trained_on(cache_dir, tmp_path):
    data = load_dataset("scenes:64")
    settings = {**SETTINGS, "fine_tune_epochs": 0}
    captioner.train(data, tmp_path / "run", cache_dir=cache_dir, **settings)
    recipe = read_json(tmp_path / "run" / "recipe.json")
    assert recipe["train"]["dataset"] == data.name
    with pytest.raises(ValueError, match="began with a dataset object: pass it again"):
        captioner.train(output=tmp_path / "run", resume=True)
    captioner.train(data, tmp_path / "run", resume=True)
