"""The folder of a training: its recipe, what it began with, and its lock.

OUTPUT/
    recipe.json     all options as they were used, and the versions
    run.json        what the run began with, to notice on resume that it has changed
    .lock           held while a training is at work here
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil

from captioner import presets
from captioner.files import write_json
from captioner.terminal import one_line, say
from captioner.training.training_options import (
    EXTENDABLE,
    STAGE_EPOCHS,
    TrainingOptions,
)

LOCK_FILE, RECIPE_FILE, RUN_FILE = ".lock", "recipe.json", "run.json"


class RunFolder:
    """A folder for a new training, or that of one to resume.

    Args:
        path: the folder.
        resume: whether a training is resumed here.

    Attributes:
        recipe: dict, what `recipe.json` holds; None before it is written.
        run_info: dict, what `run.json` holds.

    Raises:
        ValueError: there is no training to resume.
    """

    def __init__(self, path, resume=False):
        self.path = pathlib.Path(path)
        self.resume = resume
        self.recipe, self.run_info = None, {}
        if not resume:
            return
        if not (self.path / RECIPE_FILE).is_file():
            raise ValueError(f"There is no training to resume in {self.path}.")
        self.recipe = presets.read_json(self.path, RECIPE_FILE)
        if (self.path / RUN_FILE).is_file():  # version 0.1 had none
            self.run_info = presets.read_json(self.path, RUN_FILE)

    def refuse_other_files(self):
        """Refuse a new training where it would mix with other files.

        Raises:
            ValueError: there are some, besides image features.
        """
        path = self.path
        # What a training leaves that was killed before it began. Features belong to
        # their photos, not to a run.
        harmless = {LOCK_FILE, RUN_FILE, "features"}
        if path.is_dir() and {each.name for each in path.iterdir()} <= harmless:
            return
        if path.exists():
            hint = "choose another output folder"
            if (path / RECIPE_FILE).is_file():
                hint = (
                    f"continue the training there with `captioner train --resume "
                    f"{path}`, or {hint}"
                )
            raise ValueError(f"{path} is not empty: {hint}.")

    @contextlib.contextmanager
    def lock(self):
        """Keep other trainings out of the folder until the end of the `with` block; the
        lock of a killed process is gone with it.

        Raises:
            ValueError: another training is at work here, or has been meanwhile.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            fcntl = None
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(
                        f"Another training is at work in {self.path}."
                    ) from None
                except OSError as error:  # some network file systems have no locks
                    say(f"{self.path} cannot be locked: {one_line(error)}")
            if not self.resume:
                self.refuse_other_files()
            yield
        finally:
            os.close(descriptor)

    def options(self, given):
        """The options of the run to resume, with those that extend it.

        Args:
            given: dict of the options that the user gave.

        Returns:
            `TrainingOptions`, and a dict of the options that changed: name -> [old,
            new].

        Raises:
            ValueError: an option is given that may not change.
        """
        known = {field.name: field for field in dataclasses.fields(TrainingOptions)}
        kept = self.recipe.get("train")
        kept = dict(kept) if isinstance(kept, dict) else {}
        kept.pop("dataset", None)
        if set(kept) != set(known):
            raise ValueError(
                f"{self.path / RECIPE_FILE} was written by another version of "
                "captioner: start a new training from its preset, --init-from "
                f"{self.path / 'preset'}"
            )
        kept = TrainingOptions(**kept)
        # Compared as the options have them: a path as a string, "none" as None.
        given = {name: _plain(value) for name, value in given.items()}
        changed = {
            name: [getattr(kept, name), value]
            for name, value in given.items()
            if value != getattr(kept, name)
            and not (value is None and known[name].default is None)
            and value != "auto"
        }
        fixed = [name for name in changed if name not in EXTENDABLE]
        if fixed:
            raise ValueError(
                f"The training in {self.path} was started with other options: "
                + ", ".join(f"{name}={changed[name][0]}" for name in fixed)
                + f". Only {', '.join(EXTENDABLE)} may change."
            )
        new = {name: value for name, (_, value) in changed.items()}
        return dataclasses.replace(kept, **new), changed

    def check_extension(self, changed, history):
        """Refuse epochs that can no longer be trained.

        Args:
            changed: as `options` returns it.
            history: list of the rows of the epochs that are done.

        Raises:
            ValueError: the stage is over, or has done more epochs.
        """
        stages = list(STAGE_EPOCHS)
        reached = stages.index(history[-1]["stage"]) if history else 0
        for name in set(changed) & set(STAGE_EPOCHS.values()):
            number = list(STAGE_EPOCHS.values()).index(name)
            done = sum(row["stage"] == stages[number] for row in history)
            new = changed[name][1]
            if number < reached:
                raise ValueError(
                    f"The stage of {name} is over: the training in {self.path} has "
                    f"gone on to {STAGE_EPOCHS[stages[reached]]}. Received: "
                    f"{name}={new}"
                )
            if new < done:
                raise ValueError(
                    f"The training in {self.path} has done {done} epochs of this "
                    f"stage. Received: {name}={new}"
                )

    def check_fingerprints(self, fingerprints):
        """Refuse to resume with other data or other weights than the run began with.

        Args:
            fingerprints: dict; the keys are the names that an error shows.

        Raises:
            ValueError: some differ; it names them.
        """
        changed = [
            name
            for name in fingerprints
            if self.run_info.get(name) != fingerprints[name]
        ]
        if changed:
            raise ValueError(
                f"{' and '.join(changed)} changed since the training in {self.path} "
                "began, so it cannot be resumed. Restore what it began with, or start "
                "a new training from its preset: --init-from "
                f"{self.path / 'preset'}"
            )

    def write_recipe(self, recipe):
        """Write `recipe.json`."""
        self.recipe = recipe
        write_json(self.path / RECIPE_FILE, recipe)

    def write_extension(self, recipe, changed, epochs):
        """Write the recipe of a run that is extended, with what has changed.

        Args:
            recipe: dict, the new recipe.
            changed: as `options` returns it.
            epochs: how many are done.
        """
        changes = [*self.recipe.get("changes", []), {"after_epoch": epochs, **changed}]
        self.write_recipe({**self.recipe, **recipe, "changes": changes})

    def note(self, **values):
        """Add to `run.json`."""
        self.run_info = {**self.run_info, **values}
        write_json(self.path / RUN_FILE, self.run_info)

    def clean(self):
        """Delete what only a resumed run needs: the checkpoint and the features."""
        self.note(cleaned=True)
        for folder in self._disposable():
            shutil.rmtree(folder, ignore_errors=True)

    def disposable_bytes(self):
        """The size of what `clean` deletes."""
        files = (path for folder in self._disposable() for path in folder.rglob("*"))
        return sum(path.stat().st_size for path in files if path.is_file())

    def _disposable(self):
        return self.path / "checkpoint", self.path / "features"


def _plain(value):
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if value == "none" else value
