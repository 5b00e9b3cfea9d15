"""What a training begins with: from scratch, or from a preset that decides much."""

import pytest

import captioner
from captioner import presets
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.starting_point import as_used, resolved, starting_captioner

ENGLISH = Tokenizer.count_words(["a dog runs on the grass", "a man in a red shirt"])
FINNISH = Tokenizer.count_words(["koira juoksee nurmikolla", "mies punaisessa"])


def test_few_images_begin_with_the_default_preset_unless_told_otherwise():
    def start(given=None, images=500, counts=ENGLISH):
        return resolved(given or {}, images, counts, 5 * images).init_from

    assert start() == presets.DEFAULT_PRESET
    assert start(images=3_000) is None
    assert start(counts=FINNISH) is None
    for given in ({"init_from": "none"}, {"mixer": "lstm"}, {"recipe": "classic"}):
        assert start(given) is None
    assert start({"epochs": 3, "image_size": 128}) == presets.DEFAULT_PRESET
    assert start({"init_from": "mine"}, images=9_000, counts=FINNISH) == "mine"


def test_what_depends_on_the_data_is_resolved():
    few = resolved({}, 12, FINNISH, 60)
    assert (few.batch_size, few.min_count, few.learning_rate) == (3, 1, 1e-3)
    many = resolved({}, 9_000, ENGLISH, 45_000)
    assert (many.batch_size, many.min_count, many.learning_rate) == (32, 4, 1e-3)
    tuned = resolved({}, 500, ENGLISH, 2_500)
    assert (tuned.batch_size, tuned.min_count, tuned.learning_rate) == (32, 2, 3e-4)
    given = {"batch_size": 7, "min_count": 9, "learning_rate": 0.5}
    options = resolved(given, 12, ENGLISH, 60)
    assert {name: getattr(options, name) for name in given} == given


@pytest.fixture(scope="module")
def preset(tiny_captioner, tmp_path_factory):
    path = tmp_path_factory.mktemp("presets") / "tiny"
    return str(tiny_captioner.save_to_preset(path))


def used(given, counts=ENGLISH):
    options = resolved(given, 500, counts, 60)
    captioner, words = starting_captioner(options, counts)
    return as_used(options, given, captioner), captioner, words


def test_the_recipe_says_what_the_preset_decided(preset):
    options, made, words = used({"init_from": preset, "image_size": 96})
    assert options.backbone == "mobilenet" and options.weights == "init_from"
    assert (options.hidden_dim, options.max_sequence_length) == (16, 8)
    assert options.fusion == "additive" and options.image_size == 96
    assert sorted(words) == ["in", "man", "red", "shirt"]
    vocabulary = made.preprocessor.tokenizer.vocabulary
    assert set(words) <= set(vocabulary)
    # The resolved options make the same captioner again, as a resumed run needs it.
    again, _ = starting_captioner(options, ENGLISH)
    assert again.preprocessor.tokenizer.vocabulary == vocabulary


def test_an_option_that_the_preset_overrides_is_refused(preset):
    for given, message in (
        ({"mixer": "transformer"}, r"decides mixer \(lstm\).*mixer=transformer"),
        ({"hidden_dim": 32, "dropout": 0.1}, r"hidden_dim \(16\), dropout \(0.4\)"),
        ({"recipe": "classic"}, "decides backbone"),
        ({"weights": "imagenet"}, "decides weights"),
    ):
        with pytest.raises(ValueError, match=message):
            used({"init_from": preset, **given})
    used({"init_from": preset, "hidden_dim": 16})  # as it is


def test_from_scratch_the_recipe_says_what_was_left_open():
    given = {"backbone": "mobilenet", "weights": "none", "hidden_dim": 16}
    options, made, words = used({**given, "image_size": 64})
    assert (options.fusion, options.weights, words) == ("attention", None, [])
    options, _, _ = used({**given, "image_size": 64, "pooling": "avg"})
    assert (options.fusion, options.pooling) == ("additive", "avg")


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="mobilenet.*cannot be downloaded.*weights"):
        captioner.VisionBackbone("mobilenet", image_size=(224, 224))
