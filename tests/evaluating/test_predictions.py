"""Files of captions that any captioner wrote: what is read, and what is refused."""

import json
import os

import pytest

from captioner.datasets import CaptionDataset
from captioner.evaluating.predictions import match_predictions, read_predictions


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def dataset(left_out=(), **splits):
    """Images by their ids; a folder in front makes the path of the file."""
    return CaptionDataset(
        "pets",
        {
            split: [
                {"image/id": i, "image": f"/data/pets/{i}", "captions": ["a pet"]}
                for i in ids
            ]
            for split, ids in splits.items()
        },
        left_out,
    )


ROWS = [
    {"image_id": 7, "caption": "a dog", "score": -1.5},
    {"image_id": "b.jpg", "caption": 'two "cats", one\nhat'},
    {"image_id": "c.jpg", "caption": ""},
]
EXPECTED = {"7": ["a dog"], "b.jpg": ['two "cats", one\nhat'], "c.jpg": [""]}


def test_each_format_is_read(tmp_path):
    csv = (
        "image_id,caption,score\n7,a dog,-1.5\n"
        'b.jpg,"two ""cats"", one\nhat",\nc.jpg,,\n'
    )
    files = [
        write(tmp_path / "a.json", json.dumps(ROWS)),
        write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, ROWS)) + "\n"),
        write(tmp_path / "a.csv", csv),
        write(tmp_path / "b.csv", "\ufeff" + csv.replace("image_id", " Path ")),
        write(tmp_path / "a.tsv", csv.replace(",one", ";one").replace(",", "\t")),
    ]
    for file in files:
        read = read_predictions(file)
        texts = {i: [t.replace("\t", ",") for t in c] for i, c in read.captions.items()}
        assert texts == EXPECTED, file
        assert read.scores == {"7": -1.5} and read.errors == {}
        assert read.source == str(file) and read.have_suffix


def test_a_folder_of_texts_is_read_to_the_bottom(tmp_path):
    write(tmp_path / "b.txt", "a dog\n\n the dog runs\n")
    write(tmp_path / "deep" / "a.b.txt", "a cat")
    write(tmp_path / "empty.txt", "\n")
    write(tmp_path / "._b.txt", "of macOS")
    write(tmp_path / "b.jpg", "")
    read = read_predictions(tmp_path)
    assert read.captions == {
        "b": ["a dog", " the dog runs"],
        "empty": [""],
        "deep/a.b": ["a cat"],
    }
    assert not read.have_suffix


def test_several_captions_of_an_image_are_the_best_first(tmp_path):
    rows = [{"image": "a.jpg", "captions": ["a dog", "the dog"], "caption": "a dog"}]
    read = read_predictions(write(tmp_path / "a.json", json.dumps(rows)))
    assert read.captions == {"a.jpg": ["a dog", "the dog"]}


def test_a_row_with_an_error_has_no_caption(tmp_path):
    text = "path,caption,error,kind\na.jpg,a dog,,\nb.jpg,,the file is empty,empty\n"
    read = read_predictions(write(tmp_path / "a.csv", text))
    assert list(read.captions) == ["a.jpg"]
    assert read.errors == {"b.jpg": "the file is empty"}
    row = {"path": "b.jpg", "caption": None, "score": None, "error": "two\nlines"}
    read = read_predictions(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert read.errors == {"b.jpg": "two lines"} and read.captions == {}


@pytest.mark.parametrize(
    "written, caption",
    [
        ("a dog runs <end>", "a dog runs"),
        ("<start> a dog runs <end> <pad> <pad>", " a dog runs"),
        ("startseq a dog runs endseq", " a dog runs"),
        ("<s>a dog runs</s>", "a dog runs"),
        ("[CLS] a dog runs [SEP] and more", " a dog runs"),
        ("a dog runs<|endoftext|>", "a dog runs"),
        ("A dog runs <EOS>.", "A dog runs"),
        ("<end>", ""),
        ("a dog runs to the end", "a dog runs to the end"),
        ("a dog <unk> startseqs", "a dog <unk> startseqs"),
    ],
)
def test_markers_are_no_words(tmp_path, written, caption):
    rows = [{"image_id": "a", "caption": written}, {"image_id": "b", "caption": "x"}]
    read = read_predictions(write(tmp_path / "a.json", json.dumps(rows)))
    assert read.captions["a"] == [caption]
    assert read.notes.get("markers_cut", 0) == (caption != written)


@pytest.mark.parametrize(
    "name, text, words",
    [
        # Twice the same image, as it is or as a number and a text.
        (
            "a.json",
            '[{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "a"}]',
            "object 2: the image '1' occurs twice, first in object 1",
        ),
        ("a.csv", "image,caption\na.jpg,a dog\na.jpg,a cat\n", "line 3: .*twice"),
        # Ids of the wrong type.
        ("a.json", '[{"image_id": null, "caption": "a"}]', "object 1: .*image_id=None"),
        ("a.json", '[{"image_id": true, "caption": "a"}]', "image_id=True"),
        ("a.json", '[{"image_id": 1.0, "caption": "a"}]', "image_id=1.0"),
        ("a.json", '[{"image_id": ["a"], "caption": "a"}]', r"image_id=\['a'\]"),
        (
            "a.jsonl",
            '{"image_id": "a", "caption": "a"}\n{"image_id": {}, "caption": "b"}',
            "line 2: an image must be a text or a whole number",
        ),
        ("a.csv", "image,caption\n,a dog\n", "line 2: .*image=''"),
        ("a.json", '[{"id": 3, "caption": "a"}]', "no image_id"),
        # Captions of the wrong type.
        ("a.json", '[{"image_id": 1, "caption": 3}]', "object 1: .*text. Received: 3"),
        ("a.json", '[{"image_id": 1, "caption": null}]', "Received: None"),
        ("a.json", '[{"image_id": 1}]', "a caption must be text"),
        ("a.json", '[{"image_id": 1, "captions": []}]', r"Received: \[\]"),
        ("a.json", '[{"image_id": 1, "captions": "a dog"}]', "a caption must be text"),
        ("a.json", '[{"image_id": 1, "captions": ["a", 2]}]', "a caption must be text"),
        (
            "a.json",
            '[{"image_id": 1, "caption": "a", "score": "high"}]',
            "score='high'",
        ),
        ("a.json", '[{"image_id": 1, "caption": "a", "score": NaN}]', "score=nan"),
        # No such file, or of another form.
        ("a.json", '{"annotations": []}', "expected a list of objects.*a dict"),
        ("a.json", "[1]", "object 1: not a JSON object"),
        ("a.json", "[{", "a.json: not JSON"),
        ("a.json", "[" * 100_000, "a.json: not JSON"),
        ("a.jsonl", '{"image_id": 1, "caption": "a"}\nnot json', "line 2: not JSON"),
        ("a.jsonl", '{"image_id": 1, "caption": "a"}\n[]', "line 2: not a JSON object"),
        ("a.json", "[]", "no predictions"),
        ("a.jsonl", "", "no predictions"),
        ("a.csv", "", "first line"),
        ("a.csv", "photo,words\na.jpg,a dog\n", "first line.*'photo,words'"),
        ("a.csv", "image,caption\na.jpg,a dog, a cat\n", "line 2: 3 fields"),
        ("a.csv", "image,Caption,caption\na.jpg,a,b\n", "two columns 'caption'"),
        ("a.csv", 'image,caption\na.jpg,"a dog\n', "line 2: .* not closed"),
        ("a.txt", "a dog", "end.* in .json"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, name, text, words):
    file = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=words) as error:
        read_predictions(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.json: No such file"):
        read_predictions(tmp_path / "nowhere.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="pipe.json is not a file"):
        read_predictions(tmp_path / "pipe.json")
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ValueError, match="huge.json is larger than"):
        read_predictions(tmp_path / "huge.json")
    with pytest.raises(ValueError, match="no .txt files with predictions"):
        read_predictions(write(tmp_path / "folder" / "a.jpg", "").parent)
    for encoding in ("utf-16-le", "utf-16-be"):  # as Excel may write it
        (tmp_path / "wide.csv").write_text("\ufeffimage,caption\na.jpg,a", encoding)
        assert read_predictions(tmp_path / "wide.csv").captions == {"a.jpg": ["a"]}
    (tmp_path / "latin.csv").write_bytes(b"image,caption\na.jpg,a caf\xe9\n")
    with pytest.raises(ValueError, match="line 2: a caption must be text"):
        read_predictions(tmp_path / "latin.csv")
    # The name of a file may be of bytes that are no text.
    (tmp_path / "name.csv").write_bytes(b"image,caption\ncaf\xe9.jpg,a cup\n")
    assert list(read_predictions(tmp_path / "name.csv").captions) == ["caf\udce9.jpg"]


def match(tmp_path, captions, data, split="dev"):
    rows = [{"image_id": i, "caption": text} for i, text in captions.items()]
    file = write(tmp_path / "a.json", json.dumps(rows))
    return match_predictions(read_predictions(file), data, split)


def test_ids_stand_for_images(tmp_path):
    matched = match(tmp_path, {"b.jpg": "b", 7: "7"}, dataset(dev=["7", "b.jpg"]))
    assert matched.captions == {"7": ["7"], "b.jpg": ["b"]}
    assert matched.notes == {"captions": "read from a file"}


def test_paths_stand_for_the_image_with_the_longest_common_end(tmp_path):
    data = dataset(train=["x/1.jpg", "x/3.jpg"], dev=["y/1.jpg", "2.jpg"])
    captions = {"/moved/y/1.jpg": "y one", r"C:\photos\2.jpg": "two"}
    matched = match(tmp_path, captions, data)
    assert matched.captions == {"y/1.jpg": ["y one"], "2.jpg": ["two"]}
    assert matched.notes["by_file_name"] == 2
    # "1.jpg" could be of both; "x/1.jpg" is the one of another split.
    with pytest.raises(ValueError, match="several images are called '1.jpg'"):
        match(tmp_path, {"1.jpg": "which?", "2.jpg": "two"}, data)
    with pytest.raises(ValueError, match="no prediction: 1 image: 'y/1.jpg'"):
        match(tmp_path, {"/moved/x/1.jpg": "x one", "2.jpg": "two"}, data)
    # An id is an id before it is the end of a path.
    data = dataset(dev=["1.jpg", "old/1.jpg"])
    matched = match(tmp_path, {"old/1.jpg": "old", "1.jpg": "new"}, data)
    assert matched.captions == {"1.jpg": ["new"], "old/1.jpg": ["old"]}


def test_texts_beside_photos_stand_for_them(tmp_path):
    write(tmp_path / "t" / "y" / "1.txt", "y one")
    write(tmp_path / "t" / "2.v1.txt", "two")
    data = dataset(dev=["y/1.jpg", "2.v1.png"])
    read = read_predictions(tmp_path / "t")
    matched = match_predictions(read, data, "dev")
    assert matched.captions == {"y/1.jpg": ["y one"], "2.v1.png": ["two"]}
    with pytest.raises(ValueError, match="several images are called 'y/1'"):
        data = dataset(dev=["y/1.jpg", "y/1.png", "2.v1.png"])
        match_predictions(read, data, "dev")


def test_images_without_predictions_are_named_and_counted(tmp_path):
    data = dataset(dev=[f"{n}.jpg" for n in range(9)])
    with pytest.raises(ValueError) as error:
        match(tmp_path, {"3.jpg": "a", "5.jpg": "b"}, data)
    assert (
        "some of the 9 images of the dev split have no prediction: 7 images: "
        in str(error.value)
    )
    assert "'0.jpg', '1.jpg', '2.jpg', '4.jpg', '6.jpg', ..." in str(error.value)


def test_predictions_of_no_image_are_named_and_counted(tmp_path):
    data = dataset(dev=["1.jpg"])
    with pytest.raises(ValueError, match="not in pets: 2 images: '2.jpg', 'x/3.jpg'"):
        match(tmp_path, {"1.jpg": "a", "2.jpg": "b", "x/3.jpg": "c"}, data)
    with pytest.raises(
        ValueError, match="no prediction belongs to an image of the dev"
    ):
        match(tmp_path, {f"{n}.png": "a" for n in range(3)}, data)


def test_two_names_of_one_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'1.jpg'.*'a/1.jpg' and 'b/1.jpg'"):
        match(tmp_path, {"a/1.jpg": "a", "b/1.jpg": "b"}, dataset(dev=["1.jpg"]))


def test_other_splits_and_images_without_references_are_counted(tmp_path):
    data = dataset(
        left_out=[("3.jpg", "image without captions"), ("line 9", "empty caption")],
        train=["1.jpg", "4.jpg"],
        dev=["2.jpg"],
    )
    captions = {f"photos/{n}.jpg": f"photo {n}" for n in (1, 2, 3, 4)}
    matched = match(tmp_path, captions, data)
    assert matched.captions == {"2.jpg": ["photo 2"]}
    notes = matched.notes["not_scored"]
    assert notes == "2 of another split, 1 image without captions"
