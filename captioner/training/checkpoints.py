"""The last state of a run, so written that damage is noticed.

    OUTPUT/checkpoint/
        checkpoint.json             which files, and the sha256 of each
        ckpt-2-24.index             after step 24 of the run, in which 2 epochs are done
        ckpt-2-24.data-00000-...

`checkpoint.json` is replaced last, and the files of the state before it are removed
only then: a run killed at any moment has one whole state.
"""

import json
import pathlib

import tensorflow as tf

from captioner.files import file_sha256, write_json


class DamagedCheckpoint(ValueError):
    """The state of a run is not as it was written; one line."""


class Checkpoints:
    """The states of a run in a folder, of which the last one is kept.

    Args:
        folder: made when the first state is written.

    Example:

    ```python
    checkpoints = Checkpoints("run/checkpoint")
    checkpoints.save(tf.train.Checkpoint(state=state), epochs=2, steps=24)
    tf.train.Checkpoint(state=state).read(checkpoints.newest())
    ```
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def newest(self):
        """The path of the last state as `Checkpoint.read` takes it, or None.

        Raises:
            DamagedCheckpoint: a file of it is missing or has changed.
        """
        index = self.folder / "checkpoint.json"
        if not index.is_file():
            if any(self.folder.glob("ckpt-*")):
                raise self.damaged("checkpoint.json is missing")
            return None
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))
            name, files = listed["name"], dict(listed["files"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self.damaged("checkpoint.json has changed") from None
        for file, checksum in files.items():
            path = self.folder / pathlib.PurePath(file).name
            if not path.is_file():
                raise self.damaged(f"{file} is missing")
            if file_sha256(path) != checksum:
                raise self.damaged(f"{file} has changed")
        return str(self.folder / pathlib.PurePath(name).name)

    def save(self, checkpoint, epochs, steps):
        """Write a state, and remove the one before it.

        Args:
            checkpoint: `tf.train.Checkpoint`.
            epochs, steps: how many are done, which name it.

        Raises:
            OSError: the disk is full.
        """
        name = f"ckpt-{epochs}-{steps}"
        index = self.folder / "checkpoint.json"
        if index.is_file() and json.loads(index.read_text())["name"] == name:
            return  # the very state, as when Ctrl-C is pressed just after it
        try:
            checkpoint.write(str(self.folder / name))
        except tf.errors.OpError as error:  # TensorFlow's form of a full disk
            raise OSError(f"{self.folder}: {error.message}") from error
        files = sorted(self.folder.glob(f"{name}.*"))
        sums = {path.name: file_sha256(path) for path in files}
        write_json(index, {"name": name, "files": sums})
        for path in self.folder.glob("ckpt-*"):
            if path.is_file() and path not in files:
                path.unlink()

    def damaged(self, what):
        """The error that says what is wrong, and what can be done."""
        output = self.folder.parent
        return DamagedCheckpoint(
            f"{self.folder} is damaged: {what}. This training cannot be resumed; a new "
            f"one can start from its preset: --init-from {output / 'preset'}"
        )
