"""The options of `train`: one place for the signature, the flags, the help, the limits
and the recipe."""

import dataclasses
import inspect
import subprocess
import sys

import click
import pytest

import captioner
from captioner.commands.train import _flag, train_command
from captioner.tasks.captioner_options import CaptionerOptions, option
from captioner.training.training_options import (
    RECIPES,
    RunOptions,
    TrainingOptions,
    docstring,
)

FIELDS = [
    field
    for options in (TrainingOptions, RunOptions)
    for field in dataclasses.fields(options)
]


def test_the_signature_the_flags_and_the_docstring_are_made_from_the_fields():
    parameters = inspect.signature(captioner.train).parameters
    assert list(parameters) == ["dataset", "output", *(field.name for field in FIELDS)]
    flags = {each.name: each for each in train_command.params}
    of_dataset = {"image_dir", "dev_fraction", "test_fraction"}
    assert flags.keys() - of_dataset == parameters.keys()
    for field in FIELDS:
        assert parameters[field.name].default == field.default
        assert flags[field.name].default == field.default
        assert flags[field.name].help == field.metadata["help"]
        assert f"\n        {field.name}: " in captioner.train.__doc__
    assert "--" not in captioner.train.__doc__.replace("`captioner train --resume", "")


def test_a_new_option_is_added_in_one_place():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class More(TrainingOptions):
        words_dropped: float = option(0.1, "Share of words.", least=0, below=1)

    field = dataclasses.fields(More)[-1]
    command = click.command()(_flag(field)(lambda **options: options))
    assert command.main(["--words-dropped", "0.5"], standalone_mode=False) == {
        "words_dropped": 0.5
    }
    assert command.params[0].help == "Share of words."
    assert "words_dropped: Share of words." in docstring([More])
    assert dataclasses.asdict(More())["words_dropped"] == 0.1
    with pytest.raises(ValueError, match="0 or more and less than 1.*=1"):
        More(words_dropped=1)


def test_every_option_has_a_help_in_plain_sentences():
    for field in FIELDS:
        text = field.metadata["help"]
        assert (
            text[0].isupper()
            and text.rstrip("]").endswith((".", "pixels"))
            or ("[default: " in text)
        ), field.name


def test_the_model_has_the_same_defaults():
    model = inspect.signature(captioner.CaptionModel).parameters
    preprocessor = inspect.signature(captioner.CaptionPreprocessor).parameters
    for field in dataclasses.fields(CaptionerOptions):
        places = [
            each[field.name] for each in (model, preprocessor) if field.name in each
        ]
        assert [place.default for place in places] == [field.default], field.name


def test_options_do_not_change_and_tell_their_values():
    options = TrainingOptions(epochs=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.epochs = 4
    assert TrainingOptions(**dataclasses.asdict(options)) == options


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_options_and_given_ones_take_precedence(name):
    options = TrainingOptions.of({"recipe": name})
    assert options.recipe == name
    for key, value in RECIPES[name].items():
        assert getattr(options, key) == value
        assert getattr(TrainingOptions(), key) != value, "it is the default already"
    assert TrainingOptions.of({"recipe": name, "epochs": 3}).epochs == 3


@pytest.mark.parametrize(
    "given, message",
    [
        ({"num_layers": 0}, "num_layers must be 1 or more. Received: num_layers=0"),
        ({"dropout": 1.0}, "less than 1. Received: dropout=1.0"),
        ({"learning_rate": float("nan")}, "Received: learning_rate=nan"),
        ({"batch_size": "many"}, "batch_size must be a number"),
        ({"epochs": True}, "epochs must be a number"),
        ({"resize_mode": "stretch"}, "one of squash, crop, pad"),
        ({"recipe": "secret"}, "one of classic, .*recipe=secret"),
        ({"epochs": 0}, "epochs may be 0 only with init_from"),
        ({"epochs": 0, "init_from": "x"}, "epochs may be 0 only with init_from"),
        ({"epochs": 0, "fine_tune_epochs": 1}, "init_from=auto"),
        ({"distribute": "tpu", "cider_epochs": 1}, "does not run on a TPU"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions.of(given)


def test_none_is_a_word_of_the_command_line():
    options = TrainingOptions(init_from="none", weights="none")
    assert options.init_from is None and options.weights is None


def test_an_unknown_option_is_refused_as_by_any_function():
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        captioner.train("scenes:64", "run", epoch=3)


@pytest.mark.parametrize("more, message", [([], "DATASET OUTPUT"), (["x"], "OUTPUT")])
def test_missing_arguments_are_named(more, message):
    command = [sys.executable, "-m", "captioner", "train", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr
