"""One process of a distributed run, for `test_distribution.py`.

python train_distributed.py DEVICES OUTPUT CACHE NAME=VALUE...
"""

import json
import sys

import tensorflow as tf

devices, output, cache_dir, *settings = sys.argv[1:]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices)
)

import captioner  # noqa: E402

arguments = {name: json.loads(v) for name, _, v in (s.partition("=") for s in settings)}
try:
    captioner.train("scenes:64", output, cache_dir=cache_dir, **arguments)
except ValueError as error:
    sys.exit(f"{type(error).__name__}: {error}")
