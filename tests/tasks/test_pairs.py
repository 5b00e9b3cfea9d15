"""Every pair of mixer and fusion trains, captions, saves and exports the same way."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import captioner
from captioner.decoders import MIXERS
from captioner.decoders.fusion import FUSIONS

PAIRS = [(mixer, fusion) for mixer in MIXERS for fusion in FUSIONS]
FAST = {("transformer", "attention")}  # in the default tests

EXPORTED = """
import json, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
photos = [open(path, "rb").read() for path in sys.argv[2:]]
found = serve(image_bytes=tf.constant(photos))
assert "captioner" not in sys.modules
print(json.dumps([text.decode() for text in found["captions"].numpy()]))
"""


@pytest.mark.parametrize(
    ("mixer", "fusion"),
    [
        pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_fit_generate_save_and_export_agree(
    mixer, fusion, tiny_backbone, repository, tmp_path
):
    keras.utils.set_random_seed(2)
    photos = sorted(str(path) for path in repository.glob("data/samples/*.jpg"))[:3]
    expected = ["a dog runs", "two cats on the green grass", "the green dog"]
    captions = [[text] for text in expected]
    converter = captioner.ImageConverter(tiny_backbone.image_size)
    preprocessor = captioner.CaptionPreprocessor(
        converter, captioner.Tokenizer.from_captions(expected), 8
    )
    model = captioner.ImageCaptioner(
        captioner.CaptionModel(
            preprocessor.tokenizer.vocabulary_size,
            tiny_backbone.feature_shape,
            tiny_backbone,
            mixer=mixer,
            fusion=fusion,
            hidden_dim=32,
            num_heads=2,
            dropout=0.0,
        ),
        preprocessor,
    )
    _, read = captioner.image_reader(photos, converter)
    features = tiny_backbone(read(range(3))).numpy()
    reader = "image_features", lambda indices: features[indices]
    batches, steps = captioner.training_batches(reader, captions, 3, 240, seed=1)
    model.compile(keras.optimizers.Adam(0.005))
    history = model.fit(batches, steps_per_epoch=steps, epochs=240, verbose=0).history
    assert history["loss"][-1] < 0.1 * history["loss"][0]

    assert model.generate(photos) == expected
    model.save_to_preset(tmp_path / "preset")
    loaded = captioner.ImageCaptioner.from_preset(tmp_path / "preset")
    assert loaded.generate(photos) == expected
    if fusion == "attention":  # over the grid, for each word and the end
        for result in loaded.generate_results(photos, attention=True):
            assert result.attention.shape == (len(result.token_ids), 2, 2)
            np.testing.assert_allclose(result.attention.sum(axis=(1, 2)), 1, rtol=1e-4)
    captioner.export(tmp_path / "preset", tmp_path / "exported")
    command = [sys.executable, "-c", EXPORTED, str(tmp_path / "exported"), *photos]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == expected
    logits = [
        each.caption_model({"image_features": features, "token_ids": np.ones((3, 5))})
        for each in (model, loaded)
    ]
    np.testing.assert_allclose(*logits, atol=1e-5)
