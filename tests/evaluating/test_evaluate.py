"""`captioner.evaluate`: what is scored, and what it writes for others to score."""

import importlib
import importlib.util
import json
import os
import shutil
import sys

import pytest
from click.testing import CliRunner
from tiny_captioner import SAMPLES, tiny_captioner

import captioner
from captioner.cli import main
from captioner.datasets import load_dataset
from captioner.metrics import score_captions


@pytest.fixture(autouse=True)
def no_java(monkeypatch, tmp_path_factory):
    """METEOR takes seconds to start, whatever it scores; see `tests/metrics`."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("nothing")))


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
    protocol = dict(evaluation.protocol)
    versions = [protocol.pop(n) for n in ("tokenizer", "metrics", "intervals")]
    assert "Penn Treebank" in versions[0] and captioner.__version__ in versions[1]
    assert protocol == {
        "preset": "in memory",
        "dataset": "scenes:64",
        "split": "dev",
        "images": 200,
        "left_out": 0,
        "without_references": 0,
        "references": 200,
        "captions": "free-running, from the photo alone",
        "task": "ImageCaptioner",
        "sampler": "BeamSampler",
        "num_beams": 3,
        "length_penalty": 0.7,
        "meteor": "missing: Java is not installed",
        "spice": "missing: Java is not installed",
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
    keys = {"image_id", "caption", "score"}
    assert [row.keys() for row in predictions] == [keys] * 5
    assert {r["image_id"]: r["caption"] for r in predictions} == evaluation.captions
    references = read_json(output / "references.json")
    assert {image["id"] for image in references["images"]} == set(evaluation.captions)
    annotations = references["annotations"]
    assert len(annotations) == evaluation.protocol["references"] >= 10
    assert len({row["id"] for row in annotations}) == len(annotations)
    for row in annotations:
        assert row.keys() == {"id", "image_id", "caption"}
    scores = read_json(output / "scores.json")
    assert scores.items() >= {**evaluation.scores}.items()
    assert scores["protocol"] == evaluation.protocol
    assert scores["intervals"] == {
        name: list(ends) for name, ends in evaluation.intervals.items()
    }


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
    monkeypatch.setattr(captioner.presets, "find_preset", lambda name: name)
    output = tmp_path / "scored"
    arguments = ["evaluate", "tiny", str(table), "--split", "dev", "-o", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output  # three photos cannot be read
    scores = read_json(output / "scores.json")
    assert scores["protocol"]["preset"] == "tiny"
    protocol, table_of_scores, habits, calibration = done.stdout.split("\n\n")
    assert dict(line.split(maxsplit=1) for line in protocol.splitlines()) == {
        name: str(value) for name, value in scores["protocol"].items()
    }
    lines = [line.split(maxsplit=2) for line in table_of_scores.splitlines()[1:]]
    assert lines == [
        [name, f"{scores[name]:.4f}", "{:.4f} to {:.4f}".format(*ends)]
        for name, ends in scores["intervals"].items()
    ]
    assert [line.split()[0] for line in habits.splitlines()] == list(
        scores["diversity"]
    )
    assert "rank correlation" in calibration


def test_a_mistake_is_refused_before_the_work(task, table, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="file"):
        captioner.evaluate(task, table, output=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(ValueError, match="nowhere"):
        captioner.evaluate("nowhere", table, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in (
        "predictions.json",
        "references.json",
        "scores.json",
        "report.html",
        "n_best.json",
        "other_predictions.json",
        "other_n_best.json",
    ):
        (tmp_path / name).write_text("hours of work")
        with pytest.raises(ValueError, match=f"{name} exists"):
            captioner.evaluate(task, table, output=tmp_path)
        assert (tmp_path / name).read_text() == "hours of work"
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="nowhere.csv"):
        captioner.evaluate(task, "nowhere.csv")
    with pytest.raises(ValueError, match="Cannot read nowhere.json: No such file"):
        captioner.evaluate("nowhere.json", table)


def test_a_split_without_one_readable_photo_is_an_error(task, table):
    for photo in table.parent.glob("*.jpg"):
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match="No photo of the dev split of .*captions.csv"):
        captioner.evaluate(task, table)


# ------------------------------------------------------------------ from a file


@pytest.fixture(scope="module")
def scored(task, tmp_path_factory):
    """What `evaluate` finds, and writes, for a captioner on the drawn scenes."""
    output = tmp_path_factory.mktemp("scored")
    evaluation = captioner.evaluate(
        task, "scenes:64", output=output, batch_size=48, java_metrics=False
    )
    return evaluation, output


def write_predictions(path, captions):
    rows = [{"image_id": i, "caption": text} for i, text in captions.items()]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_predictions_are_scored_like_the_preset_that_wrote_them(scored):
    evaluation, output = scored
    again = captioner.evaluate(output / "predictions.json", "scenes:64")
    for name in (
        "scores",
        "intervals",
        "scores_each",
        "captions",
        "caption_scores",
        "diversity",
        "calibration",
    ):
        assert getattr(again, name) == getattr(evaluation, name), name
    assert again.protocol["captions"] == "read from a file"
    assert again.protocol["predictions"] == str(output / "predictions.json")
    assert again.protocol["split"] == "test" and "sampler" not in again.protocol
    # And each caption by itself, in the order that adds up.
    for name in ("cider", "rouge_l"):
        mean = sum(each[name] for each in again.scores_each.values()) / 200
        assert mean == pytest.approx(again.scores[name])
    assert list(again.scores_each) == list(again.captions)
    for name, (low, high) in again.intervals.items():
        assert low < again.scores[name] < high


def test_what_caption_writes_can_be_scored(task, table, tmp_path):
    expected = captioner.evaluate(task, table)
    for name in ("captions.csv", "captions.jsonl"):
        list(captioner.caption(table.parent, task, output=tmp_path / name))
        evaluation = captioner.evaluate(tmp_path / name, table)
        assert evaluation.scores == expected.scores
        assert evaluation.captions == expected.captions
        # The three that cannot be read have rows that say so.
        assert set(evaluation.left_out) == set(expected.left_out)
        assert any("the file is empty" in r for r in evaluation.left_out.values())
        assert evaluation.protocol["by_file_name"] == 8
        assert evaluation.calibration["bins"] == [
            {**part, "score": pytest.approx(part["score"], abs=1e-4)}
            for part in expected.calibration["bins"]
        ]


def test_texts_beside_photos_can_be_scored(task, table, tmp_path):
    photos = tmp_path / "copy"
    shutil.copytree(table.parent, photos)
    (photos / "captions.csv").unlink()
    results = list(captioner.caption(photos, task, sidecars=True))
    with pytest.raises(ValueError, match="no prediction: 3 images"):
        captioner.evaluate(photos, table)
    for result in results:
        if result.error:
            (photos / result.path).with_suffix(".txt").write_text("")
    evaluation = captioner.evaluate(photos, table)
    assert evaluation.diversity["empty"] == 3
    assert len(evaluation.captions) == 8


def test_an_empty_caption_counts_and_earns_nothing(scored, tmp_path):
    evaluation, _ = scored
    captions = dict(evaluation.captions)
    captions["test-000000"] = " "
    found = captioner.evaluate(
        write_predictions(tmp_path / "a.json", captions), "scenes:64"
    )
    assert found.protocol["images"] == 200 and found.diversity["empty"] == 1
    assert found.scores_each["test-000000"]["cider"] == 0
    lost = evaluation.scores_each["test-000000"]["cider"] / 200
    assert found.scores["cider"] == pytest.approx(evaluation.scores["cider"] - lost)


def test_an_end_token_is_not_scored(scored, tmp_path):
    evaluation, _ = scored
    captions = {i: f"{text} <end> junk" for i, text in evaluation.captions.items()}
    found = captioner.evaluate(
        write_predictions(tmp_path / "a.json", captions), "scenes:64"
    )
    assert found.scores == evaluation.scores
    assert found.protocol["markers_cut"] == 200


def test_predictions_that_cannot_be_scored_are_refused(scored, tmp_path):
    captions = scored[0].captions
    file = tmp_path / "a.json"
    some = dict(list(captions.items())[5:])
    other = {f"COCO_{n}": "a dog" for n in range(40_000, 40_200)}
    for wrong, words in (
        (some, "of the 200 images of the test split .* 5 images: 'test-000000', "),
        ({**captions, "x": "a dog"}, "not in scenes:64: 1 image: 'x'"),
        (other, "no prediction belongs to an image of the test split of scenes:64"),
    ):
        with pytest.raises(ValueError, match=words):
            captioner.evaluate(
                write_predictions(file, wrong), "scenes:64", output=tmp_path / "out"
            )
    assert not (tmp_path / "out").exists()
    # Those of another split may be there, and are counted.
    more = {**captions, "dev-000003": "a dog", "train-000000": "a dog"}
    evaluation = captioner.evaluate(write_predictions(file, more), "scenes:64")
    assert evaluation.scores == scored[0].scores
    assert evaluation.protocol["not_scored"] == "2 of another split"
    with pytest.raises(ValueError, match="it takes no sampler"):
        captioner.evaluate(file, "scenes:64", sampler=captioner.GreedySampler())


def test_an_image_without_references_is_named(table, tmp_path, capsys):
    lines = table.read_text("utf-8").splitlines()
    names = sorted({line.partition(",")[0] for line in lines[1:]})
    empty = [
        f"{names[2]},,dev" if line.startswith(names[2]) else line for line in lines
    ]
    table.write_text("\n".join(empty), "utf-8")
    file = write_predictions(tmp_path / "a.json", dict.fromkeys(names, "a dog"))
    evaluation = captioner.evaluate(file, table)
    assert evaluation.protocol["without_references"] == 1
    assert evaluation.protocol["not_scored"] == "1 image without captions"
    assert (
        f"images without references: 1 image: {names[2]!r}" in capsys.readouterr().err
    )
    assert evaluation.protocol["images"] == 7


def test_two_captioners_are_compared_on_the_same_images(task, scored, tmp_path):
    evaluation, output = scored
    shuffled = dict(zip(evaluation.captions, [*evaluation.captions.values()][::-1]))
    shuffled["test-000007"] = "<script>alert(1)</script>"
    worse = write_predictions(tmp_path / "worse.json", shuffled)
    arguments = ["evaluate", str(output / "predictions.json"), "scenes:64"]
    arguments += ["--compare-with", str(worse), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "better in 100.0% of resamples" in done.stdout
    scores = read_json(tmp_path / "out" / "scores.json")
    found = scores["comparison"]["cider"]
    alone = captioner.evaluate(worse, "scenes:64")
    assert found["other"] == pytest.approx(alone.scores["cider"])
    assert found["difference"] == pytest.approx(scores["cider"] - found["other"])
    assert 0 < found["interval"][0] < found["difference"] < found["interval"][1]
    assert scores["protocol"]["compare_with"] == str(worse)
    others = read_json(tmp_path / "out" / "other_predictions.json")
    assert {row["image_id"]: row["caption"] for row in others} == shuffled
    # A preset with a file; what one of them has not is scored for neither.
    rows = [{"image": i, "caption": text} for i, text in shuffled.items()]
    rows[3] = {"image": "test-000003", "error": "lost"}
    worse.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = captioner.evaluate(
        task, "scenes:64", compare_with=worse.with_suffix(".jsonl")
    )
    assert found.left_out == {"test-000003": "test-000003: lost"}
    assert len(found.scores_each) == 199
    assert found.comparison["cider"]["better"] == 1
    # Without a comparison, the captions of an earlier one do not stay.
    captioner.evaluate(
        worse.with_suffix(".jsonl"),
        "scenes:64",
        output=tmp_path / "out",
        overwrite=True,
    )
    assert not (tmp_path / "out" / "other_predictions.json").exists()


def test_the_best_of_several_captions_is_scored_too(scored, tmp_path):
    evaluation, _ = scored
    examples = load_dataset("scenes:64").examples("test")
    rows = [
        {
            "image_id": example["image/id"],
            "captions": [text, *example["captions"], "a dog"],
        }
        for example, text in zip(examples, evaluation.captions.values())
    ]
    file = tmp_path / "several.json"
    file.write_text(json.dumps(rows))
    found = captioner.evaluate(file, "scenes:64", output=tmp_path / "out")
    assert found.scores == evaluation.scores
    assert found.oracle["bleu_4"] == pytest.approx(1)
    assert found.oracle["cider"] > found.scores["cider"]
    assert 0 < found.diversity["n_best_self_bleu_4"] < 1
    # COCO's tools get one caption of an image; all of them can be scored again.
    keys = {"image_id", "caption"}
    written = read_json(tmp_path / "out" / "predictions.json")
    assert [row.keys() for row in written] == [keys] * 200
    again = captioner.evaluate(tmp_path / "out" / "n_best.json", "scenes:64")
    assert again.oracle == found.oracle and again.diversity == found.diversity
    assert evaluation.oracle is None


def test_a_preset_writes_several_captions(task, scored, tmp_path):
    sampler = captioner.BeamSampler(4, num_hypotheses=3)
    found = captioner.evaluate(
        task, "scenes:64", sampler=sampler, output=tmp_path, batch_size=48
    )
    assert found.protocol["num_hypotheses"] == 3
    rows = {row["image_id"]: row for row in read_json(tmp_path / "n_best.json")}
    examples = load_dataset("scenes:64").examples("test")[:3]
    task = captioner.ImageCaptioner.from_preset(task, sampler)
    for example in examples:
        result = task.generate_results(example["image"])
        row = rows[example["image/id"]]
        assert row["captions"] == [each.text for each in result.hypotheses]
        assert len(set(row["captions"])) == 3
        assert row["captions"][0] == found.captions[example["image/id"]]
        assert row["score"] == pytest.approx(result.score, abs=1e-4)
    assert found.oracle["cider"] > found.scores["cider"]
    assert 0 < found.diversity["n_best_self_bleu_4"] < 1
    again = captioner.evaluate(tmp_path / "n_best.json", "scenes:64")
    for name in ("scores", "oracle", "diversity", "calibration"):
        assert getattr(again, name) == getattr(found, name), name
    # One caption of each image again: what held several does not stay.
    captioner.evaluate(
        scored[1] / "predictions.json",
        "scenes:64",
        compare_with=tmp_path / "n_best.json",
        output=tmp_path / "out",
    )
    files = {"predictions.json", "other_predictions.json", "other_n_best.json"}
    written = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert written == files | {"references.json", "scores.json"}
    captioner.evaluate(
        scored[1] / "predictions.json",
        "scenes:64",
        output=tmp_path / "out",
        overwrite=True,
    )
    written = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert written == {"predictions.json", "references.json", "scores.json"}


def test_captions_of_the_training_split_are_counted(scored, tmp_path):
    data = load_dataset("scenes:64")
    known = data.examples("train")[0]["captions"][0]
    captions = dict.fromkeys(scored[0].captions, "a dog on a")
    for number in range(50):
        captions[f"test-{number:06d}"] = f"{known.capitalize()}."
    found = captioner.evaluate(
        write_predictions(tmp_path / "a.json", captions), "scenes:64"
    )
    assert found.diversity["copied"] == 0.25
    assert found.diversity["bad_endings"] == 0.75
    assert found.diversity["distinct"] == 2
    assert found.calibration is None


def test_numbers_stay_numbers_for_the_tools_of_coco(tmp_path):
    photos = tmp_path / "val2017"
    photos.mkdir()
    annotations = []
    for number in (9, 391895):
        shutil.copy(SAMPLES / "kitten.jpg", photos / f"{number:012d}.jpg")
        annotations.append({"image_id": number, "id": number, "caption": "a kitten"})
    images = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in (9, 391895)]
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    rows = [{"image_id": n, "caption": "a cat"} for n in (391895, 9)]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    output = tmp_path / "out"
    captioner.evaluate(tmp_path / "results.json", file, output=output)
    written = read_json(output / "predictions.json")
    assert sorted(written, key=lambda row: -row["image_id"]) == rows
    references = read_json(output / "references.json")
    assert {row["image_id"] for row in references["annotations"]} == {9, 391895}
    # By the names of the files, too.
    paths = [{"path": f"/a/{n:012d}.jpg", "caption": "a cat"} for n in (9, 391895)]
    (tmp_path / "paths.json").write_text(json.dumps(paths))
    found = captioner.evaluate(tmp_path / "paths.json", file)
    assert set(found.captions) == {"9", "391895"}


def test_a_file_name_need_not_be_text(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in (b"caf\xe9", "日本".encode()):
        name = os.fsdecode(name)
        shutil.copy(SAMPLES / "kitten.jpg", photos / f"{name}.jpg")
        (photos / f"{name}.txt").write_text("a kitten")
    data = load_dataset(f"txt:{photos}", split_fractions=(0, 1, 0))
    ids = {example["image/id"] for example in data.examples("dev")}
    assert "caf\udce9.jpg" in ids
    rows = [{"image_id": image_id, "caption": "a cat"} for image_id in ids]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.MonkeyPatch.context() as patch:
        room = sys.modules[
            "captioner.evaluating.evaluate"
        ]  # the name is the function's
        patch.setattr(room, "load_dataset", lambda _: data)
        output = tmp_path / "out"
        captioner.evaluate(tmp_path / "a.json", "photos", output=output)
        found = captioner.evaluate(output / "predictions.json", "photos")
    assert set(found.captions) == ids
    assert "日本.jpg" in (output / "predictions.json").read_text("utf-8")
    assert "日本.jpg" in (output / "report.html").read_text("utf-8")


def test_flags_of_a_sampler_need_a_preset(scored):
    file = str(scored[1] / "predictions.json")
    for flags in (["--num-beams", "5", "--banned", "dog"], ["--num-hypotheses", "2"]):
        done = CliRunner().invoke(main, ["evaluate", file, "scenes:64", *flags])
        assert done.exit_code == 2 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert file in line and "finished captions" in line
        assert line.endswith(", ".join(f for f in flags if f.startswith("--")))


def test_bad_predictions_are_one_line_for_the_command(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('[{"image_id": [1], "caption": "a dog"}]')
    done = CliRunner().invoke(main, ["evaluate", str(file), "scenes:64"])
    assert done.exit_code == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and "object 1" in line and "[1]" in line
