"""`captioner caption`."""

import collections
import contextlib
import json
from pathlib import Path

import click

from captioner.commands.sampler_flags import preset_and_sampler, sampler_flags
from captioner.terminal import EXIT_CODES, ctrl_c, printable, say

_folder = click.Path(file_okay=False)


class _Shard(click.ParamType):
    name = "I/N"

    def convert(self, value, param, ctx):
        try:
            number, count = (int(part) for part in value.split("/"))
        except ValueError:
            number = count = 0
        if not 1 <= number <= count:
            self.fail(f"{value!r} is not I/N with 1 <= I <= N.", param, ctx)
        return number, count


@click.command("caption", epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--files-from",
    metavar="FILE",
    help="Read more paths from a file, one per line or as `find -print0` writes them; "
    "- is standard input.",
)
@click.option(
    "--yes",
    "trust_list",
    is_flag=True,
    help="Allow a list to name a folder that contains the working folder, such as / "
    "or ..",
)
@click.option(
    "--preset", help="Name or folder of a preset.  [default: the shipped preset]"
)
@click.option(
    "--output",
    "-o",
    multiple=True,
    metavar="FILE",
    help="Write all captions to a file: .csv, .jsonl, .parquet, .json (COCO results) "
    "or .html (a gallery). May be repeated.",
)
@click.option("--sidecars", is_flag=True, help="Write a .txt file beside each photo.")
@click.option(
    "--sidecar-suffix",
    default=".txt",
    show_default=True,
    help="The suffix of those files, such as .caption.",
)
@click.option("--xmp", is_flag=True, help="Write an .xmp file beside each photo.")
@click.option(
    "--xmp-name",
    type=click.Choice(["photo.xmp", "photo.jpg.xmp"]),
    default="photo.xmp",
    show_default=True,
    help="How to name new XMP files: for Lightroom, or for digiKam and darktable.",
)
@click.option(
    "--sidecar-folder",
    type=_folder,
    help="Write .txt and .xmp files into this folder, under the photos' relative "
    "paths.",
)
@click.option(
    "--copies",
    type=_folder,
    help="Copy the photos into this folder, with the caption in their metadata.",
)
@click.option(
    "--existing",
    type=click.Choice(["skip", "overwrite", "append", "prepend"]),
    default="skip",
    show_default=True,
    help="What to do with existing captions.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what would be done, and do nothing."
)
@click.option(
    "--run-folder",
    type=_folder,
    help="The folder for the journal, errors.csv and run.json.  "
    "[default: OUTPUT.run, or .captioner in the first folder]",
)
@click.option(
    "--trust-run-folder",
    is_flag=True,
    help="Use a run folder of another user or computer, or of captioner 0.1.0. Only "
    "for folders whose origin you trust.",
)
@click.option(
    "--protect-spreadsheets/--no-protect-spreadsheets",
    default=True,
    show_default=True,
    help="Put an apostrophe before texts that a spreadsheet program would run as "
    "formulas, in .csv outputs.",
)
@sampler_flags
@click.option(
    "--num-captions",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Captions per photo, the best first.",
)
@click.option("--text-prefix", default="", help="Text to write before each caption.")
@click.option("--text-suffix", default="", help="Text to write after each caption.")
@click.option(
    "--trigger-word", default="", help="Word to write first, followed by a comma."
)
@click.option(
    "--case",
    type=click.Choice(["keep", "lower", "upper", "sentence", "title"]),
    default="keep",
    show_default=True,
    help="Case of the captions; sentence is one capital letter at the beginning.",
)
@click.option(
    "--final-dot",
    type=click.Choice(["keep", "add", "remove"]),
    default="keep",
    show_default=True,
    help="What to do with a dot at the end of captions.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Photos per batch.  [default: 8]"
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Decoding processes.  [default: one per core]",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds that decoding one photo may take.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=178_956_970,
    show_default=True,
    help="Refuse a photo with more pixels than this.",
)
@click.option(
    "--shard",
    type=_Shard(),
    help="Caption only the I-th of N parts; `merge` joins them.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to run the model: this machine, or a Ray cluster.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print everything as JSON, one object per line.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only what went wrong.")
@click.pass_context
def caption_command(
    ctx,
    paths,
    files_from,
    trust_list,
    preset,
    output,
    sidecars,
    sidecar_suffix,
    xmp,
    xmp_name,
    sidecar_folder,
    copies,
    existing,
    dry_run,
    run_folder,
    trust_run_folder,
    protect_spreadsheets,
    num_captions,
    text_prefix,
    text_suffix,
    trigger_word,
    case,
    final_dot,
    batch_size,
    workers,
    time_limit,
    max_pixels,
    shard,
    engine,
    as_json,
    quiet,
    **sampler_options,
):
    """Caption photos: files, folders, globs, zip and tar archives.

    Without any option for files it prints a line per photo, "path<TAB>caption". A photo
    that cannot be read is reported and skipped. No existing file is overwritten unless
    --existing allows it.

    To continue a run that was stopped, give the same command again. After a run has
    finished, the same command captions only new and changed photos.

    \b
    Examples:
      captioner caption photo.jpg
      captioner caption photos/ -o captions.csv
      captioner caption photos/ -o captions.parquet -o gallery.html
      captioner caption photos/ --sidecars --preset run/preset
      captioner caption photos/ --sidecars --trigger-word sks --existing append
      captioner caption photos/ --sidecars --existing overwrite --dry-run
      captioner caption shards-0001.tar photos.zip -o captions.jsonl
      captioner caption --files-from list.txt -o captions.csv --json
      captioner caption photos/ --copies captioned/
      captioner caption photos/ -o captions.csv --shard 2/8
      captioner caption photos/ --num-beams 5 --bad-ending a --bad-ending "of the"
      captioner caption photos/ --sampler random --top-p 0.9 --num-captions 3
    """
    if not paths and files_from is None:
        raise click.UsageError("Missing a PATH or --files-from.")

    from captioner.captioning.caption import DEFAULT_PRESET, caption
    from captioner.captioning.outputs import shard_path
    from captioner.captioning.style import CaptionStyle

    preset, sampler = preset_and_sampler(preset or DEFAULT_PRESET, sampler_options)
    results = caption(
        paths,
        preset,
        output,
        files_from=files_from,
        trust_list=trust_list,
        sidecars=sidecars,
        sidecar_suffix=sidecar_suffix,
        xmp=xmp,
        xmp_name=xmp_name,
        sidecar_folder=sidecar_folder,
        copies=copies,
        existing=existing,
        dry_run=dry_run,
        run_folder=run_folder,
        trust_run_folder=trust_run_folder,
        protect_spreadsheets=protect_spreadsheets,
        sampler=sampler,
        num_captions=num_captions,
        style=CaptionStyle(text_prefix, text_suffix, trigger_word, case, final_dot),
        batch_size=batch_size,
        workers=workers,
        time_limit=time_limit,
        max_pixels=max_pixels,
        shard=shard,
        engine=engine,
        progress="none" if quiet else "json" if as_json else "auto",
    )
    to_files = bool(output or sidecars or xmp or copies) and not dry_run
    printer = _Printer(as_json, quiet, to_files, num_captions)
    with ctrl_c(at_once=False) as interrupted, contextlib.closing(results):
        for result in results:
            printer.print_result(result)
            if interrupted:
                break
    paths = [] if dry_run else [shard_path(Path(each), shard) for each in output]
    printer.print_summary(bool(interrupted), paths)
    if interrupted:
        ctx.exit(130)
    ctx.exit(1 if printer.counts["failed"] else 0)


class _Printer:
    """Prints the result of each photo, as lines of text or as JSON."""

    def __init__(self, as_json, quiet, to_files, num_captions):
        self.as_json, self.quiet, self.to_files = as_json, quiet, to_files
        self.num_captions = num_captions
        self.counts = collections.Counter()

    def print_result(self, result):
        what = "failed" if result.error else result.kind or "captioned"
        self.counts[what] += 1
        path = printable(result.path)
        if self.as_json:
            if result.error or not (self.quiet and self.to_files):
                from captioner.captioning.writers.tables import as_json

                click.echo(json.dumps(as_json(result, self.num_captions)))
        elif result.error:
            say(f"skipped: {path}: {printable(result.error)}")
        elif not self.to_files:
            words = [what.replace("_", " ")] if what in ("to_caption", "done") else []
            texts = result.captions or [result.caption] * (not words)
            click.echo("\t".join([path, *words, *map(_on_one_line, texts)]))

    def print_summary(self, interrupted, outputs):
        counts = self.counts
        if self.as_json:
            event = "interrupted" if interrupted else "finished"
            found = {} if interrupted else {"outputs": [str(each) for each in outputs]}
            say(json.dumps({"event": event, **counts, **found}))
        elif interrupted or counts["failed"] or self.to_files:
            text = f"{counts['captioned']} captioned, {counts['failed']} skipped"
            if counts["kept"]:
                text += f", {counts['kept']} kept"
            if not interrupted and not self.quiet:
                for output in outputs:
                    say(f"wrote {printable(str(output))}")
            if interrupted or not self.quiet:
                say("interrupted: " * interrupted + text)


def _on_one_line(text):
    return printable(" ".join(text.split()))
