"""The forms of captions: each is read back by somebody else's reader."""

import json
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from captioner.captioning.outputs import write_outputs
from captioner.captioning.result import CaptionResult
from captioner.captioning.style import CaptionStyle
from captioner.captioning.writers import EmbeddedCopy, RunInfo, TextSidecar, XmpSidecar
from captioner.captioning.writers.existing import joined
from captioner.captioning.writers.xmp import (
    embed_packet,
    read_description,
    read_packet,
    write_description,
)
from captioner.evaluating.predictions import read_predictions
from captioner.images.image_files import load_image
from captioner.images.photo_sources import find_photos

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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_embedding_leaves_the_pixels_as_they_are(suffix):
    image = load_image(SAMPLES / "coffee.jpg")[:99, :77]
    data = cv2.imencode(suffix, image)[1].tobytes()
    once = embed_packet(data, write_description("first"))
    assert read_description(read_packet(once)) == "first"
    twice = embed_packet(once, write_description(TEXT, read_packet(once)))
    said = read_description(read_packet(twice))
    assert said == TEXT.replace("\x01", "")
    assert twice.count(b"W5M0MpCehiHzreSzNTczkc9d") == 1
    for file in (once, twice):
        np.testing.assert_array_equal(load_image(file), load_image(data))
    Image = pytest.importorskip("PIL.Image")
    import io

    with Image.open(io.BytesIO(twice)) as opened:
        opened.load()
        xmp = opened.info.get("xmp") or opened.info["XML:com.adobe.xmp"]
    xmp = xmp if isinstance(xmp, bytes) else xmp.encode()
    assert read_description(xmp) == said


def test_what_cannot_hold_a_caption_is_said_so():
    for data in (b"", b"GIF89a", b"\xff\xd8\xff\xe1", b"RIFF\0\0\0\0WEBPVP8 "):
        with pytest.raises(ValueError):
            embed_packet(data, write_description("text"))


def test_a_compressed_packet_is_read_and_one_that_inflates_without_end_is_not():
    png = cv2.imencode(".png", np.zeros((2, 2, 3), "uint8"))[1].tobytes()

    def with_text(text):
        body = b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text, 9)
        chunk = struct.pack(">I", len(body) - 4) + body
        return png[:33] + chunk + struct.pack(">I", zlib.crc32(body)) + png[33:]

    packet = write_description("a dog")
    assert read_packet(with_text(packet)) == packet
    bomb = with_text(bytes(2**27))
    assert len(bomb) < 2**18
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too large"):
            read_packet(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_what_else_is_in_an_xmp_file_stays_in_it():
    packet = b"""<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'>
    <rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
    <rdf:Description rdf:about='' xmlns:xmp='http://ns.adobe.com/xap/1.0/'
     xmlns:dc='http://purl.org/dc/elements/1.1/' xmp:Rating='5' dc:description='short'>
    <dc:subject><rdf:Bag><rdf:li>beach</rdf:li></rdf:Bag></dc:subject>
    </rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"""
    assert read_description(packet) == "short"
    changed = write_description("a dog", packet)
    assert read_description(changed) == "a dog"
    root = ElementTree.fromstring(changed)
    assert [e.text for e in root.iter() if e.text == "beach"] == ["beach"]
    assert b'xmp:Rating="5"' in changed and b"short" not in changed
    for wrong in (b"", b"<a/>", b"text", b"<x", b"\xff\xfe"):
        with pytest.raises(ValueError, match="not XMP"):
            read_description(wrong)


def test_files_of_single_photos(tmp_path):
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path)
    (photo,) = find_photos(tmp_path)
    for writer, name in (
        (TextSidecar(".caption"), "coffee.caption"),
        (XmpSidecar(), "coffee.xmp"),
        (EmbeddedCopy("append"), "copy.jpg"),
    ):
        path = tmp_path / name
        assert writer.read(path) is None
        path.write_bytes(writer.content(photo, path, "a dog"))
        assert writer.read(path) == "a dog"
    copy = tmp_path / "copy.jpg"
    (photo,) = find_photos(copy)
    content = EmbeddedCopy("append").content(photo, copy, "an animal")
    assert read_description(read_packet(content)) == "a dog\nan animal"
    xmp = tmp_path / "coffee.xmp"
    xmp.write_text("precious")  # whatever it is, it is not replaced
    with pytest.raises(ValueError, match="not XMP"):
        XmpSidecar().content(photo, xmp, "a dog")


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
