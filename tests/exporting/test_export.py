"""`captioner.export`: a SavedModel that runs where this package is not."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import zlib

import cv2
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
    output = caption(image_bytes=tf.constant([], tf.string))
    assert {name: value.shape for name, value in output.items()} == dict.fromkeys(
        ("captions", "scores", "errors"), (0,)
    )


def test_png_and_gif_too(task, exported):
    image = captioner.load_image(PHOTOS[0])[:200, :300]
    png = tf.io.encode_png(image).numpy()
    model = tf.saved_model.load(exported)
    output = model.caption(tf.constant([png, png]))
    assert output["captions"].numpy()[1].decode() == task.generate(image)
    assert output["captions"].dtype == tf.string


def giant_png():
    """A valid PNG of 210 megapixels in 25 kB."""
    side = 14_500
    rows = zlib.compress(bytes((side // 8 + 2) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def chunk(tag, body):
    crc = struct.pack(">I", zlib.crc32(tag + body))
    return struct.pack(">I", len(body)) + tag + body + crc


def wordy_png():
    """A PNG whose texts are 800 kB as they are, and inflate to 800 MB."""
    text = zlib.compress(bytes(7_900_000), 9)
    texts = b"".join(chunk(b"zTXt", b"key%d\0\0" % i + text) for i in range(100))
    png = tf.io.encode_png(np.zeros((9, 9, 3), "uint8")).numpy()
    return png[:33] + texts + png[33:]


def film_gif():
    """A GIF of 2 MB that has 150 frames of 16 megapixels each, all black."""
    gif = cv2.imencode(".gif", np.zeros((4000, 4000, 3), "uint8"))[1].tobytes()
    frame = gif[gif.index(b",", 13 + 3 * 256) : -1]  # after the palette
    return gif[:-1] + frame * 150 + b";"


BAD = {  # and what the error must say
    b"": "empty",
    b"not a picture": "not a JPEG, PNG, GIF, BMP or WebP file",
    b"II*\0 a TIFF is not read here": "not a JPEG",
    PHOTOS[0].read_bytes()[:5000]: "truncated, damaged or unsupported JPEG",
    b"\x89PNG\r\n\x1a\n": "truncated, damaged or unsupported PNG",
    b"BM" + bytes(99): "truncated, damaged or unsupported BMP",
    b"RIFF\x24\0\0\0WAVEfmt " + bytes(24): "truncated, damaged or unsupported WebP",
    giant_png(): "the picture has more than 178,956,970 pixels",
}


def test_a_bad_photo_costs_its_own_row_alone(exported):
    model = tf.saved_model.load(exported)
    good = [photo.read_bytes() for photo in PHOTOS[:3]]
    expected = model.caption(tf.constant(good))
    assert set(expected["errors"].numpy()) == {b""}
    mixed = [good[0], *list(BAD)[:5], good[1], *list(BAD)[5:], good[2]]
    output = model.caption(tf.constant(mixed))
    rows = [mixed.index(each) for each in good]
    for name, values in output.items():
        np.testing.assert_array_equal(values.numpy()[rows], expected[name])
    for file, caption, score, error in zip(
        mixed, *(output[name].numpy() for name in ("captions", "scores", "errors"))
    ):
        if file in BAD:
            assert (caption, score) == (b"", tf.float32.min)
            assert BAD[file] in error.decode()
    for files in ([b"none"], list(BAD)):
        output = model.caption(tf.constant(files))
        assert output["captions"].numpy().tolist() == [b""] * len(files)
        assert b"" not in output["errors"].numpy()


# Captions small files that ask for much memory, and says how much more it took.
SERVE_BOMBS = """
import json, resource, sys
sys.modules["captioner"] = None
import tensorflow as tf
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
caption = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
photo, *files = [open(path, "rb").read() for path in sys.argv[2:]]
caption(image_bytes=tf.constant([photo]))
peaks = [peak()]
for file in files:
    errors = caption(image_bytes=tf.constant([photo, file]))["errors"].numpy()
    peaks.append(peak())
    print(errors, peaks, file=sys.stderr)
print(json.dumps(peaks))
"""


def test_small_files_do_not_take_all_memory(exported, tmp_path, request):
    if SHIPPED in request.node.name:
        pytest.skip("one captioner is enough")
    files = {"giant.png": giant_png(), "wordy.png": wordy_png(), "film.gif": film_gif()}
    for name, data in files.items():
        assert len(data) < 3_000_000
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SERVE_BOMBS, exported, PHOTOS[0], *files],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    first, *peaks = json.loads(done.stdout)  # kilobytes
    assert max(peaks) - first < 300_000, done.stderr


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


def test_a_saved_model_among_other_files_is_never_replaced(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="has other files .* such as thesis.txt"):
        captioner.export("any", tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


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
