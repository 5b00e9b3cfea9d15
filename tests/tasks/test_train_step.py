"""One step: the same however it is computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from captioner.decoders import MIXERS
from captioner.decoders.fusion import FUSIONS
from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.caption_model import CaptionModel
from captioner.training.crossentropy import Crossentropy
from captioner.training.distribution import Distribution
from captioner.training.optimizers import adamw
from captioner.training.step import Step

B, P, E, V, L = 4, 9, 6, 11, 6
PAIRS = [(mixer, fusion) for mixer in MIXERS for fusion in FUSIONS]


def make_batch(length=3 * L, seed=0):
    random = np.random.default_rng(seed)
    token_ids = random.integers(1, V, (B, length)).astype("int32")
    segments = np.arange(length) // L + 1
    x = {
        "image_features": random.normal(size=(B, P, E)).astype("float32"),
        "token_ids": token_ids,
        "segment_ids": np.tile(segments, (B, 1)).astype("int32"),
    }
    # Rows differ in how many tokens are real.
    real = np.arange(length) < np.array([[length], [5], [length - 2], [9]])
    batch = x, np.roll(token_ids, -1, axis=1), real.astype("float32")
    return tf.nest.map_structure(tf.constant, batch)


def make_model(mixer="lstm", fusion="additive", dtype="float32", **optimizer):
    keras.utils.set_random_seed(1)
    model = CaptionModel(
        V,
        (P, E),
        mixer=mixer,
        fusion=fusion,
        hidden_dim=8,
        num_heads=2,
        dropout=0.0,
        dtype=dtype,
    )
    # Not AdamW, whose steps are as long for a gradient of noise.
    sgd = keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0)
    model.compile(adamw(**optimizer) if optimizer else sgd, CaptionCrossentropy(0.1))
    model.optimizer.build(model.trainable_variables)
    return model


def make_step(model, parts=1, jit_compile=False):
    stage = Crossentropy(epochs=1, patience=None, label_smoothing=0.1)
    return Step(Distribution(), model, stage, parts, jit_compile)


def losses(step, batches):
    return [float(step(batch, 0)["loss"]) for batch in batches]


def assert_same_weights(one, other):
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=a.path)


BATCHES = [make_batch(), make_batch(2 * L, 1), make_batch(3 * L, 2)]


def test_fit_and_the_loop_make_the_same_steps():
    by_fit, by_loop = make_model(), make_model()
    batches = (batch for batch in BATCHES)
    history = by_fit.fit(batches, steps_per_epoch=3, shuffle=False, verbose=0)
    found = losses(make_step(by_loop), BATCHES)
    tokens = [float(tf.reduce_sum(batch[2])) for batch in BATCHES]
    mean = np.average(found, weights=tokens)
    assert history.history["loss"] == [pytest.approx(mean, rel=1e-5)]
    assert_same_weights(by_fit, by_loop)


def test_a_step_is_that_of_plain_gradient_descent():
    model, batch = make_model(), make_batch()
    model.compile(keras.optimizers.SGD(0.5), CaptionCrossentropy())
    model.optimizer.build(model.trainable_variables)
    x, y, real = batch
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x))
        loss = tf.reduce_sum(losses * real) / tf.reduce_sum(real)
    gradients = tape.gradient(loss, model.trainable_variables)
    expected = [
        v - 0.5 * tf.convert_to_tensor(g)
        for v, g in zip(model.trainable_variables, gradients)
    ]
    logs = make_step(model)(batch, 0)
    assert float(logs["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(logs["weight"]) == float(tf.reduce_sum(real))
    norm = tf.linalg.global_norm(list(map(tf.convert_to_tensor, gradients)))
    assert float(logs["gradient_norm"]) == pytest.approx(float(norm), rel=1e-4)
    for variable, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(variable, value, atol=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_makes_the_same_step(parts):
    whole, in_parts = make_model(), make_model()
    expected = losses(make_step(whole), BATCHES)
    assert losses(make_step(in_parts, parts), BATCHES) == pytest.approx(expected)
    assert_same_weights(whole, in_parts)


@pytest.mark.parametrize(
    ("mixer", "fusion"),
    [
        pytest.param(
            *pair,
            marks=[] if pair == ("lstm", "additive") else pytest.mark.exhaustive,
        )
        for pair in PAIRS
    ],
)
def test_xla_makes_the_same_steps_and_compiles_once_for_each_length(
    mixer, fusion, monkeypatch
):
    plain, compiled = make_model(mixer, fusion), make_model(mixer, fusion)
    batches = [BATCHES[0], BATCHES[2], BATCHES[0]]
    if fusion == "additive":  # a second length
        batches += [BATCHES[1], BATCHES[1]]
    expected = losses(make_step(plain), batches)
    compilations = []
    function = tf.function
    monkeypatch.setattr(
        tf,
        "function",
        lambda *args, **kwargs: compilations.append(kwargs.get("jit_compile"))
        or function(*args, **kwargs),
    )
    step = make_step(compiled, jit_compile=True)
    assert losses(step, batches) == pytest.approx(expected, rel=1e-4)
    assert_same_weights(plain, compiled)
    lengths = {batch[1].shape[1] for batch in batches}
    # Of each, the gradients and the update.
    assert compilations.count(True) == 2 * len(lengths) == 2 * len(step.functions)
    for function in step.functions.values():
        assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_comes_close(precision):
    options = dict(learning_rate=0.01, steps=100, mixed_precision=precision)
    mixed = make_model(dtype=f"mixed_{precision}", **options)
    float32 = make_model(learning_rate=0.01, steps=100)
    found = losses(make_step(mixed), [BATCHES[0]] * 30)
    expected = losses(make_step(float32), [BATCHES[0]] * 30)
    assert found == pytest.approx(expected, rel=0.03)
    assert found[-1] < 0.9 * found[0]
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    if precision == "float16":  # nothing overflowed, so nothing was left out
        assert int(mixed.optimizer.iterations) == 30


def test_the_learning_rate_rises_and_falls():
    optimizer = adamw(0.5, steps=100, warmup_steps=20)
    rates = [float(optimizer._learning_rate(step)) for step in range(101)]
    np.testing.assert_allclose(rates[:21], np.linspace(0, 0.5, 21), atol=1e-6)
    assert rates[60] == pytest.approx(0.25) and rates[100] == pytest.approx(0)
    assert float(adamw(0.5, steps=100)._learning_rate(0)) == pytest.approx(0.5)
