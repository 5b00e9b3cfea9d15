"""Photos inside larger files: WebDataset's tar archives and Parquet."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest

from captioner.datasets import load_dataset
from captioner.images.image_files import ImageError, load_image


@pytest.fixture(scope="module")
def photos(repository):
    names = ("coffee", "horses", "kitten")
    return [repository / "data" / "samples" / f"{name}.jpg" for name in names]


def write_tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(key, photo, text=None, **fields):
    members = [(f"{key}.jpg", photo.read_bytes())]
    if text is not None:
        members.append((f"{key}.txt", text.encode()))
    if fields:
        members.append((f"{key}.json", json.dumps(fields).encode()))
    return members


def captions(dataset):
    return {
        example["image/id"]: example["captions"]
        for split in dataset.splits
        for example in dataset.examples(split)
    }


def assert_same_photo(example, photo):
    np.testing.assert_array_equal(load_image(example["image"]), load_image(photo))


# -- WebDataset -------------------------------------------------------------


def test_samples_of_a_tar(tmp_path, photos):
    members = [
        *sample("a/0", photos[0], "a cup\none cup", caption="a cup"),
        *sample("1.x", photos[1], caption="horses", url="http://example.com"),
        *sample("2", photos[2], captions=["a cat", "the cat"], caption="a cat"),
        ("3.txt", b"of nothing"),
        ("4.jpg", photos[0].read_bytes()),
        ("4.seg.png", b""),
        ("5.cls", b"7"),
        ("6.json", b"{"),
    ]
    write_tar(tmp_path / "00000.tar", members)
    for spec in (tmp_path, tmp_path / "00000.tar", f"webdataset:{tmp_path}"):
        dataset = load_dataset(spec, split_fractions=(1, 0, 0))
        # "1.x.jpg" is of the sample "1", and its suffix is ".x.jpg".
        assert captions(dataset) == {
            "00000/a/0": ["a cup", "one cup"],
            "00000/2": ["a cat", "the cat"],
        }
        left_out = dict(dataset.summary().left_out)
        assert left_out["00000/3"] == "text without a photo"
        assert left_out["00000/4"] == "image without captions"
        assert any(what.endswith("6.json") for what in left_out)
    example = next(e for e in dataset.examples("train") if e["image/id"] == "00000/a/0")
    assert_same_photo(example, photos[0])
    assert pickle.loads(pickle.dumps(example["image"])) == example["image"]


def test_shards_say_their_splits(tmp_path, photos):
    for number, name in enumerate(("train-000", "train-001", "val-000")):
        write_tar(tmp_path / f"{name}.tar", sample("0", photos[number], name))
    dataset = load_dataset(tmp_path)
    assert captions(dataset) == {
        f"{name}/0": [name] for name in ("train-000", "train-001", "val-000")
    }
    assert dataset.summary().images == {"train": 2, "dev": 1}
    assert_same_photo(dataset.examples("dev")[0], photos[2])
    write_tar(tmp_path / "more" / "extra.tar", sample("0", photos[0], "more"))
    assert "more/extra/0" in captions(load_dataset(tmp_path))  # split by hash


def test_a_damaged_shard_keeps_what_came_before(tmp_path, photos):
    members = [m for i in range(3) for m in sample(f"{i}", photos[i], f"photo {i}")]
    path = write_tar(tmp_path / "0.tar", members)
    with tarfile.open(path) as archive:
        offset = archive.getmember("2.jpg").offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 400] = b"\xff" * 400
    path.write_bytes(data)
    dataset = load_dataset(path, split_fractions=(1, 0, 0))
    assert list(captions(dataset)) == ["0/0", "0/1"]
    assert any(
        what.endswith("0.tar from here on") for what, _ in dataset.summary().left_out
    )
    path.write_bytes(b"no tar at all" * 1000)
    with pytest.raises(ValueError, match="Cannot read .*0.tar: "):
        load_dataset(path)


def test_compressed_archives_are_refused(tmp_path, photos):
    path = write_tar(tmp_path / "0.tar", sample("0", photos[0], "a cup"), "w:gz")
    with pytest.raises(ValueError, match="0.tar is compressed.* uncompress it first"):
        load_dataset(path)


def test_a_photo_that_is_gone_is_an_image_error(tmp_path, photos):
    path = write_tar(tmp_path / "0.tar", sample("0", photos[0], "a cup"))
    (example,) = load_dataset(path, split_fractions=(1, 0, 0)).examples("train")
    path.unlink()
    with pytest.raises(ImageError, match="0.tar/0.jpg"):
        load_image(example["image"])


# -- Parquet ----------------------------------------------------------------


@pytest.fixture(scope="module")
def pq():
    pytest.importorskip("pyarrow", reason="needs captioner[parquet]")
    import pyarrow
    import pyarrow.parquet

    def write(path, columns, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
        return path

    return write


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_with_image_bytes(tmp_path, photos, pq, as_struct):
    images = [photo.read_bytes() for photo in photos]
    if as_struct:
        images = [{"bytes": data, "path": None} for data in images]
    columns = {"image": images, "text": ["a cup", "horses", None], "n": [1, 2, 3]}
    file = tmp_path / "train-00000-of-00002.parquet"
    pq(file, columns, row_group_size=2)
    pq(tmp_path / "test-00000-of-00001.parquet", columns)
    for spec in (tmp_path, f"parquet:{tmp_path}"):
        dataset = load_dataset(spec)
        assert dataset.summary().images == {"train": 2, "test": 2}
        assert captions(dataset)["train-00000-of-00002/0-1"] == ["horses"]
        examples = dataset.examples("train")
        for example, photo in zip(examples, photos):
            assert_same_photo(example, photo)
    assert load_dataset(file).summary().images == {"train": 2}
    assert pickle.loads(pickle.dumps(examples[0]["image"])) == examples[0]["image"]


def test_parquet_with_paths_and_lists(tmp_path, pq):
    (tmp_path / "photos").mkdir()
    for name in "abc":
        (tmp_path / "photos" / f"{name}.jpg").touch()
    columns = {
        "path": ["photos/a.jpg", "b.jpg", "c.jpg", None],
        "captions": [["A dog", "One dog"], ["A cat"], [], ["nothing"]],
        "split": ["train", "validation", "test", "test"],
    }
    dataset = load_dataset(pq(tmp_path / "t.parquet", columns))
    assert captions(dataset) == {
        "photos/a.jpg": ["A dog", "One dog"],
        "b.jpg": ["A cat"],
    }
    assert dataset.splits == ("train", "dev")


def test_bad_parquet_is_one_line(tmp_path, pq):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="Cannot read .*t.parquet") as error:
        load_dataset(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="image and caption. Received: photo, words"):
        load_dataset(pq(path, {"photo": ["a"], "words": ["b"]}))
    with pytest.raises(ValueError, match="has no .parquet files"):
        (tmp_path / "empty").mkdir()
        load_dataset(f"parquet:{tmp_path / 'empty'}")
    # A row without an image is a broken image, which whoever decodes it reports.
    columns = {"image": [{"bytes": None, "path": "a.jpg"}], "text": ["a cup"]}
    dataset = load_dataset(pq(path, columns), split_fractions=(1, 0, 0))
    (example,) = dataset.examples("train")
    with pytest.raises(ImageError, match="row 0 of row group 0: the file is empty"):
        load_image(example["image"])


def test_the_feature_cache_reads_photos_in_larger_files(
    tmp_path, photos, tiny_captioner
):
    from captioner.features.feature_cache import FeatureCache

    members = [m for i, p in enumerate(photos) for m in sample(f"{i}", p, "a photo")]
    dataset = load_dataset(write_tar(tmp_path / "train.tar", members))
    images = [example["image"] for example in dataset.examples("train")]
    cache = FeatureCache(
        tmp_path / "features",
        tiny_captioner.preprocessor.image_converter,
        tiny_captioner.caption_model.vision_backbone,
    )
    assert cache.compute(images) == {}
    # They are known by what they are, so the same photos as files have them already.
    _, read = cache.reader([str(photo) for photo in photos])
    assert read([0, 1, 2]).shape[0] == 3
