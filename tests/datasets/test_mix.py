"""Datasets that are joined: ids, splits, weights, and how a mix is written."""

import pytest

from captioner.datasets import load_dataset, mix_datasets
from captioner.datasets.mix import part_names, split_mix


def write_table(folder, name, **splits):
    """A table `folder/name` of images in splits, and the (empty) photos."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["image,caption,split"]
    for split, images in splits.items():
        for image in images:
            (folder / image).touch()
            rows.append(f"{image},{name} shows {image},{split}")
    path = folder / name
    path.write_text("\n".join(rows))
    return path


def ids(examples):
    return [example["image/id"] for example in examples]


@pytest.fixture
def tables(tmp_path):
    one = write_table(tmp_path / "one", "pets.csv", train=["a.jpg", "b.jpg"], dev=["c"])
    two = write_table(
        tmp_path / "two", "cars.csv", train=["a.jpg"], val=["d"], test=["e"]
    )
    return one, two


def test_splits_are_joined_and_an_epoch_repeats_the_training_images(tables):
    one, two = tables
    dataset = load_dataset(f"mix:{one}+csv:{two}*3")
    assert dataset.splits == ("train", "dev", "test")
    train = ["pets/a.jpg", "pets/b.jpg", "cars/a.jpg"]
    assert ids(dataset.examples("train")) == train
    assert sorted(ids(dataset.epoch())) == sorted(train + ["cars/a.jpg"] * 2)
    for split, expected in (("dev", ["pets/c", "cars/d"]), ("test", ["cars/e"])):
        assert ids(dataset.examples(split)) == expected
        assert ids(dataset.epoch(split)) == expected
    example = dataset.examples("train")[-1]
    assert example["captions"] == ["cars.csv shows a.jpg"]
    assert example["image"] == str(two.parent / "a.jpg")


def test_the_summary_shows_the_parts(tables):
    one, two = tables
    with open(two, "a") as file:
        file.write("\ngone.jpg,A ghost,train")
    summary = load_dataset(f"mix:{one}*2+{two}").summary()
    assert summary.images == {"train": 3, "dev": 2, "test": 1}
    assert summary.captions == {"train": 3, "dev": 2, "test": 1}
    assert summary.epoch_images == 5
    assert summary.left_out == (("cars/gone.jpg", "image not found"),)
    text = str(summary)
    assert "pets x 2: train 2, dev 1\n" in text
    assert "cars x 1: train 1, dev 1, test 1\n" in text
    assert "images in an epoch: 5\n" in text


def test_a_dataset_that_is_no_mix_has_plain_epochs(tables):
    dataset = load_dataset(tables[0])
    assert dataset.epoch() == dataset.examples("train")
    assert "epoch" not in str(dataset.summary())


def test_examples_made_on_access_are_joined_too(tables):
    dataset = load_dataset(f"mix:scenes:5*2+{tables[0]}")
    train = dataset.epoch()
    assert len(train) == 12 and len(dataset.examples("train")) == 7
    assert train[5]["image/id"] == "scenes/train-000000"
    assert (train[5]["image"] == train[0]["image"]).all()
    assert ids(train[-3:]) == ["scenes/train-000004", "pets/a.jpg", "pets/b.jpg"]
    with pytest.raises(IndexError):
        train[12]
    assert len(set(ids(dataset.examples("dev")))) == 201


def test_a_mix_of_mixes_multiplies_the_weights(tables):
    one, two = map(load_dataset, tables)
    inner = mix_datasets([("one", one, 2)])
    dataset = mix_datasets([("inner", inner, 3), ("two", two, 1)])
    assert ids(dataset.epoch()).count("inner/one/a.jpg") == 6
    assert len(dataset.epoch()) == 2 * 2 * 3 + 1
    assert len(dataset.examples("train")) == 3
    with pytest.raises(ValueError, match="cannot be a part of a mix"):
        load_dataset(f"mix:'mix:{tables[0]}*2'+{tables[1]}")


def test_options_go_to_the_parts_that_take_them(tmp_path):
    for folder in ("one", "two"):
        write_table(tmp_path / folder, "t.csv", **{"": [f"{i}" for i in range(50)]})
    spec = f"mix:{tmp_path}/one/t.csv+scenes:5+{tmp_path}/two/t.csv"
    images = load_dataset(spec, split_fractions=(0, 0, 1)).summary().images
    assert images == {"train": 5, "dev": 200, "test": 300}
    with pytest.raises(ValueError, match="a mix takes no image_dir"):
        load_dataset(spec, image_dir="photos")
    with pytest.raises(ValueError, match="No part of .* takes the options data_dir"):
        load_dataset(spec, data_dir="x")


def test_a_file_in_two_splits_is_refused(tmp_path):
    one = write_table(tmp_path, "one.csv", train=["a.jpg"])
    two = write_table(tmp_path, "two.csv", dev=["a.jpg"], train=["b.jpg"])
    with pytest.raises(ValueError, match="one/a.jpg in train and two/a.jpg in dev"):
        load_dataset(f"mix:{one}+{two}")
    # In one split it may be twice: it has the captions of both, under two ids.
    three = write_table(tmp_path, "three.csv", train=["a.jpg"])
    dataset = load_dataset(f"mix:{one}+{three}")
    assert ids(dataset.examples("train")) == ["one/a.jpg", "three/a.jpg"]


@pytest.mark.parametrize(
    "text, parts",
    [
        ("scenes", [("scenes", 1)]),
        ("scenes*1", [("scenes", 1)]),
        (" scenes:5 * 2 + b.csv ", [("scenes:5", 2), ("b.csv", 1)]),
        ("'a+b*c.csv'*2+'d\"e'", [("a+b*c.csv", 2), ('d"e', 1)]),
        ('"it\'s.csv"*10', [("it's.csv", 10)]),
        ("flickr8k:/a b/c*1+é.jsonl*2", [("flickr8k:/a b/c", 1), ("é.jsonl", 2)]),
    ],
)
def test_how_a_mix_is_written(text, parts):
    assert split_mix(text) == parts


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "A mix is SPEC"),
        ("a.csv+", "A mix is SPEC"),
        ("+a.csv", "A mix is SPEC"),
        ("''", "A mix is SPEC"),
        ("it's.csv", "A mix is SPEC"),
        ("'a.csv'b", "A mix is SPEC"),
        ("a.csv*1.5", "must be a whole number.*'1.5'"),
        ("a.csv*", "must be a whole number"),
        ("a.csv*-1", "must be a whole number"),
        ("a.csv*²", "must be a whole number"),
        ("a*b.csv", "must be a whole number"),
    ],
)
def test_bad_mixes(text, message):
    with pytest.raises(ValueError, match=message):
        split_mix(text)


def test_bad_weights_and_names(tables):
    for weight in (0, 101, 1.5, True):
        with pytest.raises(ValueError, match="weight of a part must be a whole"):
            mix_datasets([("pets", load_dataset(tables[0]), weight)])
    with pytest.raises(ValueError, match="different names"):
        mix_datasets([("pets", load_dataset(tables[0]), 1)] * 2)
    with pytest.raises(ValueError, match="different names"):
        mix_datasets([])
    with pytest.raises(ValueError, match="weight .* from 1 to 100. Received: weight=0"):
        load_dataset(f"mix:{tables[0]}*0")


def test_names_of_parts_do_not_depend_on_their_folder():
    specs = [
        "flickr8k:/x/flickr8k/",
        "a/pets.jsonl",
        "csv:b/pets.csv",
        "scenes:5",
        "scenes",
    ]
    assert part_names(specs) == ["flickr8k", "pets", "pets-2", "scenes", "scenes-2"]
    specs = ["x/everyday/captions.jsonl", "captions.csv", "csv:y/everyday/metadata.csv"]
    assert part_names(specs) == ["everyday", "captions", "everyday-2"]
    assert part_names([r"C:\data\pets.csv", "/"]) == ["pets", "part"]
