"""How many rows a minibatch needs before a second machine pays off.

    python -m benchmarks.scale_gradients

Two machines that share a minibatch save half of its time, but add the time to sum the gradients
(all-reduce), which is measured with TensorFlow's MultiWorkerMirroredStrategy in two processes of
this machine; between machines it is slower. So a second machine pays off once a minibatch takes
more than twice as long as the sum. Both times grow with the number of parameters, but only the
minibatch's grows with its rows: the last column says how many are enough, if its time is
proportional to them.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

import click
import numpy as np

from benchmarks.common import ROOT, free_port, table
from training.learner import Batch, Learner, flatten
from training.model import initialize
from training.presets import PRESETS

WIDTHS = (64, 256, 512, 1_024, 2_048)  # of two hidden layers
OBSERVATION_SIZE = 8
NUM_ACTIONS = 4
REPEATS = 20


def minibatch_seconds(width: int) -> tuple[int, int, float]:
    """Parameters of a network, rows of a minibatch, and the median time to learn from one.

    The config is that of the default preset, except for its two hidden layers of that width.
    """
    config = dataclasses.replace(PRESETS["ppo"], hidden_units=(width, width))
    rng = np.random.default_rng(0)
    weights = initialize(rng, OBSERVATION_SIZE, NUM_ACTIONS, config)
    learner, samples = Learner(config, weights), config.rollout_size
    batch = Batch(
        observations=rng.standard_normal((samples, OBSERVATION_SIZE)).astype(np.float32),
        actions=rng.integers(0, NUM_ACTIONS, samples),
        log_probs=np.full(samples, -np.log(NUM_ACTIONS), np.float32),
        advantages=rng.standard_normal(samples).astype(np.float32),
        returns=rng.standard_normal(samples).astype(np.float32),
        valid=np.ones(samples, np.float32),
    )
    measured = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        learner.update(batch, 1e-3, rng)
        measured.append(time.perf_counter() - began)
    minibatches = config.num_epochs * config.num_minibatches
    seconds = statistics.median(measured[1:]) / minibatches
    return flatten(weights).size, config.minibatch_size, seconds


def all_reduce_seconds(sizes: list[int]) -> list[float]:
    """The median time to sum a vector of each size in two processes."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.scale_gradients", *map(str, sizes)],
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "2"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    measured: list[float] = json.loads(outputs[0])
    return measured


def sum_gradients(sizes: tuple[int, ...]) -> list[float]:
    """One of the two processes."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    medians = []
    for size in sizes:
        gradient = tf.zeros(size)

        def summed(gradient: tf.Tensor = gradient) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, gradient)

        all_reduce = tf.function(lambda summed=summed: strategy.run(summed))
        measured = []
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            all_reduce()
            measured.append(time.perf_counter() - began)
        medians.append(statistics.median(measured[1:]))
    return medians


@click.command()
@click.argument("sizes", type=int, nargs=-1)
def main(sizes: tuple[int, ...]) -> None:
    """Compare the time of a minibatch with that of an all-reduce, by the width of the layers."""
    if sizes:
        click.echo(json.dumps(sum_gradients(sizes)))
        return
    minibatches = [minibatch_seconds(width) for width in WIDTHS]
    sums = all_reduce_seconds([size for size, _, _ in minibatches])
    rows = [["width", "parameters", "rows", "minibatch, ms", "all-reduce, ms", "worth it from"]]
    for width, (size, samples, seconds), summed in zip(WIDTHS, minibatches, sums, strict=True):
        enough = f"{samples * 2 * summed / seconds:,.0f} rows"
        times = [f"{1e3 * seconds:.2f}", f"{1e3 * summed:.2f}"]
        rows.append([str(width), f"{size:,}", str(samples), *times, enough])
    click.echo(table(rows))


if __name__ == "__main__":
    main()
