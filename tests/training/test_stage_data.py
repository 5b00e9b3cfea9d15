"""The data of the stages: what is noticed when it changes, and which views are seen."""

import copy
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from captioner.images.image_files import ImageError
from captioner.images.image_views import image_views
from captioner.training.stage_data import StageData, seen_views
from captioner.training.training_options import TrainingOptions

EXAMPLES = [
    {"image/id": f"{i}", "image": bytes([i]), "captions": [f"a {i}", "a dog"]}
    for i in range(4)
]


def content(image):
    if not image:
        raise ImageError("photo", "empty", "the file is empty")
    return hashlib.sha256(image).hexdigest()


def data(train, dev=EXAMPLES[3:]):
    cache = SimpleNamespace(content=content)
    return StageData(None, cache, train, dev, TrainingOptions())


@pytest.mark.parametrize(
    "change",
    [
        lambda train: train[1]["captions"].reverse(),
        lambda train: train[1].update(image=b"other"),
        lambda train: train[1].update(image=b""),
        lambda train: train[1].update({"image/id": "other"}),
        lambda train: train.reverse(),
        lambda train: train.pop(),
        lambda train: train.append(EXAMPLES[3]),
    ],
)
def test_the_fingerprint_tells_any_change(change):
    train = copy.deepcopy(EXAMPLES[:3])
    before = data(train).fingerprint()
    assert data(copy.deepcopy(train)).fingerprint() == before
    change(train)
    assert data(train).fingerprint() != before


def test_the_fingerprint_tells_the_splits_apart():
    one, other = data(EXAMPLES[:3], EXAMPLES[3:]), data(EXAMPLES[:2], EXAMPLES[2:])
    assert one.fingerprint() != other.fingerprint()


def test_images_are_left_out_by_their_ids():
    made = data(EXAMPLES[:3])
    made.leave_out({"1": "reason"})
    assert [each["image/id"] for each in made.train] == ["0", "2"]
    assert len(made.train_captions) == 2
    with pytest.raises(ValueError, match="No photo of the train or the dev split"):
        made.leave_out({"3": "reason"})


def test_mirrored_views_are_not_seen_where_a_caption_names_a_side():
    views = image_views(flips=True)
    seen = seen_views(views, [["a dog"], ["a dog", "the Left paw"], ["righteous"]])
    np.testing.assert_array_equal(seen, [[True] * 3, [True, False, False]])
