"""The forms of captions: each is read back by somebody else's reader."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from captioner.captioning.outputs import write_outputs
from captioner.captioning.result import CaptionResult
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import RunInfo
from captioner.captioning.writers.existing import joined
from captioner.evaluating.predictions import read_predictions

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
TEXT = "a <b> & 'ünïcödé' 🐈 \"dog\"\x01\nand \u2028 more"
RESULTS = [
    CaptionResult(
        "a/1.jpg", "a dog", -1.5, captions=("a dog", "dogs"), scores=(-1, -2)
    ),
    CaptionResult("a/COCO_val2014_000000000042.jpg", TEXT, -0.5, captions=(TEXT,)),
    CaptionResult("a/bad\n<i>.jpg", error="it is & bad", kind="truncated"),
    CaptionResult("\udcff.jpg", "my own", None, None, "kept", ("my own",), (None,)),
]


@pytest.fixture
def write(tmp_path):
    def write(name, results=RESULTS, num_captions=1, thumbnail=lambda name: None):
        info = RunInfo(num_captions, {"preset": [{"name": "tiny"}]}, thumbnail)
        path = tmp_path / name
        write_outputs([path], lambda: iter(results), len(results), info, None, True)
        assert [each.name for each in tmp_path.iterdir()] == [name]
        return path

    return write


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("num_captions", [1, 2])
def test_captions_come_back_from_evaluate(write, suffix, num_captions):
    found = read_predictions(write(f"captions{suffix}", num_captions=num_captions))
    assert {i: texts[0] for i, texts in found.captions.items()} == {
        each.path: each.caption for each in RESULTS if each.caption
    }
    assert dict(found.errors) == {"a/bad\n<i>.jpg": "it is & bad"}
    assert found.scores["a/1.jpg"] == -1.5 and "\udcff.jpg" not in found.scores
    if suffix == ".jsonl" and num_captions == 2:
        assert found.captions["a/1.jpg"] == ["a dog", "dogs"]


def test_coco_results(write):
    rows = json.loads(write("captions.json").read_text())
    assert rows == [
        {"image_id": "a/1.jpg", "caption": "a dog"},
        {"image_id": 42, "caption": TEXT},
        {"image_id": "\udcff.jpg", "caption": "my own"},
    ]
    assert json.loads(write("captions.json", []).read_text()) == []


def test_parquet(write):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(write("captions.parquet")).to_pylist()
    assert [row["caption"] for row in rows] == [each.caption for each in RESULTS]
    assert rows[0]["captions"] == ["a dog", "dogs"] and rows[0]["scores"] == [-1, -2]
    assert rows[2]["kind"] == "truncated" and rows[2]["path"] == "a/bad\n<i>.jpg"
    assert rows[3]["path"] == "\\udcff.jpg"


def test_the_gallery_is_one_safe_page(write):
    _, jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), "uint8"))
    page = write("page.html", thumbnail=lambda _: jpeg.tobytes()).read_text("utf-8")
    assert page.count("<article") == 4 and page.count("data:image/jpeg;base64,") == 3
    assert "<b>" not in page and "<i>" not in page and "it is &amp; bad" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "style, text",
    [
        ({}, "a Dog. "),
        ({"case": "lower"}, "a dog. "),
        ({"case": "upper"}, "A DOG. "),
        ({"case": "sentence"}, "A Dog. "),
        ({"case": "title"}, "A Dog. "),
        ({"final_dot": "remove"}, "a Dog"),
        ({"text_prefix": "art of ", "text_suffix": "!"}, "art of a Dog. !"),
        (
            {"trigger_word": "sks", "case": "upper", "text_prefix": "x "},
            "sks, x A DOG. ",
        ),
    ],
)
def test_styles(style, text):
    assert CaptionStyle(**style)("a Dog. ") == text


def test_a_dot_is_added_where_there_is_none():
    style = CaptionStyle(final_dot="add")
    assert [style(text) for text in ("a", "a.", "a!", "")] == ["a.", "a.", "a!", ""]
    with pytest.raises(ValueError, match="Received: case=shout"):
        CaptionStyle(case="shout")


@pytest.mark.parametrize(
    "existing, text",
    [("skip", "old"), ("overwrite", "new"), ("append", "old\nnew")]
    + [("prepend", "new\nold")],
)
def test_joined(existing, text):
    assert joined(existing, "old", "new") == text
    assert joined(existing, None, "new") == joined(existing, "", "new") == "new"
