"""`python -m captioner` is `captioner`."""

from captioner.cli import main

main(prog_name="captioner")
