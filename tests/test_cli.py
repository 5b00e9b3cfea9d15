"""The command line: as able as the Python API, quick to answer, clear when it fails."""

import inspect
import re
import resource
import shlex
import subprocess
import sys

import click
import pytest

import captioner
from captioner.captioning.style import CaptionStyle
from captioner.cli import main
from captioner.samplers import SAMPLERS, Constraints, Sampler

VERBS = ["caption", "evaluate", "export", "merge", "train"]
COMMAND = [sys.executable, "-m", "captioner"]


def commands(group=main, path=()):
    """All commands that do something, with their full names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


def test_there_is_a_command_for_each_verb():
    assert set(VERBS) <= set(COMMANDS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_has_the_functions_arguments_and_defaults(verb):
    arguments = inspect.signature(getattr(captioner, verb)).parameters
    options = {option.name: option for option in COMMANDS[verb].params}
    expected = set(arguments)
    if "sampler" in arguments:  # an object in Python, and its arguments flags here
        expected |= {
            name
            for made in [*SAMPLERS.values(), Sampler, Constraints]
            for name in inspect.signature(made).parameters
        } - {
            "constraints",
            "kwargs",
            "num_hypotheses",
        }  # --num-captions
        expected |= {"num_hypotheses"} if verb == "evaluate" else set()
        expected.add("ensemble_with")  # a list of presets in Python
    if "dataset" in arguments:  # a part of the spec in Python
        expected |= {"image_dir", "dev_fraction", "test_fraction"}
    if "style" in arguments:
        expected |= set(inspect.signature(CaptionStyle).parameters) - {"style"}
        expected |= {"as_json", "quiet"}  # progress in Python
        expected -= {"style", "progress"}
    assert set(options) == expected
    required = [name for name, option in options.items() if option.required]
    words = []
    for name in required:
        flags = [flag for flag in options[name].opts if flag.startswith("--")]
        words += [*flags, "x"]
    given = COMMANDS[verb].make_context(verb, words).params
    for name in set(arguments) & set(options):
        default = arguments[name].default
        if name in required:
            assert default is inspect.Parameter.empty, name
        elif name == "preset":  # its default is named in a room that is slow to load
            assert "shipped" in options[name].help
        else:
            assert given[name] == default, name


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_and_an_example_that_parses(name):
    command = COMMANDS[name]
    help_text = command.get_help(click.Context(command, info_name=name))
    assert command.get_short_help_str()
    assert len(help_text.splitlines()) > 3
    examples = re.findall(r"^ {2,6}captioner (.+)$", help_text, re.MULTILINE)
    assert examples or not command.params[:1]
    for example in examples:
        words = shlex.split(example, comments=True)
        prefix = name.split()
        assert words[: len(prefix)] == prefix
        command.make_context(name, words[len(prefix) :])  # raises where it is wrong


def test_the_readmes_commands_parse(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    blocks = "".join(readme.split("```")[1::2]).replace("\\\n", "")
    lines = re.findall(r"^captioner (.+)$", blocks, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line, comments=True)
        name = max((n for n in COMMANDS if words[: len(n.split())] == n.split()))
        COMMANDS[name].make_context(name, words[len(name.split()) :])


def test_help_is_there_at_once_and_without_tensorflow():
    code = (
        "import sys; from captioner.cli import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'tensorflow', 'keras', 'numpy', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    seconds = []
    for _ in range(3):
        # The processor's time: the machine is busy with the other tests.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        )
        assert done.returncode == 0
        assert all(name.split()[0] in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["presets", "--nonsense"], "--nonsense"),
        (["evaluate", "no_such_preset", "scenes:8"], "no_such_preset"),
        (["export", "no_such_preset", "out"], "no_such_preset"),
        (["datasets", "show", "no_such_folder"], "no_such_folder"),
        (["datasets", "download", "nothing", "out"], "nothing"),
        (["caption", "no_such_photo.jpg"], "no_such_photo.jpg"),
        (["train", "scenes:64", "run", "--epochs", "0"], "epochs=0"),
        (["train", "scenes:64", "run", "--fusion", "glue"], "'glue' is not one of"),
        (["train", "scenes:64", "run", "--backbone", "vgg61"], "vgg61"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(tmp_path, arguments, complaint):
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("Error: ") and complaint in last_line
    assert list(tmp_path.iterdir()) == []


def test_presets_lists_what_can_be_named(repository):
    done = subprocess.run(
        [*COMMAND, "presets"], capture_output=True, text=True, check=True
    )
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert "efficientnet_lite2_imagenet" in names
