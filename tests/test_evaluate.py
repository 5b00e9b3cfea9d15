"""`captioner.evaluate`: what is scored, and what it writes for others to score."""

import importlib.util
import json
import shutil

import pytest
from click.testing import CliRunner
from tiny_captioner import SAMPLES, tiny_captioner

import captioner
from captioner.cli import main
from captioner.datasets import load_dataset
from captioner.metrics import score_captions


@pytest.fixture(scope="module")
def task():
    return tiny_captioner()


@pytest.fixture
def table(tmp_path):
    """A CSV with five good photos and three bad ones, all in dev."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = []
    for line in (SAMPLES / "captions.csv").read_text("utf-8").splitlines()[1:]:
        name, _, caption = line.partition(",")
        lines.append(f"{name},{caption.strip()},dev")
    names = sorted({line.partition(",")[0] for line in lines})[:8]
    for name in names:
        shutil.copy(SAMPLES / name, folder)
    (folder / names[0]).write_bytes(b"")
    (folder / names[3]).write_text("not a picture")
    data = (folder / names[7]).read_bytes()
    (folder / names[7]).write_bytes(data[: len(data) // 2])
    rows = [line for line in lines if line.partition(",")[0] in names]
    table = folder / "captions.csv"
    table.write_text("\n".join(["image,caption,split", *rows]) + "\n", "utf-8")
    return table


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_scores_are_those_of_the_captions_against_the_split(task):
    evaluation = captioner.evaluate(task, "scenes:64", "dev", batch_size=48)
    examples = list(load_dataset("scenes:64").examples("dev"))
    references = {example["image/id"]: example["captions"] for example in examples}
    assert list(evaluation.captions) == list(references)
    assert evaluation.scores == score_captions(references, evaluation.captions)
    assert 0 < evaluation.scores["bleu_4"] < evaluation.scores["bleu_1"] < 1
    assert evaluation.left_out == {}
    assert evaluation.protocol == {
        "preset": "in memory",
        "dataset": "scenes:64",
        "split": "dev",
        "images": 200,
        "left_out": 0,
        "references": 200,
        "sampler": "BeamSampler",
        "num_beams": 3,
        "length_penalty": 0.7,
    }
    # The captions are what `generate` writes, words and nothing else.
    texts = task.generate([example["image"] for example in examples[:20]])
    assert texts == list(evaluation.captions.values())[:20]
    assert len(set(evaluation.captions.values())) > 10
    words = set(task.preprocessor.tokenizer.vocabulary[4:])
    for text in evaluation.captions.values():
        assert set(text.split()) <= words


def test_the_split_is_test_unless_there_is_none(task, table):
    assert captioner.evaluate(task, "scenes:64").protocol["split"] == "test"
    assert captioner.evaluate(task, table).protocol["split"] == "dev"
    with pytest.raises(ValueError, match="test"):
        captioner.evaluate(task, table, "test")


def test_a_sampler_replaces_the_captioners_own(task, table):
    greedy = captioner.GreedySampler(length_penalty=0.5)
    evaluation = captioner.evaluate(task, table, sampler=greedy)
    assert evaluation.protocol["sampler"] == "GreedySampler"
    assert evaluation.protocol["length_penalty"] == 0.5
    assert "num_beams" not in evaluation.protocol
    one_beam = captioner.evaluate(task, table, sampler=captioner.BeamSampler(1, 0.5))
    assert one_beam.captions == evaluation.captions


def test_unreadable_photos_are_named_and_left_out(task, table, tmp_path, capsys):
    output = tmp_path / "scored"
    evaluation = captioner.evaluate(task, table, output=output)
    assert len(evaluation.captions) == 5 and len(evaluation.left_out) == 3
    reasons = "\n".join(evaluation.left_out.values())
    assert "the file is empty" in reasons and "not an image" in reasons
    assert "damaged" in reasons
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line for line in lines if line.startswith("left out: ")) == sorted(
        f"left out: {reason}" for reason in evaluation.left_out.values()
    )
    assert evaluation.protocol["images"] == 5

    # The files hold the same five photos, in COCO's two formats.
    predictions = read_json(output / "predictions.json")
    assert [row.keys() for row in predictions] == [{"image_id", "caption"}] * 5
    assert {r["image_id"]: r["caption"] for r in predictions} == evaluation.captions
    references = read_json(output / "references.json")
    assert {image["id"] for image in references["images"]} == set(evaluation.captions)
    annotations = references["annotations"]
    assert len(annotations) == evaluation.protocol["references"] >= 10
    assert len({row["id"] for row in annotations}) == len(annotations)
    for row in annotations:
        assert row.keys() == {"id", "image_id", "caption"}
    scores = read_json(output / "scores.json")
    assert scores == {**evaluation.scores, "protocol": evaluation.protocol}


def test_the_files_can_be_scored_by_the_benchmark(task, table, tmp_path, repository):
    (tmp_path / "scores.json").write_text("of another preset")
    evaluation = captioner.evaluate(task, table, output=tmp_path, overwrite=True)
    path = repository / "benchmarks" / "coco_scores.py"
    spec = importlib.util.spec_from_file_location("coco_scores", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    references = benchmark.read_references(tmp_path / "references.json")
    predictions = benchmark.read_predictions(tmp_path / "predictions.json")
    scores, *_ = benchmark.score_with_captioner(references, predictions)
    assert scores == evaluation.scores


def test_the_command_prints_protocol_and_scores(task, table, tmp_path, monkeypatch):
    monkeypatch.setattr(captioner.ImageCaptioner, "from_preset", lambda *_: task)
    output = tmp_path / "scored"
    arguments = ["evaluate", "tiny", str(table), "--split", "dev", "-o", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output  # three photos cannot be read
    printed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    scores = read_json(output / "scores.json")
    protocol = scores.pop("protocol")
    assert protocol["preset"] == "tiny"
    assert printed == {
        **{name: str(value) for name, value in protocol.items()},
        **{name: f"{value:.4f}" for name, value in scores.items()},
    }


def test_a_mistake_is_refused_before_the_work(task, table, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="file"):
        captioner.evaluate(task, table, output=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(ValueError, match="nowhere"):
        captioner.evaluate("nowhere", table, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in ("predictions.json", "references.json", "scores.json"):
        (tmp_path / name).write_text("hours of work")
        with pytest.raises(ValueError, match=f"{name} exists"):
            captioner.evaluate(task, table, output=tmp_path)
        assert (tmp_path / name).read_text() == "hours of work"
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="nowhere.csv"):
        captioner.evaluate(task, "nowhere.csv")


def test_a_split_without_one_readable_photo_is_an_error(task, table):
    for photo in table.parent.glob("*.jpg"):
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match="No photo of the dev split of .*captions.csv"):
        captioner.evaluate(task, table)
