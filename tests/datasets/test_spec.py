"""Options of a dataset, in its spec and as flags, and splits that they make."""

import json

import pytest
from click.testing import CliRunner

from captioner.cli import main
from captioner.datasets import load_dataset
from captioner.datasets.spec import split_options, with_options


@pytest.fixture
def karpathy(tmp_path):
    """A Karpathy file without dev images, away from its photos."""
    photos = tmp_path / "my photos & more"
    photos.mkdir()
    images = []
    for i in range(40):
        (photos / f"{i}.jpg").touch()
        sentences = [{"raw": f"Photo {i} ."}]
        images.append(
            {"filename": f"{i}.jpg", "split": "train", "sentences": sentences}
        )
    path = tmp_path / "ann" / "dataset.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images}))
    return path, photos


@pytest.mark.parametrize(
    "options",
    [
        {"image_dir": "a b&c=d?e*f+g%h'i\""},
        {"dev_fraction": 0.2},
        {"image_dir": "/x/é", "dev_fraction": 0.25, "test_fraction": 0.0},
    ],
)
def test_options_survive_in_the_spec(options):
    spec = with_options("what?.csv", **options)
    plain, read = split_options(spec)
    assert plain == "what?.csv"
    assert read.get("image_dir") == options.get("image_dir")
    if "dev_fraction" in options:
        assert read["split_fractions"][1] == options["dev_fraction"]
        assert sum(read["split_fractions"]) == pytest.approx(1)
    assert with_options("a.csv") == "a.csv"
    # A question mark in a name begins no options.
    assert split_options("who?.csv") == ("who?.csv", {})
    assert split_options("a?image_dir") == ("a?image_dir", {})


@pytest.mark.parametrize(
    "options, message",
    [
        ("dev_fraction=lots", "number from 0 to 1. Received: lots"),
        ("dev_fraction=-0.1", "number from 0 to 1"),
        ("dev_fraction=nan", "number from 0 to 1"),
        ("dev_fraction=0.6&test_fraction=0.4", "leave no images to train on"),
    ],
)
def test_bad_fractions(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(f"a.csv?{options}")


def show(*arguments):
    result = CliRunner().invoke(main, ["datasets", "show", *map(str, arguments)])
    return result.output, result.exit_code


def test_flags_name_the_photos_and_make_a_dev_split(karpathy):
    path, photos = karpathy
    output, code = show(path)
    assert code == 2 and "--image-dir" in output and len(output.splitlines()) == 1
    output, code = show(path, "--image-dir", photos)
    assert code == 0 and "no split: dev, test" in output
    output, code = show(path, "--image-dir", photos, "--dev-fraction", "0.5")
    assert code == 0 and "dev is taken from train:" in output
    dataset = load_dataset(path, image_dir=photos, split_fractions=(0.5, 0.5, 0))
    images = dataset.summary().images
    assert set(images) == {"train", "dev"} and sum(images.values()) == 40
    assert 8 < images["dev"] < 32


@pytest.mark.parametrize("command", ["show", "train", "evaluate"])
def test_each_command_that_takes_a_dataset_has_the_flags(command):
    words = ["datasets", "show"] if command == "show" else [command]
    output = CliRunner().invoke(main, [*words, "--help"]).output
    for flag in ("--image-dir", "--dev-fraction", "--test-fraction"):
        assert flag in output


def test_parts_of_a_mix_have_options_of_their_own(karpathy):
    path, photos = karpathy
    part = with_options(str(path), image_dir=photos)
    dataset = load_dataset(f"mix:'{part}'*2+scenes:5?dev_fraction=0.5")
    assert len(dataset.epoch()) == 2 * (40 - len(dataset.examples("dev")) + 200) + 5
    assert dataset.examples("train")[0]["image/id"].startswith("ann/")
    # The options of the last part are not those of the mix.
    assert len(load_dataset(f"mix:scenes:5+'{part}'").epoch()) == 45


def test_fractions_are_not_used_where_there_are_splits(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    path = tmp_path / "c.csv"
    path.write_text("image,caption,split\na.jpg,A dog,train\nb.jpg,A cat,dev\n")
    summary = load_dataset(path, split_fractions=(0.5, 0.5, 0)).summary()
    assert summary.images == {"train": 1, "dev": 1}
    assert "split fractions not used" in str(summary)


@pytest.mark.parametrize(
    "names",
    [[f"{i}.jpg" for i in range(count)] for count in (2, 3, 12)]
    # By their hashes, all of these are dev images.
    + [["coffee.jpg", "kitten.jpg"]],
)
def test_a_small_dataset_has_a_train_and_a_dev_image(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    path = tmp_path / "c.csv"
    rows = "".join(f"{name},A dog\n" for name in names)
    path.write_text("image,caption\n" + rows)
    dataset = load_dataset(path)
    assert {"train", "dev"} <= set(dataset.splits)
    assert "the dev split is so small (1)" in str(dataset.summary())
    path.write_text(f"image,caption\n{names[0]},A dog\n")
    assert len(load_dataset(path).splits) == 1


def test_showing_a_tfds_dataset_downloads_nothing(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs captioner[tfds]")

    def download(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", download, raising=True
    )
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    output, code = show("tfds:coco_captions")
    assert code == 2 and "is not in " in output and "downloads it first" in output


def test_the_number_of_scenes_is_bounded():
    with pytest.raises(ValueError, match="of at most 100,000. Received: .*100001"):
        load_dataset("scenes:100001")


@pytest.mark.parametrize(
    "reader",
    "flickr8k karpathy coco csv jsonl json imagefolder label_studio parquet "
    "webdataset txt".split(),
)
def test_a_path_that_is_not_there_is_no_such_file(tmp_path, reader):
    with pytest.raises(ValueError, match=f"No such file or folder: {tmp_path}/nowhere"):
        load_dataset(f"{reader}:{tmp_path}/nowhere")
    output, code = show(f"{reader}:{tmp_path}/nowhere")
    assert code == 2 and output.startswith("Error: No such file or folder")
