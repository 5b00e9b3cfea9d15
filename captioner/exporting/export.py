"""Write a captioner as one SavedModel: `captioner export`."""

import pathlib

import tensorflow as tf

from captioner.files import atomic_folder
from captioner.images.image_decoder import decode_image, why_not_decoded
from captioner.tasks.load_task import load_task

_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets"}


def export(preset, output, sampler=None, overwrite=False):
    """Write a SavedModel that captions encoded photos, without this package.

    Its signature `serving_default` takes `image_bytes`, strings (B,): JPEG, PNG,
    GIF, BMP or WebP files. It returns `captions`, strings (B,), `scores`, float32
    (B,), and `errors`, strings (B,). Decoding, resizing, the backbone and the search
    for words are all in the graph, made of core TensorFlow ops.

    A file that cannot be used affects only its own row: its error names the reason, its
    caption is empty, and its score is the lowest float32. The error of a good row is
    empty, and its caption and score are those that it has without the bad files. A
    picture with too many pixels (178,956,970) is refused before it is decoded. An empty
    batch gives empty outputs.

    Args:
        preset: name or folder of a preset, or a `Task` with the ability "graph"; or a
            list of them, which caption together, see `EnsembleCaptioner`.
        output: folder to write, whole or not at all.
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
        others = sorted({each.name for each in output.iterdir()} - _SAVED_MODEL)
        if others:
            raise ValueError(
                f"{output} has other files besides a SavedModel, such as {others[0]}; "
                "it is not replaced."
            )
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
        """Encoded photos, strings (B,) -> dict of captions, scores and errors (B,)."""
        task = self._task
        rows, images = _readable_images(
            image_bytes,
            lambda one: task.convert(decode_image(one, task.image_size)),
            task.image_spec,
        )
        captions, scores = task.caption_images(images)
        return _in_their_rows(image_bytes, rows, captions[:, 0], scores[:, 0])


def _readable_images(image_bytes, convert, image_spec):
    """The images of those files that can be decoded.

    A bad file fails only here. So a batch with bad files gives what it gives without
    them, to the last bit.

    Returns:
        The places of these files, int32 (G,), and the images (G, ...). As no layer
        takes an empty batch, there is a black image at -1 if there is none else.
    """
    number = tf.size(image_bytes)
    files = tf.data.Dataset.from_tensor_slices((tf.range(number), image_bytes))
    images = files.map(
        lambda row, one: (row, convert(one)), num_parallel_calls=_DECODED_AT_ONCE
    ).ignore_errors()
    black = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), image_spec
    )
    images = images.concatenate(tf.data.Dataset.from_tensors((-1, black)))
    # One batch of all, as a tensor.
    batch = images.batch(tf.cast(number, tf.int64) + 1).get_single_element()
    size = tf.maximum(tf.size(batch[0]) - 1, 1)
    return tf.nest.map_structure(lambda each: each[:size], batch)


_DECODED_AT_ONCE = 8  # bounds the memory that large pictures take


def _in_their_rows(image_bytes, rows, captions, scores):
    """What the SavedModel returns, a row for each file, good or bad."""
    number = tf.size(image_bytes)
    rows = tf.boolean_mask(rows, rows >= 0)[:, tf.newaxis]
    count = tf.size(rows)

    def spread(values, otherwise):
        all_rows = tf.fill([number], tf.constant(otherwise, values.dtype))
        return tf.tensor_scatter_nd_update(all_rows, rows, values[:count])

    is_read = spread(tf.ones_like(rows[:, 0], tf.bool), False)
    errors = tf.map_fn(
        lambda each: tf.cond(
            each[0], lambda: tf.constant(""), lambda: why_not_decoded(each[1])
        ),
        (is_read, image_bytes),
        fn_output_signature=tf.TensorSpec((), tf.string),
    )
    return {
        "captions": spread(captions, ""),
        "scores": spread(scores, tf.float32.min),
        "errors": errors,
    }
