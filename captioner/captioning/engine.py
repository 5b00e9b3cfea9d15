"""The model at work on batches of photos: reading, decoding, network and words overlap.

While one batch is in the network, another is turned into words and the next ones are
read and decoded, in processes of their own.
"""

import collections
import concurrent.futures
import os
import threading

from captioner.features.litert_network import image_network
from captioner.images.decode_workers import DecodeWorkers
from captioner.images.image_files import ImageError

MOST_AT_ONCE = 4  # batches in the model; each takes memory


class Captioned:
    """What an engine makes of a photo.

    Attributes:
        captions: list of [text, score], the best first; None where the content is the
            one known before.
        digest: bytes, of the file's content.
        thumbnail: bytes of a small JPEG, or None.
    """

    def __init__(self, captions, digest, thumbnail):
        self.captions, self.digest, self.thumbnail = captions, digest, thumbnail


class BatchCaptioner:
    """Batches of converted photos to captions; what does not fit the memory is halved.

    Args:
        captioner: an `ImageCaptioner`.
        num_captions: how many of each photo.
        num_threads: that one call may use on the image network.
    """

    def __init__(self, captioner, num_captions=1, num_threads=1):
        import tensorflow as tf

        self._tf = tf
        self._captioner = captioner
        self.num_captions = num_captions
        converter = captioner.preprocessor.image_converter
        self.image_size = converter.image_size
        self._convert = tf.function(
            converter,
            input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)],
            autograph=False,
        )
        backbone = captioner.caption_model.vision_backbone
        # None for an ensemble, whose members have each their own.
        self._encode = backbone and image_network(backbone, num_threads)
        self._largest = None  # batch that is known to fit

    def resize(self, pixels):
        """uint8 (H, W, 3) -> what the network takes, float32.

        Raises:
            ImageError: there is no memory for it.
        """
        try:
            return self._convert(pixels)
        except (MemoryError, self._tf.errors.OpError) as error:
            raise _model_failed(error) from error

    def __call__(self, images):
        """Converted photos, a list of float32 (H, W, 3) -> for each a list of
        [text, score], or an `ImageError` of the kind "failed"."""
        step = min(len(images), self._largest or len(images))
        results = []
        for start in range(0, len(images), step or 1):
            results += self._run(images[start : start + step])
        return results

    def _run(self, images):
        try:
            batch = self._tf.nest.map_structure(
                lambda *each: self._tf.stack(each), *images
            )
            if self._encode is None:
                found = self._captioner.batch_results(batch)
            else:
                features = self._encode(batch)
                found = self._captioner.generate_results(features, len(images))
        # RuntimeError: of LiteRT, where there is no room for its tensors.
        except (MemoryError, RuntimeError, self._tf.errors.OpError) as error:
            if len(images) == 1:
                return [_model_failed(error)]
            if isinstance(error, (MemoryError, self._tf.errors.ResourceExhaustedError)):
                self._largest = (len(images) + 1) // 2
            half = (len(images) + 1) // 2
            return self._run(images[:half]) + self._run(images[half:])
        return [
            [
                [each.text, round(each.score, 4)]
                for each in result.hypotheses[: self.num_captions]
            ]
            for result in found
        ]


def _model_failed(error):
    reason = " ".join(str(error).split())[:200] or "out of memory"
    return ImageError("photo", "failed", f"the model failed: {reason}")


class LocalEngine:
    """Captions batches on this machine.

    Args:
        load: function that returns an `ImageCaptioner`; called when there is work.
        num_captions: how many of each photo.
        num_workers: decoding processes.
        time_limit, max_pixels: see `DecodeWorkers`.
        thumbnails: whether each photo gets one.
    """

    def __init__(
        self, load, num_captions, num_workers, time_limit, max_pixels, thumbnails
    ):
        self._load, self._num_captions = load, num_captions
        self._workers = DecodeWorkers(num_workers, time_limit, max_pixels)
        # Several: the words of one batch are found while the network sees the next;
        # and one core each is used better than several by one.
        cores = default_num_workers()
        num_models = max(2, min(cores, MOST_AT_ONCE))
        self._num_threads = max(1, cores // num_models)
        self._ahead = num_models + 1
        self._models = concurrent.futures.ThreadPoolExecutor(num_models, "model")
        self._thumbnails = thumbnails
        self._model, self._loading = None, threading.Lock()

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
            while len(waiting) > self._ahead or waiting and waiting[0][1].done():
                batch, future = waiting.popleft()
                yield batch, future.result()
        for batch, future in waiting:
            yield batch, future.result()

    def _start(self, batch):
        if not batch:
            return self._models.submit(list)

        def resize(decoded):
            if decoded.pixels is None:
                return decoded, None
            return decoded, self._loaded().resize(decoded.pixels)

        decoding = [
            self._workers.submit(
                each.photo,
                each.known_digest,
                self._thumbnails,
                self._loaded().image_size,
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
                    self._load(), self._num_captions, self._num_threads
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
            for row, captions in zip(rows, self._model(list(images))):
                if isinstance(captions, ImageError):
                    outcomes[row] = captions
                else:
                    outcomes[row].captions = captions
        return outcomes

    def close(self):
        """Stop at once; what was under way is lost."""
        self._models.shutdown(wait=False, cancel_futures=True)
        self._workers.close()
        self._models.shutdown(wait=True)


def default_num_workers():
    """A decoding process for each core that this process may use."""
    return len(os.sched_getaffinity(0))
