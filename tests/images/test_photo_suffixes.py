"""One list says what is taken for a photo, in folders and in datasets."""

import pytest

from captioner.datasets.sidecars import read_sidecars
from captioner.images.photo_sources import find_photos
from captioner.images.photo_suffixes import PHOTO_SUFFIXES


@pytest.mark.parametrize("suffix", [".jfif", ".jfi", ".pjpeg", ".jpe", ".mpo", ".heic"])
def test_suffixes_that_cameras_and_browsers_write(suffix):
    assert suffix in PHOTO_SUFFIXES


def test_folders_and_datasets_know_the_same_suffixes(tmp_path):
    for suffix in PHOTO_SUFFIXES:
        (tmp_path / f"{suffix[1:]}{suffix.upper()}").touch()
        (tmp_path / f"{suffix[1:]}.txt").write_text("a dog")
    (tmp_path / "film.mp4").touch()
    (tmp_path / "film.txt").write_text("a film")
    found = {photo.relative for photo in find_photos(str(tmp_path))}
    assert found == {f"{suffix[1:]}{suffix.upper()}" for suffix in PHOTO_SUFFIXES}
    dataset = read_sidecars(str(tmp_path))
    examples = (each for split in dataset.splits for each in dataset.examples(split))
    assert {each["image/id"] for each in examples} == found
