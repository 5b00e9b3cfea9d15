"""`captioner export`."""

import click

from captioner.commands.sampler_flags import preset_and_sampler, sampler_flags
from captioner.terminal import EXIT_CODES, import_tensorflow, printable


@click.command("export", epilog=EXIT_CODES)
@click.argument("preset")
@click.argument("output", type=click.Path())
@sampler_flags
@click.option("--overwrite", is_flag=True, help="Replace an existing SavedModel.")
def export_command(preset, output, overwrite, **sampler_options):
    """Write PRESET as a SavedModel that takes encoded photos and returns captions.

    \b
    Examples:
      captioner export run/preset exported
      saved_model_cli show --dir exported --all
    """
    import_tensorflow()
    from captioner.exporting.export import export

    preset, sampler = preset_and_sampler(preset, sampler_options)
    path = export(preset, output, sampler, overwrite)
    click.echo(printable(str(path)))
