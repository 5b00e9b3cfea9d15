"""Captioners that are copied, pickled, and used in other processes and settings."""

import copy
import os
import pickle
import re
import subprocess
import sys

import pytest

import captioner
from captioner import keras_settings


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))[:2]


@pytest.mark.parametrize(
    "again", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(tiny_captioner, photos, again):
    made = tiny_captioner.replaced("greedy")
    found = again(made)
    assert type(found.sampler) is type(made.sampler)
    assert found.generate(photos) == made.generate(photos)
    assert found.fingerprint() == made.fingerprint()
    if again is not copy.copy:
        weight = found.caption_model.weights[-1]
        weight.assign(weight + 1.0)
        assert found.fingerprint() != made.fingerprint()
    both = again(captioner.EnsembleCaptioner([made, made]))
    assert both.generate(photos) == made.generate(photos)


GOLDEN = "golden/version_0_1_0/lstm_additive"

FORKED = """
import os, sys
import numpy as np
import captioner
made = captioner.ImageCaptioner.from_preset(sys.argv[1])
features = np.zeros((1, 4, 12), "float32")
made.generate(features)
child = os.fork()
if not child:
    for use in (
        lambda: made.generate(features),
        lambda: made.write([]),
        lambda: captioner.ImageCaptioner.from_preset(sys.argv[1]),
    ):
        try:
            use()
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(made.generate(features) is not None, flush=True)
"""


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_a_forked_process_refuses_instead_of_hanging(repository):
    done = run(FORKED, repository / "tests" / GOLDEN)
    *refused, parent = done.stdout.splitlines()
    assert len(refused) == 3 and parent == "True", done.stderr
    assert all("forked" in line and "spawn" in line for line in refused)


BEFORE_THE_FORK = """
import os, sys
import numpy as np
import captioner
captioner.ImageCaptioner
child = os.fork()
made = captioner.ImageCaptioner.from_preset(sys.argv[1])
made.generate(np.zeros((1, 4, 12), "float32"))
if not child:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_forked_before_use_works(repository):
    done = run(BEFORE_THE_FORK, repository / "tests" / GOLDEN)
    assert done.stdout == "0\n", done.stderr


LOAD = """
import sys
import captioner
try:
    captioner.ImageCaptioner
    {}
    captioner.ImageCaptioner.from_preset(sys.argv[1])
    print("loaded")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("environment", "setting", "complaint"),
    [
        ({"KERAS_BACKEND": "jax"}, "", "KERAS_BACKEND=tensorflow .*Received: jax"),
        (
            {},
            'import keras; keras.config.set_image_data_format("channels_first")',
            'set_image_data_format\\("channels_last"\\)',
        ),
        ({}, 'import keras; keras.config.set_floatx("float64")', "set_floatx"),
        ({}, "", "loaded"),
    ],
    ids=["backend", "channels", "floats", "as it is"],
)
def test_settings_of_keras(repository, environment, setting, complaint):
    preset = repository / "tests" / GOLDEN
    done = run(LOAD.format(setting), preset, **environment)
    assert len(done.stdout.splitlines()) == 1, done.stderr
    assert re.search(complaint, done.stdout)


def test_every_public_name_refuses_another_backend_in_one_line():
    script = """
import captioner
for name in captioner.__all__:
    try:
        getattr(captioner, name)
    except ValueError as error:
        assert "Received: jax" in str(error)
        print(name)
"""
    done = run(script, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    refused = set(done.stdout.split())
    assert {"ImageCaptioner", "ImageConverter", "samplers", "train"} < refused
    assert not {"caption", "load_dataset", "CaptionScorer", "load_image"} & refused


def test_the_command_line_sets_what_it_needs(repository, tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"backend": "jax", "image_data_format": "channels_first", "floatx": "float64"}'
    )
    photo = repository / "data" / "samples" / "coffee.jpg"
    command = "from captioner.cli import main; import sys; main(sys.argv[1:])"
    for environment in ({"KERAS_BACKEND": "torch"}, {"KERAS_HOME": str(tmp_path)}):
        done = run(command, "caption", photo, **environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout.startswith(f"{photo}\t")


def test_the_file_of_keras_is_read_without_keras(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras_settings.check_backend()  # there is no file
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    with pytest.raises(ValueError, match="Received: torch"):
        keras_settings.check_backend()
    (tmp_path / "keras.json").write_text("[no JSON")
    keras_settings.check_backend()
