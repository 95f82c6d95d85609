"""`score` writes what the service would answer about every row of a file, bit for bit."""

import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.registry.store import Store
from serving.registry.trial import Trials
from serving.score.formats import open_source, require_formats
from serving.score.source import ScoreError
from serving.settings import Settings
from tests import scoring
from tests.artefacts import publish, unsolve
from tests.conftest import ROOT, Service, Trained
from tests.decision_logs import post
from tests.scoring import FORMATS, NAMES, answer, expect_equal, observations, read, write
from tests.signatures import Key
from tests.test_decisions import Overflowing

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store() as made:
        yield made


@pytest.fixture(scope="module")
def policy(trained: Trained, store: Store, trials: Trials) -> "Policy":
    return served(Settings(models=trained.models), store, trials)


def served(settings: Settings, store: Store, trials: Trials) -> "Policy":
    from serving.policy.tensorflow_import import import_tensorflow
    from serving.score.served import served_policy

    import_tensorflow()
    return served_policy(settings, store, trials)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_file_of_several_blocks_gets_what_one_request_of_all_rows_gets(
    policy: "Policy", service: Service, tmp_path: Path, deterministic: bool
) -> None:
    rows = observations(20_011)
    answered = answer(service, rows, seed=7, deterministic=deterministic)
    sampled = {"deterministic": deterministic}
    for suffix in FORMATS:
        source = write(tmp_path / f"in{suffix}", rows)
        target = tmp_path / f"out{suffix}"
        found = scoring.score(policy, source, target, **sampled)
        assert found == (len(rows), 0)
        expect_equal(read(target), answered)


@given(
    rows=st.lists(
        st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=4, max_size=4),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 2**53 - 1),
    deterministic=st.booleans(),
    suffixes=st.tuples(st.sampled_from(FORMATS), st.sampled_from(FORMATS)),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_rows_and_seed_get_what_the_service_answers(
    policy: "Policy",
    service: Service,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[float]],
    seed: int,
    deterministic: bool,
    suffixes: tuple[str, str],
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    array = np.array(rows, np.float32)
    source, target = folder / f"in{suffixes[0]}", folder / f"out{suffixes[1]}"
    scoring.score(policy, write(source, array), target, seed, deterministic=deterministic)
    expect_equal(read(target), answer(service, array, seed=seed, deterministic=deterministic))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_are_found_by_their_names(policy: "Policy", tmp_path: Path, suffix: str) -> None:
    rows = observations(50)
    source = write(tmp_path / f"in{suffix}", rows, [NAMES[index] for index in (2, 0, 3, 1)])
    scoring.score(policy, source, tmp_path / "out.npy")
    scoring.score(policy, write(tmp_path / "in.npy", rows), tmp_path / "expected.npy")
    expect_equal(read(tmp_path / "out.npy"), read(tmp_path / "expected.npy"))


def test_rows_outside_of_what_training_saw_are_counted(policy: "Policy", tmp_path: Path) -> None:
    rows = observations(30_000)
    rows[[5, 29_999], 2] = 100
    found = scoring.score(policy, write(tmp_path / "in.npy", rows), tmp_path / "out.npy")
    assert found == (30_000, 2)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_rows_give_no_decisions(policy: "Policy", tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"in{suffix}", observations(0))
    for target in FORMATS:
        assert scoring.score(policy, source, tmp_path / f"out{target}") == (0, 0)
    assert len(np.load(tmp_path / "out.npy")) == 0
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert (tmp_path / "out.csv").read_text().startswith("action,action_logit_0,")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_wrong_row_is_named_and_leaves_what_was_there(
    policy: "Policy", tmp_path: Path, suffix: str
) -> None:
    rows = observations(20_000)
    rows[15_000, 2] = np.inf
    source = tmp_path / f"in{suffix}"
    write(source, rows)
    if suffix == ".jsonl":  # of which Python writes what is not JSON
        source.write_text(source.read_text().replace("Infinity", "1e300"))
    target = tmp_path / "out.csv"
    target.write_text("before")
    place = {".csv": "line 15002", ".jsonl": "line 15001"}.get(suffix, "row 15000")
    what = "1e+300 is beyond float32" if suffix == ".jsonl" else "inf is not finite"
    with pytest.raises(ScoreError) as error:
        scoring.score(policy, source, target)
    assert str(error.value) == f"{source}, {place}: pole_angle: {what}"
    assert target.read_text() == "before"
    assert sorted(tmp_path.iterdir()) == sorted([source, target])


def test_a_row_that_overflows_inside_the_policy_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("b,a\n" + "1,1\n" * 50_000 + "10,1\n")
    policy: Any = Overflowing()
    with pytest.raises(ScoreError, match=r"in\.csv, line 50002: too large: the policy overflows"):
        scoring.score(policy, source, tmp_path / "out.csv")


def test_the_version_is_the_one_that_the_service_would_serve(
    trained: Trained, store: Store, trials: Trials, signed: Path, other_key: Key, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for version in ("1", "2", "3"):
        change = unsolve if version == "3" else lambda _: None
        publish(trained.model_dir, models / "cartpole" / version, change)
    settings = Settings(models=models)
    assert served(settings, store, trials).version == 2
    assert served(Settings(models=models, pin=1), store, trials).version == 1
    (models / "cartpole" / "serve.json").write_text('{"serve": 1}')
    assert served(settings, store, trials).version == 1
    with pytest.raises(ScoreError, match="version 3: its card says that it is not solved"):
        served(Settings(models=models, pin=3), store, trials)
    with pytest.raises(ScoreError, match="no version of other is served"):
        served(Settings(models=models, name="other"), store, trials)
    untrusted = Settings(models=signed.parent.parent, trusted_keys=other_key.trusted)
    with pytest.raises(ScoreError, match="no version of cartpole is served: version 1: "):
        served(untrusted, Store(), trials)


def test_a_row_can_be_checked_by_its_random_number(
    policy: "Policy", service: Service, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "scoring.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    documented: dict[str, Any] = {}
    exec(code, documented)
    rows = observations(20_000)
    scoring.score(policy, write(tmp_path / "in.npy", rows), tmp_path / "out.npy", seed=2**53 - 1)
    actions = read(tmp_path / "out.npy")["actions"]
    for row in (0, 3, 4, 16_383, 16_384, 19_999):
        instance = {
            "observations": rows[row].tolist(),
            "uniforms": float(documented["uniform"](2**53 - 1, row)),
            "deterministic": False,
        }
        body = {"signature_name": "act", "instances": [instance]}
        (predicted,) = post(f"{service.url}/v1/models/cartpole:predict", body)["predictions"]
        assert predicted["actions"] == actions[row]


def test_parquet_names_its_extra_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ScoreError, match=r"Parquet needs actor-critic\[parquet\]"):
        require_formats(tmp_path / "in.csv", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((3, 5), np.float32), "the shape is [3, 5], expected [rows, 4]: cart_position"),
        (np.zeros(4), "the shape is [4], expected [rows, 4]"),
        (np.zeros((3, 4), np.complex64), "real numbers are expected, not complex64"),
        (np.zeros((3, 4), np.bool_), "real numbers are expected, not bool"),
    ],
)
def test_an_array_of_something_else_is_refused(tmp_path: Path, array: Any, what: str) -> None:
    np.save(tmp_path / "in.npy", array)
    with pytest.raises(ScoreError) as error:
        open_source(tmp_path / "in.npy", NAMES)
    assert str(error.value).startswith(f"{tmp_path / 'in.npy'}: {what}")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PAR1", b"PK\3\4"])
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    source = tmp_path / f"in{suffix}"
    source.write_bytes(content)
    with pytest.raises(ScoreError) as error:
        open_source(source, NAMES)
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "head",
    [
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**22}, 4)}}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4)}",
        "{'descr': ',f4', 'fortran_order': False, 'shape': (2, 4)}",
        "{[]: 1}",
        "(",
        "-" * 9000 + "1",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4){' ' * 10_000}}}",
    ],
)
def test_a_damaged_head_of_an_array_is_one_line(tmp_path: Path, head: str) -> None:
    source = tmp_path / "in.npy"
    source.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + bytes(32))
    with pytest.raises(ScoreError) as error:
        open_source(source, NAMES)
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)


def test_numbers_beyond_float64_are_beyond_float32(policy: "Policy", tmp_path: Path) -> None:
    rows = observations(3).astype(np.longdouble)
    rows[1, 2] = np.longdouble("-1e4000")
    np.save(tmp_path / "in.npy", rows)
    with pytest.raises(ScoreError, match=r"row 1: pole_angle: -1\.79\S*e\+308 is beyond float32$"):
        scoring.score(policy, tmp_path / "in.npy", tmp_path / "out.npy")
    rows[1, 2] = -np.inf
    np.save(tmp_path / "in.npy", rows)
    with pytest.raises(ScoreError, match="row 1: pole_angle: -inf is not finite"):
        scoring.score(policy, tmp_path / "in.npy", tmp_path / "out.npy")


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "<f2"])
def test_arrays_of_any_real_numbers_and_order_are_read(
    policy: "Policy", tmp_path: Path, dtype: str
) -> None:
    rows = np.round(observations(20_000) * 100)
    scoring.score(policy, write(tmp_path / "in.npy", rows), tmp_path / "expected.npy")
    for array in (rows.astype(dtype), rows.T.astype(dtype).T):
        np.save(tmp_path / "other.npy", array)
        scoring.score(policy, tmp_path / "other.npy", tmp_path / "out.npy")
        expect_equal(read(tmp_path / "out.npy"), read(tmp_path / "expected.npy"))


def test_parquet_without_a_number_is_refused(policy: "Policy", tmp_path: Path) -> None:
    columns = {name: [0.0, 1.0, None if name == "pole_angle" else 0.5] for name in NAMES}
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table(columns), source)
    with pytest.raises(ScoreError, match="row 2: pole_angle: nan is not finite"):
        scoring.score(policy, source, tmp_path / "out.npy")
    pq.write_table(pa.table({**columns, "cart_velocity": ["a", "b", "c"]}), source)
    with pytest.raises(ScoreError, match="cart_velocity: real numbers are expected, not string"):
        open_source(source, NAMES)
    pq.write_table(pa.table({name: columns[name] for name in NAMES[1:]}), source)
    with pytest.raises(ScoreError, match=r"in\.parquet: 'cart_position' is missing; the names are"):
        open_source(source, NAMES)


def test_damaged_parquet_is_refused_by_name(policy: "Policy", tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", observations(50_000))
    content = source.read_bytes()
    # The pages of the columns, then the index behind them.
    for damaged in (bytes(1000) + content[1000:], content[:-1000] + bytes(990) + content[-10:]):
        source.write_bytes(b"PAR1" + damaged[4:])
        with pytest.raises(ScoreError) as error:
            scoring.score(policy, source, tmp_path / "out.npy")
        assert re.fullmatch(rf"{source}: .*\w.*", str(error.value))
        assert not str(error.value).endswith("None")
