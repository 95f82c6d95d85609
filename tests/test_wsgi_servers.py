"""The Flask application alone answers every route, under any WSGI server: our worker is faster."""

import contextlib
import gzip
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import urllib3
from werkzeug.exceptions import HTTPException

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.client import PolicyClient
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, ROOT, Trained, running_service, wait_until
from tests.wsgi_app import MODELS

KEY = "wsgi-key-aaaaaaaaaaaa"
ROWS = [[0.01, -0.02, 0.03, 0.04], [-0.1, 0.2, 0.05, -0.3]]
SERVERS = {
    "gthread": [
        *("gunicorn", "tests.wsgi_app:create()", "--bind", "127.0.0.1:0", "--threads", "4"),
        *("--worker-class", "gthread", "--timeout", "120"),
    ],
    "waitress": ["waitress", "--call", "--listen", "127.0.0.1:0", "tests.wsgi_app:create"],
}


class Ask(NamedTuple):
    """A request; a body that is not bytes is sent as JSON."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] | None = None
    chunks: int = 0  # of how many bytes, where the body comes in chunks
    key: str | None = KEY


class Answer(NamedTuple):
    status: int
    content_type: str | None
    body: Any  # bytes, or what the JSON says: the members of an object have no order


ACT = {"observations": ROWS, "seed": 7}
TENSOR = {"name": "observations", "shape": [2, 4], "datatype": "FP32"}
INFER = {"inputs": [TENSOR | {"data": ROWS}], "parameters": {"seed": 7}, "id": "a"}
SAMPLED = {"observations": ROWS, "uniforms": [0.3, 0.9], "deterministic": [False, True]}
PREDICT = {"signature_name": "act", "inputs": SAMPLED}
BINARY_HEAD = json.dumps(
    {
        "inputs": [TENSOR | {"parameters": {"binary_data_size": 32}}],
        "parameters": {"seed": 7, "binary_data_output": True},
    }
).encode()
BINARY = BINARY_HEAD + np.array(ROWS, np.float32).tobytes()
PACKED = json.dumps(ACT).encode()
# In this order: a model that is unloaded is loaded again.
ASKED = [
    Ask("POST", "/act", ACT),
    Ask("POST", "/act", ACT, chunks=7),
    Ask("POST", "/act", gzip.compress(PACKED), {"Content-Encoding": "gzip"}),
    Ask("POST", "/act", gzip.compress(PACKED), {"Content-Encoding": "gzip"}, chunks=7),
    Ask("POST", "/act", zlib.compress(PACKED), {"Content-Encoding": "deflate"}),
    Ask("POST", "/act", zlib.compress(PACKED), {"Content-Encoding": "gzip"}),
    Ask("POST", "/act", PACKED, {"Content-Encoding": "br"}),
    Ask("POST", "/act", ACT, {"Content-Type": "text/plain"}),
    Ask("POST", "/act", {"observations": [[1, 2]]}),
    Ask("POST", "/act", b"{"),
    Ask("POST", "/act"),
    Ask("POST", "/act", ACT, key=None),
    Ask("POST", "/act", ACT, key="wrong-key-bbbbbbbbbbb"),
    Ask("GET", "/act"),
    Ask("POST", "/models/cartpole/act", ACT),
    Ask("POST", "/models/no/act", ACT),
    Ask("POST", "/v1/models/cartpole:predict", PREDICT),
    Ask("POST", "/v1/models/cartpole/versions/1:predict", PREDICT),
    Ask("POST", "/v1/models/cartpole/versions/9:predict", PREDICT),
    Ask("POST", "/v1/models/cartpole/labels/stable:predict", PREDICT),
    Ask("POST", "/v2/models/cartpole/infer", INFER),
    Ask("POST", "/v2/models/cartpole/versions/1/infer", INFER),
    Ask(
        *("POST", "/v2/models/cartpole/infer", BINARY),
        {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(BINARY_HEAD)),
        },
    ),
    Ask("POST", "/v2/models/cartpole/infer", INFER, key=None),
    Ask("POST", "/feedback", {"episode": "e", "return": 1.0}),
    Ask("GET", "/v2/models/cartpole/config"),
    Ask("GET", "/v2/models/cartpole/versions/1/config"),
    Ask("GET", "/v2/models/no/stats"),
    Ask("GET", "/v2/models/cartpole/versions/9/stats"),
    *(
        Ask("POST", f"/v1/models/cartpole{which}:{verb}", {"examples": []})
        for verb in ("classify", "regress")
        for which in ("", "/versions/1", "/labels/stable")
    ),
    *(
        Ask("GET", f"/v1/models/cartpole{which}{what}")
        for which in ("", "/versions/1", "/labels/stable")
        for what in ("", "/metadata")
    ),
    *(Ask("GET", path) for path in ("/v1/models", "/v1/nothing", "/v2", "/v2/", "/v2/nothing")),
    *(
        Ask("GET", f"/v2/models/cartpole{which}{what}")
        for which in ("", "/versions/1")
        for what in ("", "/ready")
    ),
    *(Ask(method, path) for method in ("PUT", "DELETE") for path in ("/v2", "/v2/", "/v1/models")),
    *(Ask("GET", path) for path in ("/models", "/models/cartpole", "/models/no")),
    Ask("GET", "/models/cartpole/comparison"),
    Ask("GET", "/models/cartpole", headers={"Accept": "text/html"}),
    Ask("GET", "/models/cartpole/episode.gif"),
    Ask("GET", "/models/cartpole/learning_curve.png"),
    *(Ask("GET", path, key=None) for path in ("/", "/web/app.js", "/web/no", "/models", "/no")),
    *(Ask("GET", path) for path in ("/openapi.json", "/docs", "/no")),
    *(
        Ask(method, f"{prefix}/health/{what}", key=None)
        for method in ("GET", "HEAD")
        for prefix in ("", "/v2")
        for what in ("live", "ready")
    ),
    Ask("POST", "/v2/repository/index"),
    Ask("POST", "/v2/repository/models/cartpole/unload"),
    Ask("GET", "/health/ready"),
    Ask("POST", "/act", ACT),
    Ask("POST", "/v2/repository/models/cartpole/load"),
    Ask("POST", "/act", ACT),
]


@contextlib.contextmanager
def wsgi_server(name: str, models: Path, log: Path) -> Iterator[str]:
    """Run a server of others with our application on a free port; its address."""
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", *SERVERS[name]],
            cwd=ROOT,
            env=ENVIRONMENT | {MODELS: str(models), "SERVING_API_KEYS": KEY},
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            said = re.compile(r"(?:Listening at:|Serving on) (http://127\.0\.0\.1:\d+)")
            wait_until(lambda: said.search(log.read_text()) is not None)
            found = said.search(log.read_text())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()


def answer(pool: urllib3.HTTPConnectionPool, asked: Ask) -> Answer:
    headers = {"Content-Type": "application/json"} | (asked.headers or {})
    if asked.key is not None:
        headers["Authorization"] = f"Bearer {asked.key}"
    body = asked.body
    if not isinstance(body, bytes | None):
        body = json.dumps(body).encode()
    if asked.chunks:
        whole, size = body, asked.chunks
        body = (whole[start : start + size] for start in range(0, len(whole), size))
    response = pool.urlopen(asked.method, asked.path, body=body, headers=headers, retries=False)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert re.fullmatch("[0-9a-f]{16}", response.headers["X-Request-ID"])
    kind = response.headers.get("Content-Type")
    is_json = kind in ("application/json", "application/problem+json") and response.data
    return Answer(response.status, kind, response.json() if is_json else response.data)


@pytest.fixture(scope="module")
def answers(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Answer]]:
    """What our own service and the others say to all that is asked, and to `GET /metrics`."""
    folder = tmp_path_factory.mktemp("wsgi")
    found = {}
    for name in ("ours", *SERVERS):
        models = shutil.copytree(trained.models, folder / name)
        with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            if name == "ours":
                patch.setitem(ENVIRONMENT, "SERVING_API_KEYS", KEY)
                one_worker = models, folder / "ours.log", "--workers", "1"
                url = stack.enter_context(running_service(*one_worker)).url
                PolicyClient(url, api_key=KEY).wait_until_ready(60)
            else:
                url = stack.enter_context(wsgi_server(name, models, folder / f"{name}.log"))
            pool = stack.enter_context(urllib3.connection_from_url(url, timeout=60))
            found[name] = [answer(pool, asked) for asked in [*ASKED, Ask("GET", "/metrics")]]
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", SERVERS)
def test_every_answer_is_that_of_our_own_service(
    answers: dict[str, list[Answer]], name: str
) -> None:
    of_ours, of_other = answers["ours"][:-1], answers[name][:-1]
    for asked, own, other in zip(ASKED, of_ours, of_other, strict=True):
        assert own == other, asked


@pytest.mark.long
@pytest.mark.parametrize("name", ["ours", *SERVERS])
def test_what_is_asked_is_decided_and_counted(answers: dict[str, list[Answer]], name: str) -> None:
    by_path: dict[str, list[int]] = {}
    for asked, (status, _, _) in zip(ASKED, answers[name][:-1], strict=True):
        by_path.setdefault(f"{asked.method} {asked.path}", []).append(status)
    assert by_path["POST /act"] == [
        *(200, 200, 200, 200, 200, 400, 415, 415, 422, 400, 400, 401, 401, 503, 200),
    ]
    assert by_path["POST /v2/models/cartpole/infer"] == [200, 200, 401]
    assert by_path["POST /v1/models/cartpole:predict"] == [200]
    metrics = answers[name][-1]
    assert metrics.status == 200
    assert b'policy_http_requests_total{route="/act",status="200"} 6.0\n' in metrics.body


def test_every_route_is_asked(trials: Trials) -> None:
    settings, metrics = Settings(), Metrics()
    repository = Repository(settings, metrics, trials)
    app = create_api(settings, repository, metrics, Keys([])).flask
    routes = app.url_map.bind("x")
    asked = set()
    for one in ASKED:
        with contextlib.suppress(HTTPException):
            asked.add(routes.match(one.path, one.method, return_rule=True)[0].rule)
    of_the_moment = {"/metrics", "/v2/models/stats"}
    assert {rule.rule for rule in app.url_map.iter_rules()} - of_the_moment == asked
