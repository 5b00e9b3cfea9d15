"""`python -m captioner` is `captioner`."""

import os
import sys

# Python puts the working folder first. It may be one of downloaded photos, so nothing
# is imported from there, unless it is the checkout where this file is.
if not sys.flags.safe_path:  # with -P Python does not put it there
    if os.path.realpath(sys.path[0]) != os.path.realpath(f"{__file__}/../.."):
        del sys.path[0]

from captioner.cli import main  # noqa: E402

main(prog_name="captioner")
