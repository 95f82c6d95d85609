"""How fast `score` decides about the rows of a file, compared with the policy alone.

    python benchmarks/score_files.py MODEL_DIR [--rows 1000000] [--rounds 5]

Every round times each pair of formats, of observations and of decisions, on files that are in the
page cache, and right before each pair the policy alone, on the same rows as arrays in memory in
blocks of the same size. TensorFlow's import and the checks of the version are not counted; syncing
the decisions to disk is. The table has the medians of the rounds (least to greatest). Each ratio
compares a pair with the policy just before it, by the clock and by the time of all processors: the
latter says little about duration, but is reliable on a busy machine.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
import orjson

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import median_and_range, table
from serving.policy.artefact import read
from serving.policy.observations import FloatArray
from serving.policy.sampling import uniforms_of
from serving.score.formats import READERS, WRITERS, open_source, open_target
from serving.score.scoring import score_rows
from serving.score.source import BLOCK_ROWS

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

ALONE = "policy alone"
OBJECTS = "objects"  # in the name of a file of JSON Lines


def write_observations(folder: Path, rows: FloatArray, names: list[str]) -> list[Path]:
    """Write the rows in every format that there is; JSON Lines as lists and as objects."""
    paths = [folder / f"rows{suffix}" for suffix in READERS]
    for path in paths:
        if path.suffix == ".npy":
            np.save(path, rows)
        elif path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            columns = np.ascontiguousarray(rows.T)
            pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
        else:
            with path.open("wb") as file:
                if path.suffix == ".csv":
                    file.write(",".join(names).encode() + b"\n")
                for start in range(0, len(rows), BLOCK_ROWS):
                    block = rows[start : start + BLOCK_ROWS]
                    text = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
                    lines = text.replace(b"],[", b"]\n[") + b"\n"
                    if path.suffix == ".csv":
                        lines = lines.replace(b"[", b"").replace(b"]", b"")
                    file.write(lines)
    named = folder / f"{OBJECTS}.jsonl"
    with named.open("wb") as file:
        for line in (folder / "rows.jsonl").open("rb"):
            file.write(orjson.dumps(dict(zip(names, orjson.loads(line), strict=True))) + b"\n")
    return [*paths, named]


class Took(NamedTuple):
    """Seconds."""

    clock: float
    processors: float


def timed(work: Callable[[], object]) -> Took:
    """What a call takes, in all threads of this process."""
    clock, processors = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - clock, time.process_time() - processors)


def decide_alone(policy: "Policy", rows: FloatArray, uniforms: FloatArray) -> None:
    """Have the policy decide about all rows, and nothing else."""
    deterministic = np.zeros(BLOCK_ROWS, np.bool_)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        policy.act(block, uniforms[start : start + BLOCK_ROWS], deterministic[: len(block)])


def score_file(policy: "Policy", source: Path, target: Path) -> None:
    """What `score` does with a loaded policy."""
    with open_target(target) as begin:
        observations = open_source(source, policy.card.observations.names)
        results = begin(len(policy.card.actions.names))
        score_rows(policy, observations, results, 7, deterministic=False, advance=lambda _: None)


@click.command()
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(model_dir: Path, rows: int, rounds: int) -> None:
    """Compare every pair of formats with the policy in MODEL_DIR alone."""
    from serving.policy.tensorflow_import import import_tensorflow

    import_tensorflow()
    from serving.policy.savedmodel import Policy

    policy = Policy(model_dir, read(model_dir), model_dir.parent.name, int(model_dir.name), "")
    low, high = policy.ranges.low, policy.ranges.high
    observations = np.random.default_rng(0).uniform(low, high, (rows, len(low)))
    array = observations.astype(np.float32)
    uniforms = uniforms_of([7], [rows])
    rates: dict[str, list[float]] = {}  # by the clock
    ratios: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = write_observations(Path(folder), array, policy.ranges.names)
        decide_alone(policy, array, uniforms)  # the first call of a shape is slow
        for _ in range(rounds):
            for source, suffix in itertools.product(sources, WRITERS):
                alone = timed(partial(decide_alone, policy, array, uniforms))
                target = Path(folder) / f"decisions{suffix}"
                scored = timed(partial(score_file, policy, source, target))
                kind = " of objects" if source.stem == OBJECTS else ""
                name = f"{source.suffix}{kind} to {suffix}"
                rates.setdefault(ALONE, []).append(rows / alone.clock)
                rates.setdefault(name, []).append(rows / scored.clock)
                ratio = Took(alone.clock / scored.clock, alone.processors / scored.processors)
                ratios.setdefault(name, []).append(ratio)
    lines = [["", "million rows per second", "relative to the policy alone", "by processor time"]]
    for name, values in rates.items():
        millions = median_and_range([value / 1e6 for value in values], 2)
        compared = [median_and_range(kind, 2) for kind in zip(*ratios.get(name, []), strict=True)]
        lines.append([name, millions, *(compared or ["", ""])])
    click.echo(table(lines))


if __name__ == "__main__":
    main()
