"""Reading and decoding photos in processes of their own.

A native decoder that crashes takes its process with it, and one that hangs is killed at
the end of its time; the photo is reported and a new process goes on. Nothing that a
decoder prints reaches the terminal.

A worker is `python -m captioner.images.decode_workers`. Messages on its standard input
and output are eight bytes of length and a pickle; pixels follow as they are.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time

import cv2
import numpy as np

from captioner.images.image_files import MAX_PIXELS, ImageError, load_image
from captioner.images.thumbnail import make_thumbnail

TIME_LIMIT = 30.0  # seconds for one photo
_HEADER = struct.Struct("<Q")


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """One photo out of a worker.

    Attributes:
        digest: bytes, of the file's content.
        pixels: uint8 RGB (H, W, 3), or None where the content is the known one.
        thumbnail: bytes of a small JPEG, or None where none was asked for.
    """

    digest: bytes
    pixels: np.ndarray | None = None
    thumbnail: bytes | None = None


class DecodeWorkers:
    """A pool of decoding processes.

    Args:
        count: how many processes.
        time_limit: seconds that one photo may take.
        max_pixels: a picture with more is refused before it is decoded.

    Example:

    ```python
    with DecodeWorkers(2) as workers:
        photos = find_photos("photos")
        for future in [workers.submit(photo) for photo in photos]:
            try:
                print(future.result().pixels.shape)
            except ImageError as error:
                print(error.kind, error)
    ```
    """

    def __init__(self, count, time_limit=TIME_LIMIT, max_pixels=MAX_PIXELS):
        self.time_limit, self.max_pixels = time_limit, max_pixels
        self._workers = []  # all that are alive
        self._own = threading.local()
        # One thread for each process: it waits for it.
        self._threads = concurrent.futures.ThreadPoolExecutor(count, "decode")

    def submit(
        self,
        photo,
        known_digest=None,
        thumbnail=False,
        image_size=None,
        then=lambda decoded: decoded,
    ):
        """Decode a photo.

        Args:
            photo: a `Photo`.
            known_digest: if its content has this digest, it is not decoded.
            thumbnail: make one, too.
            image_size: see `load_image`.
            then: called with the `Decoded`, in the thread that waited for it.

        Returns:
            A future of what `then` returns. It raises `ImageError` where the photo
            cannot be used; besides those of `load_image` its kind may be "timeout" or
            "crashed".
        """
        question = photo, known_digest, thumbnail, image_size
        return self._threads.submit(self._decode, question, then)

    def _decode(self, question, then):
        photo = question[0]
        if photo.error is not None:
            raise photo.error
        worker = getattr(self._own, "worker", None)
        if worker is None or not worker.alive:
            worker = self._own.worker = _Worker(self.time_limit, self.max_pixels)
            self._workers.append(worker)
        try:
            return then(worker.decode(question))
        finally:
            if not worker.alive:
                self._workers.remove(worker)

    def close(self):
        """End all processes; what was not begun is not done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._workers):
            worker.kill()
        self._threads.shutdown(wait=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class _Worker:
    """One process, as seen from the one that started it."""

    def __init__(self, time_limit, max_pixels):
        self.time_limit = time_limit
        # Where this package was imported from, it is there, too.
        path = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "captioner.images.decode_workers", str(time_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "OPENCV_IO_MAX_IMAGE_PIXELS": str(max_pixels),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                # There is a process for each core already.
                "OMP_NUM_THREADS": "1",
            },
        )
        self.alive = True

    def decode(self, question):
        photo = question[0]
        deadline = time.monotonic() + self.time_limit + _START_TIME
        try:
            _write(self.process.stdin, question)
            self._wait(deadline)
            answer = _read(self.process.stdout)
            if isinstance(answer, ImageError):
                raise answer
            digest, shape, thumbnail = answer
            pixels = None
            if shape is not None:
                pixels = np.empty(shape, np.uint8)
                _read_into(self.process.stdout, pixels.reshape(-1).data)
            return Decoded(digest, pixels, thumbnail)
        except ImageError:
            raise
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self.kill()
            code = self.process.returncode
            if isinstance(error, TimeoutError) or code == -signal.SIGALRM:
                reason = f"decoding took more than {self.time_limit:g} seconds"
                raise ImageError(photo.name, "timeout", reason) from error
            reason = f"the decoder crashed ({_cause(code)})"
            raise ImageError(photo.name, "crashed", reason) from error
        except BaseException:  # as MemoryError: the rest of an answer is on its way
            self.kill()
            raise

    def _wait(self, deadline):
        # The process ends itself in time, unless it cannot, as on a disk that is gone.
        remaining = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        if not poll.poll(max(0.0, remaining) * 1000):
            raise TimeoutError

    def kill(self):
        self.alive = False
        if self.process.poll() is None:
            with _ignored(OSError, subprocess.TimeoutExpired):
                # It may have ended by itself, and how is worth knowing.
                self.process.stdin.close()
                self.process.wait(0.2)
        with _ignored(OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()


_START_TIME = 20.0  # seconds until a new process is ready, on a busy machine


class _ignored:
    def __init__(self, *errors):
        self.errors = errors

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        return kind is not None and issubclass(kind, self.errors)


def _cause(code):
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            pass
    return f"exit code {code}"


def _write(file, message):
    data = pickle.dumps(message)
    _write_all(file, _HEADER.pack(len(data)) + data)


def _write_all(file, data):
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read(file):
    header = bytearray(_HEADER.size)
    _read_into(file, header)
    data = bytearray(_HEADER.unpack(header)[0])
    _read_into(file, data)
    return pickle.loads(data)


def _read_into(file, buffer):
    view = memoryview(buffer)
    while view:
        count = file.readinto(view)
        if not count:
            raise EOFError
        view = view[count:]


# In the worker ----------------------------------------------------------------------


def _serve(time_limit):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it
    # Nothing else may write to where answers go, or read where questions come from.
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    # A picture of the most pixels allowed, in its widest form and a few copies.
    most = 2**32 + 24 * MAX_PIXELS
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    while True:
        try:
            question = _read(questions)
        except EOFError:
            return
        # The default action of SIGALRM ends the process, wherever it hangs.
        signal.setitimer(signal.ITIMER_REAL, time_limit)
        try:
            answer, pixels = _answer(*question)
        except ImageError as error:
            answer, pixels = error, None
        except MemoryError:
            reason = "the picture needs too much memory"
            answer, pixels = ImageError(question[0].name, "too_large", reason), None
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            _write(answers, answer)
            if pixels is not None:
                _write_all(answers, pixels.reshape(-1).data)
        except BrokenPipeError:
            return


def _answer(photo, known_digest, thumbnail, image_size):
    data = photo.read()
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if digest == known_digest and not thumbnail:
        return (digest, None, None), None
    try:
        pixels = load_image(data, image_size)
    except ImageError as error:  # which knows of bytes alone
        raise ImageError(photo.name, error.kind, error.reason) from error
    small = make_thumbnail(pixels) if thumbnail else None
    if digest == known_digest:
        return (digest, None, small), None
    return (digest, pixels.shape, small), pixels


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
