"""`captioner train`."""

import dataclasses
import types
import typing

import click

from captioner.commands.dataset_flags import dataset_flags
from captioner.terminal import EXIT_CODES, import_tensorflow
from captioner.training.training_options import RunOptions, TrainingOptions

FIELDS = [
    field
    for options in (TrainingOptions, RunOptions)
    for field in dataclasses.fields(options)
]


def _flag(field):
    """The flag of an option, as its field describes it."""
    name = f"--{field.name.replace('_', '-')}"
    metadata, kind = field.metadata, field.type
    if isinstance(kind, types.UnionType):  # `int | None`
        kind = typing.get_args(kind)[0]
    if kind is bool:
        kind = None
        if field.default:
            name = f"{name}/--no-{name[2:]}"
    elif metadata["choices"]:
        kind = click.Choice(metadata["choices"])
    elif field.name == "cache_dir":
        kind = click.Path()
    return click.option(
        name,
        field.name,
        type=kind,
        is_flag=kind is None,
        default=field.default,
        show_default=field.default is not None and field.default is not False,
        help=metadata["help"],
    )


def _flags(command):
    for field in reversed(FIELDS):
        command = _flag(field)(command)
    return command


@click.command("train", epilog=EXIT_CODES)
@click.argument("dataset", required=False)
@dataset_flags
@click.argument("output", required=False, type=click.Path())
@_flags
@click.pass_context
def train_command(context, dataset, output, **options):
    """Train a captioner on DATASET; the best one is kept as OUTPUT/preset.

    DATASET needs a train and a dev split; `captioner datasets show DATASET` shows them.
    A training that was stopped continues with `captioner train --resume OUTPUT`.

    \b
    Examples:
      captioner train scenes run --image-size 128
      captioner train photos/captions.csv run
      captioner train flickr8k:flickr8k run --recipe classic
      captioner train --resume run --epochs 20
    """
    if options["resume"] and output is None:
        dataset, output = None, dataset
    if output is None:
        raise click.UsageError(
            "Give the folder of the training: captioner train --resume OUTPUT"
            if options["resume"]
            else "Give a dataset and an output folder: captioner train DATASET OUTPUT"
        )
    given = click.core.ParameterSource.COMMANDLINE
    options = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is given
    }
    import_tensorflow()
    from captioner.training.train import train

    train(dataset, output, **options)
