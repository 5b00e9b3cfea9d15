"""The command line: each command is one function of the Python API."""

import contextlib
import os
import signal
import sys

import click

# Nothing here imports TensorFlow before a command runs: `--help` answers at once.

EXIT_CODES = """
\b
Exit codes:
  0    all went well
  1    some photos could not be captioned; the others were
  2    nothing was done, or not all: one line says why
  130  interrupted
"""


class _Group(click.Group):
    """Turns a user's mistake into one line instead of a traceback."""

    def invoke(self, ctx):
        try:
            with _ctrl_c():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            raise  # `captioner caption photos | head`: click ends quietly
        except (ValueError, OSError) as error:
            message = click.ClickException(_one_line(error))
            message.exit_code = 2
            raise message from error


@contextlib.contextmanager
def _ctrl_c(at_once=True):
    """Make sure of Ctrl-C: TensorFlow may lose a `KeyboardInterrupt` that is raised
    inside it, or turn it into an error of its own.

    Yields a list, true once Ctrl-C was pressed. Without `at_once` the first one
    raises nothing, and whoever asked for the list stops where it is good to stop.
    """
    pressed = []

    def handler(*_):
        pressed.append(True)
        if at_once or len(pressed) > 1:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as behind nohup
        signal.signal(signal.SIGINT, handler)
    try:
        yield pressed
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _one_line(error):
    if isinstance(error, OSError) and error.strerror:  # without its "[Errno 28]"
        named = [] if error.filename is None else [str(error.filename)]
        return _printable(": ".join([*named, error.strerror]))
    return " ".join(str(error).split())


def _import_tensorflow():
    """Import TensorFlow without the notes that its C++ writes about GPUs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _sampler(preset, options):
    """The preset's sampler, changed as the flags ask; None where they ask nothing."""
    import inspect

    from captioner import presets
    from captioner.samplers import SAMPLERS, Constraints

    given = {name: value for name, value in options.items() if value not in (None, ())}
    if not given:
        return None
    folder = presets.find_preset(preset)
    presets.verify_preset(folder)
    try:
        own = presets.read_json(folder, presets.CONFIG_FILE)["sampler"]
        name, config = own["name"], dict(own["config"])
        constraints = dict(config.pop("constraints", {}))
        if name == "greedy" and "num_beams" in given:
            name = "beam"
        name = given.pop("sampler", name)
        sampler_class = SAMPLERS[name]
    except (KeyError, TypeError, ValueError):
        return None  # what loads the preset says what is wrong with it
    allowed = {
        argument
        for base in sampler_class.__mro__
        for argument in inspect.signature(base.__init__).parameters
    }
    config = {option: value for option, value in config.items() if option in allowed}
    for option, value in given.items():
        if option in Constraints.__dataclass_fields__:
            constraints[option] = value
        elif option in allowed:
            config[option] = value
        else:
            raise ValueError(
                f"The {name} sampler has no such option. Received: {option}={value}"
            )
    try:
        return sampler_class.from_config({**config, "constraints": constraints})
    except TypeError as error:  # the preset's own
        raise presets.PresetError(f"{folder}: cannot be rebuilt ({error})") from error


def _sampler_options(command):
    """The flags that choose a sampler, its arguments and its constraints."""
    positive = click.FloatRange(min=0)
    for option in reversed(
        [
            click.option(
                "--sampler",
                type=click.Choice(["greedy", "beam", "diverse_beam", "random"]),
                help="How words are chosen.  [default: as the preset does]",
            ),
            click.option(
                "--num-beams",
                type=click.IntRange(1, 1024),
                help="Captions followed at a time; 1 is greedy.",
            ),
            click.option(
                "--length-penalty",
                type=positive,
                help="0 favours short captions, 1 long ones.",
            ),
            click.option(
                "--length-normalization",
                type=click.Choice(["average", "gnmt"]),
                help="What the length penalty is a power of.",
            ),
            click.option(
                "--num-groups", type=int, help="Of diverse_beam: groups of beams."
            ),
            click.option(
                "--diversity-penalty",
                type=positive,
                help="Of diverse_beam: how far groups keep apart.",
            ),
            click.option(
                "--temperature", type=positive, help="Of random: 0 is greedy."
            ),
            click.option(
                "--top-k", type=int, help="Of random: draw from the k likeliest words."
            ),
            click.option(
                "--top-p",
                type=float,
                help="Of random: draw from the likeliest words of this probability.",
            ),
            click.option(
                "--seed", type=int, help="Of random: the same captions each time."
            ),
            click.option("--min-length", type=int, help="Words, and one for the end."),
            click.option("--max-length", type=int, help="Words, and one for the end."),
            click.option(
                "--no-repeat-ngram-size",
                type=int,
                help="No so many words in a row come twice.",
            ),
            click.option(
                "--repetition-penalty",
                type=float,
                help="Above 1: words that were written become less likely.",
            ),
            click.option(
                "--banned",
                multiple=True,
                metavar="TEXT",
                help="A word or phrase that is not written; may be repeated.",
            ),
            click.option("--prefix", help="What every caption begins with."),
            click.option(
                "--bad-ending",
                "bad_endings",
                multiple=True,
                metavar="TEXT",
                help="What no caption ends in; may be repeated.",
            ),
        ]
    ):
        command = option(command)
    return command


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="captioner")
def main():
    """Write a sentence about a photo.

    \b
    captioner caption photos/                     caption a folder
    captioner train flickr8k:flickr8k run         train a captioner
    captioner evaluate run/preset flickr8k:DIR    score it
    captioner export run/preset exported          write a SavedModel
    """


@main.command("caption", epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--preset", help="Name or folder.  [default: the one that is shipped]")
@click.option(
    "--output", "-o", metavar="FILE", help="Write a .csv or .jsonl, bad files included."
)
@click.option("--sidecars", is_flag=True, help="Write a .txt beside each photo.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@_sampler_options
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.pass_context
def caption_command(
    ctx,
    paths,
    preset,
    output,
    sidecars,
    overwrite,
    batch_size,
    **sampler_options,
):
    """Caption photos and folders of photos.

    Writes a line for each photo, "path<TAB>caption", to the terminal unless --output
    is given. A file that cannot be read is reported and skipped. Without --overwrite
    nothing that exists is replaced: with --sidecars, photos that have a .txt are left
    as they are.

    \b
    Examples:
      captioner caption photo.jpg
      captioner caption photos/ -o captions.csv
      captioner caption photos/ --sidecars --preset run/preset
      captioner caption photos/ --num-beams 5 --bad-ending a --bad-ending "of the"
      captioner caption photos/ --sampler random --top-p 0.9 --seed 1
    """
    _import_tensorflow()
    from captioner.caption import DEFAULT_PRESET, caption

    preset = preset or DEFAULT_PRESET
    results = caption(
        paths,
        preset,
        output=output,
        sidecars=sidecars,
        overwrite=overwrite,
        sampler=_sampler(preset, sampler_options),
        batch_size=batch_size,
    )
    done = failed = 0
    with _ctrl_c(at_once=False) as interrupted, contextlib.closing(results):
        for result in results:
            if result.error is None:
                done += 1
                if output is None:
                    click.echo(f"{_printable(result.path)}\t{result.caption}")
            else:
                failed += 1
                path = _printable(result.path)
                click.echo(f"skipped: {path}: {result.error}", err=True)
            if interrupted:
                break
    if interrupted:
        click.echo(f"interrupted: {done} captioned, {failed} skipped", err=True)
        ctx.exit(130)
    if failed or output or sidecars:
        click.echo(f"{done} captioned, {failed} skipped", err=True)
    ctx.exit(1 if failed else 0)


def _printable(path):
    """A path on one line, whatever its name holds."""
    return path if path.isprintable() else repr(path)


@main.command("train", epilog=EXIT_CODES)
@click.argument("dataset")
@click.argument("output", type=click.Path())
@click.option("--backbone", default="efficientnet_lite2", show_default=True)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="imagenet, none, or the path of a .weights.h5 file.",
)
@click.option("--image-size", type=int, help="In pixels.  [default: the backbone's]")
@click.option(
    "--resize-mode",
    type=click.Choice(["squash", "crop", "pad"]),
    default="squash",
    show_default=True,
    help="For photos that are not square.",
)
@click.option(
    "--pooling", type=click.Choice(["avg"]), help="One vector an image, not a grid."
)
@click.option(
    "--mixer",
    type=click.Choice(["lstm", "transformer"]),
    default="lstm",
    show_default=True,
    help="What mixes along the caption.",
)
@click.option(
    "--fusion",
    type=click.Choice(["additive", "concat", "weighted", "attention"]),
    default="additive",
    show_default=True,
    help="What brings the image in.",
)
@click.option("--num-layers", type=int, default=2, show_default=True)
@click.option("--hidden-dim", type=int, default=512, show_default=True)
@click.option(
    "--intermediate-dim",
    type=int,
    help="How much to look for in the image, and width of a Transformer's feed-"
    "forward network.  [default: the hidden dim, and 4 times that]",
)
@click.option(
    "--num-heads",
    type=int,
    default=8,
    show_default=True,
    help="Of a Transformer and of attention fusion.",
)
@click.option("--dropout", type=float, default=0.4, show_default=True)
@click.option("--label-smoothing", type=float, default=0.1, show_default=True)
@click.option(
    "--min-count", type=int, default=4, show_default=True, help="Rarer words: unknown."
)
@click.option("--max-sequence-length", type=int, default=20, show_default=True)
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--epochs", type=int, default=15, show_default=True)
@click.option(
    "--patience",
    type=int,
    default=4,
    show_default=True,
    help="End after so many epochs without a better CIDEr.",
)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--weight-decay", type=float, default=0.01, show_default=True)
@click.option(
    "--ema-epochs",
    type=float,
    default=1.0,
    show_default=True,
    help="Epochs that the averaged weights look back; 0: no average.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--cache-dir",
    type=click.Path(),
    help="Where backbone features are kept.  [default: OUTPUT/features]",
)
@click.option("--resume", is_flag=True, help="Go on with the run in OUTPUT.")
def train_command(dataset, output, weights, **options):
    """Train a captioner on DATASET; the best one is kept as OUTPUT/preset.

    DATASET needs a train and a dev split; `captioner datasets show` tells. A run that
    was stopped goes on with the same line and --resume.

    \b
    Examples:
      captioner train scenes run --image-size 128
      captioner train flickr8k:flickr8k run --backbone vgg16
      captioner train photos/captions.csv run
    """
    _import_tensorflow()
    from captioner.train import train

    train(dataset, output, weights=None if weights == "none" else weights, **options)


@main.command("evaluate", epilog=EXIT_CODES)
@click.argument("preset", metavar="PRESET_OR_PREDICTIONS")
@click.argument("dataset")
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test"]),
    help="[default: test where there is one, else dev]",
)
@click.option(
    "--compare-with",
    metavar="PRESET_OR_PREDICTIONS",
    help="Score these too, and say whether the difference is more than chance.",
)
@_sampler_options
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="DIR",
    help="Write report.html, scores.json, and predictions.json and references.json "
    "(COCO formats).",
)
@click.option("--overwrite", is_flag=True, help="Replace these files.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--java-metrics/--no-java-metrics",
    default=True,
    help="METEOR and SPICE, where Java and pycocoevalcap are.  [default: yes]",
)
@click.pass_context
def evaluate_command(
    ctx,
    preset,
    dataset,
    split,
    compare_with,
    output,
    overwrite,
    batch_size,
    java_metrics,
    **sampler_options,
):
    """Score a preset, or captions in a file, on a split of DATASET.

    PREDICTIONS are COCO results (.json), .jsonl, .csv or .tsv, or a folder of .txt
    files, as `captioner caption` writes them, with a caption for each image of the
    split.

    \b
    Examples:
      captioner evaluate run/preset flickr8k:flickr8k
      captioner evaluate run/preset flickr8k:flickr8k --split dev --num-beams 5 -o dev
      captioner evaluate captions.csv flickr8k:flickr8k --split dev
      captioner evaluate run/preset coco:coco --compare-with other/predictions.json
    """
    _import_tensorflow()
    from captioner.evaluate import REPORT_FILE, evaluate

    evaluation = evaluate(
        preset,
        dataset,
        split,
        _sampler(preset, sampler_options),
        output,
        overwrite,
        batch_size,
        compare_with,
        java_metrics,
    )
    click.echo(evaluation)
    if output:
        click.echo(f"report: {os.path.join(output, REPORT_FILE)}", err=True)
    ctx.exit(1 if evaluation.left_out else 0)


@main.command("export", epilog=EXIT_CODES)
@click.argument("preset")
@click.argument("output", type=click.Path())
@_sampler_options
@click.option("--overwrite", is_flag=True, help="Replace a SavedModel that is there.")
def export_command(preset, output, overwrite, **sampler_options):
    """Write PRESET as a SavedModel that takes encoded photos and returns captions.

    \b
    Examples:
      captioner export run/preset exported
      saved_model_cli show --dir exported --all
    """
    _import_tensorflow()
    from captioner.export import export

    path = export(preset, output, _sampler(preset, sampler_options), overwrite)
    click.echo(path)


@main.command("presets")
def presets_command():
    """List the presets that can be named."""
    from captioner import presets

    for folder in presets.list_presets():
        try:
            config = presets.read_json(folder, presets.CONFIG_FILE)
        except presets.PresetError as error:
            click.echo(f"skipped: {_one_line(error)}", err=True)
            continue
        click.echo(f"{folder.name}\t{config.get('class_name')}\t{folder}")


@main.group("datasets")
def datasets_group():
    """Look at a dataset, or download one."""


@datasets_group.command("show")
@click.argument("dataset")
def datasets_show(dataset):
    """What is in DATASET: splits, images, captions, and what was left out.

    \b
    Examples:
      captioner datasets show scenes
      captioner datasets show flickr8k:flickr8k
      captioner datasets show photos/captions.csv
    """
    from captioner.datasets import load_dataset

    click.echo(load_dataset(dataset).summary())


@datasets_group.command("download")
@click.argument("name")
@click.argument("output", type=click.Path())
@click.option("--base-url", help="Take the same archives from elsewhere.")
def datasets_download(name, output, base_url):
    """Download the dataset NAME into OUTPUT; stopped, it goes on where it was.

    \b
    Example:
      captioner datasets download flickr8k flickr8k
    """
    from captioner.datasets import download

    path = download(name, output, base_url)
    click.echo(f"{name}:{path}")
