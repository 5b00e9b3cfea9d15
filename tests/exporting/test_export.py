"""`captioner.export`: a SavedModel that runs where this package is not."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tiny_captioner import SAMPLES, tiny_captioner

import captioner
from captioner.cli import main

PHOTOS = sorted(SAMPLES.glob("*.jpg"))
SHIPPED = "efficientnet_lite2_lstm_flickr8k"


@pytest.fixture(scope="module", params=["tiny", SHIPPED])
def task(request, repository):
    if request.param == "tiny":
        return tiny_captioner()
    if not (repository / "models" / SHIPPED / "config.json").is_file():
        pytest.skip(f"models/{SHIPPED} is not there")
    return captioner.ImageCaptioner.from_preset(SHIPPED)


@pytest.fixture(scope="module")
def exported(task, tmp_path_factory):
    output = tmp_path_factory.mktemp("export") / "deep" / "exported"
    assert captioner.export(task, output) == output
    return output


def expected(task, paths=PHOTOS):
    results = list(captioner.caption(paths, task))
    return [r.caption for r in results], [r.score for r in results]


# Captions photos in two batches, in a process where captioner cannot be imported.
SERVE = """
import json, sys
sys.modules["captioner"] = None  # "import captioner" is an ImportError from here on
try:
    import captioner.tasks.image_captioner
except ImportError:
    pass
else:
    sys.exit("captioner can be imported here")
import tensorflow as tf
folders = json.loads(sys.argv[1])
photos = [open(path, "rb").read() for path in sys.argv[2:]]
found = []
for folder in folders:
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    captions, scores = [], []
    for batch in (photos[:2], photos[2:]):  # no more than captioner takes at once
        output = serve(image_bytes=tf.constant(batch))
        captions += [caption.decode() for caption in output["captions"].numpy()]
        scores += output["scores"].numpy().tolist()
    found.append([captions, scores])
assert not any(name.startswith("captioner.") for name in sys.modules)
print(json.dumps(found))
"""


def served(folders, tmp_path):
    """Captions and scores of all photos by SavedModels, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    folders = json.dumps([str(folder) for folder in folders])
    done = subprocess.run(
        [sys.executable, "-c", SERVE, folders, *map(str, PHOTOS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_captions_alike_where_captioner_cannot_be_imported(task, exported, tmp_path):
    ((captions, scores),) = served([exported], tmp_path)
    expected_captions, expected_scores = expected(task)
    assert captions == expected_captions
    assert len(set(captions)) > 5
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)


def test_the_graph_is_made_of_core_ops_only(exported):
    saved_model = SavedModel()
    saved_model.ParseFromString((exported / "saved_model.pb").read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    graph = meta_graph.graph_def
    functions = graph.library.function
    ops = {node.op for node in graph.node}
    ops |= {node.op for function in functions for node in function.node_def}
    ops -= {function.signature.name for function in functions}
    assert {"DecodeJpeg", "ScaleAndTranslate", "Conv2D", "TopKV2"} <= ops
    # TensorFlow's own; two kinds of them call back into Python all the same.
    assert [op for op in ops if not hasattr(tf.raw_ops, op)] == []
    assert [op for op in ops if "PyFunc" in op] == []


def test_any_batch_size(task, exported):
    caption = tf.saved_model.load(exported).signatures["serving_default"]
    data = [photo.read_bytes() for photo in PHOTOS]
    captions, scores = expected(task)
    for batch in ([0], [1, 0], [2, 2, 2, 3, 4]):
        output = caption(image_bytes=tf.constant([data[i] for i in batch]))
        texts = [text.decode() for text in output["captions"].numpy()]
        assert texts == [captions[i] for i in batch]
        np.testing.assert_allclose(
            output["scores"], [scores[i] for i in batch], atol=1e-4
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes is empty"):
        caption(image_bytes=tf.constant([], tf.string))


def test_png_and_gif_too(task, exported):
    image = captioner.load_image(PHOTOS[0])[:200, :300]
    png = tf.io.encode_png(image).numpy()
    model = tf.saved_model.load(exported)
    output = model.caption(tf.constant([png, png]))
    assert output["captions"].numpy()[1].decode() == task.generate(image)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.caption(tf.constant([png, b"not a picture"]))
    assert output["captions"].dtype == tf.string


def test_saved_model_cli_shows_and_runs_it(task, exported, tmp_path):
    command = pathlib.Path(sys.executable).with_name("saved_model_cli")
    assert command.exists()
    where = ["--dir", str(exported)]
    shown = subprocess.run(
        [command, "show", *where, "--all"], capture_output=True, text=True, check=True
    ).stdout
    for line in ("signature_def['serving_default']", "inputs['image_bytes']"):
        assert line in shown
    for line in ("outputs['captions']", "outputs['scores']"):
        assert line in shown
    data = np.array([PHOTOS[0].read_bytes()], dtype=object)
    np.save(tmp_path / "photos.npy", data)
    subprocess.run(
        [command, "run", *where, "--tag_set", "serve"]
        + ["--signature_def", "serving_default"]
        + ["--inputs", f"image_bytes={tmp_path / 'photos.npy'}"]
        + ["--outdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    [caption], [score] = expected(task, PHOTOS[:1])
    written = np.load(tmp_path / "captions.npy", allow_pickle=True)
    assert written.tolist() == [caption.encode()]
    assert np.load(tmp_path / "scores.npy") == pytest.approx([score], abs=1e-4)


def test_a_sampler_replaces_the_presets_own(tmp_path):
    task = tiny_captioner()
    greedy = captioner.GreedySampler(length_penalty=1.0)
    captioner.export(task, tmp_path / "greedy", greedy)
    model = tf.saved_model.load(tmp_path / "greedy")
    data = [photo.read_bytes() for photo in PHOTOS]
    output = model.caption(tf.constant(data))
    results = list(captioner.caption(PHOTOS, task, sampler=greedy))
    texts = [text.decode() for text in output["captions"].numpy()]
    assert texts == [result.caption for result in results]
    scores = [result.score for result in results]
    np.testing.assert_allclose(output["scores"], scores, atol=1e-4)


@pytest.mark.slow
def test_every_strategy_serves_where_captioner_cannot_be_imported(tmp_path):
    task = tiny_captioner()
    rules = captioner.Constraints(
        min_length=4,
        max_length=14,
        no_repeat_ngram_size=2,
        repetition_penalty=1.2,
        banned=["dog", "on the"],
        prefix="a",
        bad_endings=["a", "of the"],
    )
    tasks = {
        "greedy": captioner.GreedySampler(constraints=rules),
        "beam": captioner.BeamSampler(4, length_normalization="gnmt"),
        "diverse": captioner.DiverseBeamSampler(4, 2, constraints=rules),
        "random": captioner.RandomSampler(top_k=9, top_p=0.9, seed=5, num_hypotheses=2),
        "xla": None,
    }
    for name, sampler in tasks.items():
        tasks[name] = captioner.EnsembleCaptioner([task, task], sampler)
        if name == "xla":
            tasks[name].compile(jit_compile=True)
        captioner.export(tasks[name], tmp_path / name)
    for each, (captions, scores) in zip(
        tasks.values(), served([tmp_path / name for name in tasks], tmp_path)
    ):
        # The same batches, on which what a seed draws depends.
        batches = [captioner.caption(batch, each) for batch in (PHOTOS[:2], PHOTOS[2:])]
        expected = [result for results in batches for result in results]
        assert captions == [result.caption for result in expected]
        np.testing.assert_allclose(scores, [r.score for r in expected], atol=1e-4)


class Elsewhere:
    """Stands for `tf.saved_model.save`, which takes seconds."""

    def save(self, module, folder, signatures):
        (folder / "saved_model.pb").write_text("new")
        (folder / "variables").mkdir()


@pytest.fixture
def quick_save(monkeypatch):
    monkeypatch.setattr(tf.saved_model, "save", Elsewhere().save)


def test_what_exists_is_kept_unless_asked(quick_save, tmp_path):
    task, output = tiny_captioner(), tmp_path / "exported"
    captioner.export(task, output)
    (output / "saved_model.pb").write_text("old")
    with pytest.raises(ValueError, match="exported exists"):
        captioner.export(task, output)
    assert (output / "saved_model.pb").read_text() == "old"
    captioner.export(task, output, overwrite=True)
    assert (output / "saved_model.pb").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_saved_model_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years of work")
    for output in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match=output.name):
            captioner.export(tiny_captioner(), output, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_command_prints_where_it_is(quick_save, monkeypatch, tmp_path):
    task, output = tiny_captioner(), tmp_path / "exported"
    monkeypatch.setattr(captioner.ImageCaptioner, "from_preset", lambda *_: task)
    arguments = ["export", "tiny", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (0, f"{output}\n")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and done.stderr.startswith(f"Error: {output} exists")
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0


def test_a_full_disk_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file above a megabyte: the weights do not fit, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OSError, match="exported"):
            captioner.export(tiny_captioner(), tmp_path / "exported")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
