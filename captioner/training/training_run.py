"""The loop of `train`: its steps, its checkpoints, and what happens between epochs."""

import contextlib
import json
import math
import sys
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from captioner import presets
from captioner.files import write_json
from captioner.progress import progress_bar
from captioner.terminal import ctrl_c, printable
from captioner.training.checkpoints import Checkpoints
from captioner.training.dev_scores import DevScores, best_of
from captioner.training.step import Step

# So many steps may be under way before the loop looks at what came of the first.
STEPS_AHEAD = 8


class TrainingError(ValueError):
    """A run that cannot go on, and from where another can."""


class _State(tf.train.experimental.PythonState):
    """How far a run has come, as JSON in its checkpoint."""

    def __init__(self):
        self.values = {
            "stage": None,  # its name
            "epoch": 0,
            "all_steps": 0,
            "history": [],
            **_new_epoch(),
        }

    def serialize(self):
        return json.dumps(self.values)

    def deserialize(self, string):
        self.values = json.loads(string)


def _new_epoch():
    return {
        "step": 0,
        "loss": 0.0,
        "weight": 0.0,
        "positions": 0,
        "seconds": 0.0,
        "notes": {},  # the stage's own
    }


class TrainingRun:
    """A run in a folder, from its first step or from its last checkpoint.

    Args:
        output: the folder.
        captioner: `ImageCaptioner`, made in the scope of the distribution.
        distribution: `Distribution`.
        data: `StageData`.
        options: `TrainingOptions`.
        save_preset: function of the row of the best epoch that writes the preset.
        checkpoint_minutes: how often a checkpoint is written within an epoch.
    """

    def __init__(
        self,
        output,
        captioner,
        distribution,
        data,
        options,
        save_preset,
        checkpoint_minutes=10.0,
    ):
        self.output = output
        self.captioner = captioner
        self.model = captioner.caption_model
        self.distribution = distribution
        self.data = data
        self.options = options
        self.save_preset = save_preset
        self.checkpoint_minutes = checkpoint_minutes
        self.saved = _State()
        self.checkpoints = Checkpoints(output / "checkpoint")
        self.newest = None  # the checkpoint to go on from
        self.curves = None
        self.dev_scores = DevScores(data.dev)

    @property
    def state(self):
        return self.saved.values

    @property
    def history(self):
        return self.state["history"]

    def resume(self):
        """Read how far the run in the folder had come.

        Raises:
            DamagedCheckpoint: its last checkpoint is not as it was written.
        """
        self.newest = self.checkpoints.newest()
        if self.newest is None and (self.output / "history.json").is_file():
            raise self.checkpoints.damaged("there is no checkpoint")
        if self.newest is not None:
            with self._damage_is_named():
                checkpoint = tf.train.Checkpoint(state=self.saved)
                checkpoint.read(self.newest).expect_partial()
            state = self.state
            print(
                f"resumed after step {state['step']} of epoch {len(self.history) + 1}"
                if state["step"]
                else f"resumed after epoch {len(self.history)}"
            )
        here = self.state["all_steps"]
        seen = self.distribution.from_chief(float(here))
        if seen != here:
            raise TrainingError(
                f"The chief is at step {seen:.0f}, this worker at {here}: "
                f"all workers must see the same folder {self.output}."
            )

    def train(self, stages, optimizer):
        """Run what is left of the stages.

        Args:
            stages: list of stages, see `Crossentropy`.
            optimizer: function of a stage that returns its optimizer.
        """
        names = [stage.name for stage in stages]
        reached = self.state["stage"]
        first = 0 if reached is None else names.index(reached)
        self.epochs_left = sum(stage.epochs for stage in stages[first:])
        self.epochs_left -= self.state["epoch"]
        for stage in stages[first:]:
            if stage.name != self.state["stage"]:
                self.state.update(stage=stage.name, epoch=0, **_new_epoch())
                self.newest = None
            if not self._is_over(stage):
                self._run_stage(stage, optimizer)
            self.epochs_left -= stage.epochs - self.state["epoch"]

    def _run_stage(self, stage, optimizer):
        if stage.name != "crossentropy" and self.history:
            # Each stage begins with the best weights of those before it; where one is
            # resumed, those of the image network are in no checkpoint of it.
            self._load_best_weights()
        self.model.vision_backbone.unfreeze(stage.backbone_layers)
        self.batches, self.read_dev = self.data.of(stage)
        with self.distribution.strategy.scope():
            self.captioner.compile(optimizer=optimizer(stage), loss=stage.loss)
            self.model.optimizer.build(self.model.trainable_variables)
            self._seed_dropout(stage)
            self._open_checkpoint()
        options = self.options
        step = Step(
            self.distribution,
            self.model,
            stage,
            options.gradient_accumulation,
            options.jit_compile,
        )
        while not self._is_over(stage):
            self._run_epoch(stage, step)

    def _seed_dropout(self, stage):
        """Begin dropout anew: what it drew in the stage before is in no checkpoint once
        that stage is over, and a resumed run must not depend on it."""
        seeds = [v for v in self.model.variables if v.name == "seed_generator_state"]
        random = np.random.default_rng([self.options.seed, *stage.name.encode()])
        for variable in seeds:
            variable.assign(random.integers(2**31, size=variable.shape))

    def _is_over(self, stage):
        rows = [row for row in self.history if row["stage"] == stage.name]
        if self.state["epoch"] >= stage.epochs:
            return True
        if not rows or stage.patience is None:
            return False
        return rows[-1]["epoch"] - best_of(rows)["epoch"] >= stage.patience

    def _run_epoch(self, stage, step):
        state, under_way = self.state, []
        stage.notes = state["notes"]
        # No two epochs of a run are alike, whatever their stage.
        number = len(self.history)
        plan = self.batches.epoch(number)
        distribution = self.distribution
        dataset = self.batches.dataset(
            number,
            state["step"],
            distribution.worker,
            distribution.workers,
            distribution.replicas // distribution.workers,
        ).map(stage.view)
        looked = saved = time.time()

        def look(at_most=0):
            # At what came of all but the last steps that are under way.
            nonlocal looked
            while len(under_way) > at_most:
                images, logs = under_way.pop(0)
                self._count(stage, images, logs)
            now = time.time()
            state["seconds"] += now - looked
            looked = now

        with (
            progress_bar(
                f"epoch {number + 1}", len(plan), state["step"], unit="step"
            ) as bar,
            ctrl_c(at_once=False) as pressed,
            self._failures_are_named(),
        ):
            for index, batch in zip(
                range(state["step"], len(plan)), distribution.batches(dataset)
            ):
                random = np.random.default_rng([self.options.seed, number, index])
                logs = step(batch, int(random.integers(2**31)))
                under_way.append((plan[index], logs))
                look(STEPS_AHEAD)
                bar.update()
                if pressed or time.time() - saved > 60 * self.checkpoint_minutes:
                    look()
                    self._save()
                    saved = time.time()
                    if pressed:
                        raise KeyboardInterrupt
            look()
        self._end_epoch(stage, number)

    def _count(self, stage, images, logs):
        """Read the loss of a step, and raise if the step has failed."""
        state = self.state
        loss, weight, norm = (
            float(logs[name]) for name in ("loss", "weight", "gradient_norm")
        )
        scaled = hasattr(self.model.optimizer, "dynamic_scale")  # skips what is too big
        if not math.isfinite(loss) or stage.has_exploded(
            loss, self.model.vocabulary_size
        ):
            wrong = f"The loss is {loss:.4g}"
        elif not math.isfinite(norm) and not scaled:
            wrong = f"The gradient is {norm:.4g}"
        else:
            state["step"] += 1
            state["all_steps"] += 1
            state["loss"] += loss * weight
            state["weight"] += weight
            state["positions"] += len(images) * self.batches.padded_length(images)
            return
        train = self.data.train
        ids = [train[i]["image/id"] for i in images % len(train)]
        raise TrainingError(
            f"{wrong} after step {state['step'] + 1} of epoch {len(self.history) + 1}, "
            f"with the images {', '.join(ids)}. {self._where_to_go_on()} A lower "
            "learning rate may help, anew or from the preset (init_from)."
        )

    def _where_to_go_on(self):
        if self.checkpoints.newest() is None:
            return "There is no checkpoint yet."
        return (
            "The training can go on from its last checkpoint: captioner train --resume "
            f"{self.output}."
        )

    @contextlib.contextmanager
    def _failures_are_named(self):
        parts = self.options.gradient_accumulation
        batch_size = self.batches.batch_size
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            raise TrainingError(
                f"Out of memory. Try batch_size={max(1, batch_size // 2)}, or "
                f"gradient_accumulation={2 * parts} for the same batches in smaller "
                f"parts. {self._where_to_go_on()} "
                f"Received: batch_size={batch_size}"
            ) from error
        except tf.errors.OpError as error:
            if self.distribution.workers == 1:
                raise
            raise TrainingError(
                f"Another worker is gone ({error.message.splitlines()[0][:200]}). "
                f"{self._where_to_go_on()}"
            ) from error

    def _end_epoch(self, stage, number):
        state, started = self.state, time.time()
        row = {
            "epoch": number + 1,
            "stage": stage.name,
            "loss": state["loss"] / max(state["weight"], 1e-6),
            **stage.report(state),
        }
        scores, captions = {}, {}
        with self._averaged_weights():
            if self.distribution.is_chief:
                scores, captions = self.dev_scores.score(self.captioner, self.read_dev)
            cider = self.distribution.from_chief(scores.get("dev_cider", 0.0))
            row.update(scores, dev_cider=cider)
            row["seconds"] = round(state["seconds"] + time.time() - started, 1)
            state["history"] = [*self.history, row]
            if self.distribution.is_chief and self.best()["epoch"] == row["epoch"]:
                backbone = self.model.vision_backbone
                backbone.unfreeze(0)  # as whoever loads it expects
                self.save_preset(row)
                backbone.unfreeze(stage.backbone_layers)
        state.update(epoch=state["epoch"] + 1, **_new_epoch())
        # What a resumed run goes by: after the preset, which it expects to be there.
        self._save()
        self.epochs_left -= 1
        if self.distribution.is_chief:
            self.write_history()
            self._tell(row, captions)

    def write_history(self):
        """Write `history.json`, which is in the checkpoints, too."""
        write_json(self.output / "history.json", {"epochs": self.history})

    def _tell(self, row, captions):
        if self.curves is None:
            folder = self.output / "tensorboard" / "train"
            self.curves = tf.summary.create_file_writer(str(folder))
        with self.curves.as_default(step=row["epoch"] - 1):
            for name, value in row.items():
                if isinstance(value, float):
                    tf.summary.scalar(f"epoch_{name}", value)
        self.curves.flush()
        left = ""
        if self.epochs_left > 0:
            seconds = row["seconds"] * self.epochs_left
            left = f", about {tqdm.format_interval(seconds)} left"
        print(
            f"epoch {row['epoch']} ({row['stage']}): loss {row['loss']:.3f}, "
            f"CIDEr {row['dev_cider']:.3f}, BLEU-4 {row['dev_bleu_4']:.3f}{left}"
        )
        for image, caption in self.dev_scores.samples(captions):
            print(f"    {printable(image)}: {printable(caption)}")
        sys.stdout.flush()

    @contextlib.contextmanager
    def _averaged_weights(self):
        """The moving average of the weights in the place of the weights."""
        variables = self.model.trainable_variables
        kept = [variable.numpy() for variable in variables]
        self.model.optimizer.finalize_variable_values(variables)
        yield
        for variable, value in zip(variables, kept):
            variable.assign(value)

    def best(self):
        """The row of the best epoch."""
        return best_of(self.history)

    def _load_best_weights(self):
        self.distribution.from_chief(0.0)  # until the chief has written them
        presets.verify_preset(self.output / "preset")
        self.model.optimizer = None  # which Keras would look for in the file, too
        self.model.load_weights(self.output / "preset" / presets.WEIGHTS_FILE)

    def _open_checkpoint(self):
        # The decoder, the state of dropout, and the optimizer; not a frozen backbone,
        # which never changes.
        model = self.model
        frozen = {id(v) for v in model.vision_backbone.variables if not v.trainable}
        variables = [v for v in model.variables if id(v) not in frozen]
        variables += model.optimizer.variables
        self.checkpoint = tf.train.Checkpoint(
            variables=[v.value for v in {id(v): v for v in variables}.values()],
            state=self.saved,
        )
        if self.newest is not None:
            with self._damage_is_named():
                self.checkpoint.read(self.newest).assert_consumed()

    @contextlib.contextmanager
    def _damage_is_named(self):
        try:
            yield
        except (tf.errors.OpError, IndexError, AssertionError, ValueError) as error:
            raise self.checkpoints.damaged("it cannot be read") from error

    def _save(self):
        if self.distribution.is_chief:
            self.checkpoints.save(
                self.checkpoint, len(self.history), self.state["all_steps"]
            )
