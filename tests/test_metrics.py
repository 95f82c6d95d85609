"""The numbers of a run, read back from the files that others read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from training.evaluation import Evaluation
from training.learner import Losses
from training.metrics import EventWriter, MetricsFile, read_metrics
from training.state import Progress

HEADER = (
    "update,env_steps,episodes,running_return,learning_rate,policy_loss,value_loss,entropy,"
    "approx_kl,clip_fraction,explained_variance,sampled_return,greedy_return\n"
)
LOSSES = Losses(
    policy_loss=-0.25, value_loss=1.5, entropy=0.5, approx_kl=0.125, clip_fraction=0.0625
)


def progress(
    update: int, sampled: Evaluation | None = None, greedy: Evaluation | None = None
) -> Progress:
    return Progress(
        update=update,
        env_steps=64 * update,
        episodes=2 * update,
        running_return=20.5,
        learning_rate=0.005,
        losses=LOSSES,
        explained_variance=0.75,
        sampled=sampled,
        greedy=greedy,
    )


def line(update: int, evaluations: str = ",") -> str:
    numbers = "20.5,0.005,-0.25,1.5,0.5,0.125,0.0625,0.75"
    return f"{update},{64 * update},{2 * update},{numbers},{evaluations}\n"


def evaluation(mean: float) -> Evaluation:
    return Evaluation(10, mean, 1.0, mean - 1.0, (mean, mean))


def test_a_row_an_update(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with MetricsFile(path, 0) as metrics:
        metrics.write(progress(1))
        metrics.write(progress(2, evaluation(480.0)))
        metrics.write(progress(3, evaluation(480.0), evaluation(500.0)))
    rows = [line(1), line(2, "480.0,"), line(3, "480.0,500.0")]
    assert path.read_bytes().decode() == HEADER + "".join(rows)


def test_flushed_rows_are_in_the_file_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with MetricsFile(path, 0) as metrics:
        assert path.read_text() == HEADER
        metrics.write(progress(1))
        metrics.flush()
        assert path.read_text() == HEADER + line(1)


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
@pytest.mark.parametrize("cut_short", ["", "4,256,8,20."])
def test_a_resumed_run_keeps_the_rows_before_its_checkpoint(
    kept: int, cut_short: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + line(1) + line(2) + line(3) + cut_short)
    with MetricsFile(path, kept) as metrics:
        assert path.read_text() == HEADER + "".join(line(i + 1) for i in range(kept))
        metrics.write(progress(kept + 1, evaluation(9.0)))
    expected = "".join(line(i + 1) for i in range(kept)) + line(kept + 1, "9.0,")
    assert path.read_bytes().decode() == HEADER + expected
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_reading_leaves_out_empty_cells_and_loses_no_digit(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    third = 1 / 3
    with MetricsFile(path, 0) as metrics:
        metrics.write(progress(1)._replace(running_return=third))
        metrics.write(progress(2, evaluation(480.0)))
    first, second = read_metrics(path)
    assert first["running_return"] == third
    assert first["clip_fraction"] == 0.0625
    assert "sampled_return" not in first
    assert second["sampled_return"] == 480.0
    assert "greedy_return" not in second
    assert list(first) == HEADER.rstrip().split(",")[:-2]


def events_in(path: Path) -> list[Any]:
    records = tf.data.TFRecordDataset(str(path))
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in records]


def values_of(event: Any) -> dict[str, float]:
    return {value.tag: value.simple_value for value in event.summary.value}


def test_events_are_the_metrics_by_environment_steps(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        events.write(progress(1))
        events.write(progress(2, evaluation(480.0), evaluation(500.0)))
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("events.out.tfevents.")  # what TensorBoard looks for
    version, _start, first, second = events_in(path)
    assert version.file_version == "brain.Event:2"
    assert [first.step, second.step] == [64, 128]
    assert version.wall_time <= first.wall_time < second.wall_time
    written = {
        "episodes": 2.0,
        "running_return": 20.5,
        "learning_rate": np.float32(0.005),
        "policy_loss": -0.25,
        "value_loss": 1.5,
        "entropy": 0.5,
        "approx_kl": 0.125,
        "clip_fraction": 0.0625,
        "explained_variance": 0.75,
    }
    assert values_of(first) == written
    speed = np.float32(64 / (second.wall_time - first.wall_time))
    assert values_of(second) == written | {
        "episodes": 4.0,
        "sampled_return": 480.0,
        "greedy_return": 500.0,
        "env_steps_per_second": speed,
    }


def test_a_clock_that_stands_still_gives_no_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.metrics.time.time", lambda: 1e9)
    with EventWriter(tmp_path) as events:
        events.write(progress(1))
        events.write(progress(2))
    (path,) = tmp_path.iterdir()
    assert "env_steps_per_second" not in values_of(events_in(path)[-1])


def test_a_resumed_run_tells_tensorboard_what_to_forget(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        for update in (1, 2, 3):
            events.write(progress(update))
    (before,) = tmp_path.iterdir()
    with EventWriter(tmp_path) as events:  # continues from the checkpoint of update 1
        events.write(progress(2))
        events.write(progress(3))
    (after,) = set(tmp_path.iterdir()) - {before}
    assert after.name > before.name  # TensorBoard reads them in this order
    version, start, second, third = events_in(after)
    assert version.file_version == "brain.Event:2"
    # From this step on, what was written before is dropped.
    assert start.session_log.status == tf.compat.v1.SessionLog.START
    assert [start.step, second.step, third.step] == [128, 128, 192]
    assert values_of(start) == {}
    # The time while it was stopped is not part of any speed.
    assert "env_steps_per_second" not in values_of(second)
    assert "env_steps_per_second" in values_of(third)
    # A first start says so too: a run killed before its first checkpoint begins again.
    assert [event.HasField("session_log") for event in events_in(before)] == [
        *(False, True, False, False, False)
    ]
