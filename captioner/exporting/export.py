"""Write a captioner as one SavedModel: `captioner export`."""

import pathlib

import tensorflow as tf

from captioner.files import atomic_folder
from captioner.images.image_decoder import decode_image
from captioner.tasks.load_task import load_task


def export(preset, output, sampler=None, overwrite=False):
    """Write a SavedModel that captions encoded photos, without this package.

    Its signature `serving_default` takes `image_bytes`, strings (B,): JPEG, PNG,
    GIF, BMP or WebP files. It returns `captions`, strings (B,), and `scores`,
    float32 (B,). It wants one photo or more, all readable. Decoding, resizing, the
    backbone and the search for words are all in the graph, made of core TensorFlow
    ops.

    Args:
        preset: name or folder of a preset, or a `Task` with the ability "graph"; or a
            list of them, which write together, see `EnsembleCaptioner`.
        output: folder to write; it is there whole or not at all.
        sampler: replaces the preset's own.
        overwrite: replace an existing SavedModel.

    Returns:
        The path of the folder.

    Raises:
        ValueError: no such preset, or `output` exists.
        OSError: `output` cannot be written.

    Example:

    ```python
    captioner.export("efficientnet_lite2_lstm_flickr8k", "exported")
    model = tf.saved_model.load("exported")
    serve = model.signatures["serving_default"]
    serve(image_bytes=tf.constant([open("photo.jpg", "rb").read()]))["captions"]
    ```
    """
    output = pathlib.Path(output)
    if output.exists():
        if not overwrite:
            raise ValueError(f"{output} exists; it is replaced only with overwrite.")
        if not (output / "saved_model.pb").is_file():
            raise ValueError(f"{output} is not a SavedModel; it is not replaced.")
    task = load_task(preset, sampler)
    task.require("graph")
    module = ExportedCaptioner(task)
    # TensorFlow would say that it is written to the temporary folder.
    log_level = tf.get_logger().level
    tf.get_logger().setLevel("WARNING")
    try:
        with atomic_folder(output) as folder:
            tf.saved_model.save(
                module, folder, signatures={"serving_default": module.caption}
            )
    except tf.errors.OpError as error:  # TensorFlow's form of a full disk
        raise OSError(f"{output}: {error.message}") from error
    finally:
        tf.get_logger().setLevel(log_level)
    return output


class ExportedCaptioner(tf.Module):
    """A task with the ability "graph", from encoded photos to text, as one graph."""

    def __init__(self, task):
        super().__init__()
        self._task = task
        # What the SavedModel keeps: the variables, each once.
        self.weights = [v.value for v in task.variables]

    @tf.function(
        input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")],
        autograph=False,
    )
    def caption(self, image_bytes):
        """Encoded photos, strings (B,) -> dict of captions (B,) and scores (B,)."""
        some = tf.debugging.assert_positive(
            tf.size(image_bytes), "image_bytes is empty"
        )
        with tf.control_dependencies([some]):  # before any layer fails on none
            image_bytes = tf.identity(image_bytes)
        images = tf.map_fn(
            lambda one: self._task.convert(decode_image(one, self._task.image_size)),
            image_bytes,
            fn_output_signature=self._task.image_spec,
        )
        captions, scores = self._task.caption_images(images)
        return {"captions": captions[:, 0], "scores": scores[:, 0]}
