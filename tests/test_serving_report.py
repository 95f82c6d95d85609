"""What the benchmark of serving compares and prints."""

import pytest

from benchmarks.serving_report import (
    Measurement,
    Started,
    Tail,
    ratios,
    report,
    shares_of_act,
)


def measured(
    contender: str,
    number: int,
    rate: float,
    *,
    workers: int = 2,
    rows: int = 1,
    protocol: str = "act",
) -> Measurement:
    return Measurement(
        contender=contender,
        round=number,
        workers=workers,
        protocol=protocol,
        rows=rows,
        connections=16,
        requests_per_second=rate,
        rows_per_second=rate * rows,
        p50_ms=1.0,
        p99_ms=2.0,
        requests_per_cpu_second=rate / workers**2,
        pss_mb=100.0,
    )


def test_ratios_compare_what_was_measured_in_the_same_round_and_cell() -> None:
    records = [
        *(measured("noop", 2, 4000.0), measured("ours", 1, 1000.0), measured("noop", 1, 2000.0)),
        *(measured("ours", 2, 3000.0), measured("ours", 1, 9.0, rows=1024)),
        *(measured("noop", 1, 10.0, rows=1024), measured("ours", 1, 500.0, workers=1)),
    ]
    by_cell = ratios(records, ("ours", 2), ("noop", 2))
    assert by_cell == {("act", 1, 16): [0.5, 0.75], ("act", 1024, 16): [0.9]}
    with pytest.raises(KeyError):
        ratios(records, ("ours", 2), ("ours", 1))  # round 2 is missing


def test_other_protocols_are_compared_with_act_in_the_same_round() -> None:
    records = [
        *(measured("ours", 1, 1000.0), measured("ours", 1, 700.0, protocol="infer")),
        *(measured("ours", 2, 2000.0), measured("ours", 2, 1800.0, protocol="infer")),
        *(measured("ours", 1, 1.0, workers=1), measured("before", 1, 1.0)),
    ]
    assert shares_of_act(records, ("ours", 2)) == {("infer", 1, 16): [0.7, 0.9]}
    told = lines(report(None, records[:4], ["ours"]))
    assert told[-1] == "infer 1 16 ours / by act 0.70 0.90 0.80"


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_report_shows_medians_ranges_and_every_ratio() -> None:
    records = [
        *(measured("ours", number, rate) for number, rate in enumerate((900.0, 1e3, 2e3), 1)),
        *(measured("noop", number, 1000.0) for number in (1, 2, 3)),
    ]
    assert lines(report(None, records, ["noop", "ours"])) == [
        "protocol rows connections median (min..max) workers"
        " requests/s rows/s p50 ms p99 ms requests/CPU s PSS MB",
        "act 1 16 no-op Flask 2 1,000.0 (1,000.0..1,000.0) 1,000 (1,000..1,000)"
        " 1.00 (1.00..1.00) 2.00 (2.00..2.00) 250 (250..250) 100 (100..100)",
        "act 1 16 ours 2 1,000.0 (900.0..2,000.0) 1,000 (900..2,000)"
        " 1.00 (1.00..1.00) 2.00 (2.00..2.00) 250 (225..500) 100 (100..100)",
        "",
        "protocol rows connections throughput round 1 round 2 round 3 median",
        "act 1 16 ours / no-op Flask 0.90 1.00 2.00 1.00",
    ]


def test_a_report_without_ours_has_no_ratios() -> None:
    assert len(lines(report(None, [measured("noop", 1, 1.0)], ["noop"]))) == 2


def test_the_report_of_workers_compares_two_with_one() -> None:
    records = [measured("ours", 1, 500.0, workers=1), measured("ours", 1, 900.0)]
    assert lines(report("workers", records, ["ours"]))[-2:] == [
        "act 1 16 ours, 2 workers / 1 1.80 1.80",
        "act 1 16 ours, 2 workers / 1, per CPU s 0.45 0.45",
    ]


def test_the_report_of_tails() -> None:
    record = Tail(
        contender="ours",
        round=1,
        workers=2,
        protocol="act",
        rows=1,
        connections=16,
        requests_per_second=500.0,
        p50_ms=1.0,
        p99_ms=3.5,
        ratio=3.5,
        late_p99_ms=0.1,
    )
    assert lines(report("tail", [record], ["ours"]))[1] == (
        "act 1 16 ours 2 500.0 (500.0..500.0) 1.00 (1.00..1.00) 3.50 (3.50..3.50)"
        " 3.5 (3.5..3.5) 0.10 (0.10..0.10)"
    )


def test_the_report_of_starts_has_the_memory_of_each_further_worker() -> None:
    records = [
        Started(
            round=number,
            contender="ours",
            workers=workers,
            listening_seconds=2.0,
            ready_seconds=2.5,
            pss_mb=megabytes,
        )
        for number, workers, megabytes in [(1, 1, 300.0), (1, 4, 480.0), (2, 4, 510.0), (2, 1, 300)]
    ]
    _, one, four = lines(report("start", records, ["ours"]))
    assert one.startswith("ours 1 2.00 (2.00..2.00) 2.50 (2.50..2.50) 0.50 (0.50..0.50)")
    assert one.endswith("300 (300..300) -")
    assert four.endswith("495 (480..510) 65 (60..70)")
