"""What must hold of Keras' global settings, which a user may have changed.

The library refuses other settings in one line. The command line, whose process is its
own, changes them.
"""

import json
import os
import pathlib
import sys

_own_process = False


def own_process():
    """Say that nobody else uses Keras in this process: its settings may be changed.

    Called before Keras is imported.
    """
    global _own_process
    _own_process = True
    os.environ["KERAS_BACKEND"] = "tensorflow"


def check_backend():
    """Refuse another backend of Keras than TensorFlow; does not import Keras.

    Raises:
        ValueError: there is another one.
    """
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "config"):
        backend = sys.modules["keras"].config.backend()
    else:
        backend = os.environ.get("KERAS_BACKEND") or _of_file().get("backend")
    if backend not in (None, "", "tensorflow"):
        raise ValueError(
            "captioner needs the TensorFlow backend of Keras: set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported. "
            f"Received: {backend}"
        )


def check_settings():
    """Refuse settings that the image networks cannot work with, or change them where
    the process is the command line's own.

    Raises:
        ValueError: Keras is set to channels first, or to other floats than float32.
    """
    import keras

    for name, needed in (("image_data_format", "channels_last"), ("floatx", "float32")):
        found = getattr(keras.config, name)()
        if found == needed:
            continue
        if not _own_process:
            raise ValueError(
                f'captioner needs keras.config.set_{name}("{needed}"). '
                f"Received: {found}"
            )
        getattr(keras.config, f"set_{name}")(needed)


def _of_file():
    """The settings in Keras' own file, where there are some."""
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    try:
        settings = json.loads((home / "keras.json").read_text())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
