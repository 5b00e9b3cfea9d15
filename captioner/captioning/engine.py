"""The model at work on batches of photos: reading, decoding, network and words overlap.

While one batch is in the network, captions are generated for another and the next ones
are read and decoded, in processes of their own.
"""

import collections
import concurrent.futures
import dataclasses
import threading

import numpy as np

from captioner.captioning.engine_options import default_workers
from captioner.images.decode_workers import DecodeWorkers
from captioner.images.image_files import ImageError

MOST_AT_ONCE = 4  # batches in the model; each takes memory
MOST_BYTES_AHEAD = 2**29  # of photos that wait for the model


class Captioned:
    """The result of an engine for a photo.

    Attributes:
        captions: list of [text, score], the best first; None where the content is the
            same as before.
        digest: bytes, of the file's content.
        thumbnail: bytes of a small JPEG, or None.
        confidence: float, how likely the first caption is right, 0 to 1, or None.
    """

    def __init__(self, captions, digest, thumbnail, confidence=None):
        self.captions, self.digest, self.thumbnail = captions, digest, thumbnail
        self.confidence = confidence


class BatchCaptioner:
    """Captions batches of converted photos; halves a batch that does not fit in memory.

    Args:
        task: a `Task`.
        num_captions: number of captions of each photo.
        num_threads: number of threads that one call may use.
    """

    def __init__(self, task, num_captions=1, num_threads=1):
        import tensorflow as tf

        self._tf = tf
        self.task = task.replaced(num_captions=num_captions, num_threads=num_threads)
        self.num_captions = num_captions
        self.image_size = task.image_size
        self._largest = None  # batch that is known to fit

    def resize(self, pixels):
        """uint8 (H, W, 3) -> what the task takes.

        Raises:
            ImageError: there is no memory for it.
        """
        try:
            return self.task.convert(pixels)
        except (MemoryError, self._tf.errors.OpError) as error:
            raise _model_failed(error) from error

    def bytes_of(self, image):
        """The bytes of memory that a converted photo takes."""
        return sum(np.asarray(each).nbytes for each in self._tf.nest.flatten(image))

    def __call__(self, images):
        """Converted photos, a list of float32 (H, W, 3) -> for each a list of
        [text, score] and the confidence, or an `ImageError` of the kind "failed"."""
        step = min(len(images), self._largest or len(images))
        results = []
        for start in range(0, len(images), step or 1):
            results += self._run(images[start : start + step])
        return results

    def _run(self, images):
        try:
            found = self.task.write(images)
        # RuntimeError: of LiteRT, where there is no room for its tensors.
        except (MemoryError, RuntimeError, self._tf.errors.OpError) as error:
            if len(images) == 1:
                return [_model_failed(error)]
            if isinstance(error, (MemoryError, self._tf.errors.ResourceExhaustedError)):
                self._largest = (len(images) + 1) // 2
            half = (len(images) + 1) // 2
            return self._run(images[:half]) + self._run(images[half:])
        return [
            (
                [
                    [each.text, _rounded(each.score)]
                    for each in result.hypotheses[: self.num_captions]
                ],
                _rounded(result.confidence),
            )
            for result in found
        ]


def _rounded(value):
    return None if value is None else round(value, 4)


def _model_failed(error):
    reason = " ".join(str(error).split())[:200] or "out of memory"
    return ImageError("photo", "failed", f"the model failed: {reason}")


class LocalEngine:
    """Captions batches on this machine.

    Args:
        load: function that returns a `Task`; called when there is work.
        options: `EngineOptions`.
    """

    def __init__(self, load, options):
        self._load, self._options = load, options
        self._workers = DecodeWorkers(
            options.workers, options.time_limit, options.max_pixels
        )
        # Several models: one generates captions while another encodes the next batch,
        # and one core for each is used better than several cores by one.
        cores = default_workers()
        num_models = max(2, min(cores, MOST_AT_ONCE))
        self._num_threads = max(1, cores // num_models)
        self._ahead = num_models + 1
        self._models = concurrent.futures.ThreadPoolExecutor(num_models, "model")
        self._model, self._loading = None, threading.Lock()
        self._image_bytes = 0  # of a converted photo, once there was one

    def run(self, batches):
        """Caption batches as they come, some of them ahead.

        Args:
            batches: iterable of lists of things with a `photo` and a `known_digest`.

        Yields:
            (batch, outcomes) in the same order; an outcome is a `Captioned` or an
            `ImageError`.
        """
        waiting = collections.deque()
        for batch in batches:
            waiting.append((batch, self._start(batch)))
            while waiting and (waiting[0][1].done() or self._is_enough(waiting)):
                batch, future = waiting.popleft()
                yield batch, future.result()
        for batch, future in waiting:
            yield batch, future.result()

    def _is_enough(self, waiting):
        """Whether no more batches should be begun before the first one is done."""
        photos = [each.photo for batch, _ in waiting for each in batch]
        held = sum(photo.num_bytes_held + self._image_bytes for photo in photos)
        return len(waiting) > self._ahead or held > MOST_BYTES_AHEAD

    def _start(self, batch):
        if not batch:
            return self._models.submit(list)

        def image_size():
            return self._loaded().image_size

        def resize(decoded):
            if decoded.pixels is None:
                return decoded, None
            image = self._loaded().resize(decoded.pixels)
            if not self._image_bytes:
                self._image_bytes = self._model.bytes_of(image)
            # Without the pixels, which nobody wants any more.
            return dataclasses.replace(decoded, pixels=None), image

        decoding = [
            self._workers.submit(
                each.photo,
                each.known_digest,
                self._options.thumbnails,
                image_size,
                then=resize,
            )
            for each in batch
        ]
        return self._models.submit(self._finish, decoding)

    def _loaded(self):
        """The model, loaded once there is a photo for it."""
        with self._loading:
            if self._model is None:
                self._model = BatchCaptioner(
                    self._load(), self._options.num_captions, self._num_threads
                )
        return self._model

    def _finish(self, decoding):
        outcomes, images = [], []
        for future in decoding:
            try:
                decoded, image = future.result()
            except ImageError as error:
                outcomes.append(error)
                continue
            outcomes.append(Captioned(None, decoded.digest, decoded.thumbnail))
            if image is not None:
                images.append((len(outcomes) - 1, image))
        if images:
            rows, images = zip(*images)
            for row, found in zip(rows, self._model(list(images))):
                if isinstance(found, ImageError):
                    outcomes[row] = found
                else:
                    outcomes[row].captions, outcomes[row].confidence = found
        return outcomes

    def close(self):
        """Stop at once; what was under way is lost."""
        self._models.shutdown(wait=False, cancel_futures=True)
        self._workers.close()
        self._models.shutdown(wait=True)
