"""Readers on small folders made here, and on the real Flickr8k where it is."""

import itertools
import json
import pathlib
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest

from captioner.captioning.writers.text_sidecar import TextSidecar
from captioner.datasets import build_scenes, load_dataset
from captioner.images.image_files import load_image
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

FLICKR8K = pathlib.Path(__file__).parents[3] / "shared" / "flickr8k"


def make_images(folder, names):
    """Files of these names. Readers never open an image, so they may be empty."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_flickr8k(folder, text_dir=".", photo_dir="Flicker8k_Dataset"):
    names = [f"{i}.jpg" for i in range(5)]
    make_images(folder / photo_dir, names)
    text = folder / text_dir
    text.mkdir(exist_ok=True)
    (text / "Flickr8k.token.txt").write_text(
        "".join(f"{n}#{k}\tPhoto {n}  number {k} .\n" for n in names for k in range(5))
        + "9.jpg.1#0\tA file that never was .\n"
    )
    (text / "Flickr_8k.trainImages.txt").write_text("0.jpg\n1.jpg\n2.jpg\n")
    (text / "Flickr_8k.devImages.txt").write_text("3.jpg\n")
    (text / "Flickr_8k.testImages.txt").write_text("4.jpg\n")
    return folder


def ids(dataset, split):
    return [example["image/id"] for example in dataset.examples(split)]


def all_ids(dataset):
    return sorted(sum((ids(dataset, split) for split in dataset.splits), []))


def captions(dataset):
    return {
        example["image/id"]: example["captions"]
        for split in dataset.splits
        for example in dataset.examples(split)
    }


# -- Flickr8k ---------------------------------------------------------------


@pytest.mark.parametrize(
    "text_dir, photo_dir",
    [
        (".", "Flicker8k_Dataset"),
        ("Flickr8k_text", "Flickr8k_Dataset"),
        (".", "Images"),
    ],
)
def test_flickr8k_layouts(tmp_path, text_dir, photo_dir):
    make_flickr8k(tmp_path, text_dir, photo_dir)
    dataset = load_dataset(f"flickr8k:{tmp_path}")
    assert dataset.splits == ("train", "dev", "test")
    assert ids(dataset, "train") == ["0.jpg", "1.jpg", "2.jpg"]
    example = dataset.examples("dev")[0]
    assert example["image"] == str(tmp_path / photo_dir / "3.jpg")
    assert example["captions"][0] == "Photo 3.jpg number 0 ."
    assert len(example["captions"]) == 5
    assert dataset.summary().left_out == (("9.jpg.1", "image not found"),)


def test_flickr8k_without_test_list(tmp_path):
    make_flickr8k(tmp_path)
    (tmp_path / "Flickr_8k.testImages.txt").unlink()
    dataset = load_dataset(tmp_path)
    assert dataset.splits == ("train", "dev")
    assert "no split: test" in str(dataset.summary())
    assert ("4.jpg", "image in no split") in dataset.summary().left_out
    with pytest.raises(ValueError, match="split='test'"):
        dataset.examples("test")


def test_flickr8k_image_in_two_lists_is_refused(tmp_path):
    make_flickr8k(tmp_path)
    (tmp_path / "Flickr_8k.devImages.txt").write_text("3.jpg\n1.jpg\n")
    with pytest.raises(ValueError, match="'1.jpg'.*two splits.*train and dev"):
        load_dataset(f"flickr8k:{tmp_path}")


def test_flickr8k_bad_input(tmp_path):
    with pytest.raises(ValueError, match="has Flickr8k.token.txt"):
        load_dataset(f"flickr8k:{tmp_path}")
    (tmp_path / "Flickr8k.token.txt").write_text("0.jpg#0\tA dog .\n1.jpg#0 A cat .\n")
    with pytest.raises(ValueError, match="token.txt, line 2"):
        load_dataset(f"flickr8k:{tmp_path}")
    (tmp_path / "Flickr8k.token.txt").write_text("0.jpg#0\tA dog .\n")
    with pytest.raises(ValueError, match="no list of images"):
        load_dataset(f"flickr8k:{tmp_path}")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("0.jpg\n")
    with pytest.raises(ValueError, match="no usable image.*image not found: 0.jpg"):
        load_dataset(f"flickr8k:{tmp_path}")
    (tmp_path / "Flickr8k.token.txt").write_bytes(b"0.jpg#0\t\xff\xfe\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_dataset(f"flickr8k:{tmp_path}")


@pytest.mark.skipif(
    not FLICKR8K.is_dir(), reason="the Flickr8k corpus is not at ../shared/flickr8k"
)
def test_real_flickr8k():
    dataset = load_dataset(f"flickr8k:{FLICKR8K}")
    summary = dataset.summary()
    assert summary.images == {"train": 6000, "dev": 1000}
    assert summary.captions == {"train": 30000, "dev": 5000}
    assert not set(ids(dataset, "train")) & set(ids(dataset, "dev"))
    for example in dataset.examples("dev"):
        assert len(example["captions"]) == 5
    assert pathlib.Path(example["image"]).is_file()


# -- Karpathy ---------------------------------------------------------------


def karpathy_image(name, split, *texts, **more):
    sentences = [{"raw": text, "tokens": text.split()} for text in texts]
    return {"filename": name, "split": split, "sentences": sentences, **more}


def write_json(path, data):
    path.write_text(json.dumps(data))
    return path


def test_karpathy(tmp_path):
    make_images(tmp_path, [f"images/val2014/{i}.jpg" for i in range(4)])
    images = [
        karpathy_image(f"{i}.jpg", split, "A dog .", "Two  dogs ", filepath="val2014")
        for i, split in enumerate(["restval", "val", "test", "train", "train"])
    ]
    path = write_json(tmp_path / "dataset_coco.json", {"images": images})
    for spec in (f"karpathy:{path}", path, tmp_path):
        dataset = load_dataset(spec)
        assert ids(dataset, "train") == ["val2014/0.jpg", "val2014/3.jpg"]
        assert ids(dataset, "dev") == ["val2014/1.jpg"]
        assert ids(dataset, "test") == ["val2014/2.jpg"]
        assert dataset.examples("dev")[0]["captions"] == ["A dog .", "Two dogs"]
        assert dataset.summary().left_out == (("val2014/4.jpg", "image not found"),)


def test_karpathy_bad_input(tmp_path):
    make_images(tmp_path, ["0.jpg"])
    path = tmp_path / "dataset.json"
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match="dataset.json: not JSON"):
        load_dataset(f"karpathy:{path}")
    write_json(path, {"images": [{"filename": "0.jpg"}]})
    with pytest.raises(ValueError, match="no Karpathy JSON"):
        load_dataset(f"karpathy:{path}")
    write_json(path, {"images": [karpathy_image("0.jpg", "train"), {"filename": "1"}]})
    with pytest.raises(ValueError, match="Image number 2.*sentences"):
        load_dataset(f"karpathy:{path}")
    twice = [karpathy_image("0.jpg", split, "A dog .") for split in ("train", "test")]
    write_json(path, {"images": twice})
    with pytest.raises(ValueError, match="'0.jpg'.*two splits"):
        load_dataset(f"karpathy:{path}")
    write_json(path, {"images": [karpathy_image("0.jpg", "holdout", "A dog .")]})
    with pytest.raises(ValueError, match="split='holdout' for '0.jpg'"):
        load_dataset(f"karpathy:{path}")


# -- COCO -------------------------------------------------------------------


def coco_json(numbers, prefix="", texts=("A dog .", "Two dogs .")):
    return {
        "images": [{"id": i, "file_name": f"{prefix}{i}.jpg"} for i in numbers],
        "annotations": [{"image_id": i, "caption": t} for t in texts for i in numbers],
    }


def test_coco_folder(tmp_path):
    make_images(tmp_path / "train2017", ["1.jpg", "2.jpg", "8.jpg"])
    make_images(tmp_path / "val2017", ["3.jpg"])
    (tmp_path / "annotations").mkdir()
    train = coco_json([1, 2])
    train["annotations"].append({"image_id": 7, "caption": "Of nothing ."})
    train["images"] += [{"id": i, "file_name": f"{i}.jpg"} for i in (8, 9)]
    train["annotations"].append({"image_id": 9, "caption": "Not there ."})
    write_json(tmp_path / "annotations" / "captions_train2017.json", train)
    write_json(tmp_path / "annotations" / "captions_val2017.json", coco_json([3]))
    for spec in (f"coco:{tmp_path}", tmp_path):
        dataset = load_dataset(spec)
        assert ids(dataset, "train") == ["1", "2"]
        assert ids(dataset, "dev") == ["3"]
        assert captions(dataset)["3"] == ["A dog .", "Two dogs ."]
        assert dataset.examples("dev")[0]["image"] == str(tmp_path / "val2017/3.jpg")
        assert dataset.summary().left_out == (
            ("7", "captions of an image that is not listed"),
            ("9", "image not found"),
            ("8", "image without captions"),
        )
    alone = load_dataset(tmp_path / "annotations" / "captions_val2017.json")
    assert alone.splits == ("dev",)


def test_coco_file_without_a_split_is_split_by_hash(tmp_path):
    make_images(tmp_path / "photos", [f"{i}.jpg" for i in range(200)])
    path = write_json(tmp_path / "mine.json", coco_json(range(200)))
    dataset = load_dataset(path, split_fractions=(0.5, 0.25, 0.25))
    images = dataset.summary().images
    assert sum(images.values()) == 200
    assert images["train"] > images["dev"] > 10 and images["test"] > 10


@pytest.mark.parametrize(
    "name, splits",
    [
        ("captions_train2014", ("train",)),
        ("my-VAL", ("dev",)),
        ("test", ("test",)),
        ("captions_trainval2014", ("train", "dev", "test")),
        ("latest", ("train", "dev", "test")),
    ],
)
def test_coco_split_by_file_name(tmp_path, name, splits):
    make_images(tmp_path, [f"{i}.jpg" for i in range(100)])
    path = write_json(tmp_path / f"{name}.json", coco_json(range(100)))
    assert load_dataset(f"coco:{path}").splits == splits


def test_coco_bad_input(tmp_path):
    make_images(tmp_path, ["1.jpg", "2.jpg"])
    path = tmp_path / "captions.json"
    write_json(path, {"images": [], "annotations": [{"image_id": 1, "bbox": []}]})
    with pytest.raises(ValueError, match="no COCO captions JSON.*caption"):
        load_dataset(f"coco:{path}")
    data = coco_json([1, 2])
    data["images"][1]["id"] = 1
    write_json(path, data)
    with pytest.raises(ValueError, match="Two images have the id '1'"):
        load_dataset(f"coco:{path}")
    folder = tmp_path / "both"
    make_images(folder, ["1.jpg"])
    write_json(folder / "captions_train.json", coco_json([1]))
    write_json(folder / "captions_val.json", coco_json([1]))
    with pytest.raises(ValueError, match="'1.jpg'.*two splits"):
        load_dataset(f"coco:{folder}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has a captions_"):
        load_dataset(f"coco:{tmp_path / 'empty'}")


# -- CSV and JSONL ----------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv(tmp_path, delimiter):
    make_images(tmp_path / "photos", ["a.jpg", "sub/b.jpg", "c.jpg"])
    rows = [
        ("image", "caption", "split"),
        ("a.jpg", "A dog , running .", "train"),
        ("a.jpg", 'He says "no"; or | not .', "train"),
        ("./sub/b.jpg", "A cat .", "val"),
        ("c.jpg", "  ", "test"),
        ("gone.jpg", "A ghost .", "test"),
        ("", "Of nothing .", "train"),
    ]
    text = "\r\n".join(
        delimiter.join('"' + value.replace('"', '""') + '"' for value in row)
        for row in rows
    )
    path = tmp_path / "captions.csv"
    path.write_text("\ufeff" + text, encoding="utf-8")
    for spec in (f"csv:{path}", path, tmp_path):
        dataset = load_dataset(spec)
        assert dataset.splits == ("train", "dev")
        assert captions(dataset) == {
            "a.jpg": ["A dog , running .", 'He says "no"; or | not .'],
            "sub/b.jpg": ["A cat ."],
        }
        assert sorted(dataset.summary().left_out) == [
            ("c.jpg", "empty caption"),
            ("c.jpg", "image without captions"),
            ("gone.jpg", "image not found"),
            ("line 7", "row without an image"),
        ]


def test_csv_caption_columns_and_line_breaks(tmp_path):
    make_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "table.csv").write_text(
        "File_Name,caption_1,width,caption_2\n"
        'a.jpg,"One\ndog .",640,Two dogs .\n'
        "b.jpg,A cat .,640,\n"
    )
    dataset = load_dataset(tmp_path / "table.csv", split_fractions=(1, 0, 0))
    assert captions(dataset) == {
        "a.jpg": ["One dog .", "Two dogs ."],
        "b.jpg": ["A cat ."],
    }
    assert dataset.summary().left_out == ()


def test_csv_row_with_an_unquoted_comma_is_left_out(tmp_path):
    make_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "c.csv").write_text(
        "image,caption\na.jpg,A dog, running\nb.jpg,A cat\n"
    )
    dataset = load_dataset(tmp_path / "c.csv")
    assert all_ids(dataset) == ["b.jpg"]
    ((line, reason),) = dataset.summary().left_out
    assert line == "line 2" and reason.startswith("row with too many fields")


def test_csv_bad_input(tmp_path):
    make_images(tmp_path, ["a.jpg"])
    path = tmp_path / "c.csv"
    with pytest.raises(ValueError, match="No such file or folder: .*c.csv"):
        load_dataset(f"csv:{path}")
    for text in ("", "a.jpg,A dog .\n", "image;width\na.jpg;640\n"):
        path.write_text(text)
        with pytest.raises(
            ValueError, match="first line with the columns image and capt"
        ):
            load_dataset(f"csv:{path}")
        with pytest.raises(
            ValueError, match="first line with the columns image and capt"
        ):
            load_dataset(path)
    path.write_text('image,caption\na.jpg,"A dog\n')
    with pytest.raises(ValueError, match="c.csv, line 2"):
        load_dataset(path)
    path.write_text("image,caption,split\na.jpg,A dog .,train\na.jpg,A dog .,test\n")
    with pytest.raises(ValueError, match="'a.jpg'.*two splits"):
        load_dataset(path)
    path.write_text("image,caption\n")
    with pytest.raises(ValueError, match="no image at all"):
        load_dataset(path)


def test_images_without_a_split_beside_images_with_one_are_left_out(tmp_path):
    make_images(tmp_path, ["a.jpg", "b.jpg"])
    path = tmp_path / "c.csv"
    path.write_text("image,caption,split\na.jpg,A dog .,test\nb.jpg,A cat .,\n")
    dataset = load_dataset(path)
    assert dataset.splits == ("test",)
    assert dataset.summary().left_out == (("b.jpg", "image in no split"),)


def test_jsonl(tmp_path):
    make_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    rows = [
        {"image": "a.jpg", "caption": "A dog .", "split": "train"},
        {"image": "a.jpg", "captions": ["Two dogs .", None, "\ud800", ""]},
        {"image": "b.jpg", "captions": ["A cat ."], "split": "validation"},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    for spec in (f"jsonl:{path}", path, tmp_path):
        dataset = load_dataset(spec)
        assert ids(dataset, "dev") == ["b.jpg"]
        assert captions(dataset)["a.jpg"] == ["A dog .", "Two dogs ."]
        assert dataset.summary().left_out == (
            ("a.jpg", "caption is not text"),
            ("a.jpg", "caption is not text"),
            ("a.jpg", "empty caption"),
        )


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"image": "a.jpg"', "line 2: not JSON"),
        ('["a.jpg", "A dog ."]', "line 2: not a JSON object"),
        ('{"image": 7, "caption": "A dog ."}', "line 2: the image must be a path"),
    ],
)
def test_jsonl_bad_input(tmp_path, line, message):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"image": "a.jpg", "caption": "A dog ."}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        load_dataset(f"jsonl:{path}")


def test_image_dir_elsewhere(tmp_path):
    make_images(tmp_path / "far" / "away", ["a.jpg"])
    path = tmp_path / "captions.csv"
    absolute = tmp_path / "far" / "away" / "a.jpg"
    for name in ("a.jpg", absolute):
        path.write_text(f"image,caption\n{name},A dog .\n")
        dataset = load_dataset(path, image_dir=str(tmp_path / "far" / "away"))
        assert all_ids(dataset) == ["a.jpg"]
    path.write_text("image,caption\na.jpg,A dog .\n")
    far = tmp_path / "elsewhere" / "captions.csv"
    far.parent.mkdir()
    path.rename(far)
    with pytest.raises(
        ValueError, match="not found: a.jpg.*looked for in .*/elsewhere"
    ):
        load_dataset(far)
    with pytest.raises(ValueError, match="There is no folder .*/nowhere with photos"):
        load_dataset(far, image_dir=tmp_path / "nowhere")


# -- sidecars ---------------------------------------------------------------


def test_sidecars(tmp_path):
    make_images(tmp_path, ["a.JPG", "b.png", "deep/down/c.jpeg", ".hidden/d.jpg"])
    (tmp_path / "a.txt").write_text("A dog .\n\n Two dogs . \n")
    (tmp_path / "deep/down/c.txt").write_text("A cat .")
    (tmp_path / ".hidden/d.txt").write_text("A secret .")
    (tmp_path / "README.txt").write_text("Photos of mine.")
    for spec in (f"txt:{tmp_path}", tmp_path):
        dataset = load_dataset(spec)
        assert captions(dataset) == {
            "a.JPG": ["A dog .", "Two dogs ."],
            "deep/down/c.jpeg": ["A cat ."],
        }
        assert sorted(dataset.summary().left_out) == [
            ("README.txt", "text without a photo"),
            ("b.png", "image without captions"),
        ]


def test_sidecars_bad_input(tmp_path):
    with pytest.raises(ValueError, match="No such file or folder"):
        load_dataset(f"txt:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="no image at all"):
        load_dataset(f"txt:{tmp_path}")
    make_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "a.txt").write_text("A dog .")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    dataset = load_dataset(f"txt:{tmp_path}")
    assert all_ids(dataset) == ["a.jpg"]
    assert any("b.txt is not UTF-16" in why for _, why in dataset.summary().left_out)


@pytest.mark.parametrize("text", ["{stem}.txt", "{stem}.caption", "{name}.txt"])
def test_each_suffix_makes_the_round_trip_from_caption_to_dataset(tmp_path, text):
    for suffix in PHOTO_SUFFIXES:
        name = f"{suffix[1:]}{suffix}"
        (tmp_path / name).touch()
        sidecar = tmp_path / text.format(stem=suffix[1:], name=name)
        sidecar.write_bytes(TextSidecar().content(None, None, f"of {name}"))
    assert captions(load_dataset(tmp_path)) == {
        f"{suffix[1:]}{suffix}": [f"of {suffix[1:]}{suffix}"]
        for suffix in PHOTO_SUFFIXES
    }


def test_of_two_texts_of_a_photo_one_is_read(tmp_path):
    make_images(tmp_path, ["a.jpg", "b.jpg"])
    for name in ("a.txt", "a.caption", "b.jpg.caption"):
        (tmp_path / name).write_text(f"from {name}")
    dataset = load_dataset(tmp_path)
    assert captions(dataset) == {
        "a.jpg": ["from a.txt"],
        "b.jpg": ["from b.jpg.caption"],
    }
    assert dataset.summary().left_out == (("a.caption", "a.txt was read"),)


def test_folders_of_sidecars_that_are_called_as_splits_are_splits(tmp_path):
    for folder in ("train", "val", "test2014"):
        make_images(tmp_path, [f"{folder}/{i}.jpg" for i in range(3)])
        for i in range(3):
            (tmp_path / folder / f"{i}.txt").write_text(f"Photo {i} of {folder}")
    dataset = load_dataset(tmp_path)
    assert dataset.summary().images == {"train": 3, "dev": 3, "test": 3}
    assert ids(dataset, "dev") == ["val/0.jpg", "val/1.jpg", "val/2.jpg"]
    make_images(tmp_path, ["9.jpg"])  # of no split, so all are split by their ids
    (tmp_path / "9.txt").write_text("Photo 9")
    dataset = load_dataset(tmp_path, split_fractions=(0, 0, 1))
    assert len(ids(dataset, "test")) == 10


# -- rules of all of them ---------------------------------------------------


def write_rows(path, names):
    rows = "".join(f"{name},Photo {name} .\n" for name in names)
    path.write_text("image,caption\n" + rows)
    return path


def test_hashed_split_is_stable_whatever_else_is_there(tmp_path):
    names = [f"{i}.jpg" for i in range(2000)]
    make_images(tmp_path, names)
    whole = load_dataset(write_rows(tmp_path / "whole.csv", names))
    images = whole.summary().images
    # 90 / 5 / 5 of 2000, give or take four standard deviations.
    assert abs(images["train"] - 1800) < 55
    assert abs(images["dev"] - 100) < 40 and abs(images["test"] - 100) < 40
    assert len(set(all_ids(whole))) == 2000
    some = random.Random(0).sample(names, 700)
    part = load_dataset(write_rows(tmp_path / "part.csv", some))
    for split in part.splits:
        assert set(ids(part, split)) == set(ids(whole, split)) & set(some)


def test_order_and_ids_do_not_depend_on_the_order_of_the_file(tmp_path):
    names = [f"{i}.jpg" for i in range(50)]
    make_images(tmp_path, names)
    one = load_dataset(write_rows(tmp_path / "one.csv", names))
    other = load_dataset(write_rows(tmp_path / "other.csv", reversed(names)))
    assert one.splits == other.splits
    for split in one.splits:
        assert one.examples(split) == other.examples(split)


def test_the_same_file_under_two_names_is_one_image(tmp_path):
    make_images(tmp_path, ["a.jpg"])
    write_rows(tmp_path / "c.csv", ["a.jpg", "./a.jpg", "x/../a.jpg"])
    dataset = load_dataset(tmp_path / "c.csv")
    assert len(captions(dataset)["a.jpg"]) == 3


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (1.5, -0.5, 0), (0.5, 0.1, 0.1)])
def test_split_fractions_must_add_up(tmp_path, fractions):
    make_images(tmp_path, ["a.jpg"])
    write_rows(tmp_path / "c.csv", ["a.jpg"])
    with pytest.raises(ValueError, match="split_fractions"):
        load_dataset(tmp_path / "c.csv", split_fractions=fractions)


@pytest.mark.parametrize(
    "spec, message",
    [
        ("flickr9k:there", "There is no reader 'flickr9k'"),
        ("/no/such/place", "No such file or folder: /no/such/place"),
        ("photos/none.csv", "No such file or folder"),
        ("csv:", "Name a file or a folder after csv:"),
        ("scenes:many", "positive integer"),
        ("scenes:0", "positive integer"),
        ("scenes:-3", "positive integer"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(spec)


def test_unknown_options_and_unclear_folders(tmp_path):
    with pytest.raises(ValueError, match="Received: image_dir"):
        load_dataset("scenes:5", image_dir="photos")
    with pytest.raises(ValueError, match="has no captions"):
        load_dataset(tmp_path)
    make_images(tmp_path, ["a.jpg"])
    write_rows(tmp_path / "one.csv", ["a.jpg"])
    write_rows(tmp_path / "two.csv", ["a.jpg"])
    with pytest.raises(ValueError, match="several captions files.*one.csv, two.csv"):
        load_dataset(tmp_path)


def test_summary_is_a_short_table(tmp_path):
    make_images(tmp_path, ["a.jpg"])
    write_rows(tmp_path / "c.csv", ["a.jpg", *(f"gone{i}.jpg" for i in range(30))])
    text = str(load_dataset(tmp_path / "c.csv").summary())
    assert "30 x image not found: gone0.jpg and 29 more" in text
    assert len(text.splitlines()) < 10


def test_reading_imports_no_framework(tmp_path):
    make_images(tmp_path, ["a.jpg"])
    path = write_rows(tmp_path / "c.csv", ["a.jpg"])
    code = (
        "import sys; from captioner.datasets import load_dataset;"
        f"load_dataset({str(path)!r}); load_dataset('scenes');"
        "print({'tensorflow', 'keras', 'cv2'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "set()"


# -- drawn scenes -----------------------------------------------------------


def test_scenes_are_a_dataset():
    dataset = load_dataset("scenes:300")
    assert dataset.summary().images == {"train": 300, "dev": 200, "test": 200}
    assert dataset.summary().captions == dataset.summary().images
    assert len(set(all_ids(dataset))) == 700
    example = dataset.examples("train")[-1]
    assert example["image"].shape == (64, 64, 3)
    assert example["image"].dtype == np.uint8
    assert len(dataset.examples("dev")[:7]) == 7
    with pytest.raises(IndexError):
        dataset.examples("dev")[200]


def test_scenes_depend_on_seed_split_and_index_only():
    few, many = build_scenes(50), build_scenes(100)
    # Out of order, to show that nothing is carried from scene to scene.
    for index in (49, 0, 7):
        one, same = few.examples("train")[index], many.examples("train")[index]
        assert one["captions"] == same["captions"]
        np.testing.assert_array_equal(one["image"], same["image"])
    other = build_scenes(50, seed=1).examples("train")
    assert any(
        a["captions"] != b["captions"] for a, b in zip(few.examples("train"), other)
    )


def test_scenes_hold_out_captions_but_no_words():
    dataset = load_dataset("scenes")
    seen = {
        split: {example["captions"][0] for example in dataset.examples(split)}
        for split in dataset.splits
    }
    assert len(seen["train"]) > 450
    assert len(seen["dev"]) > 150 and len(seen["test"]) > 50
    assert seen["dev"] <= seen["train"]
    assert not seen["test"] & seen["train"]
    words = {split: set(" ".join(texts).split()) for split, texts in seen.items()}
    assert words["test"] <= words["train"]
    few = load_dataset("scenes:50").examples("train")
    assert words["train"] == set(" ".join(e["captions"][0] for e in few).split())


def test_no_scene_is_in_two_splits():
    dataset = load_dataset("scenes")
    pictures = [
        {example["image"].tobytes() for example in dataset.examples(split)}
        for split in dataset.splits
    ]
    for one, other in itertools.combinations(pictures, 2):
        assert not one & other


def read_scene(image):
    """Reads a caption off the picture alone, by classical means."""
    lit = (image.max(axis=-1) > 110).astype(np.uint8)
    count, labels, stats, centers = cv2.connectedComponentsWithStats(lit)
    assert count == 3, "two shapes that do not touch"
    things = []
    for label in (1, 2):
        left, top, width, height, area = stats[label]
        assert left > 0 and top > 0 and left + width < 64 and top + height < 64
        red, green, blue = np.median(image[labels == label], axis=0)
        bright = (red > 140, green > 140, blue > 140)
        color = {
            (True, False, False): "red",
            (False, True, False): "green",
            (False, False, True): "blue",
            (True, True, False): "yellow",
        }[bright]
        fill = area / (width * height)
        shape = "square" if fill > 0.95 else "circle" if fill > 0.68 else "triangle"
        middle = np.array([left + width / 2, top + height / 2])
        things.append((width * height, f"a {color} {shape}", middle))
    (small, other, there), (large, subject, here) = sorted(things, key=lambda t: t[0])
    assert large > 1.5 * small
    x, y = here - there
    assert max(abs(x), abs(y)) > 3 * min(abs(x), abs(y))
    if abs(x) > abs(y):
        relation = "left of" if x < 0 else "right of"
    else:
        relation = "above" if y < 0 else "below"
    return f"{subject} {relation} {other}"


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_caption_of_a_scene_can_be_read_off_the_picture(split):
    for example in load_dataset("scenes:600").examples(split):
        assert read_scene(example["image"]) == example["captions"][0]


# -- TensorFlow Datasets ----------------------------------------------------


def test_tfds_coco_captions():
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs captioner[tfds]")
    with tfds.testing.mock_data(num_examples=4):
        dataset = load_dataset("tfds:coco_captions")
        assert dataset.summary().images["train"] == 4
        example = dataset.examples("train")[2]
        assert example["image/id"].startswith("train/")
        image = load_image(example["image"])
        assert image.dtype == np.uint8 and image.shape[-1] == 3
        assert all(isinstance(caption, str) for caption in example["captions"])
        assert not set(ids(dataset, "train")) & set(ids(dataset, "dev"))
        with pytest.raises(ValueError, match="no images with captions.*'label'"):
            load_dataset("tfds:mnist")
        with pytest.raises(ValueError, match="TFDS has no dataset 'no_such_dataset'"):
            load_dataset("tfds:no_such_dataset")


def test_tfds_prepared_on_disk(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs captioner[tfds]")
    numbers = {"train": (0, 1), "restval": (2,), "val": (3, 4), "unlabelled": (5,)}

    class TinyCaptions(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "filename": tfds.features.Text(),
                "caption": tfds.features.Sequence(tfds.features.Text()),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in numbers}

        def _generate_examples(self, split):
            for i in numbers[split]:
                yield i, {
                    "image": np.full((8, 9, 3), 10 * i, np.uint8),
                    "filename": f"{i}.png",
                    "caption": [] if i == 4 else [f"Photo {i} .", " "],
                }

    builder = TinyCaptions(data_dir=tmp_path / "new", file_format="array_record")
    builder.download_and_prepare()
    dataset = load_dataset("tfds:tiny_captions", data_dir=tmp_path / "new")
    assert sorted(ids(dataset, "train")) == [
        "restval/2.png",
        "train/0.png",
        "train/1.png",
    ]
    assert dataset.summary().captions == {"train": 3, "dev": 1}
    left_out = dict(dataset.summary().left_out)
    assert left_out["val/4.png"] == "image without captions"
    assert left_out["unlabelled"] == "split that is not train, dev or test"
    (example,) = dataset.examples("dev")
    assert example["captions"] == ["Photo 3 ."]
    assert isinstance(example["image"].read(), bytes)
    image = load_image(example["image"])
    np.testing.assert_array_equal(image, np.full((8, 9, 3), 30))

    TinyCaptions(
        data_dir=tmp_path / "old", file_format="tfrecord"
    ).download_and_prepare()
    with pytest.raises(ValueError, match="without random access"):
        load_dataset("tfds:tiny_captions", data_dir=tmp_path / "old")
