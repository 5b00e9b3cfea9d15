"""Two devices, and two processes that talk over the loopback, do what one does."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from captioner.training.checkpoints import Checkpoints
from captioner.training.distribution import Distribution

SETTINGS = {
    "backbone": "efficientnet_lite2",
    "image_size": 64,
    "mixer": "transformer",
    "num_layers": 1,
    "hidden_dim": 16,
    "num_heads": 2,
    "dropout": 0.0,  # each device has its own
    "min_count": 1,
    "batch_size": 8,
    "epochs": 2,
    "clip_norm": 0.5,
    "learning_rate": 0.01,
}
PROGRAM = Path(__file__).with_name("train_distributed.py")


def start(output, cache_dir, devices=1, tf_config=None, **more):
    settings = [f"{k}={json.dumps(v)}" for k, v in {**SETTINGS, **more}.items()]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    if tf_config:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    command = [sys.executable, str(PROGRAM), str(devices), str(output), str(cache_dir)]
    return subprocess.Popen(
        [*command, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def start_two_workers(output, cache_dir, **more):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        start(
            output,
            cache_dir,
            tf_config={
                "cluster": {"worker": hosts},
                "task": {"type": "worker", "index": i},
            },
            distribute="multiworker",
            **more,
        )
        for i in range(2)
    ]


def finish(*processes):
    for process in processes:
        said = process.communicate(timeout=500)[0]
        assert process.returncode == 0, said


def history(output):
    return json.loads((output / "history.json").read_text())["epochs"]


def weights(output):
    """The variables in the last checkpoint of a run, in their order."""
    newest = Checkpoints(output / "checkpoint").newest()
    checkpoint = tf.train.load_checkpoint(newest)
    names = [n for n in checkpoint.get_variable_to_shape_map() if "variables/" in n]
    return [checkpoint.get_tensor(name) for name in sorted(names)]


def assert_same(output, expected):
    assert len(history(output)) == len(history(expected))
    for row, other in zip(history(output), history(expected)):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    found = weights(output)
    assert len(found) > 20
    for one, other in zip(found, weights(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache_dir):
    """A run of one process on one device."""
    output = tmp_path_factory.mktemp("alone") / "run"
    finish(start(output, cache_dir))
    return output


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"devices": 2, "distribute": "mirrored"}),
        pytest.param(
            {
                "devices": 2,
                "distribute": "mirrored",
                "gradient_accumulation": 2,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param({"gradient_accumulation": 4}, marks=pytest.mark.slow),
    ],
    ids=lambda more: "-".join(more),
)
def test_a_batch_in_parts_is_the_batch(alone, cache_dir, tmp_path, more):
    """On two devices, one after the other, and both."""
    finish(start(tmp_path / "run", cache_dir, **more))
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_two_processes_do_what_one_does(alone, cache_dir, tmp_path):
    finish(*start_two_workers(tmp_path / "run", cache_dir))
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_lost_worker_ends_a_run_that_can_go_on(alone, cache_dir, tmp_path):
    output = tmp_path / "run"
    chief, other = start_two_workers(output, cache_dir, checkpoint_minutes=0)
    until = time.monotonic() + 300
    while not list((output / "checkpoint").glob("ckpt-0-[3-9].index")):
        assert chief.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    other.kill()
    said = chief.communicate(timeout=300)[0]
    assert chief.returncode == 1
    assert "TrainingError: Another worker is gone" in said, said
    assert f"captioner train --resume {output}" in said, said
    finish(*start_two_workers(output, cache_dir, resume=True))
    assert_same(output, alone)


@pytest.mark.parametrize("config", ["", "{}", '{"cluster": {"worker": ["a:1"]}}'])
def test_workers_need_to_know_of_each_other(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="needs TF_CONFIG.*distribute=mirrored"):
        Distribution("multiworker")


def test_no_tpu_is_said():
    with pytest.raises(ValueError, match="There is no TPU"):
        Distribution("tpu")
