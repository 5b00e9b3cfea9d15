"""The contract: every verb works with a task that has nothing but what it says."""

import csv
import json
import pickle
import shutil

import numpy as np
import pytest
from fake_task import FakeTask, TextOnlyTask, mean_colour

import captioner
from captioner.images.image_files import load_image
from captioner.tasks.load_task import load_task, task_identity
from captioner.tasks.task import ABILITIES, Task


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))


def own(photo, word="mostly"):
    (result,) = FakeTask(word).write([mean_colour(load_image(photo))])
    return result.text


@pytest.fixture
def dataset(photos, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{photo},{own(photo)},test" for photo in photos[:4]]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        writer.writerows([photo, own(photo), "test"] for photo in photos[:4])
    assert rows
    return table


def test_generate(photos):
    task = FakeTask()
    assert task.generate(photos[0]) == own(photos[0])
    nested = {"a": [photos[0], photos[1].read_bytes()], "b": load_image(photos[2])}
    expected = {"a": [own(photos[0]), own(photos[1])], "b": own(photos[2])}
    assert task.generate(nested, batch_size=2) == expected
    assert task.generate_results(photos[0]).score > 0
    assert TextOnlyTask().generate(load_image(photos[0])[:5, :7]) == (
        "a photo of 5 by 7 pixels"
    )


def test_a_result_of_text_alone_is_complete():
    result = captioner.GenerateResult("a dog")
    assert [each.text for each in result.hypotheses] == ["a dog"]
    assert result.score is None and result.token_ids is None


def test_caption_a_folder_and_resume(photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos[:3]:
        shutil.copy(photo, folder)
    output = tmp_path / "captions.jsonl"
    first = list(captioner.caption(folder, FakeTask(), output=output))
    assert [result.caption for result in first] == [own(p) for p in photos[:3]]
    assert [result.score for result in first] == [
        pytest.approx(mean_colour(load_image(p)).max() / 255, abs=1e-4)
        for p in photos[:3]
    ]

    class Other(FakeTask):
        def write(self, batch, prompts=None):
            assert len(batch) == 1  # what is known is not captioned again
            return super().write(batch)

    shutil.copy(photos[3], folder)
    again = list(captioner.caption(folder, Other(), output=output))
    assert [result.caption for result in again] == [own(p) for p in photos[:4]]
    with pytest.raises(ValueError, match="preset"):
        list(captioner.caption(folder, FakeTask("rather"), output=output))


def test_several_captions_and_the_refusal_of_them(photos):
    (result,) = captioner.caption(photos[0], FakeTask(), num_captions=3)
    assert len(result.captions) == 3
    with pytest.raises(
        ValueError, match="TextOnlyTask does not have more than one caption"
    ):
        list(captioner.caption(photos[0], TextOnlyTask(), num_captions=2))


def test_captions_without_scores(photos, tmp_path):
    outputs = [tmp_path / f"captions.{kind}" for kind in ("csv", "jsonl", "json")]
    (result,) = captioner.caption(photos[0], TextOnlyTask(), outputs)
    assert result.caption.startswith("a photo of ") and result.score is None
    (row,) = csv.DictReader(outputs[0].open())
    assert row["caption"] == result.caption
    assert json.loads(outputs[1].read_text())["caption"] == result.caption


def test_merge(photos, tmp_path):
    whole, output = tmp_path / "whole.csv", tmp_path / "part.csv"
    list(captioner.caption(photos, FakeTask(), output=whole))
    for number in (1, 2):
        shard = (number, 2)
        list(captioner.caption(photos, FakeTask(), output=output, shard=shard))
    parts = [tmp_path / f"part-{number}-of-2.csv.run" for number in (1, 2)]
    merged = tmp_path / "merged.csv"
    assert captioner.merge(parts, merged) == (len(photos), 0)
    assert merged.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("task", [FakeTask(), TextOnlyTask()])
def test_evaluate(dataset, photos, task, tmp_path):
    evaluation = captioner.evaluate(
        task, dataset, output=tmp_path / "scored", java_metrics=False
    )
    assert evaluation.protocol["preset"] == "in memory"
    assert evaluation.protocol["task"] == type(task).__name__
    assert len(evaluation.captions) == 4
    if isinstance(task, FakeTask):
        assert evaluation.scores["bleu_1"] == pytest.approx(1.0)
        assert len(evaluation.caption_scores) == 4
    else:
        assert not evaluation.caption_scores and evaluation.calibration is None
    assert (tmp_path / "scored" / "report.html").is_file()


def test_export_refuses_in_one_line(tmp_path):
    with pytest.raises(
        ValueError, match="FakeTask does not have a form as a TensorFlow graph"
    ):
        captioner.export(FakeTask(), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_sampler_for_a_task_that_has_none(photos, dataset):
    with pytest.raises(ValueError, match="FakeTask has no sampler. Received: .*greedy"):
        load_task(FakeTask(), "greedy")
    with pytest.raises(ValueError, match="no sampler"):
        captioner.evaluate(FakeTask(), dataset, sampler="greedy")


def test_abilities():
    task = FakeTask()
    task.require("scores", "hypotheses")
    for ability in set(ABILITIES) - task.abilities:
        with pytest.raises(ValueError, match="FakeTask does not have ") as caught:
            task.require(ability)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="Received: ability=flight"):
        task.require("flight")
    with pytest.raises(ValueError, match="FakeTask does not have prompts"):
        task.generate(np.zeros((4, 4, 3), "uint8"), prompts="what is this?")


def test_prompts_reach_the_task(photos):
    class Answers(TextOnlyTask):
        abilities = frozenset({"prompts"})

        def write(self, batch, prompts=None):
            return [captioner.GenerateResult(prompt) for prompt in prompts]

    two = {"a": photos[0], "b": photos[1]}
    assert Answers().generate(two, prompts="why") == {"a": "why", "b": "why"}
    each = {"a": "one", "b": "two"}
    assert Answers().generate(two, batch_size=1, prompts=each) == each
    with pytest.raises(ValueError):
        Answers().generate(two, prompts=["one"])


def test_a_task_needs_its_four_methods():
    class Half(Task):
        def convert(self, image):
            return image

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_what_load_task_takes(tiny_captioner):
    assert load_task(tiny_captioner) is tiny_captioner
    other = load_task(tiny_captioner, "greedy")
    assert type(other.sampler).__name__ == "GreedySampler"
    assert type(tiny_captioner.sampler).__name__ == "BeamSampler"
    both = load_task([tiny_captioner, tiny_captioner])
    assert isinstance(both, captioner.EnsembleCaptioner)
    with pytest.raises(ValueError, match="Received: preset=3"):
        load_task(3)


def test_every_task_keeps_the_contract(tiny_captioner, photos):
    both = captioner.EnsembleCaptioner([tiny_captioner, tiny_captioner])
    for task in (FakeTask(), TextOnlyTask(), tiny_captioner, both):
        assert task.abilities <= set(ABILITIES)
        if task.image_size is not None:
            height, width = task.image_size
            assert height > 0 and width > 0
        convert = pickle.loads(pickle.dumps(task.convert))  # for another process
        batch = [convert(load_image(photo)) for photo in photos[:2]]
        results = task.write(batch)
        texts = [result.text for result in results]
        assert texts == task.generate(photos[:2])
        assert len(task.replaced(num_threads=1).write(batch)) == 2
        assert json.loads(json.dumps(task.describe()))["task"] == type(task).__name__
        assert isinstance(task.fingerprint(), str)
        for result in results:
            assert result.hypotheses[0].text == result.text
            assert ("scores" in task.abilities) == (result.score is not None)


def test_a_fingerprint_tells_what_changes_captions(tiny_captioner):
    again = captioner.ImageCaptioner(
        tiny_captioner.caption_model, tiny_captioner.preprocessor
    )
    assert again.fingerprint() == tiny_captioner.fingerprint()
    assert tiny_captioner.replaced("greedy").fingerprint() != again.fingerprint()
    ensemble = captioner.EnsembleCaptioner([again])
    assert ensemble.fingerprint() != again.fingerprint()
    weight = again.caption_model.weights[-1]
    before = again.fingerprint()
    value = weight.numpy()
    weight.assign(value + 1e-3)
    try:
        assert again.fingerprint() != before
    finally:
        weight.assign(value)
    (identity,) = task_identity(again)
    assert identity == {"name": "in memory", "sha256": before}
