"""The images of a training as each of its stages wants them: as features that were
computed once, or as photos that are a little different each time."""

import hashlib
import re

import numpy as np

from captioner.features.input_pipeline import image_reader, unreadable_images
from captioner.images.image_files import ImageError
from captioner.images.image_views import image_views
from captioner.terminal import say
from captioner.training.row_batches import RowBatches

_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


class StageData:
    """The train and the dev images of a run.

    Args:
        captioner: `ImageCaptioner`.
        cache: `FeatureCache`.
        train, dev: lists of examples.
        options: `TrainingOptions`.
    """

    def __init__(self, captioner, cache, train, dev, options):
        self.captioner = captioner
        self.cache = cache
        self.train, self.dev = train, dev
        self.options = options
        self.views = image_views(options.flips, options.augmentations)

    def fingerprint(self):
        """A sha256 of the ids, captions and contents of all images, in their order."""
        digest = hashlib.sha256()
        for split in (self.train, self.dev):
            for example in split:
                try:
                    content = self.cache.content(example["image"])
                except ImageError as error:
                    content = error.kind
                digest.update(repr((example["image/id"], content)).encode())
                digest.update(repr(list(example["captions"])).encode())
            digest.update(b"end of split")
        return digest.hexdigest()

    def unreadable(self, from_photos):
        """Which images cannot be read: dict of image ids to the reason.

        Args:
            from_photos: whether the first stage looks at the photos themselves, so that
                no features are needed yet. Otherwise they are computed here.
        """
        reasons = {}
        for examples, views in ((self.train, self.views), (self.dev, image_views())):
            images = [example["image"] for example in examples]
            if from_photos:
                errors = unreadable_images(images)
            else:
                errors = self.cache.compute(images, views)
            for index, error in errors.items():
                say(f"left out: {error}")
                reasons[examples[index]["image/id"]] = str(error)
        return reasons

    def leave_out(self, ids):
        """Forget the images with these ids.

        Raises:
            ValueError: nothing is left of a split.
        """
        self.train = [each for each in self.train if each["image/id"] not in ids]
        self.dev = [each for each in self.dev if each["image/id"] not in ids]
        if not self.train or not self.dev:
            raise ValueError("No photo of the train or the dev split can be read.")

    @property
    def train_captions(self):
        """List of lists of str."""
        return [example["captions"] for example in self.train]

    def of(self, stage):
        """The data of a stage when it begins.

        Returns:
            `RowBatches` of the train images, and a function of int64 indices (B,) into
            the dev images that returns their features.
        """
        train = [example["image"] for example in self.train]
        dev = [example["image"] for example in self.dev]
        if stage.backbone_layers:
            views = image_views(self.options.flips)
            converter = self.captioner.preprocessor.image_converter
            images = image_reader(train, converter, views)
            _, read = image_reader(dev, converter)

            def read_dev(indices):
                return self.captioner.encode(read(indices))

        else:
            # Those of the network as it is now: it may have been fine-tuned.
            views, cache = self.views, self.cache.renewed()
            cache.compute(train, views)
            cache.compute(dev)
            images = cache.reader(train, views)
            _, read_dev = cache.reader(dev)
        batches = RowBatches(
            images,
            self.captioner.preprocessor.rows(self.train_captions),
            self.options.batch_size,
            self.options.seed,
            seen_views(views, self.train_captions),
        )
        return batches, read_dev


def seen_views(views, captions):
    """Which views of each image its captions are as true of, bool (V, N): not the
    mirrored ones where a caption says left or right."""
    flippable = [not any(map(_SIDES.search, texts)) for texts in captions]
    return np.array(
        [flippable if view.mirrored else [True] * len(captions) for view in views]
    )
