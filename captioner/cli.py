"""The command line: `captioner`."""

import sqlite3

import click

from captioner.commands import COMMANDS
from captioner.keras_settings import own_process
from captioner.terminal import (
    EXIT_CODES,
    ctrl_c,
    one_line,
    open_standard_streams,
    printable,
    say,
)


class _Group(click.Group):
    """Turns a user's mistake into one line instead of a traceback."""

    def main(self, *args, **kwargs):
        open_standard_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx):
        own_process()
        try:
            with ctrl_c():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted")
            ctx.exit(130)
        except BrokenPipeError:
            raise  # `captioner caption photos | head`: click ends quietly
        except click.ClickException as error:
            # It may repeat arguments, which a glob takes from the names of files.
            text = printable(error.format_message())
            error.format_message = lambda: text
            raise
        # SQLite has its own error for a full disk.
        except (ValueError, OSError, sqlite3.Error) as error:
            message = click.ClickException(one_line(error))
            message.exit_code = 2
            raise message from error


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


for command in COMMANDS:
    main.add_command(command)
