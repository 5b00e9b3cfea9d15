"""How other programs are started: with no code from the working folder.

A working folder may be one of downloaded photos. Python would import a `cv2.py` that
lies there, and a search path with an empty entry means the same.
"""

import json
import os
import sys

# A program needs no more of the environment than this, besides the locale.
_PASSED_ON = frozenset(
    "HOME JAVA_HOME LANG LANGUAGE LD_LIBRARY_PATH LOGNAME PATH TMPDIR TZ USER".split()
)
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
# Runs `main` of a module of this package, which is where it is here, with the search
# path of this process.
_START = """
import importlib.util, json, sys
package, path, module, *arguments = sys.argv[1:]
sys.path[:], sys.argv[:] = json.loads(path), [module]
spec = importlib.util.spec_from_file_location(
    "captioner", package + "/__init__.py", submodule_search_locations=[package]
)
sys.modules["captioner"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["captioner"])
importlib.import_module(module).main(*arguments)
"""


def child_environment(**values):
    """The environment for another program.

    Args:
        **values: str, variables that it gets besides.

    Returns:
        dict of str to str. Its search paths hold neither the working folder nor
        relative folders.

    Example:

    >>> import subprocess
    >>> done = subprocess.run(["java", "-version"], env=child_environment())
    """
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith("LC_")
    }
    for name in ("PATH", "LD_LIBRARY_PATH"):
        if name in passed:
            passed[name] = os.pathsep.join(trusted(passed[name].split(os.pathsep)))
            if not passed[name]:  # which would mean the working folder
                del passed[name]
    return {**passed, **values}


def python_command(module, *arguments):
    """The command that runs `main(*arguments)` of a module of this package.

    It imports what this process would, except from the working folder.

    Args:
        module: its dotted name.
        *arguments: str.

    Returns:
        list of str, for `subprocess.Popen`; its `env` should be `child_environment()`.
    """
    path = json.dumps(trusted(sys.path))
    # -I: it looks neither at the working folder nor at variables of the environment.
    isolated = ["-I", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _START]
    return [sys.executable, *isolated, _PACKAGE, path, module, *arguments]


def trusted(folders):
    """Those of a search path that are absolute and not the working folder."""
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it was removed
        here = None
    return [
        folder
        for folder in folders
        if os.path.isabs(folder) and os.path.realpath(folder) != here
    ]
