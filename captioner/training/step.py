"""One step of a stage, on all devices."""

import functools

import tensorflow as tf

from captioner.tasks.train_step import differentiate, update_weights


class Step:
    """A step of a stage on all devices. Called with a batch and a seed, it returns what
    `update_weights` returns, as tensors that may not be computed yet.

    Args:
        distribution: `Distribution`.
        model: compiled, its optimizer built.
        stage: as `Crossentropy`.
        parts: see `differentiate`.
        jit_compile: whether XLA compiles the step, once for each shape of a batch.
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
        self.jit_update = here and distribution.replicas == 1
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
        update = functools.partial(update_weights, self.model)
        if self.jit_differentiate:
            sums = tf.function(sums, jit_compile=True, autograph=False)
        if self.jit_update:
            update = tf.function(update, jit_compile=True, autograph=False)

        def replica_step(batch, seed):
            return update(sums(batch=self.stage.prepare(batch, seed)))

        def step(batch, seed):
            return self.distribution.strategy.run(replica_step, args=(batch, seed))

        # A partial, of which TensorFlow does not say that it is traced too often: each
        # of them is traced once.
        return tf.function(
            functools.partial(step), autograph=False, reduce_retracing=True
        )
