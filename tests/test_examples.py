"""The examples in README, docs and model cards are what the commands take."""

import copy
import itertools
import re
import shlex

import click
import pytest

from captioner.cli import main

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def pages(repository):
    yield repository / "README.md"
    yield from sorted((repository / "docs").rglob("*.md"))
    yield from sorted((repository / "models").glob("*/README.md"))
    yield from sorted((repository / "data").glob("*/README.md"))


def commands(text):
    """The lines of code blocks that call `captioner`, without their comments."""
    for language, body in FENCE.findall(text):
        if language in ("", "sh", "bash"):
            for line in body.replace("\\\n", " ").split("\n"):
                for call in re.split(r" && | \| ", line):
                    words = shlex.split(call, comments=True)
                    if words and words[0].rpartition("/")[2] == "captioner":
                        yield words[1:]


def parse(words):
    """Read a command line as the shell's words, up to the call of the function."""
    context = main.make_context("captioner", list(words))
    group, rest = main, [*context._protected_args, *context.args]
    while isinstance(group, click.Group):
        name, group, rest = group.resolve_command(context, rest)
        if isinstance(group, click.Group):
            context = group.make_context(name, rest, parent=context)
            rest = [*context._protected_args, *context.args]
    # Files of the examples need not be there; all else is checked.
    group = copy.copy(group)
    group.params = list(map(copy.copy, group.params))
    for parameter in group.params:
        if isinstance(parameter.type, click.Path):
            parameter.type = click.Path()
        elif isinstance(parameter.type, click.File):
            parameter.type = click.STRING
    return group.make_context(name, rest, parent=context)


def test_there_are_examples_of_each_command(repository):
    texts = [path.read_text("utf-8") for path in pages(repository)]
    named = {words[0] for words in itertools.chain(*map(commands, texts)) if words}
    assert named >= {"caption", "merge", "train", "evaluate", "export", "datasets"}


def test_commands_take_what_the_pages_show(repository):
    wrong = []
    for path in pages(repository):
        for words in commands(path.read_text("utf-8")):
            try:
                parse(words)
            except click.exceptions.Exit:
                pass  # --help
            except click.ClickException as error:
                line = shlex.join(words)
                wrong.append(f"{path.name}: captioner {line}: {error.format_message()}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    ["caption photos/ --no-such-flag", "captoin photos/", "train --epochs x a b"],
)
def test_a_wrong_example_is_found(line):
    with pytest.raises(click.ClickException):
        parse(shlex.split(line))


def test_help_shows_commands_that_work():
    for name, command in main.commands.items():
        several = getattr(command, "commands", {"": command})
        for each in several.values():
            examples = (each.help or "").split("\b")
            for line in "\n".join(examples[1:]).split("\n"):
                words = shlex.split(line.strip(), comments=True)
                if words[:1] == ["captioner"]:
                    parse(words[1:])
            assert name
