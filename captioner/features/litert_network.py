"""The image network on LiteRT (TensorFlow Lite) with XNNPACK, on the processor.

Of the engines that `benchmarks/caption_folder.py --engines` compares, this one takes
the least of the processor's time for EfficientNet-Lite, less than half of that of the
TensorFlow graph, and gives the same captions.
"""

import contextlib
import ctypes
import gc
import logging
import threading

import numpy as np

from captioner.terminal import muted_stderr

_log = logging.getLogger(__name__)
_converted = None, None  # the fingerprint of the last backbone, and its flatbuffer


def image_network(vision_backbone, num_threads):
    """The fastest way to run an image network on this machine.

    This is LiteRT for EfficientNet-Lite on a processor, and the TensorFlow graph for
    other networks and on a GPU. Where LiteRT should run and cannot, a line in the log
    says so, which Python prints to standard error, and the graph runs instead.

    Args:
        vision_backbone: a `VisionBackbone`.
        num_threads: number of threads that one call uses; the graph uses TensorFlow's.

    Returns:
        Function of a tensor, float32 (B, H, W, 3), to an array, float32 (B, P, E); for
        many threads at once.
    """
    import tensorflow as tf

    if vision_backbone.architecture.startswith("efficientnet_lite"):
        if not tf.config.list_physical_devices("GPU"):
            try:
                network = LiteRTNetwork(vision_backbone, num_threads)
                return lambda images: network(images.numpy())
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                _log.warning(
                    "The image network runs as a TensorFlow graph, which takes twice "
                    f"as long as LiteRT: {reason}"
                )
    encode = tf.function(
        lambda images: vision_backbone(images, training=False),
        input_signature=[
            tf.TensorSpec((None, *vision_backbone.image_size, 3), tf.float32)
        ],
        autograph=False,
    )
    return lambda images: encode(images).numpy()


class LiteRTNetwork:
    """Photos to image features, as `VisionBackbone` does it; for many threads at once.

    It sees as many photos at a time as it has threads. More would take more memory, and
    more time as well, since they do not fit in the processor's cache.

    Args:
        vision_backbone: a `VisionBackbone`.
        num_threads: number of threads that one call uses.

    Raises:
        RuntimeError: LiteRT does not know an operation of the network.
    """

    def __init__(self, vision_backbone, num_threads):
        self._model = _convert(vision_backbone)
        self._num_threads = num_threads
        self._own = threading.local()

    def __call__(self, images):
        """float32 (B, H, W, 3) -> float32 (B, P, E)."""
        step = self._num_threads
        parts = [images[at : at + step] for at in range(0, len(images), step)]
        return np.concatenate([self._run(part) for part in parts])

    def _run(self, images):
        if getattr(self._own, "interpreter", None) is None:
            self._own.interpreter, self._own.size = self._interpreter(), 0
        interpreter = self._own.interpreter
        (given,), (made,) = (
            interpreter.get_input_details(),
            interpreter.get_output_details(),
        )
        if self._own.size != len(images):
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
            self._own.size = len(images)
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    def _interpreter(self):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(
            model_content=self._model, num_threads=self._num_threads
        )
        with muted_stderr():  # the first one tells that it uses XNNPACK
            interpreter.allocate_tensors()
        return interpreter


def _convert(vision_backbone):
    """The network as a flatbuffer; that of the last one is kept.

    `keras.Model.export(format="litert")` makes one of the same speed and with the same
    numbers, but it writes a SavedModel to a disk first: for EfficientNet-Lite2 at 320
    pixels it takes 9.5 s of the processor's time (Keras 3.15), and this 1.7 s. It also
    allows operations that only TensorFlow has, so that a network would fail when it
    is run instead of here.
    """
    global _converted
    import tensorflow as tf

    fingerprint = vision_backbone.fingerprint()
    if _converted[0] != fingerprint:
        network = tf.function(
            lambda images: vision_backbone(images, training=False),
            input_signature=[
                tf.TensorSpec((None, *vision_backbone.image_size, 3), tf.float32)
            ],
            autograph=False,
        )
        with muted_stderr():
            try:
                converter = tf.lite.TFLiteConverter.from_concrete_functions(
                    [network.get_concrete_function()]
                )
                _converted = fingerprint, converter.convert()
                del converter
            except Exception as error:  # of many kinds
                raise RuntimeError(f"no LiteRT form: {error}") from error
        del network
        _give_back_memory()
    return _converted[1]


def _give_back_memory():
    """Return what the conversion took to the system, some 300 MB; C's library would
    keep most of it for later."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
