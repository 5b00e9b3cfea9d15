"""Checkpoints: one whole state at any moment, and damage is noticed."""

import shutil

import pytest
import tensorflow as tf

from captioner.training.checkpoints import Checkpoints, DamagedCheckpoint


def state(value):
    return tf.train.Checkpoint(value=tf.Variable(float(value)))


def value_of(checkpoints):
    restored = state(-1)
    restored.read(checkpoints.newest())
    return float(restored.value)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoint")
    made.save(state(3), epochs=1, steps=3)
    return made


def test_the_last_state_is_kept_and_no_other(checkpoints):
    assert Checkpoints(checkpoints.folder / "nowhere").newest() is None
    checkpoints.save(state(4), epochs=1, steps=4)
    assert value_of(checkpoints) == 4
    names = {path.name.partition(".")[0] for path in checkpoints.folder.iterdir()}
    assert names == {"checkpoint", "ckpt-1-4"}


def test_a_kill_while_the_next_one_is_written_leaves_the_last_one(checkpoints):
    for path in list(checkpoints.folder.glob("ckpt-1-3.*")):
        half = path.with_name(path.name.replace("1-3", "1-4"))
        half.write_bytes(path.read_bytes()[:10])
    assert value_of(checkpoints) == 3
    checkpoints.save(state(4), epochs=1, steps=4)
    assert value_of(checkpoints) == 4


def test_every_flipped_byte_is_noticed(checkpoints):
    for path in checkpoints.folder.iterdir():
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 9)):
            damaged = bytearray(whole)
            damaged[place] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(DamagedCheckpoint, match="checkpoint is damaged: "):
                checkpoints.newest()
        path.write_bytes(whole)
    assert value_of(checkpoints) == 3


def test_every_missing_file_is_noticed(checkpoints, tmp_path):
    for path in checkpoints.folder.iterdir():
        kept = shutil.move(path, tmp_path / "kept")
        with pytest.raises(DamagedCheckpoint, match=f"{path.name} is missing.*preset"):
            checkpoints.newest()
        shutil.move(kept, path)
    assert value_of(checkpoints) == 3
