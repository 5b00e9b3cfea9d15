"""Runs over folders without a model: all but the engine is what users have.

`run` captions a folder with an engine that needs no TensorFlow. Its captions depend on
the content of the photo alone.
"""

import contextlib
import time
from pathlib import Path

import captioner.captioning.caption as module
from captioner.captioning.engine import Captioned
from captioner.images.image_files import ImageError


def caption_of(data):
    """The caption of a photo with these bytes."""
    return f"a caption of {data.decode()}"


class StandIn:
    """An engine that keeps a list of what it did, in `done.log` where it runs."""

    seconds = 0.0  # that a batch takes

    def __init__(self, *arguments, **options):
        pass

    def run(self, batches):
        for batch in batches:
            outcomes = []
            for each in batch:
                data = each.photo.read()
                if data.startswith(b"bad"):
                    error = ImageError(each.photo.name, "truncated", "it is bad")
                    outcomes.append(error)
                else:
                    captions = [[caption_of(data), -1.0]]
                    outcomes.append(Captioned(captions, data[:16], data))
                with open("done.log", "a") as log:
                    log.write(each.photo.name + "\n")
            time.sleep(self.seconds)
            yield batch, outcomes

    def close(self):
        pass


@contextlib.contextmanager
def stand_in_engine():
    """`caption` uses `StandIn`."""
    engine, module.LocalEngine = module.LocalEngine, StandIn
    try:
        yield
    finally:
        module.LocalEngine = engine


def make_preset():
    """A folder that is a preset for those who do not load it."""
    preset = Path("stand_in_preset")
    preset.mkdir(exist_ok=True)
    (preset / "config.json").write_text("{}")
    return preset


def run(paths="photos", output=("captions.csv",), **arguments):
    """Caption with the stand-in, in the working folder; all results."""
    arguments = {"progress": "none", "batch_size": 3, **arguments}
    with stand_in_engine():
        return list(module.caption(paths, make_preset(), output, **arguments))
