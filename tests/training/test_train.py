"""`captioner.train`: what it writes, what it refuses, and that it can be stopped."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import captioner
from captioner.datasets import load_dataset
from captioner.images.image_views import augment
from captioner.training.checkpoints import Checkpoints
from captioner.training.step import Step
from captioner.training.training_options import TrainingOptions
from captioner.training.training_run import TrainingError

SETTINGS = {
    "backbone": "efficientnet_lite2",
    "weights": "imagenet",  # to random ones all photos are alike
    "image_size": 64,
    "num_layers": 1,
    "hidden_dim": 16,
    "min_count": 1,
    "batch_size": 8,
    "epochs": 3,
    "learning_rate": 0.01,
    "fine_tune_epochs": 1,
    "fine_tune_layers": 2,
    "cider_epochs": 1,
    "cider_crossentropy": 0.1,
    "flips": True,
    "augmentations": 1,
}
PLAIN = {
    **SETTINGS,
    "fine_tune_epochs": 0,
    "cider_epochs": 0,
    "flips": False,
    "augmentations": 0,
}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Backbone features that all runs of this file share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_dir):
    """A run that nothing interrupted."""
    output = tmp_path_factory.mktemp("train") / "run"
    preset = captioner.train("scenes:64", output, cache_dir=cache_dir, **SETTINGS)
    assert preset == output / "preset"
    return output


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def history(output):
    """A run's history, without the times."""
    rows = read_json(output / "history.json")["epochs"]
    times = ("seconds", "reward_share")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def newest(output):
    """The path of a run's last checkpoint."""
    return Checkpoints(output / "checkpoint").newest()


def state(output):
    """All that the last checkpoint of a run holds: name -> array."""
    checkpoint = tf.train.load_checkpoint(newest(output))
    names = checkpoint.get_variable_to_shape_map()
    values = {name: checkpoint.get_tensor(name) for name in sorted(names)}
    return {k: v for k, v in values.items() if isinstance(v, np.ndarray)}


def assert_same_run(output, expected):
    assert history(output) == history(expected)
    values, expected_values = state(output), state(expected)
    assert values.keys() == expected_values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, expected_values[name], err_msg=name)
    weights = preset_weights(output)
    for name, value in preset_weights(expected).items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)
    assert (output / "recipe.json").read_bytes() == (
        expected / "recipe.json"
    ).read_bytes()


def preset_weights(output):
    with h5py.File(output / "preset" / "model.weights.h5") as file:
        values = {}
        file.visititems(
            lambda name, item: (
                values.update({name: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert len(values) > 100
    return values


def test_a_run_writes_all_that_it_promises(run):
    names = {path.name for path in run.iterdir()}
    # No features: they are in `cache_dir`.
    wanted = {"preset", "recipe.json", "history.json", "checkpoint", "tensorboard"}
    wanted |= {"run.json", ".lock"}
    assert names == wanted
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    recipe = read_json(run / "recipe.json")
    assert recipe["train"].items() >= {"dataset": "scenes:64", **SETTINGS}.items()
    assert recipe["train"]["seed"] == 0
    names = {field.name for field in dataclasses.fields(TrainingOptions)}
    assert recipe["train"].keys() == {"dataset", *names}
    # What depended on other options or on the data is there as it was used.
    used = {"fusion": "attention", "learning_rate": 0.01, "init_from": None}
    assert recipe["train"].items() >= used.items()
    assert recipe["versions"]["keras_version"] == keras.__version__


def test_history_has_loss_and_dev_scores_of_each_epoch(run):
    rows = read_json(run / "history.json")["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    *stages, last = [row["stage"] for row in rows]
    assert stages == ["crossentropy"] * 3 + ["fine_tuning"] and last == "cider"
    dev = {"dev_bleu_4", "dev_cider", "dev_distinct", "dev_length"}
    dev |= {"dev_bad_endings", "dev_repeated_phrases"}
    both = {"epoch", "stage", "loss", "seconds", *dev}
    for row in rows[:4]:
        assert row.keys() == {*both, "real_tokens"}
        assert 0.5 < row["real_tokens"] <= 1
    assert rows[2]["loss"] < rows[0]["loss"] < np.log(40)
    assert rows[4].keys() == {*both, "reward", "reward_share"}
    assert 0 < rows[4]["reward"] < 10 and 0 < rows[4]["reward_share"] < 1


def test_tensorboard_shows_the_same_curves(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "train"))
    events.Reload()
    for row in read_json(run / "history.json")["epochs"]:
        for name in ("loss", "dev_bleu_4", "dev_cider"):
            (event,) = [
                event
                for event in events.Tensors(f"epoch_{name}")
                if event.step == row["epoch"] - 1
            ]
            value = tf.make_ndarray(event.tensor_proto)
            assert value == pytest.approx(row[name], rel=1e-6)


def test_the_preset_is_the_best_epoch_and_says_so(run):
    rows = history(run)
    best = max(rows, key=lambda row: row["dev_cider"])
    scores = read_json(run / "preset" / "scores.json")
    sampler = {"sampler": "BeamSampler", "num_beams": 3, "length_penalty": 0.7}
    assert scores.items() >= {"split": "dev", **sampler, **best}.items()
    assert read_json(run / "preset" / "recipe.json")["best_epoch"] == best["epoch"]
    card = (run / "preset" / "README.md").read_text(encoding="utf-8")
    assert f"CIDEr {best['dev_cider']:.3f}" in card and "`scenes:64`" in card
    assert all(line.count("|") in (0, 3) for line in card.splitlines())

    # The scores are those of the preset as anybody loads it.
    evaluation = captioner.evaluate(run / "preset", "scenes:64", "dev")
    # Features are float16 in training; a near tie may turn to another word.
    assert evaluation.scores["cider"] == pytest.approx(best["dev_cider"], abs=0.02)
    assert evaluation.scores["bleu_4"] == pytest.approx(best["dev_bleu_4"], abs=0.005)


def test_what_is_kept_is_the_average_of_the_weights(run, cache_dir, tmp_path):
    last = tmp_path / "last"
    settings = {**PLAIN, "epochs": 1}
    captioner.train("scenes:64", last, cache_dir=cache_dir, ema_epochs=0, **settings)
    mean = tmp_path / "mean"
    captioner.train("scenes:64", mean, cache_dir=cache_dir, ema_epochs=1, **settings)
    # Same steps, and the average is on its way from the start (zero) to the last.
    assert history(last)[0]["loss"] == history(mean)[0]["loss"]
    bias = "layers/dense/vars/1"  # of the logits
    last, mean = preset_weights(last)[bias], preset_weights(mean)[bias]
    assert 0.3 < np.vdot(mean, last) / np.vdot(last, last) < 0.95


def test_the_vocabulary_is_that_of_the_training_split(run):
    loaded = captioner.ImageCaptioner.from_preset(run / "preset")
    words = {
        word
        for example in load_dataset("scenes:64").examples("train")
        for caption in example["captions"]
        for word in caption.split()
    }
    assert set(loaded.preprocessor.tokenizer.vocabulary[4:]) == words
    assert type(loaded.sampler) is captioner.BeamSampler


def flags(settings):
    """The same arguments for the command line."""
    words = []
    for name, value in settings.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value).lower()]
    return words


def start(output, *more):
    """A run as a user starts it, in a process of its own."""
    command = [sys.executable, "-m", "captioner", "train", "scenes:64", str(output)]
    return subprocess.Popen(
        # What runs in the background of a shell ignores Ctrl-C, and so do its children.
        ["env", "--default-signal=INT", *command, *flags(SETTINGS), *map(str, more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process, output, step):
    """Until the run has written the checkpoint of a step, or of a later one."""
    while process.poll() is None:
        for index in (output / "checkpoint").glob("ckpt-*.index"):
            if int(index.stem.rpartition("-")[2]) >= step:
                return
        time.sleep(0.002)
    raise AssertionError(f"ended before step {step}: {process.stdout.read()}")


# An epoch has 8 steps; the fourth is one of fine-tuning, the fifth of CIDEr.
@pytest.mark.parametrize(
    "step, end",
    [
        pytest.param(3, signal.SIGKILL, marks=pytest.mark.exhaustive),
        (11, signal.SIGKILL),
        pytest.param(16, signal.SIGKILL, marks=pytest.mark.exhaustive),
        pytest.param(24, signal.SIGKILL, marks=pytest.mark.exhaustive),
        pytest.param(27, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(32, signal.SIGKILL, marks=pytest.mark.exhaustive),
        pytest.param(35, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(10, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(run, cache_dir, tmp_path, step, end):
    output = tmp_path / "run"
    # With a checkpoint after each step, to be stopped between any two of them.
    process = start(output, "--cache-dir", cache_dir, "--checkpoint-minutes", 0)
    wait_for_step(process, output, step)
    process.send_signal(end)
    said = process.communicate()[0]
    assert process.returncode == (-end if end == signal.SIGKILL else 130), said
    if end == signal.SIGINT:
        assert said.rstrip().endswith("interrupted") and "Traceback" not in said
        assert f"continue with: captioner train --resume {output}" in said
    left = [path.stem for path in (output / "checkpoint").glob("ckpt-*.index")]
    assert max(int(name.rpartition("-")[2]) for name in left) < 40

    captioner.train("scenes:64", output, cache_dir=cache_dir, resume=True, **SETTINGS)
    assert_same_run(output, run)


def test_resuming_a_finished_run_changes_nothing(run, cache_dir, capsys):
    files = [path for path in run.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    captioner.train("scenes:64", run, cache_dir=cache_dir, resume=True, **SETTINGS)
    assert {path: path.read_bytes() for path in before} == before
    assert "resumed after epoch 5" in capsys.readouterr().out


def test_training_ends_when_cider_no_longer_rises(cache_dir, tmp_path):
    still = {**PLAIN, "learning_rate": 0.0, "epochs": 9, "patience": 2}
    output = tmp_path / "run"
    captioner.train("scenes:64", output, cache_dir=cache_dir, **still)
    assert [row["epoch"] for row in history(output)] == [1, 2, 3]
    assert read_json(output / "preset" / "scores.json")["epoch"] == 1


def test_resume_names_the_options_that_differ(run):
    other = {**SETTINGS, "hidden_dim": 32, "seed": 5}
    with pytest.raises(ValueError, match="hidden_dim=16") as raised:
        captioner.train("scenes:64", run, resume=True, **other)
    assert "seed=0" in str(raised.value) and "batch_size" not in str(raised.value)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="no training to resume in .*nowhere"):
        captioner.train("scenes:64", tmp_path / "nowhere", resume=True, **SETTINGS)
    assert not (tmp_path / "nowhere").exists()


def test_an_output_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for output in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="is not empty"):
            captioner.train("scenes:64", output, **SETTINGS)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("dataset", "nowhere.csv", "nowhere.csv"),
        ("backbone", "vgg17", "architecture=vgg17"),
        ("weights", "nowhere.weights.h5", "nowhere.weights.h5"),
        ("image_size", 0, "image_size=0"),
        ("resize_mode", "stretch", "resize_mode=stretch"),
        ("mixer", "gru", "mixer=gru"),
        ("fusion", "glue", "fusion=glue"),
        ("batch_size", 0, "batch_size=0"),
        ("epochs", 0, "only with init_from and fine_tune_epochs or .*epochs=0"),
        ("recipe", "secret", "recipe=secret"),
        ("fine_tune_layers", 99, "efficientnet_lite2 has 64 layers to train.*99"),
        ("fine_tune_learning_rate", -1.0, "fine_tune_learning_rate=-1.0"),
        ("max_sequence_length", 1, "max_sequence_length=1"),
        ("dropout", 1.0, "dropout=1.0"),
        ("label_smoothing", -0.1, "label_smoothing=-0.1"),
        ("learning_rate", float("nan"), "learning_rate=nan"),
        ("weight_decay", float("inf"), "weight_decay=inf"),
        ("ema_epochs", -1.0, "ema_epochs=-1.0"),
        ("clip_norm", -1.0, "clip_norm=-1.0"),
        ("cider_samples", 1, "cider_samples must be 2 or more"),
        ("cider_crossentropy", 1.0, "cider_crossentropy=1.0"),
        ("checkpoint_minutes", -1.0, "checkpoint_minutes=-1.0"),
        ("mixed_precision", "float8", "mixed_precision=float8"),
        ("distribute", "horovod", "distribute=horovod"),
        ("distribute", "multiworker", "needs TF_CONFIG.*distribute=mirrored"),
        ("distribute", "tpu", "not run on a TPU.*init_from, epochs=0"),
        ("gradient_accumulation", 3, "nearest is 9.*batch_size=8"),
        ("init_from", "nowhere", "No preset 'nowhere'"),
        ("num_heads", 5, "nearest that does is 4.*num_heads=5"),
        ("pooling", "avg", "Attention needs a grid.*additive"),
    ],
)
def test_a_mistake_is_named_and_leaves_the_output_free(tmp_path, name, value, message):
    arguments = {"dataset": "scenes:64", **SETTINGS, name: value}
    if name in ("num_heads", "pooling"):
        arguments["fusion"] = "attention"
    with pytest.raises((ValueError, OSError), match=message):
        captioner.train(output=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_an_exploding_loss_stops_the_run_and_says_where(cache_dir, tmp_path):
    wild = {**PLAIN, "learning_rate": 1e30, "clip_norm": 0.0}
    with pytest.raises(TrainingError) as raised:
        captioner.train(
            "scenes:64",
            tmp_path / "run",
            cache_dir=cache_dir,
            checkpoint_minutes=0,
            **wild,
        )
    found = re.match(
        r"The (loss|gradient) is \S+ after step (\d) of epoch 1, with the images "
        r"(.*)\. The training can go on .*: captioner train --resume (\S+)\. A lower",
        str(raised.value),
    )
    assert found, raised.value
    assert len(set(re.findall(r"train-\d{6}", found[3]))) == 8
    assert found[4] == str(tmp_path / "run")
    assert newest(tmp_path / "run").endswith(f"ckpt-0-{int(found[2]) - 1}")
    kept = tf.train.load_checkpoint(newest(tmp_path / "run"))
    names = [n for n in kept.get_variable_to_shape_map() if n.startswith("variables")]
    assert all(np.isfinite(kept.get_tensor(name)).all() for name in names)


def test_out_of_memory_says_what_to_try(cache_dir, tmp_path, monkeypatch):
    def step(self, batch, seed):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(Step, "__call__", step)
    with pytest.raises(TrainingError, match="batch_size=4, or gradient_accumulation=2"):
        captioner.train("scenes:64", tmp_path / "run", cache_dir=cache_dir, **PLAIN)


def test_cider_optimisation_can_go_on_from_a_preset(run, cache_dir, tmp_path):
    more = {"epochs": 0, "init_from": run / "preset", "fine_tune_epochs": 0}
    more["cider_learning_rate"] = 0.0
    output = tmp_path / "run"
    settings = {**SETTINGS, **more}
    del settings["weights"]  # the preset's own
    captioner.train("scenes:64", output, cache_dir=cache_dir, **settings)
    (row,) = history(output)
    assert row["stage"] == "cider"
    # A rate of 0 leaves the weights as they were.
    best = max(history(run), key=lambda row: row["dev_cider"])
    assert row["dev_cider"] == pytest.approx(best["dev_cider"])


def test_larger_photos_can_go_on_from_a_preset(run, cache_dir, tmp_path):
    settings = {**PLAIN, "init_from": run / "preset", "image_size": 96, "epochs": 1}
    del settings["weights"]  # the preset's own
    preset = captioner.train(
        "scenes:64", tmp_path / "run", cache_dir=cache_dir, **settings
    )
    larger = captioner.ImageCaptioner.from_preset(preset)
    assert larger.preprocessor.image_converter.image_size == (96, 96)
    assert larger.caption_model.image_feature_shape == (9, 1280)
    assert "96 x 96 pixels" in (preset / "README.md").read_text(encoding="utf-8")


def test_fine_tuning_moves_the_last_layers_and_nothing_before_them(run, tmp_path):
    output = tmp_path / "run"
    settings = {**PLAIN, "epochs": 0, "init_from": run / "preset"}
    del settings["weights"]  # the preset's own
    settings |= {"fine_tune_epochs": 2, "fine_tune_learning_rate": 1e-3}
    preset = captioner.train("scenes:64", output, **settings)
    # It looks at the photos themselves: features would be computed for nothing.
    assert not list((output / "features").rglob("*.npy"))
    rows = history(output)
    assert [row["stage"] for row in rows] == ["fine_tuning"] * 2

    before, after = (
        captioner.ImageCaptioner.from_preset(each).caption_model.vision_backbone
        for each in (run / "preset", preset)
    )
    assert after.trainable_weights == []
    moved = {
        weight.path.partition("/")[0]
        for weight, old in zip(after.network.weights, before.network.weights)
        if not np.array_equal(weight, old)
    }
    after.unfreeze(2)
    assert moved == {
        weight.path.partition("/")[0] for weight in after.trainable_weights
    }
    assert len(moved) == 2
    card = (preset / "README.md").read_text(encoding="utf-8")
    assert "the last 2 layers fine-tuned" in card
    # The scores are those of the network as it is kept, not of features of before.
    captions = captioner.evaluate(preset, "scenes:64", "dev").captions.values()
    best = max(rows, key=lambda row: row["dev_cider"])
    lengths = [len(caption.split()) for caption in captions]
    assert np.mean(lengths) == pytest.approx(best["dev_length"], rel=1e-6)
    assert len(set(captions)) / len(captions) == best["dev_distinct"]


def test_photos_are_changed_anew_by_each_seed():
    photos = np.random.default_rng(0).uniform(0, 255, (3, 24, 32, 3)).astype("float32")
    first, again, other = (np.array(augment(photos, [s, 0])) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == photos.shape and 0 <= first.min() < first.max() <= 255
    for one, two in ((first, other), (first, photos)):
        assert (np.abs(one - two).mean(axis=(1, 2, 3)) > 1).all()  # each of them
    # Mildly: a grey photo stays grey, and about as bright.
    grey = augment(np.full((8, 24, 32, 3), 128, "float32"), [1, 0])
    assert np.ptp(grey, axis=(1, 2, 3)).max() < 1e-3
    assert np.abs(grey - 128.0).max() <= 0.1 * 255 + 1e-3


def test_fewer_photos_than_a_batch_are_refused(cache_dir, tmp_path):
    with pytest.raises(ValueError, match="only 64 images.*batch_size=65"):
        captioner.train(
            "scenes:64",
            tmp_path / "run",
            cache_dir=cache_dir,
            **{**SETTINGS, "batch_size": 65},
        )


def test_unreadable_photos_are_named_and_left_out(tmp_path, cache_dir, capsys):
    lines = []
    for split, number in (("train", 10), ("dev", 3)):
        for example in load_dataset("scenes:64").examples(split)[:number]:
            file = tmp_path / f"{example['image/id']}.png"
            file.write_bytes(tf.io.encode_png(example["image"]).numpy())
            lines.append(f"{file.name},{example['captions'][0]},{split}\n")
    (tmp_path / "train-000004.png").write_bytes(b"")
    (tmp_path / "dev-000001.png").write_text("not a picture")
    table = tmp_path / "captions.csv"
    table.write_text("image,caption,split\n" + "".join(lines))
    captioner.train(
        table,
        tmp_path / "run",
        cache_dir=cache_dir,
        **{**PLAIN, "epochs": 1, "batch_size": 9},
    )
    left_out = capsys.readouterr().err
    assert left_out.count("left out:") == 2
    assert "train-000004.png: the file is empty" in left_out
    assert "dev-000001.png: not an image" in left_out
    assert len(history(tmp_path / "run")) == 1


def test_fit_from_photos_as_in_a_notebook():
    examples = load_dataset("scenes:64").examples("train")[:16]
    captions = [example["captions"] for example in examples]
    tokenizer = captioner.Tokenizer.from_captions(text for [text] in captions)
    converter = captioner.ImageConverter((32, 32))
    backbone = captioner.VisionBackbone("mobilenet", (32, 32), weights=None)
    model = captioner.ImageCaptioner(
        captioner.CaptionModel(
            tokenizer.vocabulary_size,
            backbone.feature_shape,
            backbone,
            hidden_dim=16,
        ),
        captioner.CaptionPreprocessor(converter, tokenizer, 12),
    )
    reader = captioner.image_reader([e["image"] for e in examples], converter)
    batches, steps = captioner.training_batches(reader, captions, 8, epochs=3, seed=1)
    assert steps == 2
    frozen = [weight.numpy() for weight in backbone.weights]
    model.compile(optimizer=keras.optimizers.Adam(0.01), sampler="greedy")
    history = model.fit(
        batches,
        steps_per_epoch=steps,
        epochs=3,
        validation_data=batches.take(2),
        verbose=0,
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(history["val_loss"]) == 3
    for before, weight in zip(frozen, backbone.weights):
        np.testing.assert_array_equal(before, weight)
    texts = model.generate([example["image"] for example in examples[:3]])
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)


def test_an_epoch_of_a_mix_sees_the_images_of_a_part_as_often_as_its_weight(tmp_path):
    # 3 scenes twice and 5 once make 11, which is too few for the batch.
    with pytest.raises(ValueError, match="only 11 images to train on"):
        captioner.train(
            "mix:scenes:3*2+scenes:5", tmp_path / "run", **{**PLAIN, "batch_size": 12}
        )


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            ["{}.jpg,一个女孩在草地上跳舞,train"],
            "20 of 20 captions are written without sp",
        ),
        (["{}.jpg,a dog runs,train"], "no dev split, .* --dev-fraction 0.1 takes"),
    ],
)
def test_a_dataset_that_cannot_make_a_captioner_is_refused(tmp_path, rows, message):
    lines = ["image,caption,split"]
    for number in range(20):
        (tmp_path / f"{number}.jpg").touch()
        lines += [row.format(number) for row in rows]
    path = tmp_path / "c.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        captioner.train(path, tmp_path / "run", **PLAIN)
    assert not (tmp_path / "run").exists()
