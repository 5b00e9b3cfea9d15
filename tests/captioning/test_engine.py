"""The model at work on batches: what does not fit is halved, a failure is one photo."""

import contextlib
import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tiny_captioner import SAMPLES, tiny_captioner
from trap import Trap

import captioner
import captioner.captioning.engine
from captioner.captioning.engine import BatchCaptioner, LocalEngine
from captioner.captioning.engine_options import EngineOptions
from captioner.captioning.run import Pending
from captioner.features import litert_network
from captioner.features.input_pipeline import image_batches
from captioner.images.decode_workers import DecodeWorkers
from captioner.images.image_files import ImageError
from captioner.images.photo_sources import find_photos


@pytest.fixture(scope="module")
def task():
    return tiny_captioner()


@pytest.fixture(scope="module")
def images(task):
    convert = task.preprocessor.image_converter
    return [
        convert(captioner.load_image(p, (64, 64)))
        for p in sorted(SAMPLES.glob("*.jpg"))
    ]


def network(model):
    """How the task of a `BatchCaptioner` encodes photos."""
    return model.task._network


def test_litert_gives_the_captions_of_the_graph(task, images):
    model = BatchCaptioner(task)
    features = network(model)(tf.stack(images))
    expected = task.encode(tf.stack(images)).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-3)
    assert [captions[0][0] for captions, _ in model(images)] == task.generate(
        sorted(map(str, SAMPLES.glob("*.jpg")))
    )
    # Other weights are another network.
    weight = task.caption_model.vision_backbone.weights[0]
    before = weight.numpy()
    weight.assign(before * 2)
    try:
        changed = network(BatchCaptioner(task))(tf.stack(images))
    finally:
        weight.assign(before)
    assert np.abs(changed - features).max() > 0.01


def test_without_a_litert_form_the_graph_goes_on(task, images, monkeypatch, caplog):
    BatchCaptioner(task)
    assert caplog.messages == []

    def fail(*_):
        raise RuntimeError("no LiteRT form:\nsome operation\nis not known")

    monkeypatch.setattr(litert_network, "_convert", fail)
    features = network(BatchCaptioner(task))(tf.stack(images))
    said = "The image network runs as a TensorFlow graph"
    (line,) = [each for each in caplog.messages if each.startswith(said)]
    assert line.endswith("no LiteRT form: some operation is not known")
    np.testing.assert_array_equal(features, task.encode(tf.stack(images)).numpy())


def test_all_ways_to_the_model_see_a_large_photo_alike(task, tmp_path):
    """Training, its cache, `generate`, the folder job and an export: one tensor."""
    convert = task.preprocessor.image_converter
    photos = []
    for number, path in enumerate(sorted(SAMPLES.glob("*.jpg"))[:3]):
        photo = tmp_path / f"{number}.jpg"
        size = [(3000, 2000), (1000, 1400), (130, 600)][number]
        pixels = cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(photo), pixels)
        photos.append(str(photo))
    expected = [convert(captioner.load_image(p, convert.image_size)) for p in photos]
    # It is another than that of the whole photo, or the test would say nothing.
    assert np.abs(expected[0] - convert(captioner.load_image(photos[0]))).max() > 1

    _, read = captioner.image_reader(photos, convert)
    np.testing.assert_array_equal(read(range(3)), expected)
    ((_, cached),) = image_batches(photos, convert, 3, pytest.fail)
    np.testing.assert_array_equal(cached, expected)
    model = BatchCaptioner(task)
    with DecodeWorkers(1) as workers:
        for photo, image in zip(find_photos(photos), expected):
            submitted = workers.submit(photo, image_size=lambda: model.image_size)
            decoded = submitted.result().pixels
            np.testing.assert_array_equal(model.resize(decoded), image)
    decode = tf.function(lambda data: convert(convert.decode(data)))
    for photo, image in zip(photos, expected):
        np.testing.assert_array_equal(decode(Path(photo).read_bytes()), image)
    features = task.encode(tf.stack(expected)).numpy()
    np.testing.assert_array_equal(task._features_of(photos), features)
    texts = [captions[0][0] for captions, _ in model(expected)]
    assert [r.caption for r in captioner.caption(photos, task)] == texts
    assert task.generate(photos) == texts


def test_pixels_are_dropped_as_soon_as_a_photo_is_converted(task):
    """In a batch of large photos they would fill the memory."""
    engine, kept = LocalEngine(lambda: task, EngineOptions(workers=2)), []
    resize = BatchCaptioner.resize

    def watched(self, pixels):
        kept.append(weakref.ref(pixels))
        return resize(self, pixels)

    class Model:
        """Stands for the model, which a batch reaches when all of it is converted."""

        def __call__(self, images):
            gc.collect()
            alive.append(sum(reference() is not None for reference in kept))
            return [([["a caption", 0.0]], None) for _ in images]

    with contextlib.closing(engine), pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchCaptioner, "resize", watched)
        loaded, alive, model = engine._loaded(), [], Model()
        model.resize, model.image_size = loaded.resize, loaded.image_size
        model.bytes_of = loaded.bytes_of
        engine._model = model
        batch = [Pending(0, photo, None) for photo in find_photos(SAMPLES)]
        ((_, outcomes),) = engine.run([batch])
    assert [outcome.captions[0][0] for outcome in outcomes] == ["a caption"] * 10
    assert len(kept) == 10 and alive == [0]


def test_converted_photos_of_large_batches_do_not_pile_up(task, monkeypatch):
    monkeypatch.setattr(captioner.captioning.engine, "MOST_BYTES_AHEAD", 64 * 64 * 12)
    engine = LocalEngine(lambda: task, EngineOptions(workers=1))
    begun = []

    def batches():
        for photo in find_photos(SAMPLES):
            begun.append(photo)
            yield [Pending(len(begun), photo, None)]

    with contextlib.closing(engine):
        found = engine.run(batches())
        for number in range(1, 11):
            next(found)
            if number > 4:  # by now it is known how large one is
                assert len(begun) <= number + 2


@pytest.mark.parametrize(
    "error",
    [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")],
    ids=["Python", "TensorFlow"],
)
def test_a_batch_that_does_not_fit_is_halved(task, images, error, monkeypatch):
    model = BatchCaptioner(task)
    expected, write, sizes = model(images), model.task.write, []

    def small(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return write(batch)

    monkeypatch.setattr(model.task, "write", small)
    found = model(images)
    assert [c[0][0] for c in found] == [c[0][0] for c in expected]
    assert sizes == [10, 5, 3, 2, 5, 3, 2]
    sizes.clear()
    model(images)  # it has learnt what fits
    assert sizes == [3, 3, 3, 1]


def test_what_the_model_cannot_do_is_one_photo(task, images, monkeypatch):
    model = BatchCaptioner(task)
    write, bad = model.task.write, images[4].numpy()

    def picky(batch):
        if any((each.numpy() == bad).all() for each in batch):
            raise tf.errors.InvalidArgumentError(None, None, "not\nthis")
        return write(batch)

    monkeypatch.setattr(model.task, "write", picky)
    found = model(images)
    assert [isinstance(each, ImageError) for each in found] == [
        i == 4 for i in range(10)
    ]
    assert found[4].kind == "failed" and "\n" not in str(found[4])


def test_several_captions(task):
    (result,) = captioner.caption(SAMPLES / "coffee.jpg", task, num_captions=3)
    assert len(set(result.captions)) == len(result.scores) == 3
    assert result.caption == result.captions[0]
    assert list(result.scores) == sorted(result.scores, reverse=True)
    greedy = captioner.GreedySampler()
    with pytest.raises(ValueError, match="GreedySampler .*num_captions=2"):
        list(captioner.caption(SAMPLES, task, sampler=greedy, num_captions=2))


@pytest.mark.slow
def test_ray_gives_the_same_outputs_and_a_lost_worker_costs_nothing(
    task, tmp_path, monkeypatch
):
    ray = pytest.importorskip("ray", reason="pip install captioner[ray]")
    preset = task.save_to_preset(tmp_path / "tiny")
    for number in range(30):
        photo = sorted(SAMPLES.glob("*.jpg"))[number % 10]
        shutil.copy(photo, tmp_path / f"{number:02}.jpg")
    (tmp_path / "07b.jpg").write_bytes(b"\xff\xd8\xff")
    names = ["captions.csv", "captions.jsonl"]

    def run(folder, **arguments):
        (tmp_path / folder).mkdir()
        outputs = [tmp_path / folder / name for name in names]
        photos = sorted(tmp_path.glob("*.jpg"))
        list(captioner.caption(photos, preset, outputs, batch_size=3, **arguments))
        return [path.read_bytes() for path in outputs]

    expected = run("local")
    # So that the processes find `trap` and this package.
    places = [str(Path(__file__).parents[1]), str(Path(captioner.__file__).parents[1])]
    ray.init(
        num_cpus=2,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(places)}},
    )
    flag = tmp_path / "lost"
    kill = f"""
import os, pathlib
if not pathlib.Path({str(flag)!r}).exists():
    pathlib.Path({str(flag)!r}).touch()
    os.kill(os.getppid(), {int(signal.SIGKILL)})
"""

    def with_a_trap(*arguments):
        for photo in find_photos(*arguments):
            yield Trap(**vars(photo), action=kill * (photo.relative == "17.jpg"))

    module = importlib.import_module("captioner.captioning.caption")
    monkeypatch.setattr(module, "find_photos", with_a_trap)
    try:
        found = run("ray", engine="ray", workers=1)
    finally:
        ray.shutdown()
    assert flag.exists() and found == expected


RAY_AMONG_PLANTED_MODULES = """
import sys
import captioner
results = captioner.caption(sys.argv[1], sys.argv[2], engine="ray", workers=1)
print(next(iter(results)).caption)
"""


@pytest.mark.slow
def test_ray_runs_no_code_from_the_working_folder(task, tmp_path):
    pytest.importorskip("ray", reason="pip install captioner[ray]")
    preset = task.save_to_preset(tmp_path / "tiny")
    folder, mark = tmp_path / "photos", tmp_path / "ran"
    folder.mkdir()
    mark.mkdir()
    for name in ("cv2", "numpy", "click", "keras", "sitecustomize", "ai_edge_litert"):
        (folder / f"{name}.py").write_text(f"open({str(mark / name)!r}, 'w').close()")
    root = str(Path(captioner.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", RAY_AMONG_PLANTED_MODULES]
        + [str(SAMPLES / "coffee.jpg"), str(preset)],
        cwd=folder,
        # The working folder is not there for this process, which is none of ours, but
        # Ray would hand it to its processes.
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == task.generate(SAMPLES / "coffee.jpg")
    assert list(mark.iterdir()) == []


def test_ray_wants_a_preset_that_each_machine_can_load(task):
    with pytest.raises(ValueError, match="With engine=ray, preset must be a name"):
        captioner.caption(SAMPLES, task, engine="ray")


def test_a_run_that_is_refused_costs_nothing_that_is_known(task, tmp_path):
    output = tmp_path / "captions.csv"
    expected = list(captioner.caption(SAMPLES, task, output))
    with pytest.raises(ValueError, match="With engine=ray"):
        captioner.caption(
            SAMPLES, task, output, existing="overwrite", num_captions=2, engine="ray"
        )
    found = captioner.caption(SAMPLES, task, output, dry_run=True)
    assert [result.kind for result in found] == ["done"] * len(expected)


def test_decoding_processes_end_with_the_run(task, tmp_path):
    results = captioner.caption(SAMPLES, task, batch_size=2)
    next(results)

    def children():  # of all threads
        return {
            child
            for file in Path("/proc/self/task").glob("*/children")
            for child in file.read_text().split()
            if b"decode_workers" in Path("/proc", child, "cmdline").read_bytes()
        }

    assert children()
    results.close()
    assert not children()


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"batch_size": -1}, {"time_limit": 0.0}]
)
def test_engine_options_check_themselves(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} must be above 0. Received: {name}="):
        EngineOptions(**options)
    assert EngineOptions().workers >= 1
