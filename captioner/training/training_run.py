"""The loop of `train`: its steps, its checkpoints, and what happens between epochs."""

import contextlib
import functools
import json
import math
import time

import numpy as np
import tensorflow as tf

from captioner import presets
from captioner.metrics import CaptionScorer, diversity
from captioner.progress import progress_bar
from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.train_step import crossentropy, descend, differentiate
from captioner.terminal import ctrl_c

# So many steps may be under way before the loop looks at what came of the first.
STEPS_AHEAD = 8


class TrainingError(ValueError):
    """A run that cannot go on, and from where another can."""


class Crossentropy:
    """The stage that learns to continue what people wrote, word by word.

    A stage is what the loop asks of it; see also `cider_optimization.py`.

    Args:
        epochs: how many at most.
        patience: end after so many epochs without a better CIDEr; None for never.
        label_smoothing: see `CaptionCrossentropy`.

    Attributes:
        backbone_layers: how many of the image network's last layers learn.
        notes: dict of what a stage wants to remember within an epoch, as JSON has it;
            the loop keeps it in its checkpoints.
    """

    name = "crossentropy"  # in `history.json`
    backbone_layers = 0

    def __init__(self, epochs, patience, label_smoothing):
        self.epochs = epochs
        self.patience = patience
        self.loss = CaptionCrossentropy(label_smoothing)

    def view(self, x, y, sample_weight):
        """What the steps need of a batch of `RowBatches`."""
        return x, y, sample_weight

    def prepare(self, batch, seed):
        """From that to what `objective` takes; in the graph, and never under XLA."""
        return batch

    def objective(self, model, batch):
        """See `train_step.crossentropy`."""
        return crossentropy(model, batch)

    def has_exploded(self, loss, vocabulary_size):
        """Whether a loss is far beyond that of guessing."""
        return loss > 10 * math.log(vocabulary_size)

    def report(self, state):
        """What `history.json` says of an epoch, besides its loss and dev scores."""
        return {"real_tokens": round(state["weight"] / state["positions"], 4)}


class Step:
    """A step of a stage on all devices: called with a batch and a seed, it returns
    what `descend` does, as tensors that may not be computed yet.

    Args:
        distribution: `Distribution`.
        model: compiled, its optimizer built.
        stage: as `Crossentropy`.
        parts: see `differentiate`.
        jit_compile: whether XLA compiles it, anew for each shape of a batch.
    """

    def __init__(self, distribution, model, stage, parts, jit_compile):
        self.distribution = distribution
        self.model = model
        self.stage = stage
        self.parts = parts
        # XLA cannot compile what devices tell each other; of a TPU, TensorFlow
        # compiles all of it by itself.
        here = jit_compile and distribution.name != "tpu"
        self.jit_differentiate = here
        self.jit_descend = here and distribution.replicas == 1
        self.functions = {}  # by the shapes of a batch

    def __call__(self, batch, seed):
        key = ()
        if self.jit_differentiate:
            key = tuple(tuple(x.shape) for x in tf.nest.flatten(self._first(batch)))
        if key not in self.functions:
            self.functions[key] = self._function()
        return self._first(self.functions[key](batch, tf.constant(seed)))

    def _first(self, values):
        return self.distribution.first(values)

    def _function(self):
        sums = functools.partial(
            differentiate, self.model, self.stage.objective, parts=self.parts
        )
        move = functools.partial(descend, self.model)
        if self.jit_differentiate:
            sums = tf.function(sums, jit_compile=True, autograph=False)
        if self.jit_descend:
            move = tf.function(move, jit_compile=True, autograph=False)

        def replica_step(batch, seed):
            return move(sums(batch=self.stage.prepare(batch, seed)))

        def step(batch, seed):
            return self.distribution.strategy.run(replica_step, args=(batch, seed))

        # A partial, of which TensorFlow does not say that it is traced too often: each
        # of them is traced once.
        return tf.function(
            functools.partial(step), autograph=False, reduce_retracing=True
        )


class _State(tf.train.experimental.PythonState):
    """How far a run has come, as JSON in its checkpoint."""

    def __init__(self):
        self.values = {
            "stage": 0,
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
        image_ids: of the images to train on.
        dev_examples: those of the dev split.
        data: function of a stage, called when it begins, that returns the
            `RowBatches` of these images and a reader of the features of these
            examples.
        recipe: dict, for `recipe.json`.
        card: function of the captioner and the row of the best epoch, that returns
            the text of the preset's model card.
        gradient_accumulation, jit_compile: see `Step`.
        checkpoint_minutes: how often a checkpoint is written within an epoch.
        seed: decides what is drawn in a step.
    """

    def __init__(
        self,
        output,
        captioner,
        distribution,
        image_ids,
        dev_examples,
        data,
        recipe,
        card,
        gradient_accumulation=1,
        jit_compile=False,
        checkpoint_minutes=10.0,
        seed=0,
    ):
        self.output = output
        self.captioner = captioner
        self.model = captioner.caption_model
        self.distribution = distribution
        self.image_ids = image_ids
        self.dev_examples = dev_examples
        self.data = data
        self.recipe = recipe
        self.card = card
        self.step_options = (gradient_accumulation, jit_compile)
        self.checkpoint_minutes = checkpoint_minutes
        self.seed = seed
        self.saved = _State()
        self.newest = None  # the checkpoint to go on from
        self.curves = None
        self.scorer = CaptionScorer(
            {each["image/id"]: each["captions"] for each in self.dev_examples}
        )

    @property
    def state(self):
        return self.saved.values

    @property
    def history(self):
        return self.state["history"]

    def resume(self):
        """Read how far the run in the folder had come."""
        self.newest = tf.train.latest_checkpoint(self.output / "checkpoint")
        if self.newest is not None:
            with self._damage_is_named():
                checkpoint = tf.train.Checkpoint(state=self.saved)
                checkpoint.restore(self.newest).expect_partial()
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
        for number, stage in enumerate(stages):
            if number < self.state["stage"]:
                continue
            if number > self.state["stage"]:
                self.state.update(stage=number, epoch=0, **_new_epoch())
                self.newest = None
            if self._is_over(stage):
                continue
            if number and self.history:
                # Each stage begins with the best weights of those before it; where one
                # is resumed, those of the image network are in no checkpoint of it.
                self._load_best_weights()
            self.model.vision_backbone.unfreeze(stage.backbone_layers)
            self.batches, self.read_dev = self.data(stage)
            with self.distribution.strategy.scope():
                self.captioner.compile(optimizer=optimizer(stage), loss=stage.loss)
                self.model.optimizer.build(self.model.trainable_variables)
                self._open_checkpoints()
            step = Step(self.distribution, self.model, stage, *self.step_options)
            while not self._is_over(stage):
                self._run_epoch(stage, step)

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
                random = np.random.default_rng([self.seed, number, index])
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
        """Take up what came of a step, unless it has gone wrong."""
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
        ids = [self.image_ids[i] for i in images % len(self.image_ids)]
        raise TrainingError(
            f"{wrong} after step {state['step'] + 1} of epoch {len(self.history) + 1}, "
            f"with the images {', '.join(ids)}. {self._where_to_go_on()} A lower "
            "learning rate may help, anew or from the preset (init_from)."
        )

    def _where_to_go_on(self):
        newest = tf.train.latest_checkpoint(self.output / "checkpoint")
        if newest is None:
            return "There is no checkpoint yet."
        return f"The last good checkpoint, for --resume, is {newest}."

    @contextlib.contextmanager
    def _failures_are_named(self):
        parts, batch_size = self.step_options[0], self.batches.batch_size
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
        with self._averaged_weights():
            scores = self._score_dev() if self.distribution.is_chief else {}
            cider = self.distribution.from_chief(scores.get("dev_cider", 0.0))
            row.update(scores, dev_cider=cider)
            row["seconds"] = round(state["seconds"] + time.time() - started, 1)
            state["history"] = [*self.history, row]
            if self.distribution.is_chief:
                if self.best()["epoch"] == row["epoch"]:
                    self._save_preset(stage)
                presets.write_json(
                    self.output / "history.json", {"epochs": self.history}
                )
                self._tell(row)
        state.update(epoch=state["epoch"] + 1, **_new_epoch())
        # Last of all, since it is what a resumed run goes by.
        self._save()

    def _tell(self, row):
        shown = {k: v for k, v in row.items() if isinstance(v, float)}
        if self.curves is None:
            folder = self.output / "tensorboard" / "train"
            self.curves = tf.summary.create_file_writer(str(folder))
        with self.curves.as_default(step=row["epoch"] - 1):
            for name, value in shown.items():
                tf.summary.scalar(f"epoch_{name}", value)
        self.curves.flush()
        print(
            f"epoch {row['epoch']}: {row['stage']}, "
            + ", ".join(f"{name} {value:.4g}" for name, value in shown.items()),
            flush=True,
        )

    @contextlib.contextmanager
    def _averaged_weights(self):
        """The moving average of the weights in the place of the weights."""
        variables = self.model.trainable_variables
        kept = [variable.numpy() for variable in variables]
        self.model.optimizer.finalize_variable_values(variables)
        yield
        for variable, value in zip(variables, kept):
            variable.assign(value)

    def _score_dev(self):
        ids, captions = [each["image/id"] for each in self.dev_examples], []
        for start in range(0, len(ids), 64):
            rows = np.arange(start, min(start + 64, len(ids)))
            captions += self.captioner.generate(self.read_dev(rows), len(rows))
        scores = self.scorer.score(dict(zip(ids, captions)))
        written = diversity([caption.split() for caption in captions])
        return {
            "dev_bleu_4": float(scores["bleu_4"]),
            "dev_cider": float(scores["cider"]),
            "dev_distinct": written["distinct"] / len(ids),
            "dev_length": float(written["mean_length"]),
            "dev_bad_endings": float(written["bad_endings"]),
            "dev_repeated_phrases": float(written["repeated_phrases"]),
        }

    def best(self):
        """The row of the epoch with the highest CIDEr, the first of equals."""
        return best_of(self.history)

    def last_words(self):
        """One line for the end of a run."""
        best = self.best()
        return (
            f"best epoch {best['epoch']}: dev CIDEr {best['dev_cider']:.3f}, "
            f"BLEU-4 {best['dev_bleu_4']:.3f}; preset: {self.output / 'preset'}"
        )

    def _save_preset(self, stage):
        best, sampler = self.best(), self.captioner.sampler
        backbone = self.model.vision_backbone
        backbone.unfreeze(0)  # as whoever loads it expects
        self.captioner.save_to_preset(
            self.output / "preset",
            recipe={**self.recipe, "best_epoch": best["epoch"]},
            scores={
                "split": "dev",
                "sampler": type(sampler).__name__,
                **sampler.get_config(),
                **best,
            },
            card=self.card(self.captioner, best),
        )
        backbone.unfreeze(stage.backbone_layers)

    def _load_best_weights(self):
        self.distribution.from_chief(0.0)  # until the chief has written them
        self.model.optimizer = None  # which Keras would look for in the file, too
        self.model.load_weights(self.output / "preset" / presets.WEIGHTS_FILE)

    def _open_checkpoints(self):
        # The decoder, the state of dropout, and the optimizer; not a frozen backbone,
        # which never changes.
        model = self.model
        frozen = {id(v) for v in model.vision_backbone.variables if not v.trainable}
        variables = [v for v in model.variables if id(v) not in frozen]
        variables += model.optimizer.variables
        checkpoint = tf.train.Checkpoint(
            variables=[v.value for v in {id(v): v for v in variables}.values()],
            state=self.saved,
        )
        self.manager = tf.train.CheckpointManager(
            checkpoint, self.output / "checkpoint", max_to_keep=1
        )
        if self.newest is not None:
            with self._damage_is_named():
                checkpoint.restore(self.newest).assert_consumed()

    @contextlib.contextmanager
    def _damage_is_named(self):
        try:
            yield
        except (tf.errors.OpError, IndexError, AssertionError, ValueError) as error:
            raise ValueError(
                f"{self.output / 'checkpoint'} is damaged; the preset is whole, and "
                "a new run can use the same --cache-dir."
            ) from error

    def _save(self):
        if not self.distribution.is_chief:
            return
        try:
            self.manager.save(checkpoint_number=self.state["all_steps"])
        except tf.errors.OpError as error:  # TensorFlow's form of a full disk
            raise OSError(f"{self.output / 'checkpoint'}: {error.message}") from error


def best_of(rows):
    """The row with the highest CIDEr on dev, the first of equals."""
    return max(rows, key=lambda row: row["dev_cider"])
