"""The devices that `train` runs on: one, several, several machines, or a TPU."""

import json
import os

import tensorflow as tf

DISTRIBUTIONS = ("mirrored", "multiworker", "tpu")


class Distribution:
    """A `tf.distribute` strategy, and this process's part in it.

    Make it before TensorFlow does anything else: several machines find each other
    when it starts up.

    Args:
        name: None for one device; "mirrored" for all GPUs of this machine (or, where
            there are none, its logical CPU devices); "multiworker" for the machines
            that `TF_CONFIG` lists, each of which runs the same command; "tpu" for the
            TPU that `TPU_NAME` names, or that is attached.

    Attributes:
        strategy: `tf.distribute.Strategy`.
        replicas: total number of devices.
        workers, worker: number of processes, and the number of this one, from 0.
        is_chief: whether this process writes the files.

    Raises:
        ValueError: unknown `name`, or this machine has no such devices.

    Example:

    >>> Distribution().replicas
    1
    """

    def __init__(self, name=None):
        if name is not None and name not in DISTRIBUTIONS:
            raise ValueError(
                f"distribute must be one of {', '.join(DISTRIBUTIONS)}. "
                f"Received: distribute={name}"
            )
        self.name, self.workers, self.worker = name, 1, 0
        self.strategy = tf.distribute.get_strategy()
        if name == "mirrored":
            devices = tf.config.list_logical_devices("GPU")
            devices = devices or tf.config.list_logical_devices("CPU")
            self.strategy = tf.distribute.MirroredStrategy([d.name for d in devices])
        elif name == "multiworker":
            self.workers, self.worker = _workers()
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        elif name == "tpu":
            self.strategy = _tpu_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.is_chief = self.worker == 0

    def batches(self, dataset):
        """Distribute a dataset of this worker's batches, which come one for each of its
        replicas in turn, as `strategy.run` takes them."""
        return self.strategy.distribute_datasets_from_function(lambda _: dataset)

    def first(self, values):
        """The values of this worker's first replica that `strategy.run` returned."""
        return tf.nest.map_structure(
            lambda x: self.strategy.experimental_local_results(x)[0], values
        )

    def from_chief(self, value):
        """Get the chief's value, a float, on every worker; all workers wait here."""
        if self.workers == 1:
            return value
        shares = self.replicas // self.workers
        mine = tf.constant(value / shares if self.is_chief else 0.0, tf.float64)

        def total(x):
            context = tf.distribute.get_replica_context()
            # A tensor of this device: what comes from outside is of none.
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(x))

        run = tf.function(lambda x: self.strategy.run(total, args=(x,)))
        return float(self.first(run(mine)))


def _workers():
    """How many processes `TF_CONFIG` lists, and which of them this is."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        chiefs = len(cluster.get("chief", []))
        workers = chiefs + len(cluster["worker"])
        first = 0 if task["type"] == "chief" else chiefs
        worker = first + int(task["index"])
        if task["type"] not in ("chief", "worker") or not 0 <= worker < workers:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            "distribute=multiworker needs TF_CONFIG in the environment of each worker, "
            'as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": '
            f'"worker", "index": 0}}}}; on one machine use distribute=mirrored. '
            f"Received: TF_CONFIG={text}"
        ) from None
    return workers, worker


def _tpu_strategy():
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"There is no TPU ({str(error).splitlines()[0]}); TPU_NAME names one. "
            "Received: distribute=tpu"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
