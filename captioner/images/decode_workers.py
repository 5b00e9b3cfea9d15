"""Reading and decoding photos in processes of their own.

A native decoder that crashes takes its process with it, and one that hangs is killed at
the end of its time; the photo is reported and a new process goes on. One that a
malicious file has taken over can send wrong pixels, and no more: nothing that it sends
is run or unpickled. Nothing that a decoder prints reaches the terminal.

For each photo a worker gets a question, which is eight bytes of length and a pickle. It
reads the file and answers how large the picture is. Then it waits for the size that the
model wants, with which it is told that there is memory for the picture, and answers
with the pixels. Each answer is a header of fixed size and the bytes whose number is
in it.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import pickle
import re
import resource
import select
import signal
import struct
import subprocess
import threading
import time

import cv2
import numpy as np

from captioner.images.image_files import (
    MAX_PIXELS,
    TOO_LARGE,
    ImageError,
    jpeg_scale,
    load_image,
)
from captioner.images.memory_budget import MemoryBudget
from captioner.images.picture_size import picture_size
from captioner.images.thumbnail import make_thumbnail
from captioner.processes import child_environment, python_command

TIME_LIMIT = 30.0  # seconds for one photo
MEMORY = 2**29  # bytes for each process: for pictures, and as many for their files
# What decoding takes for each pixel: copies of wider types, of which some are there at
# the same time, and the pixels in the process that asked.
BYTES_A_PIXEL = 16
_START_TIME = 60.0  # seconds until a new process is ready, on a busy machine
_GRACE = 2.0  # seconds after the time limit, by which a worker should have ended itself
_PIPE_BYTES = 2**20  # a photo in few pieces
_READY = b"ready"
_LENGTH = struct.Struct("<Q")
_WANTED = struct.Struct("<II")  # height and width, or zeros
# The digest; height, width and the bytes of the thumbnail; whether it is a JPEG, and
# the bytes of an error's kind and reason.
_ANSWER = struct.Struct("<16sIII?HH")
_MAX_THUMBNAIL_BYTES = 2**20
_KIND = re.compile("[a-z_]{1,30}")


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
        memory: bytes that all pictures may take at a time, from the file to the end of
            `then`; by default half a GiB for each process. Pictures that are so large
            that they do not fit are decoded one after the other.

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

    def __init__(
        self, count, time_limit=TIME_LIMIT, max_pixels=MAX_PIXELS, memory=None
    ):
        memory = memory or count * MEMORY
        self.time_limit, self.max_pixels = time_limit, max_pixels
        # Two, so that nobody who has memory for a file waits for one who waits for it.
        self._files, self._pictures = MemoryBudget(memory), MemoryBudget(memory)
        self._workers = []  # all that are alive
        self._own = threading.local()
        # One thread for each process: it waits for it.
        self._threads = concurrent.futures.ThreadPoolExecutor(count, "decode")

    def submit(
        self,
        photo,
        known_digest=None,
        thumbnail=False,
        image_size=lambda: None,
        then=lambda decoded: decoded,
    ):
        """Decode a photo.

        Args:
            photo: a `Photo`.
            known_digest: if its content has this digest, it is not decoded.
            thumbnail: make one, too.
            image_size: called once there is a picture to decode; returns what
                `load_image` takes as such.
            then: called with the `Decoded`, in the thread that waited for it.

        Returns:
            A future of what `then` returns. It raises `ImageError` where the photo
            cannot be used; besides those of `load_image` its kind may be "timeout" or
            "crashed". It raises `OSError` where no process can be started.
        """
        question = photo, known_digest, thumbnail
        return self._threads.submit(self._decode, question, image_size, then)

    def _decode(self, question, image_size, then):
        photo, known_digest, thumbnail = question
        if photo.error is not None:
            raise photo.error
        with self._files.hold(_file_bytes(photo)):
            worker = self._worker()
            is_asked = False  # and waits for what is wanted
            try:
                found = worker.look(question)
                if found.digest == known_digest and not thumbnail:
                    return then(Decoded(found.digest))
                is_asked = True
                wanted = image_size()
                with self._pictures.hold(self._picture_bytes(found, wanted)):
                    is_asked = False
                    return then(worker.decode(wanted))
            finally:
                if is_asked:
                    worker.kill()
                if not worker.alive:
                    self._workers.remove(worker)

    def _worker(self):
        worker = getattr(self._own, "worker", None)
        if worker is None or not worker.alive:
            worker = self._own.worker = _Worker(self.time_limit, self.max_pixels)
            self._workers.append(worker)
        return worker

    def _picture_bytes(self, found, wanted):
        size = found.height, found.width
        if 0 in size:  # of a format that is not known: it may be anything
            return self._pictures.total
        count = min(size[0] * size[1], self.max_pixels)
        if found.is_jpeg and wanted is not None:
            # Whether it lies on its side is not known here.
            count //= min(jpeg_scale(*size, wanted), jpeg_scale(*size[::-1], wanted))
        return BYTES_A_PIXEL * count

    def close(self):
        """End all processes; what was not begun is not done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._workers):
            worker.kill()
        self._threads.shutdown(wait=True)
        for worker in list(self._workers):  # started in between
            worker.kill()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _file_bytes(photo):
    """How much memory reading a photo takes, about."""
    if photo.member is not None:
        return getattr(photo.member, "size", photo.num_bytes_held)
    try:
        return os.path.getsize(photo.path)
    except (OSError, ValueError):  # reading it will say what is wrong
        return 0


@dataclasses.dataclass(frozen=True)
class _Answer:
    """The header of an answer, and what follows it except the pixels."""

    digest: bytes
    height: int
    width: int
    is_jpeg: bool
    thumbnail: bytes


class _Worker:
    """One process, as seen from the one that started it.

    Raises:
        OSError: it does not start.
    """

    def __init__(self, time_limit, max_pixels):
        self.time_limit, self.max_pixels = time_limit, max_pixels
        self.alive, self.photo = True, None
        self.process = subprocess.Popen(
            python_command("captioner.images.decode_workers", str(time_limit)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=child_environment(
                OPENCV_IO_MAX_IMAGE_PIXELS=str(max_pixels),
                TF_CPP_MIN_LOG_LEVEL="3",
                CUDA_VISIBLE_DEVICES="-1",  # TensorFlow decodes CMYK on the processor
                # There is a process for each core already.
                OMP_NUM_THREADS="1",
                OPENBLAS_NUM_THREADS="1",
                # The memory of one photo is used for the next, instead of being given
                # back to the system, which zeroes it each time.
                MALLOC_MMAP_THRESHOLD_=str(2**26),
                MALLOC_TRIM_THRESHOLD_=str(2**27),
            ),
        )
        # So that no wait for it is endless.
        for file in (self.process.stdin, self.process.stdout):
            os.set_blocking(file.fileno(), False)
            with contextlib.suppress(OSError):  # where the user has many pipes
                fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self.deadline = time.monotonic() + _START_TIME
            self._receive(bytearray(len(_READY)))
        except (OSError, EOFError) as error:
            self.kill()
            raise _not_started(self.process.returncode) from error

    def look(self, question):
        """The `_Answer` that says how large the picture is, without its pixels."""
        self.photo = question[0]
        self.deadline = time.monotonic() + self.time_limit + _GRACE
        with self._one_photo():
            data = pickle.dumps(question)
            self._send(_LENGTH.pack(len(data)) + data)
            found = self._answer()
        self.remaining = self.deadline - time.monotonic()
        return found

    def decode(self, image_size):
        """The picture of the last `look`, as `Decoded`."""
        self.deadline = time.monotonic() + self.remaining
        with self._one_photo():
            self._send(_WANTED.pack(*(image_size or (0, 0))))
            answer = self._answer()
            pixels = None
            if answer.height:
                if not 0 < answer.height * answer.width <= self.max_pixels:
                    raise ValueError("more pixels than allowed")
                pixels = np.empty((answer.height, answer.width, 3), np.uint8)
                self._receive(pixels.reshape(-1).data)
            return Decoded(answer.digest, pixels, answer.thumbnail or None)

    @contextlib.contextmanager
    def _one_photo(self):
        """Turns every failure into an `ImageError`; ends a process that is no longer
        usable."""
        name = self.photo.name
        try:
            yield
        except ImageError:
            raise
        except MemoryError as error:  # the rest of an answer is on its way
            self.kill()
            reason = "there is no memory for the picture"
            raise ImageError(name, "too_large", reason) from error
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            code = self.process.returncode
            if isinstance(error, TimeoutError) or code == -signal.SIGALRM:
                reason = f"decoding took more than {self.time_limit:g} seconds"
                raise ImageError(name, "timeout", reason) from error
            reason = f"the decoder crashed ({_cause(code)})"
            raise ImageError(name, "crashed", reason) from error
        except BaseException:
            self.kill()
            raise

    def _answer(self):
        header = bytearray(_ANSWER.size)
        self._receive(header)
        digest, height, width, thumbnail, is_jpeg, kind, reason = _ANSWER.unpack(header)
        if thumbnail > _MAX_THUMBNAIL_BYTES:
            raise ValueError("a longer answer than allowed")
        rest = bytearray(kind + reason + thumbnail)
        self._receive(rest)
        if kind:
            text = rest[kind : kind + reason].decode()
            kind = rest[:kind].decode()
            if not (_KIND.fullmatch(kind) and text.isprintable()):
                raise ValueError("not an error of captioner")
            raise ImageError(self.photo.name, kind, text)
        return _Answer(digest, height, width, is_jpeg, bytes(rest))

    def _send(self, data):
        self._move(self.process.stdin, select.POLLOUT, "write", memoryview(data))

    def _receive(self, buffer):
        self._move(self.process.stdout, select.POLLIN, "readinto", memoryview(buffer))

    def _move(self, file, event, method, view):
        """Write or read all of a buffer, until the deadline."""
        poll = select.poll()
        poll.register(file, event)
        while view:
            count = getattr(file, method)(view)
            if count is None:  # the pipe is full, or empty
                remaining = self.deadline - time.monotonic()
                if remaining <= 0 or not poll.poll(remaining * 1000):
                    raise TimeoutError
            elif not count:
                raise EOFError
            else:
                view = view[count:]

    def kill(self):
        self.alive = False
        if self.process.poll() is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                # It may have ended by itself, and how is worth knowing.
                self.process.stdin.close()
                self.process.wait(0.2)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()


def _not_started(code):
    reason = f"A decoding process does not start ({_cause(code)})"
    limit = _memory_limit()
    if limit < _most_memory():
        reason += f"; it may take {limit / 1e6:,.0f} MB of memory, see `ulimit -v`"
    return OSError(errno.ENOMEM, f"{reason}.")


def _cause(code):
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _most_memory():
    """Bytes: a picture of the most pixels allowed, in its widest form and copies."""
    return 2**32 + 24 * MAX_PIXELS


def _memory_limit():
    """Bytes that a worker may take: never more than who started it allows."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return min([_most_memory(), *limits])


# In the worker ----------------------------------------------------------------------


def main(time_limit):
    """Answer questions on standard input, until there are no more.

    Args:
        time_limit: str, seconds for one photo.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it
    # Nothing else may write to where answers go, or read where questions come from.
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    limit = _memory_limit()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    with contextlib.suppress(BrokenPipeError, EOFError):
        _write_all(answers, _READY)
        while True:
            length = _LENGTH.unpack(_read(questions, _LENGTH.size))[0]
            question = pickle.loads(_read(questions, length))
            try:
                _answer(questions, answers, float(time_limit), *question)
            except ImageError as error:
                _write_error(answers, error)
            except MemoryError:
                _write_error(answers, _no_memory(question[0]))


def _answer(questions, answers, time_limit, photo, known_digest, thumbnail):
    # The default action of SIGALRM ends the process, wherever it hangs.
    signal.setitimer(signal.ITIMER_REAL, time_limit)
    data = photo.read()
    if not data:
        raise ImageError(photo.name, "empty", "the file is empty")
    digest = hashlib.blake2b(data, digest_size=16).digest()
    size, is_jpeg = picture_size(data) or (0, 0), data.startswith(b"\xff\xd8\xff")
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    size = [min(side, 2**32 - 1) for side in size]
    _write_all(answers, _ANSWER.pack(digest, *size, 0, is_jpeg, 0, 0))
    if digest == known_digest and not thumbnail:
        return
    image_size = _WANTED.unpack(_read(questions, _WANTED.size))
    signal.setitimer(signal.ITIMER_REAL, remaining)
    try:
        pixels = load_image(data, image_size if all(image_size) else None)
    except ImageError as error:  # which knows of bytes alone
        if error.reason == TOO_LARGE and 0 < size[0] * size[1] <= MAX_PIXELS:
            raise _no_memory(photo) from error
        raise ImageError(photo.name, error.kind, error.reason) from error
    small = make_thumbnail(pixels) if thumbnail else b""
    if digest == known_digest:
        pixels = np.empty((0, 0, 3), np.uint8)
    signal.setitimer(signal.ITIMER_REAL, 0)  # who waits for it has a clock, too
    shape = pixels.shape[:2]
    _write_all(answers, _ANSWER.pack(digest, *shape, len(small), False, 0, 0) + small)
    _write_all(answers, pixels.reshape(-1).data)


def _no_memory(photo):
    limit = _memory_limit() / 1e6
    reason = f"the picture needs too much memory; the limit is {limit:,.0f} MB"
    return ImageError(photo.name, "too_large", reason)


def _write_error(answers, error):
    signal.setitimer(signal.ITIMER_REAL, 0)
    kind, reason = error.kind.encode(), error.reason
    if not reason.isprintable():  # a name from an archive may be in it
        reason = repr(reason)
    reason = reason.encode("utf-8", "backslashreplace")[: 2**16 - 1]
    reason = reason.decode("utf-8", "ignore").encode()  # no half of a letter
    header = _ANSWER.pack(bytes(16), 0, 0, 0, False, len(kind), len(reason))
    _write_all(answers, header + kind + reason)


def _write_all(file, data):
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read(file, count):
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = file.readinto(view)
        if not got:
            raise EOFError
        view = view[got:]
    return data
