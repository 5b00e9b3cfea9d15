"""A task from what a verb was given."""

import os

from captioner import presets
from captioner.keras_settings import check_backend
from captioner.tasks.task import Task


def load_task(preset, sampler=None):
    """The task that the `preset` argument of a verb stands for.

    Args:
        preset: name or folder of a preset, a `Task`, or a list of them, which write
            together, see `EnsembleCaptioner`.
        sampler: replaces its own, or that of the first.

    Returns:
        A `Task`.

    Raises:
        PresetError, ValueError: see `ImageCaptioner.from_preset`,
            `EnsembleCaptioner` and `Task.replaced`.

    Example:

    ```python
    task = load_task("efficientnet_lite2_lstm_flickr8k", sampler="greedy")
    task.generate("photo.jpg")
    ```
    """
    check_backend()
    if isinstance(preset, Task):
        return preset if sampler is None else preset.replaced(sampler)
    if isinstance(preset, (list, tuple)):
        from captioner.tasks.ensemble_captioner import EnsembleCaptioner

        return EnsembleCaptioner(preset, sampler)
    if not isinstance(preset, (str, os.PathLike)):
        raise ValueError(
            "preset must be the name or folder of a preset, a Task, or a list of them. "
            f"Received: preset={preset!r}"
        )
    from captioner.tasks.image_captioner import ImageCaptioner

    return ImageCaptioner.from_preset(preset, sampler)


def task_identity(preset):
    """What a journal and a manifest keep of a `preset` argument, without loading it.

    Args:
        preset: see `load_task`.

    Returns:
        List of dicts of "name" and "sha256", one for each of those that write together.
        The sha256 of a folder is that of its list of checksums, of a `Task` its
        fingerprint.

    Raises:
        PresetError: there is no such preset.
    """
    members = preset if isinstance(preset, (list, tuple)) else [preset]
    identities = []
    for member in members:
        if isinstance(member, Task):
            name, digest = "in memory", member.fingerprint()
        else:
            folder = presets.find_preset(member)
            metadata = folder / presets.METADATA_FILE
            name = folder.name
            digest = presets.file_sha256(metadata) if metadata.is_file() else None
        identities.append({"name": name, "sha256": digest})
    return identities
