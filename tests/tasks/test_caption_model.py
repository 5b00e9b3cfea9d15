import keras
import numpy as np
import pytest
import tensorflow as tf

from captioner.decoders import MIXERS, DecoderBlock
from captioner.decoders.attention import MultiHeadAttention
from captioner.decoders.fusion import FUSIONS
from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.caption_model import CaptionModel

B, C, L, P, E, D, V = 2, 5, 7, 4, 6, 8, 11
HEADS = 2
PAIRS = [(mixer, fusion) for mixer in MIXERS for fusion in FUSIONS]


@pytest.fixture(scope="module", params=["-".join(pair) for pair in PAIRS] + ["deep"])
def model(request, loud_weights):
    deep = request.param == "deep"
    mixer, fusion = PAIRS[0] if deep else request.param.split("-")
    model = CaptionModel(
        V,
        (P, E),
        mixer=mixer,
        fusion=fusion,
        num_layers=2 if deep else 1,
        hidden_dim=D,
        intermediate_dim=3 * D if deep else None,
        num_heads=HEADS,
        dropout=0.3,
    )
    loud_weights(model)
    return model


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return {
        "image_features": rng.normal(size=(B, P, E)).astype("float32"),
        "token_ids": rng.integers(0, V, (B, L)).astype("int32"),
    }


@pytest.fixture
def text():
    return np.random.default_rng(1).normal(size=(B, L, D)).astype("float32")


def rebuilt(layer):
    """The same layer again, from its configuration and its weights."""
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    return again


@pytest.mark.parametrize("intermediate_dim", [None, 13])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion(fusion, intermediate_dim, inputs, text, loud_weights):
    layer = FUSIONS[fusion](D, intermediate_dim, HEADS, dropout=0.3)
    layer.build((None, None, D), (None, P, E))
    loud_weights(layer)
    output, again = (
        each(text, each.build_cache(inputs["image_features"]))
        for each in (layer, rebuilt(layer))
    )
    assert output.shape == (B, L, D)
    np.testing.assert_allclose(again, output, atol=1e-5)
    # A fusion never mixes along the caption.
    cache = layer.build_cache(inputs["image_features"])
    np.testing.assert_allclose(layer(text[:, 3:4], cache), output[:, 3:4], atol=1e-5)


@pytest.mark.parametrize("mixer", MIXERS)
def test_mixer(mixer, text, loud_weights):
    layer = MIXERS[mixer](hidden_dim=D, num_heads=HEADS, dropout=0.3)
    layer.build((None, None, D))
    loud_weights(layer)
    assert layer(text).shape == (B, L, D)
    np.testing.assert_allclose(rebuilt(layer)(text), layer(text), atol=1e-5)

    cache, outputs = layer.build_cache(B, L), []
    for index in range(L):
        output, cache = layer.step(text[:, index], cache, index)
        outputs.append(output)
    np.testing.assert_allclose(np.stack(outputs, axis=1), layer(text), atol=1e-5)


@pytest.mark.parametrize(("mixer", "fusion"), PAIRS)
def test_block(mixer, fusion, inputs, text, loud_weights):
    layer = DecoderBlock(mixer, fusion, hidden_dim=D, num_heads=HEADS, dropout=0.3)
    layer.build((None, None, D), (None, P, E))
    loud_weights(layer)
    output, again = (
        each(text, each.build_image_cache(inputs["image_features"]))
        for each in (layer, rebuilt(layer))
    )
    assert output.shape == (B, L, D)
    np.testing.assert_allclose(again, output, atol=1e-5)


def test_model_survives_a_round_trip(model, inputs, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    again = CaptionModel.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert np.abs(again(inputs) - model(inputs)).max() > 0.1
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-5)


def test_model_survives_a_keras_file(model, inputs, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-5)


def test_a_model_of_another_precision_stays_one(inputs):
    model = CaptionModel(V, (P, E), hidden_dim=D, dtype="mixed_bfloat16")
    again = CaptionModel.from_config(model.get_config())
    for each in (model, again):
        for layer in (each.token_embedding, each.blocks[0].mixer, each.norm):
            assert layer.compute_dtype == "bfloat16"
        assert each(inputs).dtype == "float32"  # logits, for the softmax


@pytest.mark.parametrize("beams", [1, 3])
def test_cached_steps_equal_the_full_pass(model, inputs, beams):
    """Token by token as in decoding, or the whole caption at once."""
    token_ids = np.random.default_rng(3).integers(0, V, (B, beams, L))
    image_cache = model.build_image_cache(inputs["image_features"])
    text_cache = model.build_text_cache(B * beams, L)
    logits = []
    for index in range(L):
        step_logits, text_cache = model.step(
            token_ids[:, :, index].ravel(), text_cache, image_cache, index
        )
        logits.append(step_logits)
    logits = np.stack(logits, axis=1).reshape(B, beams, L, V)
    expected = model({**inputs, "token_ids": token_ids})
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_later_token_never_changes_an_earlier_logit(model, inputs):
    before = model(inputs).numpy()
    for position in range(L):
        token_ids = inputs["token_ids"].copy()
        token_ids[:, position] = (token_ids[:, position] + 1) % V
        after = model({**inputs, "token_ids": token_ids}).numpy()
        np.testing.assert_array_equal(after[:, :position], before[:, :position])
        # The token itself, and all that follow it, do see the change.
        changed = np.abs(after - before).max(axis=(0, 2)) > 1e-4
        assert changed[position:].all()


def test_padding_never_leaks(model, inputs):
    """A caption's logits are the same with and without padding behind it."""
    padded = np.pad(inputs["token_ids"], ((0, 0), (0, 3)))
    logits = model({**inputs, "token_ids": padded})
    # Another length is another way to cut up the same matrix product.
    np.testing.assert_allclose(logits[:, :L], model(inputs), atol=1e-5)


def test_every_image_position_counts(model, inputs):
    before = model(inputs).numpy()
    for position in range(P):
        features = inputs["image_features"].copy()
        features[0, position] = features[0, position, ::-1]
        change = np.abs(model({**inputs, "image_features": features}) - before)
        assert change[0].min(axis=-1).max() > 1e-4
        assert change[1].max() == 0  # another image


def test_gradient_reaches_every_trainable_weight(model, inputs):
    with tf.GradientTape() as tape:
        loss = CaptionCrossentropy()(inputs["token_ids"], model(inputs, training=True))
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def test_five_captions_equal_five_passes(model, inputs):
    token_ids = np.random.default_rng(2).integers(0, V, (B, C, L))
    together = model({**inputs, "token_ids": token_ids})
    assert together.shape == (B, C, L, V)
    for caption in range(C):
        alone = model({**inputs, "token_ids": token_ids[:, caption]})
        np.testing.assert_allclose(together[:, caption], alone, atol=1e-5)


def test_five_captions_share_one_pass_of_the_image_side(inputs, monkeypatch):
    model = CaptionModel(V, (P, E), num_layers=1, hidden_dim=D)
    seen = []
    fusion = model.blocks[0].fusion
    build_cache = fusion.build_cache
    monkeypatch.setattr(
        fusion,
        "build_cache",
        lambda features, **kwargs: seen.append(features.shape)
        or build_cache(features, **kwargs),
    )
    model({**inputs, "token_ids": np.ones((B, C, L), "int32")})
    assert seen == [(B, P, E)]


def test_captions_in_one_row_equal_rows_of_their_own(model, inputs):
    token_ids = np.random.default_rng(2).integers(0, V, (B, C, L))
    expected = model({**inputs, "token_ids": token_ids})
    lengths = [7, 1, 3, 2, 5]
    row = np.concatenate([token_ids[:, c, :n] for c, n in enumerate(lengths)], axis=1)
    segment_ids = np.repeat(np.arange(C) + 1, lengths)[None].repeat(B, axis=0)
    packed = {**inputs, "token_ids": row, "segment_ids": segment_ids}
    logits, start = model(packed), 0
    for caption, length in enumerate(lengths):
        found = logits[:, start : start + length]
        np.testing.assert_allclose(found, expected[:, caption, :length], atol=1e-5)
        start += length


def test_lstm_equals_that_of_keras(text, loud_weights):
    """All that it gives, and all gradients."""
    mixer = MIXERS["lstm"](hidden_dim=D)
    mixer.build((None, None, D))
    loud_weights(mixer)
    found, expected = [], []
    for layer, results in ((mixer, found), (mixer.lstm, expected)):
        with tf.GradientTape() as tape:
            given = tf.constant(text)
            tape.watch(given)
            output = layer(given)
            loss = tf.reduce_sum(tf.cos(3 * output))
        results += [output, *tape.gradient(loss, [given, *layer.trainable_variables])]
    assert len(found) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_images_equal_their_features(tiny_captioner):
    model = tiny_captioner.caption_model
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    token_ids = np.array([[1, 4, 5], [1, 6, 7]])
    features = model.encode(images)
    assert features.shape == (2, *model.image_feature_shape)
    from_images = model({"images": images, "token_ids": token_ids})
    from_features = model({"image_features": features, "token_ids": token_ids})
    assert np.abs(from_images[0] - from_images[1]).max() > 0.1
    np.testing.assert_allclose(from_images, from_features, atol=1e-5)


def test_a_model_without_backbone_says_so(model):
    with pytest.raises(ValueError, match="give image_features"):
        model({"images": np.zeros((1, 8, 8, 3)), "token_ids": np.ones((1, 1))})


def test_a_backbone_of_other_features_is_refused(tiny_backbone):
    with pytest.raises(ValueError, match=r"Received: image_feature_shape=\(1, 1024\)"):
        CaptionModel(V, (1, 1024), tiny_backbone, hidden_dim=D)


@pytest.mark.parametrize("mixer", MIXERS)
def test_attention_scores_say_where_each_word_looks(mixer, inputs, loud_weights):
    options = dict(mixer=mixer, num_layers=2, hidden_dim=D, num_heads=HEADS)
    model = CaptionModel(V, (P, E), fusion="attention", **options)
    loud_weights(model)
    scores = model.attention_scores(inputs).numpy()
    assert scores.shape == (B, L, P)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-5)
    assert scores.std(axis=-1).min() > 1e-3
    # Made to look at one position only, it says so.
    for block in model.blocks:
        block.fusion.attention.query_dense.kernel.assign(np.zeros((D, D)))
    np.testing.assert_allclose(model.attention_scores(inputs), 1 / P, rtol=1e-5)

    with pytest.raises(ValueError, match="Received: fusion=additive"):
        model = CaptionModel(V, (P, E), fusion="additive", hidden_dim=D)
        model.attention_scores(inputs)


def test_attention_equals_that_of_keras(inputs, text):
    """The same weights in `keras.layers.MultiHeadAttention` give the same."""
    ours = MultiHeadAttention(D, HEADS)
    ours.build((None, None, D), (None, P, E))
    theirs = keras.layers.MultiHeadAttention(HEADS, D // HEADS, output_shape=D)
    source = inputs["image_features"]
    theirs(text, source)
    rng = np.random.default_rng(4)
    for weight in theirs.weights:
        weight.assign(rng.normal(size=weight.shape))
    kernel = lambda layer: np.reshape(layer.kernel, (-1, D))  # noqa: E731
    ours.query_dense.kernel.assign(kernel(theirs.query_dense))
    theirs.query_dense.bias.assign(np.zeros((HEADS, D // HEADS)))
    ours.key_dense.kernel.assign(kernel(theirs.key_dense))
    ours.value_dense.kernel.assign(kernel(theirs.value_dense))
    ours.value_dense.bias.assign(np.ravel(theirs.value_dense.bias))
    ours.output_dense.kernel.assign(kernel(theirs.output_dense))
    ours.output_dense.bias.assign(theirs.output_dense.bias)
    expected = theirs(text, source, return_attention_scores=True)
    found = ours(ours.queries(text), *ours.keys_and_values(source))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_heads_that_do_not_fit_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match="hidden_dim=12; .* is 4. Received: num_heads"):
        CaptionModel(V, (P, E), fusion="attention", hidden_dim=12, num_heads=5)
    with pytest.raises(ValueError, match="must be even.*hidden_dim=6, num_heads=2"):
        CaptionModel(V, (P, E), mixer="transformer", hidden_dim=6, num_heads=2)


def test_attention_over_pooled_features_is_refused():
    with pytest.raises(ValueError, match='pooling=None.*fusion="additive"'):
        CaptionModel(V, (1, E), fusion="attention", hidden_dim=D)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_tells_the_order_of_words(mixer, text, loud_weights):
    layer = MIXERS[mixer](hidden_dim=D, num_heads=HEADS)
    layer.build((None, None, D))
    loud_weights(layer)
    swapped = text[:, [1, 0, 2, 3, 4, 5, 6]]
    assert np.abs(layer(swapped)[:, 2:] - layer(text)[:, 2:]).max() > 1e-3


@pytest.mark.parametrize("option", ["mixer", "fusion"])
def test_unknown_names(option):
    with pytest.raises(
        ValueError, match=f"{option} must be one of .*Received: {option}=nope"
    ):
        CaptionModel(V, (P, E), hidden_dim=D, **{option: "nope"})


def numpy_crossentropy(y_true, logits, weight, label_smoothing):
    """The loss as the paper writes it: smoothed one-hot targets, mean over tokens."""
    target = np.eye(logits.shape[-1])[y_true]
    target = (1 - label_smoothing) * target + label_smoothing / logits.shape[-1]
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    losses = -np.sum(target * log_p, axis=-1)
    return np.sum(losses * weight) / np.sum(weight)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_loss_equals_a_hand_written_one(label_smoothing):
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, V, (B, C, L))
    logits = rng.normal(0, 3, (B, C, L, V)).astype("float32")
    weight = (rng.uniform(size=(B, C, L)) < 0.6).astype("float32")
    found = CaptionCrossentropy(label_smoothing)(y_true, logits, sample_weight=weight)
    expected = numpy_crossentropy(y_true, logits, weight, label_smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_loss_does_not_see_padding():
    rng = np.random.default_rng(0)
    y_true, logits = rng.integers(0, V, (B, L)), rng.normal(size=(B, L, V))
    weight = np.ones((B, L))
    weight[:, 4:] = 0
    loss = CaptionCrossentropy(label_smoothing=0.1)
    before = loss(y_true, logits, sample_weight=weight)
    y_true[:, 4:], logits[:, 4:] = 0, 100.0
    after = loss(y_true, logits, sample_weight=weight)
    np.testing.assert_allclose(after, before, rtol=1e-6)
    longer = loss(y_true[:, :4], logits[:, :4], sample_weight=weight[:, :4])
    np.testing.assert_allclose(longer, before, rtol=1e-6)


def test_loss_config():
    loss = CaptionCrossentropy(label_smoothing=0.2)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert again.label_smoothing == 0.2
    assert again.get_config() == loss.get_config()
