"""Decisions as files: what `POST /act` answers, row by row."""

from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from serving.policy.columns import encode
from serving.policy.outputs import PolicyOutputs

_ROW_GROUP_BLOCKS = 8  # per Parquet row group: the unit of skipping and compression


class Results(Protocol):
    """A file of decisions that is being written."""

    def add(self, outputs: PolicyOutputs) -> None:
        """Write the decisions about the next rows."""

    def finish(self) -> None:
        """Write what is left; the file remains open."""


def column_names(actions: int) -> list[str]:
    """The columns of CSV and Parquet, for a policy with this number of actions."""
    return [
        "action",
        *(f"action_logit_{action}" for action in range(actions)),
        *(f"action_probability_{action}" for action in range(actions)),
        "log_probability",
        "state_value",
    ]


def _numbers(outputs: PolicyOutputs) -> npt.NDArray[np.float32]:
    """All columns except the action, `[B, 2 * A + 2]`, in the order of `column_names`."""
    return np.column_stack(
        [
            outputs.action_logits,
            outputs.action_probabilities,
            outputs.log_probabilities,
            outputs.state_values,
        ]
    )


class TextResults:
    """Results as lines; float32 is in its shortest form, as in the service's answers."""

    def __init__(self, file: BinaryIO, head: bytes, encode_rows: Callable[[Any], bytes]) -> None:
        self._file, self._encode = file, encode_rows
        file.write(head)

    def add(self, outputs: PolicyOutputs) -> None:
        """Write the decisions about the next rows."""
        self._file.write(self._encode(outputs))

    def finish(self) -> None:
        """Nothing is left to write."""


def write_csv(file: BinaryIO, actions: int) -> Results:
    """A line of names, then a line for each row."""
    return TextResults(file, ",".join(column_names(actions)).encode() + b"\n", _csv_lines)


def write_json_lines(file: BinaryIO, actions: int) -> Results:
    """An object on each line."""
    logits = b",".join([b"%b"] * actions)
    template = (
        b'{"action":%%b,"action_logits":[%b],"action_probabilities":[%b],'
        b'"log_probability":%%b,"state_value":%%b}\n' % (logits, logits)
    )

    def json_lines(outputs: PolicyOutputs) -> bytes:
        numbers = _numbers(outputs)
        values = iter(encode(numbers.ravel())[1:-1].split(b","))
        rows = zip(_actions(outputs), *[values] * numbers.shape[1], strict=True)
        return b"".join(map(template.__mod__, rows))

    return TextResults(file, b"", json_lines)


def _csv_lines(outputs: PolicyOutputs) -> bytes:
    rows = encode(_numbers(outputs))[2:-2].split(b"],[")
    return b"\n".join([*map(b",".join, zip(_actions(outputs), rows, strict=True)), b""])


def _actions(outputs: PolicyOutputs) -> list[bytes]:
    return encode(outputs.actions)[1:-1].split(b",")


class NpyResults:
    """One array with a field for each output of a row."""

    def __init__(self, file: BinaryIO, actions: int) -> None:
        self._file = file
        self._dtype = np.dtype(
            [
                ("action", "<i8"),
                ("action_logits", "<f4", (actions,)),
                ("action_probabilities", "<f4", (actions,)),
                ("log_probability", "<f4"),
                ("state_value", "<f4"),
            ]
        )
        self._rows = 0
        self._write_head()

    def add(self, outputs: PolicyOutputs) -> None:
        """Write the decisions about the next rows."""
        rows = np.empty(len(outputs.actions), self._dtype)
        rows["action"] = outputs.actions
        rows["action_logits"] = outputs.action_logits
        rows["action_probabilities"] = outputs.action_probabilities
        rows["log_probability"] = outputs.log_probabilities
        rows["state_value"] = outputs.state_values
        self._file.write(rows.data)
        self._rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows, for which the format leaves room in its header."""
        self._file.seek(0)
        self._write_head()

    def _write_head(self) -> None:
        head = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows,),
        }
        np.lib.format.write_array_header_1_0(self._file, head)


class ParquetResults:
    """The same columns as CSV, in row groups."""

    def __init__(self, file: BinaryIO, actions: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(
            [
                (name, pa.float32() if index else pa.int64())
                for index, name in enumerate(column_names(actions))
            ]
        )
        # A network's floats hardly ever repeat: only actions gain from a dictionary.
        self._writer = pq.ParquetWriter(file, self._schema, use_dictionary=["action"])
        self._group: list[Any] = []

    def add(self, outputs: PolicyOutputs) -> None:
        """Write the decisions about the next rows, once there are enough of them for a group."""
        import pyarrow as pa

        columns = [outputs.actions, *np.ascontiguousarray(_numbers(outputs).T)]
        self._group.append(pa.record_batch(columns, self._schema))
        if len(self._group) == _ROW_GROUP_BLOCKS:
            self._write_group()

    def finish(self) -> None:
        """Write the last group and the index of all groups."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._group:
            self._writer.write_table(pa.Table.from_batches(self._group))
            self._group = []
