import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from captioner.backbones import VisionBackbone
from captioner.features import feature_cache
from captioner.features.feature_cache import FeatureCache
from captioner.features.input_pipeline import (
    image_reader,
    training_batches,
    unreadable_images,
)
from captioner.images.image_converter import ImageConverter
from captioner.images.image_files import load_image
from captioner.images.image_views import image_views
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner


@pytest.fixture(scope="module")
def converter(tiny_backbone):
    return ImageConverter(tiny_backbone.image_size)


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))[:5]


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of two photos, so that a few photos make several."""
    monkeypatch.setattr(feature_cache, "BATCH_SIZE", 2)
    monkeypatch.setattr(feature_cache, "SHARD_SIZE", 2)


def drawn(count, seed=0):
    """Pictures that differ, as arrays."""
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, 20, 30, 3), dtype=np.uint8))


def shards_of(cache):
    """The shards as they lie on the disk: name -> photos in it."""
    return {
        path.stem: json.loads(path.read_text())["photos"]
        for path in cache.folder.glob("features-*.json")
    }


def features_of(cache, images):
    key, read = cache.reader(images)
    assert key == "image_features"
    return read(np.arange(len(images)))


def test_features_are_the_backbones(tiny_backbone, converter, photos, tmp_path):
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    assert cache.compute(photos) == {}
    assert len(cache) == len(photos)
    found = features_of(cache, photos)
    images = np.stack([converter(load_image(photo, (64, 64))) for photo in photos])
    expected = tiny_backbone(images).numpy()
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)
    # In whatever order they are asked for, and more than once.
    _, read = cache.reader(photos)
    np.testing.assert_array_equal(read(np.array([3, 0, 3])), found[[3, 0, 3]])


def test_flips_are_the_features_of_mirrored_photos(
    tiny_backbone, converter, tmp_path, small_shards
):
    images = drawn(3)
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    cache.compute(images[:2])
    assert cache.compute(images, image_views(flips=True)) == {} and len(cache) == 6
    for opened in (cache, FeatureCache(tmp_path, converter, tiny_backbone)):
        _, read = opened.reader(images, image_views(flips=True))
        mirrored = np.stack([converter(image[:, ::-1]) for image in images])
        expected = [*features_of(cache, images), *tiny_backbone(mirrored).numpy()]
        np.testing.assert_allclose(read(np.arange(6)), expected, rtol=2e-3, atol=1e-4)


def test_changed_views_are_the_same_in_every_run_and_batch(
    tiny_backbone, converter, tmp_path, small_shards
):
    images, views = drawn(3), image_views(flips=True, augmentations=2)
    caches = [FeatureCache(tmp_path / n, converter, tiny_backbone) for n in "ab"]
    caches[0].compute(images, views)
    caches[1].compute(images[2:], views)  # another batch, another order
    caches[1].compute(images[:2], views)
    first, second = (c.reader(images, views)[1](np.arange(18)) for c in caches)
    np.testing.assert_allclose(first, second, rtol=2e-3, atol=1e-3)
    # All views of all photos differ.
    apart = np.abs(first[:, None] - first[None]).max(axis=(2, 3)) + 9 * np.eye(18)
    assert apart.min() > 0.01


def test_features_lie_in_float16_shards(
    tiny_backbone, converter, tmp_path, small_shards
):
    images = drawn(5)
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    cache.compute(images)
    shards = shards_of(cache)
    assert sorted(map(len, shards.values())) == [1, 2, 2]
    for name, contents in shards.items():
        features = np.load(cache.folder / f"{name}.npy")
        assert features.dtype == np.float16
        assert features.shape == (len(contents), *tiny_backbone.feature_shape)
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    assert manifest["key"]["fingerprint"] == tiny_backbone.fingerprint()
    assert manifest["feature_shape"] == list(tiny_backbone.feature_shape)
    assert not list(cache.folder.glob("*.part"))


def test_another_run_finds_them(tiny_backbone, converter, photos, tmp_path):
    first = FeatureCache(tmp_path, converter, tiny_backbone)
    first.compute(photos)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    second = FeatureCache(tmp_path, converter, tiny_backbone)
    assert len(second) == len(photos)
    assert second.compute(photos) == {}
    assert {p: p.stat().st_mtime_ns for p in second.folder.iterdir()} == before
    np.testing.assert_array_equal(
        features_of(second, photos), features_of(first, photos)
    )


def test_a_photo_is_known_by_its_content(tiny_backbone, converter, photos, tmp_path):
    cache = FeatureCache(tmp_path / "cache", converter, tiny_backbone)
    cache.compute(photos[:1])
    moved = tmp_path / "moved.jpg"
    moved.write_bytes(photos[0].read_bytes())
    for same in (str(photos[0]), moved, photos[0].read_bytes()):
        cache.compute([same])
        assert len(cache) == 1
        np.testing.assert_array_equal(
            features_of(cache, [same]), features_of(cache, photos[:1])
        )


def test_changed_content_is_never_hit(tiny_backbone, converter, photos, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(photos[0].read_bytes())
    before = FeatureCache(tmp_path / "cache", converter, tiny_backbone)
    before.compute([photo])
    photo.write_bytes(photos[1].read_bytes())
    after = FeatureCache(tmp_path / "cache", converter, tiny_backbone)
    with pytest.raises(KeyError):
        after.reader([photo])
    after.compute([photo])
    assert len(after) == 2
    assert not np.array_equal(features_of(after, [photo]), features_of(before, [photo]))


def test_a_changed_key_is_never_hit(tiny_backbone, converter, tmp_path):
    images = drawn(1)
    size = tiny_backbone.image_size
    other_weights = VisionBackbone.from_config(tiny_backbone.get_config())
    pooled = VisionBackbone.from_config(
        {**tiny_backbone.get_config(), "pooling": "avg"}
    )
    pooled.set_weights(tiny_backbone.get_weights())
    FeatureCache(tmp_path, converter, tiny_backbone).compute(images)
    for other_converter, backbone in (
        (ImageConverter(size, resize_mode="crop"), tiny_backbone),
        (ImageConverter(size, resize_mode="pad"), tiny_backbone),
        (ImageConverter(size, interpolation="bicubic"), tiny_backbone),
        (converter, other_weights),
        (converter, pooled),
    ):
        cache = FeatureCache(tmp_path, other_converter, backbone)
        assert len(cache) == 0
        with pytest.raises(KeyError):
            cache.reader(images)
    # A name alone changes nothing.
    renamed = ImageConverter(size, name="another")
    assert len(FeatureCache(tmp_path, renamed, tiny_backbone)) == 1


def test_duplicates_are_computed_once(tiny_backbone, converter, tmp_path):
    one, two = drawn(2)
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    cache.compute([one, two, one, one, two])
    assert [len(contents) for contents in shards_of(cache).values()] == [2]
    features = features_of(cache, [one, two, one])
    np.testing.assert_array_equal(features[0], features[2])
    assert not np.array_equal(features[0], features[1])


def test_bad_images_are_reported_and_the_rest_goes_on(
    tiny_backbone, converter, photos, tmp_path
):
    truncated = photos[0].read_bytes()[:100]
    images = [photos[0], b"", photos[1], tmp_path / "none.jpg", b"text", truncated]
    images += [photos[2], b"", truncated]  # the same bad ones once more
    cache = FeatureCache(tmp_path / "cache", converter, tiny_backbone)
    errors = cache.compute(images)
    kinds = {index: error.kind for index, error in errors.items()}
    assert kinds == {
        1: "empty",
        3: "missing",
        4: "not_an_image",
        5: "truncated",
        7: "empty",
        8: "truncated",
    }
    assert len(cache) == 3
    good = [image for index, image in enumerate(images) if index not in errors]
    assert features_of(cache, good).shape == (3, *tiny_backbone.feature_shape)
    # They are reported again by a run that has nothing else to do.
    assert set(cache.compute(images)) == set(errors)


def test_interrupted_and_run_again(
    tiny_backbone, converter, tmp_path, small_shards, monkeypatch
):
    images = drawn(9)
    write_shard = FeatureCache._write_shard
    written = []

    def write_two_shards(*args):
        if len(written) == 2:
            raise OSError("No space left on device")
        written.append(write_shard(*args))

    monkeypatch.setattr(FeatureCache, "_write_shard", write_two_shards)
    with pytest.raises(OSError, match="No space left"):
        FeatureCache(tmp_path, converter, tiny_backbone).compute(images)
    monkeypatch.undo()

    monkeypatch.setattr(feature_cache, "BATCH_SIZE", 2)
    monkeypatch.setattr(feature_cache, "SHARD_SIZE", 2)
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    assert len(cache) == 4
    first = {path: path.stat().st_mtime_ns for path in cache.folder.iterdir()}
    cache.compute(images)
    contents = sum(shards_of(cache).values(), [])
    assert len(contents) == len(set(contents)) == 9  # nothing lost, nothing twice
    assert all(path.stat().st_mtime_ns == first[path] for path in first)

    fresh = FeatureCache(tmp_path / "fresh", converter, tiny_backbone)
    fresh.compute(images)
    np.testing.assert_allclose(
        features_of(cache, images), features_of(fresh, images), rtol=2e-3, atol=1e-5
    )


# Killed where it hurts most: the features of the third shard are written, the file
# that says whose they are is not.
KILLED_RUN = """
import os, signal, sys
import numpy as np
from captioner.features import feature_cache
from captioner.backbones import VisionBackbone
from captioner.images.image_converter import ImageConverter

feature_cache.BATCH_SIZE = feature_cache.SHARD_SIZE = 2
write_json = feature_cache.write_json
def killed_at_the_third_shard(path, value):
    if len(list(path.parent.glob("features-*.npy"))) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, value)
feature_cache.write_json = killed_at_the_third_shard

weights, images, folder = sys.argv[1:]
backbone = VisionBackbone("mobilenet", (64, 64), weights=weights)
cache = feature_cache.FeatureCache(folder, ImageConverter((64, 64)), backbone)
cache.compute(list(np.load(images)))
"""


@pytest.mark.slow
def test_killed_and_run_again(tiny_backbone, converter, tmp_path):
    images = drawn(9)
    tiny_backbone.network.save_weights(tmp_path / "tiny.weights.h5")
    np.save(tmp_path / "images.npy", images)
    arguments = [str(tmp_path / name) for name in ("tiny.weights.h5", "images.npy")]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, *arguments, str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert killed.returncode == -9

    cache = FeatureCache(tmp_path / "cache", converter, tiny_backbone)
    assert len(list(cache.folder.glob("features-*.npy"))) == 3
    assert len(cache) == 4
    assert cache.compute(images) == {}
    contents = sum(shards_of(cache).values(), [])
    assert len(contents) == len(set(contents)) == 9
    fresh = FeatureCache(tmp_path / "fresh", converter, tiny_backbone)
    fresh.compute(images)
    np.testing.assert_allclose(
        features_of(cache, images), features_of(fresh, images), rtol=2e-3, atol=1e-5
    )


def test_half_written_files_are_ignored(tiny_backbone, converter, tmp_path):
    images = drawn(2)
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    cache.compute(images)
    expected = features_of(cache, images)
    (shard,) = cache.folder.glob("features-*.npy")
    half = shard.read_bytes()[: shard.stat().st_size // 2]
    (cache.folder / "features-0123.npy").write_bytes(half)
    (cache.folder / "features-4567.npy.part").write_bytes(half)
    (cache.folder / ".features-89ab.json.part").write_bytes(b"[")
    again = FeatureCache(tmp_path, converter, tiny_backbone)
    assert len(again) == 2
    np.testing.assert_array_equal(features_of(again, images), expected)


def flip(path, place):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["half", "gone", "header", "feature", "index"])
def test_a_damaged_shard_is_computed_again(
    tiny_backbone, converter, tmp_path, damage, capsys
):
    """By a full disk, a hand that tidies up, or a disk that forgets."""
    images = drawn(2)
    cache = FeatureCache(tmp_path, converter, tiny_backbone)
    cache.compute(images)
    expected = features_of(cache, images)
    (shard,) = cache.folder.glob("features-*.npy")
    if damage == "half":
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    elif damage == "gone":
        shard.unlink()
    elif damage == "index":
        flip(shard.with_suffix(".json"), 2)
    else:
        flip(shard, 9 if damage == "header" else -100)
    again = FeatureCache(tmp_path, converter, tiny_backbone)
    assert len(again) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{shard}: image features cannot be used and are computed")
    again.compute(images)
    np.testing.assert_array_equal(features_of(again, images), expected)
    FeatureCache(tmp_path, converter, tiny_backbone)
    assert not capsys.readouterr().err  # it is whole again


def test_unreadable_images_are_found_without_features(photos, tmp_path):
    errors = unreadable_images([photos[0], b"", tmp_path / "none.jpg", photos[1]])
    assert {i: error.kind for i, error in errors.items()} == {1: "empty", 2: "missing"}


def test_training_from_the_cache_equals_training_from_images(
    tiny_backbone, tiny_captioner, tmp_path
):
    preprocessor = tiny_captioner.preprocessor
    images = drawn(6)
    captions = [["a dog runs"], ["two cats", "a cat"], ["grass"]] * 2
    cache = FeatureCache(tmp_path, preprocessor.image_converter, tiny_backbone)
    cache.compute(images)

    def losses(reader):
        keras.utils.set_random_seed(0)
        model = CaptionModel(
            preprocessor.tokenizer.vocabulary_size,
            tiny_backbone.feature_shape,
            tiny_backbone,
            hidden_dim=16,
            dropout=0.3,
        )
        captioner = ImageCaptioner(model, preprocessor)
        # Not Adam, for which the smallest gradient's sign is a step.
        captioner.compile(keras.optimizers.SGD(0.1))
        batches, steps = training_batches(reader, captions, 2, epochs=3, seed=1)
        history = captioner.fit(batches, steps_per_epoch=steps, epochs=3, verbose=0)
        assert steps == 3
        return history.history["loss"]

    from_cache = losses(cache.reader(images))
    from_images = losses(image_reader(images, preprocessor.image_converter))
    assert from_cache[-1] < from_cache[0]
    np.testing.assert_allclose(from_cache, from_images, rtol=2e-3)
