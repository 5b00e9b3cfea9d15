"""`captioner presets`."""

import click

from captioner.terminal import one_line, printable, say


@click.command("presets")
def presets_command():
    """List the presets that --preset can name, with their class and folder."""
    from captioner import presets

    for folder in presets.list_presets():
        try:
            config = presets.read_json(folder, presets.CONFIG_FILE)
        except presets.PresetError as error:
            say(f"skipped: {one_line(error)}")
            continue
        row = folder.name, str(config.get("class_name")), str(folder)
        click.echo("\t".join(map(printable, row)))
