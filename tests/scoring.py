"""Files of observations, and what `score` makes of them, for tests."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from serving.score.formats import open_source, open_target
from serving.score.scoring import Scored, score_rows
from tests.conftest import Service
from tests.decision_logs import post

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

NAMES = ["cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity"]
FORMATS = [".csv", ".jsonl", ".npy", ".parquet"]
Array = npt.NDArray[np.float32]


def observations(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-0.2, 0.2, (rows, 4)).astype(np.float32)


def write(path: Path, rows: Array, names: Sequence[str] = NAMES) -> Path:
    """Write rows in the format of a path, with the columns in the order of the names."""
    columns = rows[:, [NAMES.index(name) for name in names]]
    if path.suffix == ".npy":
        np.save(path, columns)
    elif path.suffix == ".parquet":
        arrays = {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(names)}
        pq.write_table(pa.table(arrays), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *columns.tolist()])
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in columns.tolist()))
    return path


def read(path: Path) -> dict[str, Any]:
    """Results by the names of the service's answer, with float32 as it was computed."""
    if path.suffix in (".npy", ".jsonl"):
        if path.suffix == ".npy":
            array = np.load(path)
            fields = {name: array[name] for name in array.dtype.names}
        else:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            fields = {name: np.array([line[name] for line in lines]) for name in lines[0]}
        logits, probabilities = fields["action_logits"], fields["action_probabilities"]
    else:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            fields = {name: table[name].to_numpy() for name in table.column_names}
        else:
            with path.open(newline="") as file:
                head, *rows = list(csv.reader(file))
            array = np.array(rows)
            fields = {name: array[:, index] for index, name in enumerate(head)}
        logits, probabilities = (
            np.column_stack([fields[f"action_{what}_0"], fields[f"action_{what}_1"]])
            for what in ("logit", "probability")
        )
    return {
        "actions": fields["action"].astype(np.int64),
        "action_logits": logits.astype(np.float32),
        "action_probabilities": probabilities.astype(np.float32),
        "log_probabilities": fields["log_probability"].astype(np.float32),
        "state_values": fields["state_value"].astype(np.float32),
    }


def score(
    policy: "Policy", source: Path, target: Path, seed: int = 7, *, deterministic: bool = False
) -> Scored:
    """What the command does, with a policy that is loaded already."""
    with open_target(target) as begin:
        rows = open_source(source, policy.card.observations.names)
        results = begin(len(policy.card.actions.names))
        return score_rows(
            policy, rows, results, seed, deterministic=deterministic, advance=lambda _: None
        )


def answer(service: Service, rows: Any, **body: Any) -> dict[str, Any]:
    """What `/act` answers about all rows in one request, as arrays."""
    given = post(f"{service.url}/act", {"observations": rows.tolist(), **body})
    return {
        name: np.array(given[name], np.int64 if name == "actions" else np.float32)
        for name in given
        if name not in ("seed", "model", "warnings")
    }


def expect_equal(scored: dict[str, Any], answered: dict[str, Any]) -> None:
    assert scored.keys() == answered.keys()
    for name, array in answered.items():
        np.testing.assert_array_equal(scored[name], array, err_msg=name, strict=True)
