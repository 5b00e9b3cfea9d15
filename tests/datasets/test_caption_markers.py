"""Start and end markers are cut, and captions without spaces are counted."""

import pytest

from captioner.datasets import load_dataset
from captioner.datasets.caption_markers import lacks_spaces


def load(folder, captions):
    rows = ["image\tcaption"]
    for number, caption in enumerate(captions):
        (folder / f"{number}.jpg").touch()
        rows.append(f"{number}.jpg\t{caption}")
    (folder / "t.tsv").write_text("\n".join(rows), encoding="utf-8")
    dataset = load_dataset(folder / "t.tsv", split_fractions=(1, 0, 0))
    texts = {e["image/id"]: e["captions"] for e in dataset.examples("train")}
    return [texts.get(f"{i}.jpg") for i in range(len(captions))], dataset.summary()


@pytest.mark.parametrize(
    "start, end",
    [
        ("startseq ", " endseq"),
        ("<start> ", " <end>"),
        ("<s>", "</s>"),
        ("[CLS] ", " [SEP]"),
        ("<bos> ", " <eos> <pad> <pad>"),
        ("<|startoftext|>", "<|endoftext|>"),
        ("bos ", " eos"),
        ("START ", " END"),
        ("", " <end>"),
        ("startseq ", ""),
    ],
)
def test_markers_of_all_captions_are_cut_and_reported(tmp_path, start, end):
    captions = [f"{start}a dog runs {n}{end}" for n in range(20)]
    found, summary = load(tmp_path, captions)
    assert found == [[f"a dog runs {n}"] for n in range(20)]
    (note,) = summary.notes
    assert note.startswith("start and end markers cut from captions (20): ")
    assert (start.split() or end.split())[0].lower() in note


def test_nearly_all_are_enough_and_some_are_not(tmp_path):
    captions = [f"startseq a dog {n} endseq" for n in range(39)] + ["a cat"]
    found, _ = load(tmp_path, captions)
    assert found == [[f"a dog {n}"] for n in range(39)] + [["a cat"]]
    captions = ["<start> a dog <end>"] * 10 + ["a cat"] * 10
    found, summary = load(tmp_path, captions)
    assert found == [[caption] for caption in captions] and summary.notes == ()


def test_words_of_captions_are_no_markers(tmp_path):
    captions = ["start of a race to the end", "end of a day", "begin here", "a dog eos"]
    found, summary = load(tmp_path, captions)
    assert found == [[caption] for caption in captions] and summary.notes == ()
    captions = ["start of a race", "start of a game", "start here"]
    assert load(tmp_path, captions)[0] == [[caption] for caption in captions]


def test_a_caption_of_markers_alone_is_empty(tmp_path):
    captions = [f"startseq dog {n} endseq" for n in range(3)] + ["startseq endseq"]
    found, summary = load(tmp_path, captions)
    assert found == [["dog 0"], ["dog 1"], ["dog 2"], None]
    assert ("3.jpg", "empty caption") in summary.left_out


@pytest.mark.parametrize(
    "caption, lacks",
    [
        ("一个女孩在草地上跳舞", True),
        ("一个 女孩 在 草地 上 跳舞", False),
        ("犬が草の上を走っている", True),
        ("ผู้หญิงคนหนึ่งกำลังเต้นรำ", True),
        ("개가 잔디 위를 달린다", False),
        ("كلب يركض على العشب", False),
        ("एक कुत्ता दौड़ता है", False),
        ("a dog runs", False),
        ("a sign that says 中国", False),
        ("", False),
    ],
)
def test_scripts_without_spaces(caption, lacks):
    assert lacks_spaces(caption) == lacks


def test_captions_without_spaces_are_counted(tmp_path):
    _, summary = load(tmp_path, ["一个女孩在草地上跳舞", "a dog runs"])
    assert summary.unspaced_captions == 1
    assert "note: 1 captions have no spaces between words" in str(summary)
    assert load(tmp_path, ["a dog runs"])[1].unspaced_captions == 0
    mixed = load_dataset(f"mix:{tmp_path}/t.tsv*3+scenes:5").summary()
    assert mixed.unspaced_captions == 0


def test_names_cannot_move_the_cursor(tmp_path):
    (tmp_path / "a.jpg").touch()
    path = tmp_path / "c.csv"
    path.write_text("image,caption\na.jpg,A dog\nx\x1b]0;OWNED\x07.jpg,A cat\n")
    text = str(load_dataset(path).summary())
    assert "\x1b" not in text and r"x\x1b]0;OWNED\x07.jpg" in text
