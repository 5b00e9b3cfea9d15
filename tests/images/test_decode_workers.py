"""Decoding in processes of their own: what crashes or hangs there is one bad photo."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from trap import Trap

from captioner.images.decode_workers import DecodeWorkers
from captioner.images.image_files import ImageError, load_image
from captioner.images.photo_sources import find_photos

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


@pytest.fixture
def trap(monkeypatch):
    # So that a worker finds this module.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    path = str(SAMPLES / "coffee.jpg")
    return lambda action: Trap(path, "coffee.jpg", "", path, action=action)


def kinds(futures):
    found = []
    for future in futures:
        try:
            found.append(future.result().pixels.shape)
        except ImageError as error:
            assert "\n" not in str(error)
            found.append(error.kind)
    return found


def test_photos_come_as_load_image_reads_them():
    photos = list(find_photos(SAMPLES))
    with DecodeWorkers(2) as workers:
        futures = [workers.submit(photo) for photo in photos]
        for photo, future in zip(photos, futures):
            decoded = future.result()
            np.testing.assert_array_equal(decoded.pixels, load_image(photo.path))
            assert decoded.thumbnail is None
            again = workers.submit(photo, decoded.digest).result()
            assert again.pixels is None and again.digest == decoded.digest
        thumbnail = workers.submit(photos[0], thumbnail=True).result().thumbnail
    assert max(load_image(thumbnail).shape) == 240


def test_a_crash_and_a_hang_are_one_photo_each(trap, capfd):
    crash = trap("import ctypes; ctypes.string_at(0)")
    end = trap("import os; os._exit(7)")
    noise = trap("import os; os.write(1, b'noise'); os.write(2, b'noise')")
    hang = trap("import time; time.sleep(1000)")
    stopped = trap("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    good = trap("")
    with DecodeWorkers(1, time_limit=5) as workers:
        photos = [good, crash, noise, end, hang, good, stopped, good]
        found = kinds([workers.submit(photo) for photo in photos])
    shape = load_image(good.path).shape
    assert found == [
        shape,
        "crashed",
        shape,
        "crashed",
        "timeout",
        shape,
        "crashed",
        shape,
    ]
    assert capfd.readouterr() == ("", "")


def test_a_picture_of_too_many_pixels_is_not_decoded():
    with DecodeWorkers(1, max_pixels=300 * 300) as workers:
        found = kinds([workers.submit(photo) for photo in find_photos(SAMPLES)])
    assert found == ["too_large"] * 10


def test_a_worker_ends_with_who_started_it(trap):
    workers = DecodeWorkers(1)
    workers.submit(trap("")).result()
    (worker,) = workers._workers
    workers.submit(trap("import time; time.sleep(1000)"))
    time.sleep(0.1)
    workers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.process.pid, signal.SIG_DFL)
