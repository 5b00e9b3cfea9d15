"""The commands of the command line, one file each.

Each is one function of the Python API. Nothing here imports TensorFlow before a command
runs: `--help` answers at once.
"""

from captioner.commands.caption import caption_command
from captioner.commands.datasets import datasets_group
from captioner.commands.evaluate import evaluate_command
from captioner.commands.export import export_command
from captioner.commands.merge import merge_command
from captioner.commands.presets import presets_command
from captioner.commands.train import train_command

COMMANDS = (
    caption_command,
    merge_command,
    train_command,
    evaluate_command,
    export_command,
    presets_command,
    datasets_group,
)
