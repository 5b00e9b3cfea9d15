"""Backbone features on disk, so that a frozen backbone sees each photo once.

    CACHE/vgg16-4f1c.../            one folder a key (converter, backbone, weights)
        manifest.json               the key in full, the shape of a feature
        features-0a6e....npy        float16 (N, P, E)
        features-0a6e....json       the sha256 of the N photos' contents, and the CRC-32
        ...                         of the `.npy` file

A shard counts only when its `.json` is there, and that is written last: a run
killed at any moment loses at most one shard of work, never leaves a wrong one. A shard
that has changed since is computed again.
"""

import hashlib
import json
import os
import pathlib
import zlib

import keras
import numpy as np
import tensorflow as tf

from captioner.features.input_pipeline import image_batches
from captioner.features.litert_network import image_network
from captioner.files import atomic_write, write_json
from captioner.images.image_files import ImageError, read_image_file
from captioner.images.image_views import View
from captioner.progress import progress_bar
from captioner.terminal import one_line, say

SHARD_SIZE = 256
BATCH_SIZE = 16


class FeatureCache:
    """The features of one backbone over photos that one converter prepared.

    Args:
        folder: where all caches live; each key has a folder of its own in it.
        image_converter: an `ImageConverter`.
        vision_backbone: a `VisionBackbone`.

    Example:

    ```python
    cache = FeatureCache("features", captioner.image_converter, captioner.backbone)
    errors = cache.compute([example["image"] for example in examples])
    _, read = cache.reader([example["image"] for example in examples])
    features = read([0, 1, 2])  # float16 (3, P, E)
    ```

    Those of other views of a photo (`image_views`) stand beside those of the photo.
    """

    def __init__(self, folder, image_converter, vision_backbone):
        self.image_converter = image_converter
        self.vision_backbone = vision_backbone
        self.fingerprint = vision_backbone.fingerprint()
        key = {
            "image_converter": _own_config(image_converter),
            "vision_backbone": _own_config(vision_backbone),
            "fingerprint": self.fingerprint,
            "dtype": "float16",
            "large JPEGs": "decoded at 1/2, 1/4 or 1/8",  # not so in version 0.1
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = (
            pathlib.Path(folder) / f"{vision_backbone.architecture}-{digest[:16]}"
        )
        self.feature_shape = tuple(vision_backbone.feature_shape)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "manifest.json").is_file():
            write_json(
                self.folder / "manifest.json",
                {"key": key, "feature_shape": self.feature_shape},
            )
        self._shards = []  # memory-mapped, each (N, P, E)
        self._row_of = {}  # content -> (shard, row in it)
        self._content_of = {}  # path or handle -> content, read once a run
        for index_file in sorted(self.folder.glob("features-*.json")):
            self._open_shard(index_file)

    def __len__(self):
        """The number of photos whose features are here."""
        return len(self._row_of)

    def renewed(self):
        """The cache of the backbone as it is now: another one, in the same folder, when
        its weights have changed. Photos that this one has seen are not read again."""
        if self.vision_backbone.fingerprint() == self.fingerprint:
            return self
        cache = FeatureCache(
            self.folder.parent, self.image_converter, self.vision_backbone
        )
        cache._content_of = self._content_of
        return cache

    def compute(self, images, views=(View(),)):
        """Compute and keep the features of all photos that have none yet.

        Args:
            images: a sequence of what `load_image` takes.
            views: `View`s of each photo.

        Returns:
            dict of index into `images` -> `ImageError`, for the unreadable ones.

        Raises:
            OSError: the disk is full; what was finished stays.
        """
        errors = {}
        for view in views:
            errors.update(self._compute(images, view))
        return errors

    def _compute(self, images, view):
        errors = {}
        missing = {}  # content -> its indices; a photo that is there twice is done once
        for index, image in enumerate(images):
            try:
                content = f"{self.content(image)}{view}"
            except ImageError as error:
                errors[index] = error
                continue
            if content not in self._row_of:
                missing.setdefault(content, []).append(index)
        if not missing:
            return errors
        contents, indices = list(missing), list(missing.values())

        batches = image_batches(
            [images[first] for first, *_ in indices],
            self.image_converter,
            BATCH_SIZE,
            lambda i, error: errors.update(dict.fromkeys(indices[i], error)),
        )
        encode = image_network(self.vision_backbone, os.cpu_count())
        shard_features, shard_contents = [], []
        with progress_bar(
            f"{self.vision_backbone.architecture}{view} features",
            total=len(images),
            initial=len(images) - len(indices),
        ) as bar:
            for rows, batch in batches:
                batch_contents = [contents[row] for row in rows.numpy()]
                seen = [view.of(*each) for each in zip(batch.numpy(), batch_contents)]
                features = encode(tf.constant(np.stack(seen)))
                shard_features.extend(features.astype(np.float16))
                shard_contents.extend(batch_contents)
                bar.update(len(rows))
                if len(shard_contents) >= SHARD_SIZE:
                    self._write_shard(shard_features, shard_contents)
                    shard_features, shard_contents = [], []
            if shard_contents:
                self._write_shard(shard_features, shard_contents)
        return errors

    def reader(self, images, views=(View(),)):
        """The images for `training_batches` and `RowBatches`, read from the cache.

        Args:
            images: photos that `compute` has seen.
            views: `View`s that were computed.

        Returns:
            ("image_features", read): `read` takes int64 indices (B,) into `images`
            and returns their features, float16 (B, P, E): those of the first view.
            An index plus the number of images is that of the second view, and so on.

        Raises:
            KeyError: a photo has not been computed.
        """
        contents = [self.content(image) for image in images]
        places = [
            self._row_of[f"{content}{view}"] for view in views for content in contents
        ]

        def read(indices):
            features = np.empty((len(indices), *self.feature_shape), np.float16)
            for i, index in enumerate(indices):
                shard, row = places[index]
                features[i] = self._shards[shard][row]
            return features

        return "image_features", read

    def content(self, image):
        """A sha256 of what the photo is, wherever it lies.

        Args:
            image: a path, encoded bytes or a uint8 array.

        Raises:
            ImageError: the file cannot be read.
        """
        if hasattr(image, "read"):  # a part of a larger file
            if image not in self._content_of:
                self._content_of[image] = self.content(image.read())
            return self._content_of[image]
        if isinstance(image, np.ndarray):
            header = f"{image.dtype} {image.shape}".encode()
            return hashlib.sha256(header + image.tobytes()).hexdigest()
        if isinstance(image, bytes):
            return hashlib.sha256(image).hexdigest()
        path = os.fspath(image)
        if path not in self._content_of:
            self._content_of[path] = hashlib.sha256(read_image_file(path)).hexdigest()
        return self._content_of[path]

    def _write_shard(self, features, contents):
        # Named by what is in it, so that two runs at once never share a name.
        name = hashlib.sha256("".join(contents).encode()).hexdigest()[:16]
        path = self.folder / f"features-{name}.npy"
        with atomic_write(path, sync=True) as file:
            np.save(file, np.stack(features))
        write_json(
            path.with_suffix(".json"), {"crc32": _crc32(path), "photos": contents}
        )
        self._open_shard(path.with_suffix(".json"))

    def _open_shard(self, index_file):
        try:
            file = index_file.with_suffix(".npy")
            index = json.loads(index_file.read_text())
            contents = index["photos"]
            if index["crc32"] != _crc32(file):
                raise ValueError("the file has changed since it was written")
            features = np.load(file, mmap_mode="r")
            if features.shape != (len(contents), *self.feature_shape):
                raise ValueError(f"the file holds features of shape {features.shape}")
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            say(
                f"{index_file.with_suffix('.npy')}: image features cannot be used and "
                f"are computed again ({one_line(error)})"
            )
            return
        for row, content in enumerate(contents):
            self._row_of.setdefault(content, (len(self._shards), row))
        self._shards.append(features)


def _crc32(path):
    """The CRC-32 of a file: enough to notice damage, and as fast as a disk."""
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _own_config(layer):
    """A layer's configuration without what Keras adds to every layer."""
    common = keras.layers.Layer().get_config()
    config = layer.get_config()
    return {key: config[key] for key in sorted(config) if key not in common}
