"""Decoding in processes of their own: what crashes or hangs there is one bad photo."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from trap import Trap

from captioner.images import decode_workers
from captioner.images.decode_workers import _ANSWER, DecodeWorkers
from captioner.images.image_files import ImageError, load_image
from captioner.images.photo_sources import Photo, find_photos

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


# What a worker that was taken over might do -----------------------------------------

FORGE = """
import os
for answers in range(3, 20):
    try:
        os.write(answers, {data!r})
    except OSError:
        pass
"""


class Mark:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("what", ["a pickle", "a long answer", "many pixels", "noise"])
def test_an_answer_is_only_ever_pixels(trap, tmp_path, what):
    pickled = pickle.dumps(Mark(tmp_path / "ran"))
    data = {
        "a pickle": len(pickled).to_bytes(8, "little") + pickled,
        "a long answer": _ANSWER.pack(bytes(16), 9, 9, 2**32 - 1, False, 0, 0),
        "many pixels": 2 * _ANSWER.pack(bytes(16), 2**31, 2**31, 0, False, 0, 0),
        "noise": b"\xff" * 1000,
    }[what]
    with DecodeWorkers(1, time_limit=2) as workers:
        photos = [trap(FORGE.format(data=data)), trap("")]
        bad, good = kinds([workers.submit(photo) for photo in photos])
    assert bad in ("crashed", "timeout")
    assert good == load_image(SAMPLES / "coffee.jpg").shape
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "kind, reason", [("kept ", "x"), ("Kept", "x"), ("truncated", "a\nb\x1b[2J")]
)
def test_an_error_is_a_kind_and_one_line(trap, kind, reason):
    kind, reason = kind.encode(), reason.encode()
    forged = _ANSWER.pack(bytes(16), 0, 0, 0, False, len(kind), len(reason))
    with DecodeWorkers(1, time_limit=2) as workers:
        photo = trap(FORGE.format(data=forged + kind + reason))
        assert kinds([workers.submit(photo)]) == ["crashed"]


STOP = """
import os
from captioner.images import decode_workers
def stop_in_the_middle(file, data, write_all=decode_workers._write_all, os=os):
    data = memoryview(data).cast("B")
    write_all(file, data[: len(data) // 2])
    if len(data) > {size}:
        os.kill(os.getpid(), 19)  # SIGSTOP
    write_all(file, data[len(data) // 2 :])
decode_workers._write_all = stop_in_the_middle
"""


@pytest.mark.parametrize("size", [0, 100_000], ids=["the header", "the pixels"])
def test_the_time_limit_holds_while_an_answer_is_sent(trap, size):
    with DecodeWorkers(1, time_limit=1) as workers:
        photos = [trap(STOP.format(size=size)), trap("")]
        stopped, good = kinds([workers.submit(photo) for photo in photos])
    assert stopped == "timeout"
    assert good == load_image(SAMPLES / "coffee.jpg").shape


def test_the_time_limit_holds_while_a_question_is_sent(trap):
    with DecodeWorkers(1, time_limit=1) as workers:
        workers.submit(trap("")).result()
        (worker,) = workers._workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        large = Photo("a.tar/b.jpg", "b.jpg", "", "a.tar", member=bytes(2**23))
        assert kinds([workers.submit(large), workers.submit(trap(""))]) == [
            "timeout",
            load_image(SAMPLES / "coffee.jpg").shape,
        ]


# Memory -----------------------------------------------------------------------------


@pytest.fixture
def large_photos(tmp_path):
    """Three PNGs of 4 megapixels, which are small files."""
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((2000, 2000), np.uint8))
    return list(find_photos(tmp_path))


@pytest.mark.parametrize("memory, at_once", [(2**20, 1), (2**30, 3)])
def test_large_pictures_wait_for_each_other(large_photos, memory, at_once):
    # With little memory one at a time is decoded; with much all are.
    barrier = threading.Barrier(at_once)
    inside, most = [], []

    def then(decoded):
        inside.append(decoded)
        most.append(len(inside))
        barrier.wait(60)
        inside.pop()
        return decoded

    with DecodeWorkers(3, memory=memory) as workers:
        futures = [workers.submit(photo, then=then) for photo in large_photos]
        assert kinds(futures) == [(2000, 2000, 3)] * 3
    assert max(most) == at_once


def test_the_model_is_asked_for_its_size_only_for_a_new_picture(tmp_path):
    large = cv2.resize(cv2.imread(str(SAMPLES / "coffee.jpg")), (1200, 800))
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty.jpg").write_bytes(b"")
    bad, empty, large = find_photos(tmp_path)
    asked = []

    def image_size():
        asked.append(1)
        return 100, 100

    with DecodeWorkers(1) as workers:
        found = kinds([workers.submit(empty, image_size=image_size)])
        decoded = workers.submit(large, image_size=image_size).result()
        assert decoded.pixels.shape == (200, 300, 3) and len(asked) == 1
        np.testing.assert_array_equal(
            decoded.pixels, load_image(large.path, (100, 100))
        )
        again = workers.submit(large, decoded.digest, image_size=image_size).result()
        assert again.pixels is None and len(asked) == 1

        def fail():
            raise ValueError("no such preset")

        with pytest.raises(ValueError, match="no such preset"):
            workers.submit(large, image_size=fail).result()
        found += kinds([workers.submit(large), workers.submit(bad)])
    assert found == ["empty", (800, 1200, 3), "truncated"]


UNDER_A_LIMIT = """
import json, resource, sys
limit = int(sys.argv[1])
from captioner.images.decode_workers import DecodeWorkers
from captioner.images.photo_sources import find_photos
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = []
with DecodeWorkers(1) as workers:
    for photo in find_photos(sys.argv[2:]):
        try:
            found.append(workers.submit(photo).result().pixels.shape)
        except ValueError as error:
            found.append([error.kind, error.reason])
        except OSError as error:
            found.append(error.strerror)
print(json.dumps(found))
"""


def under_a_limit(limit, *paths):
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, str(limit), *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_never_more_memory_than_the_limit_of_the_user(tmp_path):
    huge = np.zeros((12_000, 12_000), np.uint8)
    cv2.imwrite(str(tmp_path / "huge.png"), huge)
    photo, huge = SAMPLES / "coffee.jpg", tmp_path / "huge.png"
    good, bad = under_a_limit(700_000_000, photo, huge)
    assert good == [400, 600, 3]
    assert bad[0] == "too_large" and "the limit is 700 MB" in bad[1]


def test_a_process_that_does_not_start_is_said_in_one_line(trap, monkeypatch):
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(decode_workers, "python_command", lambda *_: command)
    with DecodeWorkers(1) as workers:
        with pytest.raises(OSError, match=r"does not start \(exit code 3\)\.$"):
            workers.submit(trap("")).result()
        monkeypatch.setattr(decode_workers, "_memory_limit", lambda: 10**8)
        with pytest.raises(OSError, match="it may take 100 MB of memory, see `ulimit"):
            workers.submit(trap("")).result()
