"""`captioner presets`."""

import click

from captioner.terminal import one_line


@click.command("presets")
def presets_command():
    """List the presets that --preset can name, with their class and folder."""
    from captioner import presets

    for folder in presets.list_presets():
        try:
            config = presets.read_json(folder, presets.CONFIG_FILE)
        except presets.PresetError as error:
            click.echo(f"skipped: {one_line(error)}", err=True)
            continue
        click.echo(f"{folder.name}\t{config.get('class_name')}\t{folder}")
