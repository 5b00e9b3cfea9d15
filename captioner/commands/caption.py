"""`captioner caption`."""

import collections
import contextlib
import json

import click

from captioner.commands.sampler_flags import chosen, sampler_flags
from captioner.terminal import EXIT_CODES, ctrl_c, printable

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
    help="A list of more paths, a line each or as `find -print0` writes; - is stdin.",
)
@click.option("--preset", help="Name or folder.  [default: the one that is shipped]")
@click.option(
    "--output",
    "-o",
    multiple=True,
    metavar="FILE",
    help="Write all captions: .csv, .jsonl, .parquet, .json (COCO results), .html "
    "(a gallery); may be repeated.",
)
@click.option("--sidecars", is_flag=True, help="Write a .txt beside each photo.")
@click.option(
    "--sidecar-suffix", default=".txt", show_default=True, help="As .caption."
)
@click.option("--xmp", is_flag=True, help="Write an .xmp beside each photo.")
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
    help="Where .txt and .xmp go instead, under the photos' relative paths.",
)
@click.option(
    "--copies",
    type=_folder,
    help="Copy photos to here, with the caption in their metadata.",
)
@click.option(
    "--existing",
    type=click.Choice(["skip", "overwrite", "append", "prepend"]),
    default="skip",
    show_default=True,
    help="What becomes of captions that are there.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--run-folder",
    type=_folder,
    help="Where a run keeps its journal, errors.csv and run.json.  "
    "[default: OUTPUT.run, or .captioner in the first folder]",
)
@sampler_flags
@click.option(
    "--num-captions",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of each photo, the best first.",
)
@click.option("--text-prefix", default="", help="Written before each caption.")
@click.option("--text-suffix", default="", help="Written after each caption.")
@click.option("--trigger-word", default="", help="Written first, with a comma.")
@click.option(
    "--case",
    type=click.Choice(["keep", "lower", "upper", "sentence", "title"]),
    default="keep",
    show_default=True,
)
@click.option(
    "--final-dot",
    type=click.Choice(["keep", "add", "remove"]),
    default="keep",
    show_default=True,
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Photos at a time.  [default: fast]"
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that decode.  [default: one a core]",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds for decoding one photo.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=178_956_970,
    show_default=True,
    help="A picture with more is not decoded.",
)
@click.option(
    "--shard", type=_Shard(), help="Only the I-th of N parts; `merge` joins them."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: the machines of a Ray cluster.",
)
@click.option("--json", "as_json", is_flag=True, help="Say everything in JSON lines.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but what went wrong.")
@click.pass_context
def caption_command(
    ctx,
    paths,
    files_from,
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

    Writes a line for each photo, "path<TAB>caption", to the terminal unless files are
    asked for. A photo that cannot be read is reported and skipped. Nothing that exists
    is overwritten unless --existing says so.

    A run that was stopped, in whatever way, goes on when the same command is given
    again. When all is done, the same command captions what is new or has changed.

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
        raise click.UsageError("Give a PATH or --files-from.")

    from captioner.captioning.caption import DEFAULT_PRESET, caption
    from captioner.captioning.style import CaptionStyle

    preset, sampler = chosen(preset or DEFAULT_PRESET, sampler_options)
    results = caption(
        paths,
        preset,
        output,
        files_from=files_from,
        sidecars=sidecars,
        sidecar_suffix=sidecar_suffix,
        xmp=xmp,
        xmp_name=xmp_name,
        sidecar_folder=sidecar_folder,
        copies=copies,
        existing=existing,
        dry_run=dry_run,
        run_folder=run_folder,
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
    teller = _Teller(as_json, quiet, to_files, num_captions)
    with ctrl_c(at_once=False) as interrupted, contextlib.closing(results):
        for result in results:
            teller.tell(result)
            if interrupted:
                break
    teller.sum_up(bool(interrupted))
    if interrupted:
        ctx.exit(130)
    ctx.exit(1 if teller.counts["failed"] else 0)


class _Teller:
    """Says what becomes of photos, for people or for machines."""

    def __init__(self, as_json, quiet, to_files, num_captions):
        self.as_json, self.quiet, self.to_files = as_json, quiet, to_files
        self.num_captions = num_captions
        self.counts = collections.Counter()

    def tell(self, result):
        what = "failed" if result.error else result.kind or "captioned"
        self.counts[what] += 1
        path = printable(result.path)
        if self.as_json:
            if result.error or not (self.quiet and self.to_files):
                from captioner.captioning.writers.tables import as_json

                click.echo(json.dumps(as_json(result, self.num_captions)))
        elif result.error:
            click.echo(f"skipped: {path}: {result.error}", err=True)
        elif not self.to_files:
            words = [what.replace("_", " ")] if what in ("to_caption", "done") else []
            texts = result.captions or [result.caption] * (not words)
            click.echo("\t".join([path, *words, *map(_on_one_line, texts)]))

    def sum_up(self, interrupted):
        counts = self.counts
        if self.as_json:
            event = "interrupted" if interrupted else "finished"
            click.echo(json.dumps({"event": event, **counts}), err=True)
        elif interrupted or counts["failed"] or self.to_files:
            text = f"{counts['captioned']} captioned, {counts['failed']} skipped"
            if counts["kept"]:
                text += f", {counts['kept']} kept"
            if interrupted or not self.quiet:
                click.echo("interrupted: " * interrupted + text, err=True)


def _on_one_line(text):
    text = " ".join(text.split())
    return text.encode("utf-8", "backslashreplace").decode()  # as of a Latin-1 file
