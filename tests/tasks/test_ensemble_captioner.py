"""Several captioners that write one caption."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import captioner
from captioner.backbones import VisionBackbone
from captioner.cli import main
from captioner.images.image_converter import ImageConverter
from captioner.images.image_files import load_image
from captioner.presets import PresetError
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.ensemble_captioner import EnsembleCaptioner
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def photos(repository):
    return sorted((repository / "data" / "samples").glob("*.jpg"))[:4]


@pytest.fixture(scope="module")
def other(tiny_captioner, loud_weights):
    """Another network that sees photos at another size, and a Transformer."""
    backbone = VisionBackbone("mobilenet", image_size=(96, 96), weights=None)
    tokenizer = tiny_captioner.preprocessor.tokenizer
    model = CaptionModel(
        tokenizer.vocabulary_size,
        backbone.feature_shape,
        backbone,
        "transformer",
        "attention",
        hidden_dim=8,
        num_heads=2,
    )
    loud_weights(model)
    converter = ImageConverter((96, 96), "crop")
    return ImageCaptioner(model, CaptionPreprocessor(converter, tokenizer, 6))


def test_a_captioner_twice_is_that_captioner(tiny_captioner, photos):
    both = EnsembleCaptioner([tiny_captioner, tiny_captioner])
    assert both.sampler is tiny_captioner.sampler
    expected = tiny_captioner.generate_results(photos)
    for found, result in zip(both.generate_results(photos), expected):
        assert found.text == result.text
        np.testing.assert_allclose(found.log_probs, result.log_probs, atol=1e-5)


def test_probabilities_are_averaged_at_each_step(tiny_captioner, other, photos):
    both = EnsembleCaptioner([tiny_captioner, other], "greedy")
    for photo, result in zip(photos, both.generate_results(photos, batch_size=3)):
        assert len(result.token_ids) <= 6  # the shorter of the two
        probabilities = []
        for member in (tiny_captioner, other):
            # Decoded for the larger of the two.
            image = load_image(photo, (96, 96))
            image = member.preprocessor.image_converter(image)
            before = [member.preprocessor.tokenizer.start_id, *result.token_ids[:-1]]
            logits = member.caption_model(
                {"images": image[None], "token_ids": np.array([before])}, training=False
            )
            probabilities.append(tf.nn.softmax(logits[0]).numpy())
        mean = np.mean(probabilities, axis=0)
        mean[:, [0, 1, 3]] = 0  # padding, start, unknown
        np.testing.assert_array_equal(result.token_ids, mean.argmax(axis=-1))
        np.testing.assert_allclose(
            result.log_probs, np.log(mean.max(axis=-1)), atol=1e-4
        )


def test_the_verbs_take_it_as_any_captioner(tiny_captioner, other, photos, tmp_path):
    both = EnsembleCaptioner([tiny_captioner, other])
    greedy = list(captioner.caption(photos, both, sampler="greedy"))
    both.compile(sampler="greedy")
    expected = both.generate(photos)
    assert [result.caption for result in greedy] == expected
    assert both.replaced("greedy", num_threads=1).generate(photos) == expected
    assert both.generate(photos[0]) == expected[0]
    outputs = [tmp_path / f"captions.{kind}" for kind in ("csv", "html")]
    members = [tiny_captioner, other.save_to_preset(tmp_path / "second")]
    found = list(captioner.caption(photos, members, outputs, sampler="greedy"))
    assert [result.caption for result in found] == expected
    assert "in memory, second" in outputs[1].read_text()


SERVE = """
import json, sys
sys.modules["captioner"] = None
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
photos = [open(path, "rb").read() for path in sys.argv[2:]]
captions = serve(image_bytes=tf.constant(photos))["captions"].numpy()
print(json.dumps([caption.decode() for caption in captions]))
"""


def test_the_command_line_and_an_export_alike(tiny_captioner, other, photos, tmp_path):
    sampler = captioner.BeamSampler(2, length_penalty=0.0)
    expected = EnsembleCaptioner([tiny_captioner, other], sampler).generate(photos)
    assert expected != ImageCaptioner.from_preset(tiny_captioner, sampler).generate(
        photos
    )
    paths = [str(photo) for photo in photos]
    first, second = (
        str(each.save_to_preset(tmp_path / name))
        for name, each in (("first", tiny_captioner), ("second", other))
    )
    flags = ["--preset", first, "--num-beams=2", "--length-penalty=0"]
    flags += ["--ensemble-with", second]
    done = CliRunner().invoke(main, ["caption", *paths, *flags])
    assert done.exit_code == 0, done.output
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == expected

    exported = captioner.export([tiny_captioner, other], tmp_path / "out", sampler)
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(exported), *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == expected


def test_scores_name_all_members(tiny_captioner, other, photos, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{photo},a dog runs,dev" for photo in photos[:2]]
    table.write_text("\n".join(["image,caption,split", *rows]))
    preset = str(other.save_to_preset(tmp_path / "second"))
    evaluation = captioner.evaluate([tiny_captioner, preset], table, java_metrics=False)
    assert evaluation.protocol["preset"] == f"in memory + {preset}"


def test_what_cannot_be_done(tiny_captioner, other, photos, tmp_path):
    for members in ([], "run/preset"):
        with pytest.raises(ValueError, match="Received: "):
            EnsembleCaptioner(members)
    tokenizer = Tokenizer.from_captions(["another vocabulary"])
    stranger = ImageCaptioner(
        CaptionModel(tokenizer.vocabulary_size, (4, 6)),
        CaptionPreprocessor(ImageConverter((32, 32)), tokenizer),
    )
    with pytest.raises(PresetError, match="No preset 'third'"):
        EnsembleCaptioner([tiny_captioner, "third"])
    with pytest.raises(ValueError, match="vocabulary of the first"):
        EnsembleCaptioner([tiny_captioner, stranger])
    both = EnsembleCaptioner([tiny_captioner, other])
    for ability in ("attention", "features", "prompts"):
        with pytest.raises(ValueError, match="EnsembleCaptioner does not have "):
            both.require(ability)
    # It inherits nothing that it would have to refuse.
    for name in ("fit", "encode", "save_to_preset", "from_preset"):
        assert not hasattr(both, name)
