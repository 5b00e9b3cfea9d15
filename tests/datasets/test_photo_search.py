"""Photos are found wherever people unpack them, and what is not found is named."""

import json
import unicodedata

import pytest

from captioner.datasets import load_dataset
from captioner.datasets.photo_search import PhotoSearch, folder_split


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def locate(folder, *names, splits=None, **options):
    """Paths of names below a folder, and the notes of the search."""
    search = PhotoSearch([str(folder)], **options)
    found = search.locate({name: (splits or {}).get(name) for name in names})
    return {n: path.removeprefix(f"{folder}/") for n, path in found.items()}, search


@pytest.mark.parametrize(
    "file, name",
    [
        ("a.jpg", "a.jpg"),
        ("photos/a.jpg", "a.jpg"),
        ("images/train2017/a.jpg", "a.jpg"),
        ("images/train2017/a.jpg", "train2017/a.jpg"),
        ("train2017/train2017/a.jpg", "train2017/a.jpg"),
        ("Flickr8k_Dataset/Flicker8k_Dataset/a.jpg", "a.jpg"),
        # The other separator.
        ("photos/a.jpg", "photos\\a.jpg"),
        ("photos/a.jpg", ".\\photos\\a.jpg"),
        ("photos/deep/a.jpg", "deep\\a.jpg"),
        # The other normal form and the other case.
        (unicodedata.normalize("NFD", "é.jpg"), unicodedata.normalize("NFC", "é.jpg")),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")),
        ("Photos/IMG_1.JPG", "photos/img_1.jpg"),
        ("photos/STRASSE.jpg", "straße.jpg"),
        # No suffix.
        ("photos/a.JPG", "photos/a"),
        ("photos/a.b.heic", "a.b"),
        # A path of another computer.
        ("photos/a.jpg", "D:\\data\\photos\\a.jpg"),
        ("photos/a.jpg", "/home/them/photos/a.jpg"),
        ("photos/a b.jpg", "https://example.com/x/a%20b.jpg"),
        ("images/a1b2c3d4-a.jpg", "/data/upload/1/a1b2c3d4-a.jpg"),
        ("images/a.jpg", "/data/upload/1/a1b2c3d4-a.jpg"),
        ("images/a.jpg", "/data/local-files/?d=images%2Fa.jpg"),
    ],
)
def test_a_photo_is_found(tmp_path, file, name):
    touch(tmp_path, file)
    found, _ = locate(tmp_path, name)
    assert found == {name: file}


def test_what_is_there_as_it_is_written_comes_first(tmp_path):
    touch(tmp_path, "a.jpg", "A.jpg", "photos/a.jpg", "photos/b.jpg")
    assert locate(tmp_path, "a.jpg", "A.jpg")[0] == {"a.jpg": "a.jpg", "A.jpg": "A.jpg"}
    # The folder that holds most of them holds all of them.
    found, search = locate(tmp_path, "a.jpg", "b.jpg")
    assert found == {"a.jpg": "photos/a.jpg", "b.jpg": "photos/b.jpg"}
    assert search.notes == [
        f"in several folders: 1 images, such as a.jpg; used: {tmp_path}/photos/a.jpg"
    ]


def test_two_files_whose_names_differ_in_case_are_not_guessed(tmp_path):
    touch(tmp_path, "IMG.jpg", "img.JPG", "photo.png", "photo.jpg")
    assert locate(tmp_path, "img.jpg", "photo")[0] == {}


def test_the_folder_of_the_split_is_preferred(tmp_path):
    touch(tmp_path, "train/1.png", "val2017/1.png", "test/1.png", "other/1.png")
    for split, folder in (("train", "train"), ("dev", "val2017"), ("test", "test")):
        found, search = locate(tmp_path, "1.png", splits={"1.png": split})
        assert found == {"1.png": f"{folder}/1.png"} and search.notes == []


def test_the_end_of_a_path_must_be_of_one_photo(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "2.jpg", "3.jpg")
    names = "/x/a/1.jpg", "/x/c/1.jpg", "/x/p/2.jpg", "/x/q/2.jpg", "3.jpg", "/x/3.jpg"
    found, search = locate(tmp_path, *names)
    assert found == {"/x/a/1.jpg": "a/1.jpg", "3.jpg": "3.jpg"}
    note = "not found, since their files have the names of several images: 3 images"
    assert f"{note}, such as /x/p/2.jpg, which may be {tmp_path}/2.jpg" in search.notes


def test_relative_names_lose_their_folders_only_where_the_user_says_where(tmp_path):
    touch(tmp_path, "1.jpg")
    assert locate(tmp_path, "cats/1.jpg")[0] == {}
    assert locate(tmp_path, "cats/1.jpg", folder_given=True)[0] == {
        "cats/1.jpg": "1.jpg"
    }


def test_hidden_folders_are_not_searched_and_the_others_only_two_levels_deep(tmp_path):
    touch(tmp_path, ".trash/a.jpg", "1/2/b.jpg", "1/2/3/c.jpg", "1/2/3/4/d.jpg")
    found, search = locate(tmp_path, "a.jpg", "b.jpg", "3/c.jpg", "3/4/d.jpg")
    assert found == {"b.jpg": "1/2/b.jpg", "3/c.jpg": "1/2/3/c.jpg"}
    assert search.where() == f"{tmp_path}, {tmp_path}/1, {tmp_path}/1/2"


def test_names_of_split_folders():
    names = [
        "train",
        "Train2017",
        "val_images",
        "validation",
        "dev",
        "test-1",
        "valley",
    ]
    splits = ["train", "train", "dev", "dev", "dev", "test", None]
    assert list(map(folder_split, names)) == splits
    assert folder_split("trainer") is folder_split("") is None


# -- the same for all readers -------------------------------------------------


def coco_json(names):
    return {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "caption": f"of {name}"} for i, name in enumerate(names)
        ],
    }


@pytest.mark.parametrize(
    "annotations, photos",
    [
        ("annotations", "{split}2014"),
        ("annotations", "images/{split}2014"),
        ("annotations", "{split}2014/{split}2014"),
        ("annotations_trainval2014/annotations", "{split}2014"),
        ("annotations_trainval2014/annotations", "images/{split}2014"),
        (".", "{split}2014"),
    ],
)
def test_coco_as_people_unpack_it(tmp_path, annotations, photos):
    (tmp_path / annotations).mkdir(parents=True, exist_ok=True)
    names = {"train": ["1.jpg", "2.jpg"], "val": ["3.jpg"]}
    for split, of_split in names.items():
        touch(tmp_path / photos.format(split=split), *of_split)
        data = coco_json(of_split)
        for each in data["images"]:
            each["id"] = each["file_name"]
        for each in data["annotations"]:
            each["image_id"] = of_split[each["image_id"]]
        path = tmp_path / annotations / f"captions_{split}2014.json"
        path.write_text(json.dumps(data))
    for spec in (tmp_path, f"coco:{tmp_path}"):
        assert load_dataset(spec).summary().images == {"train": 2, "dev": 1}
    alone = load_dataset(tmp_path / annotations / "captions_val2014.json")
    assert alone.summary().images == {"dev": 1}


def test_what_is_not_found_is_named_with_the_folders_that_were_tried(tmp_path):
    touch(tmp_path / "images", "other.jpg")
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(coco_json(["COCO_9.jpg"])))
    with pytest.raises(ValueError) as error:
        load_dataset(path)
    assert "image not found: 0; photos such as COCO_9.jpg" in str(error.value)
    assert f"were looked for in {tmp_path}, {tmp_path}/images; name the" in str(
        error.value
    )
    assert "--image-dir" in str(error.value)


def test_a_karpathy_file_away_from_its_photos(tmp_path):
    touch(tmp_path / "data" / "Flicker8k_Dataset", "1.jpg")
    images = [{"filename": "1.jpg", "split": "val", "sentences": [{"raw": "A dog ."}]}]
    path = tmp_path / "ann" / "dataset.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images}))
    with pytest.raises(ValueError, match="looked for in .*/ann; name the folder"):
        load_dataset(path)
    dataset = load_dataset(path, image_dir=tmp_path / "data")
    (example,) = dataset.examples("dev")
    assert example["image/id"] == "1.jpg"
    assert example["image"] == str(tmp_path / "data" / "Flicker8k_Dataset" / "1.jpg")


def test_a_table_in_the_current_folder(tmp_path, monkeypatch):
    touch(tmp_path, "photos/a.jpg", "b.jpg")
    (tmp_path / "c.csv").write_text("image,caption\na.jpg,A dog\nb.jpg,A cat\n")
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset("c.csv", split_fractions=(1, 0, 0))
    images = [example["image"] for example in dataset.examples("train")]
    assert images == ["photos/a.jpg", "b.jpg"]


def test_the_folders_of_the_system_are_not_searched(tmp_path):
    (tmp_path / "link").symlink_to("/proc/self")
    found, search = locate(tmp_path, "status", "a.jpg")
    assert found == {} and search.where() == str(tmp_path)
