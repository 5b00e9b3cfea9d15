"""`captioner merge`."""

import click

from captioner.terminal import EXIT_CODES, say


@click.command("merge", epilog=EXIT_CODES)
@click.argument("run_folders", nargs=-1, required=True, metavar="RUN_FOLDER...")
@click.option(
    "--output",
    "-o",
    multiple=True,
    required=True,
    metavar="FILE",
    help="The file to write, as for `caption`. May be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@click.option(
    "--trust-run-folders",
    is_flag=True,
    help="Use run folders of another user or computer. Only for folders whose origin "
    "you trust.",
)
@click.option(
    "--protect-spreadsheets/--no-protect-spreadsheets",
    default=True,
    show_default=True,
    help="Protect .csv outputs, as for `caption`.",
)
@click.pass_context
def merge_command(
    ctx, run_folders, output, overwrite, trust_run_folders, protect_spreadsheets
):
    """Join the shards of a run: write the outputs that one run would have written.

    \b
    Examples:
      captioner merge captions-1-of-2.csv.run captions-2-of-2.csv.run -o captions.csv
      captioner merge captions-*-of-8.csv.run -o captions.parquet -o gallery.html
    """
    from captioner.captioning.merge import merge

    captioned, failed = merge(
        run_folders, output, overwrite, trust_run_folders, protect_spreadsheets
    )
    say(f"{captioned} captioned, {failed} skipped")
    ctx.exit(1 if failed else 0)
