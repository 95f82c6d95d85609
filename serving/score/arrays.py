"""Rows from NumPy's files and from Parquet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from serving.errors import first_line
from serving.score.source import BLOCK_ROWS, Block, ScoreError, Source, require_names

# Without a buffer, Parquet's columns are read in whole row groups, which can have any size.
_BUFFER_BYTES = 1024 * 1024


def read_npy(path: Path, names: list[str]) -> Source:
    """An array `[rows, O]` of real numbers, mapped block by block so that none stays in memory."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # it parses the header as Python, which can fail in any way
        raise _unreadable(path, error) from error
    if array.dtype.kind not in "fiu":
        raise ScoreError(f"{path}: real numbers are expected, not {array.dtype}")
    dtype, offset, shape = array.dtype, array.offset, array.shape
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    if len(shape) != 2 or shape[1] != len(names):
        wanted = f"[rows, {len(names)}]: {', '.join(names)}"
        raise ScoreError(f"{path}: the shape is {list(shape)}, expected {wanted}")

    def blocks() -> Iterator[Block]:
        for start in range(0, shape[0], BLOCK_ROWS):
            mapped = np.memmap(path, dtype, "r", offset, shape, order)
            rows = np.array(mapped[start : start + BLOCK_ROWS])
            if dtype.itemsize > np.dtype(np.float64).itemsize:
                # A finite number beyond float64 must not become infinite, only beyond float32.
                largest = np.finfo(np.float64).max
                rows = np.where(np.isinf(rows), rows, rows.clip(-largest, largest))
            yield Block(rows, start, len(rows))

    return Source(path, "row", shape[0], blocks())


def read_parquet(path: Path, names: list[str]) -> Source:
    """Columns of real numbers with these names, in any order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    try:
        require_names(schema.names, names)
    except ValueError as error:
        raise ScoreError(f"{path}: {error}") from error
    for field in schema:
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            raise ScoreError(f"{path}: {field.name}: real numbers are expected, not {field.type}")

    def blocks() -> Iterator[Block]:
        first = 0
        try:
            for batch in file.iter_batches(BLOCK_ROWS, columns=names):
                # Missing values become NaN, which is refused.
                columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
                yield Block(np.column_stack(columns), first, len(batch))
                first += len(batch)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error

    return Source(path, "row", file.metadata.num_rows, blocks())


def _unreadable(path: Path, error: Exception) -> Exception:
    """A library's error with the file's name; a system error remains an `OSError`."""
    # Arrow's errors about damaged files can be OSErrors too, but without a number.
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, str(path))
    return ScoreError(f"{path}: {first_line(error)}")
