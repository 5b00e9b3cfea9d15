"""Captions batches on the machines of a Ray cluster, with `captioner[ray]`.

Ray Data streams the batches through a pool of actors, each with a model of its own and
its decoding processes; it hands the batches of a lost actor to another. Batches are
those of a run on one machine and come back in the same order, and so are the captions.
All machines must see the photos, and the preset, under the same paths.
"""

import contextlib
import dataclasses
import logging
import os
import pickle

from captioner.captioning.engine import LocalEngine
from captioner.processes import trusted

MAX_BYTES_HELD = 2**31
BATCHES_A_BLOCK = 16  # at most: what is done again when an actor is lost


class RayEngine:
    """As `LocalEngine`, on a Ray cluster: the one at `$RAY_ADDRESS`, the one that is
    running on this machine, or a new one that is started here.

    Raises:
        ValueError: Ray is not installed.
    """

    def __init__(self, load, options):
        ray = self._ray = import_ray()
        self._load, self._options = load, options
        self._started = not ray.is_initialized()
        if self._started:
            job = ray.job_config.JobConfig()
            job._py_driver_sys_path = _SearchPath()
            with _trusted_python_path():
                ray.init(log_to_driver=False, logging_level="ERROR", job_config=job)
        logging.getLogger("ray.data").setLevel("ERROR")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True

    def run(self, batches):
        """As `LocalEngine.run`. All batches are known before the first is captioned:
        the names of the photos are held in memory, though not the photos; only those of
        compressed tars, which cannot be read from another machine.

        Raises:
            ValueError: these have more than `MAX_BYTES_HELD`.
        """
        waiting, rows, held = [], [], 0
        for batch in batches:
            if batch:
                held += sum(each.photo.num_bytes_held for each in batch)
                if held > MAX_BYTES_HELD:
                    raise ValueError(
                        "The photos in compressed tar archives need more than "
                        f"{MAX_BYTES_HELD:,} bytes of memory with engine=ray. "
                        "Uncompress the archives first."
                    )
                there = [
                    dataclasses.replace(each, photo=_anywhere(each.photo))
                    for each in batch
                ]
                rows.append({"index": len(rows), "batch": pickle.dumps(there)})
                waiting.append(batch)
            else:
                yield [], []
        if not rows:
            return
        resources = self._ray.cluster_resources()
        cpus = min(self._options.workers, int(resources.get("CPU", 1)))
        actors = max(1, int(resources.get("CPU", 1)) // cpus)
        gpus = int(resources.get("GPU", 0))
        if gpus:
            actors = min(actors, gpus)
        blocks = max(len(rows) // BATCHES_A_BLOCK, 4 * actors)
        captioned = self._ray.data.from_items(
            rows, override_num_blocks=min(len(rows), blocks)
        ).map_batches(
            _ModelActor,
            fn_constructor_args=(self._load, self._options),
            batch_size=1,
            batch_format="numpy",
            concurrency=(1, actors),
            num_cpus=cpus,
            num_gpus=min(1, gpus),
        )
        for row in captioned.iter_rows():
            yield waiting[row["index"]], pickle.loads(row["outcomes"])

    def close(self):
        """Leave the cluster; a cluster that was started here ends."""
        if self._started:
            self._ray.shutdown()


class _SearchPath(list):
    """Where processes of the cluster look for modules. Ray adds the working folder,
    which may be one of downloaded photos, and that of the script."""

    def extend(self, folders):
        super().extend(trusted(folders))


@contextlib.contextmanager
def _trusted_python_path():
    """PYTHONPATH, which processes of the cluster inherit, without the working folder
    (except for the checkout that this module is from)."""
    before = os.environ.get("PYTHONPATH")
    package = os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    )
    try:
        if before is not None:
            folders = before.split(os.pathsep)
            kept = {*trusted(folders), package}
            folders = [folder for folder in folders if folder in kept]
            os.environ["PYTHONPATH"] = os.pathsep.join(folders)
        yield
    finally:
        if before is not None:
            os.environ["PYTHONPATH"] = before


def import_ray():
    """Import Ray; one line says how to install it where it is missing.

    Raises:
        ValueError: Ray is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ValueError("Ray is missing: pip install captioner[ray]") from error
    return ray


class _ModelActor:
    """One copy of the model, in a process of the cluster."""

    def __init__(self, load, options):
        self._engine = LocalEngine(load, options)

    def __call__(self, rows):
        outcomes = []
        for batch in rows["batch"]:
            for _, found in self._engine.run([pickle.loads(batch)]):
                outcomes.append(pickle.dumps(found))
        return {"index": rows["index"], "outcomes": outcomes}

    def __del__(self):
        self._engine.close()


def _anywhere(photo):
    """The photo, to be read by a process that is elsewhere."""
    return dataclasses.replace(photo, path=os.path.abspath(photo.path))
