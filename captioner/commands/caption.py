"""`captioner caption`."""

import contextlib

import click

from captioner.commands.sampler_flags import chosen, sampler_flags
from captioner.terminal import EXIT_CODES, ctrl_c, import_tensorflow, printable


@click.command("caption", epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--preset", help="Name or folder.  [default: the one that is shipped]")
@click.option(
    "--output", "-o", metavar="FILE", help="Write a .csv or .jsonl, bad files included."
)
@click.option("--sidecars", is_flag=True, help="Write a .txt beside each photo.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@sampler_flags
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
    import_tensorflow()
    from captioner.caption import DEFAULT_PRESET, caption

    preset, sampler = chosen(preset or DEFAULT_PRESET, sampler_options)
    results = caption(
        paths,
        preset,
        output=output,
        sidecars=sidecars,
        overwrite=overwrite,
        sampler=sampler,
        batch_size=batch_size,
    )
    done = failed = 0
    with ctrl_c(at_once=False) as interrupted, contextlib.closing(results):
        for result in results:
            if result.error is None:
                done += 1
                if output is None:
                    click.echo(f"{printable(result.path)}\t{result.caption}")
            else:
                failed += 1
                path = printable(result.path)
                click.echo(f"skipped: {path}: {result.error}", err=True)
            if interrupted:
                break
    if interrupted:
        click.echo(f"interrupted: {done} captioned, {failed} skipped", err=True)
        ctx.exit(130)
    if failed or output or sidecars:
        click.echo(f"{done} captioned, {failed} skipped", err=True)
    ctx.exit(1 if failed else 0)
