"""`captioner merge`."""

import click

from captioner.terminal import EXIT_CODES


@click.command("merge", epilog=EXIT_CODES)
@click.argument("parts", nargs=-1, required=True, metavar="RUN_FOLDER...")
@click.option(
    "--output",
    "-o",
    multiple=True,
    required=True,
    metavar="FILE",
    help="As for `caption`; may be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.pass_context
def merge_command(ctx, parts, output, overwrite):
    """Join the shards of a run: write what one run would have written.

    \b
    Examples:
      captioner merge captions-1-of-2.csv.run captions-2-of-2.csv.run -o captions.csv
      captioner merge captions-*-of-8.csv.run -o captions.parquet -o gallery.html
    """
    from captioner.captioning.merge import merge

    captioned, failed = merge(parts, output, overwrite)
    click.echo(f"{captioned} captioned, {failed} skipped", err=True)
    ctx.exit(1 if failed else 0)
