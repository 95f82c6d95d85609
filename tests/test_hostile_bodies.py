"""Generated bodies: none makes the service fail, and none is answered in another shape."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.store import Store
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import Service, Trained
from tests.test_act import NAMES, ROW
from tests.test_errors import expect_problem

FIELDS = ("observations", "observation", "deterministic", "seed")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(
            st.sampled_from([*NAMES, "x"]) | st.text(max_size=3), children, max_size=5
        )
    ),
    max_leaves=20,
)
bodies = st.one_of(
    json_values,
    st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values)),
    st.builds(
        lambda rows: {"observations": rows},
        st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=3, max_size=5)),
    ),
)

GOOD = [
    json.dumps({"observations": [ROW, ROW], "seed": 7, "deterministic": True}).encode(),
    json.dumps({"observation": dict(zip(NAMES, ROW, strict=True)), "seed": None}).encode(),
]
PIECES = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"1e999", b"-", b"NaN", b"\\u0000"]
PIECES += [b"\xff", b"\xed\xa0\x80", b'"seed":1,', b"true", b"", b" ", b"9" * 400, b"0.0", b"/"]


@pytest.fixture(scope="module")
def pool(service: Service) -> Iterator[urllib3.HTTPConnectionPool]:
    with urllib3.connection_from_url(service.url) as connections:
        yield connections


def check(pool: urllib3.HTTPConnectionPool, body: bytes) -> int:
    headers = {"Content-Type": "application/json"}
    response = pool.urlopen("POST", "/act", body=body, headers=headers, retries=False)
    if response.status == 200:
        assert np.isfinite(response.json()["action_logits"]).all()
    else:
        assert response.status in (400, 422), (body, response.data)
        problem = expect_problem(response, response.status)
        # 400 for exactly what is not JSON, by the judgement of another parser.
        assert is_json(body) == (response.status == 422), (body, problem)
    return response.status


def is_json(body: bytes) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(body.decode("utf-8"), parse_constant=refuse)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("count", [500, pytest.param(2_000, marks=pytest.mark.long)])
def test_no_generated_value_makes_the_service_fail(
    pool: urllib3.HTTPConnectionPool, count: int
) -> None:
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies)
    def check_body(body: Any) -> None:
        check(pool, json.dumps(body).encode())

    check_body()


@pytest.mark.parametrize("count", [5_000, pytest.param(20_000, marks=pytest.mark.long)])
def test_no_change_of_a_good_body_makes_the_service_fail(
    pool: urllib3.HTTPConnectionPool, count: int
) -> None:
    rng = np.random.default_rng(0)
    answers: Counter[int] = Counter()
    while answers[400] + answers[422] < count:
        body = GOOD[rng.integers(len(GOOD))]
        for _ in range(rng.integers(1, 4)):
            start, stop = sorted(rng.integers(0, len(body) + 1, 2).tolist())
            piece = PIECES[rng.integers(len(PIECES))]
            match rng.integers(4):
                case 0:  # put something in
                    body = body[:start] + piece + body[start:]
                case 1:  # put it in the place of something
                    body = body[:start] + piece + body[min(stop, start + 8) :]
                case 2:  # repeat a part
                    body = body[:stop] + body[start:]
                case _:  # flip a bit
                    changed = bytearray(body)
                    if changed:
                        changed[start % len(changed)] ^= 1 << int(rng.integers(8))
                    body = bytes(changed)
        answers[check(pool, body)] += 1
    assert answers[400] > count / 20
    assert answers[422] > count / 20


@pytest.fixture(scope="module")
def repository(trained: Trained, trials: Trials) -> Repository:
    loaded = Repository(Settings(models=trained.models), Metrics(), trials)
    loaded.refresh()
    return loaded


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/act", {"observations": [ROW]}, 200),
        ("/act", {"observations": [[1.0]]}, 422),
        ("/v1/models/cartpole:predict", {"instances": [ROW]}, 200),
        ("/v1/models/cartpole:classify", {"examples": [{}]}, 400),
        ("/v1/models/cartpole:regress", {"examples": []}, 400),
        ("/v2/models/cartpole/infer", {"inputs": []}, 400),
        ("/v2/repository/index", {"ready": True}, 200),
        ("/v2/repository/index", {"ready": 1}, 400),
    ],
)
def test_the_memory_of_an_unpacked_body_is_given_back(
    repository: Repository, path: str, content: dict[str, Any], status: int
) -> None:
    app = create_api(Settings(max_body_bytes=10_000), repository, Metrics(), Keys([])).flask
    body = gzip.compress(json.dumps(content).ljust(9_000).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    # All unpacked bodies at once may have eight times the longest one's bytes.
    with app.test_client() as client:
        for _ in range(20):
            assert client.post(path, data=body, headers=headers).status_code == status


def test_a_large_request_is_no_mistake_because_no_version_is_loaded_yet(
    trained: Trained, tmp_path: Path, trials: Trials
) -> None:
    body = json.dumps({"observations": [ROW] * 60_000})
    headers = {"Content-Type": "application/json"}
    store = Store()
    Repository(Settings(models=trained.models), Metrics(), trials, store).refresh()
    for models, status in ((trained.models, 200), (tmp_path, 503)):
        # As in another worker, which has not looked at the folder.
        repository = Repository(Settings(models=models), Metrics(), trials, store)
        app = create_api(Settings(), repository, Metrics(), Keys([])).flask
        with app.test_client() as client:
            assert client.post("/act", data=body, headers=headers).status_code == status


@pytest.mark.parametrize("digits", [19, 5_000])
def test_a_version_that_64_bits_cannot_hold_is_none(repository: Repository, digits: int) -> None:
    app = create_api(Settings(), repository, Metrics(), Keys([])).flask
    with app.test_client() as client:
        number = "9" * digits
        assert client.get(f"/v2/models/cartpole/versions/{number}").status_code == 404
        answer = client.get(f"/v1/models/cartpole/versions/{number}")
        assert answer.status_code == 400
        assert "to numeric" in answer.get_json()["error"]
