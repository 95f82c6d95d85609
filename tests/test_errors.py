"""What is wrong with a request is told in one shape, whatever it is."""

import gzip
import json
import socket
import zlib
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

from tests.conftest import Service
from tests.test_act import NAMES, ROW, act, post


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not JSON"),
        (b"[", 400, "not JSON"),
        (b'{"observations": [[1,2,3,NaN]]}', 400, "not JSON"),
        (b'{"observations": [[1,2,3,4]]} trailing', 400, "not JSON"),
        (b'{"observations": [["', 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 422, "nested too deeply"),
        (b'{"observations": ' + b"[" * 9_999 + b"]" * 9_999 + b"}", 422, "nested too deeply"),
        (b"\xef\xbb\xbf" + b'{"observations": [[1, 2, 3, 4]]}', 400, "not JSON"),
        ('{"observations": [[1, 2, 3, 4]]}'.encode("utf-16"), 400, "not JSON"),
        (3, 422, "xpected `object`, got `int`"),
        ({}, 422, "'observations' is missing"),
        ({"observations": None}, 422, "observations: expected `array`, got `null`"),
        ({"observations": []}, 422, "0 rows, expected 1 to 65536"),
        ({"observations": [[]]}, 422, "observations[0]: 0 numbers, expected 4"),
        ({"observations": [ROW, ROW[:3]]}, 422, "observations[1]: 3 numbers, expected 4"),
        ({"observations": [[*ROW, 1.0]]}, 422, "observations[0]: 5 numbers, expected 4"),
        ({"observations": [ROW, "x"]}, 422, "observations[1]: expected `object | array`"),
        ({"observations": [[1, 2, 3, "4"]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, None]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, True]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, [4]]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, 1e39]]}, 422, "pole_angular_velocity: 1e+39 is beyond"),
        (b'{"observations": [[1, 2, 3, 1e999]]}', 422, "observations[0][3]: number out of range"),
        ({"observations": [ROW], "observation": ROW}, 422, "cannot be used together"),
        ({"observation": [ROW]}, 422, "observation[0]: expected `float`, got `array`"),
        ({"observation": {"cart_position": 1}}, 422, "'cart_velocity' is missing"),
        ({"observation": dict.fromkeys([*NAMES, "speed"], 0)}, 422, "'speed' is unknown"),
        ({"observation": dict.fromkeys(["a"], 0)}, 422, f"the names are {', '.join(NAMES)}"),
        ({"observation": dict.fromkeys(NAMES, "x")}, 422, "expected `float`, got `str`"),
        ({"observations": [ROW], "seed": -1}, 422, "seed: expected `int` >= 0"),
        ({"observations": [ROW], "seed": 2**53}, 422, "seed: expected `int` <= 9007199254740991"),
        (
            {"observations": [ROW], "seed": 1.5},
            422,
            "that's a multiple of 1",
        ),
        ({"observations": [ROW], "seed": "7"}, 422, "seed: expected `int | float | null`"),
        ({"observations": [ROW], "deterministic": 1}, 422, "deterministic: expected `bool`"),
        ({"observations": [ROW], "sed": 7}, 422, "unknown field `sed`"),
        ({"observations": [ROW], "seed": True}, 422, "seed: expected `int | float | null`"),
        ({"observations": [ROW], "deterministic": None}, 422, "deterministic: expected `bool`"),
        (
            b'{"observations": [[1, 2, 3, 4]], "seed": 1, "seed": 2}',
            422,
            "the key 'seed' occurs 2 times in one object",
        ),
        (
            b'{"observation": {"pole_angle": 1, "pole_angle": 1, "cart_position": 1, '
            b'"cart_velocity": 1, "pole_angular_velocity": 1}}',
            422,
            "the key 'pole_angle' occurs 2 times in one object",
        ),
        (
            b'{"observations": [[1, 2, 3, 4]], "observations": [[5, 6, 7, 8]]}',
            422,
            "the key 'observations' occurs 2 times",
        ),
        (
            b'{"observations": [[1, 2, 3, 4]], "se\\u0065d": 1, "seed": 1}',
            422,
            "the key 'seed' occurs 2 times",
        ),
        ({"observation": {'a"b': 1.0}}, 422, "'a\"b' is unknown"),
        ({"observations": [ROW] * 65_537}, 422, "65537 rows, expected 1 to 65536"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong_with_it(
    service: Service, body: Any, status: int, detail: str
) -> None:
    problem = expect_problem(post(service, body), status)
    assert detail in problem["detail"]


def expect_problem(response: urllib3.BaseHTTPResponse, status: int) -> dict[str, Any]:
    assert response.status == status, response.data
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    return problem


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_another_content_type_is_refused(service: Service, content_type: str | None) -> None:
    problem = expect_problem(post(service, {"observations": [ROW]}, content_type), 415)
    assert "application/json" in problem["detail"]


def test_a_charset_beside_the_content_type_is_allowed(service: Service) -> None:
    response = post(service, {"observations": [ROW]}, "application/json; charset=utf-8")
    assert response.status == 200


def test_too_large_a_body_is_refused(service: Service) -> None:
    expect_problem(post(service, b" " * (16 * 1024 * 1024 + 1)), 413)


def test_other_routes_and_methods_answer_in_the_same_shape(service: Service) -> None:
    missing = urllib3.request("GET", f"{service.url}/no/such/route", retries=False)
    expect_problem(missing, 404)
    wrong_method = urllib3.request("GET", f"{service.url}/act", retries=False)
    expect_problem(wrong_method, 405)
    assert "POST" in wrong_method.headers["Allow"]


@pytest.mark.parametrize("charset", ["utf-16", "latin-1"])
def test_another_charset_is_refused(service: Service, charset: str) -> None:
    content_type = f"application/json; charset={charset}"
    problem = expect_problem(post(service, {"observations": [ROW]}, content_type), 415)
    assert "JSON is UTF-8" in problem["detail"]


def post_encoded(service: Service, body: bytes, encoding: str) -> urllib3.BaseHTTPResponse:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    return urllib3.request(
        "POST", f"{service.url}/act", body=body, headers=headers, retries=False, timeout=60
    )


def test_a_packed_body_is_unpacked(service: Service) -> None:
    body = json.dumps({"observations": [ROW], "seed": 7}).encode()
    middle = len(body) // 2
    members = gzip.compress(body[:middle]) + gzip.compress(body[middle:])
    for packed, encoding in [
        (gzip.compress(body), "gzip"),
        (gzip.compress(body), "X-GZip"),
        (members, "gzip"),  # a file of two members (RFC 1952, section 2.2)
        (zlib.compress(body), "deflate"),
        (body, "identity"),
    ]:
        response = post_encoded(service, packed, encoding)
        assert response.json() == act(service, observations=[ROW], seed=7)


def test_a_name_of_any_letters_is_told_as_it_was_asked_for(service: Service) -> None:
    for method, path in (("POST", "/models/%C3%A9/act"), ("GET", "/models/%C3%A9")):
        body = {"observations": [ROW]}
        answer = urllib3.request(method, service.url + path, json=body, retries=False)
        assert "'é'" in expect_problem(answer, 404)["detail"]


def test_a_doubled_slash_is_another_path(service: Service) -> None:
    answer = urllib3.request("GET", f"{service.url}/models//cartpole", redirect=False)
    assert answer.status == 404  # no redirect, which would leave TLS and the root path


def test_members_may_end_anywhere(service: Service) -> None:
    body = json.dumps({"observations": [ROW], "seed": 7}).encode()
    wanted = act(service, observations=[ROW], seed=7)
    empty, whole = gzip.compress(b"", mtime=0), gzip.compress(body, mtime=0)
    # Around 4 KiB, which are unpacked at a time.
    for count in range(4096 // len(empty) - len(whole) // len(empty) - 2, 4096 // len(empty) + 2):
        packed = empty * count + whole
        assert post_encoded(service, packed, "gzip").json() == wanted
        assert post_encoded(service, packed + empty, "gzip").json() == wanted
        expect_problem(post_encoded(service, packed[:-1], "gzip"), 400)
        expect_problem(post_encoded(service, packed + b"x", "gzip"), 400)
        expect_problem(post_encoded(service, empty * count, "gzip"), 400)  # not JSON


@pytest.mark.long
def test_as_many_members_as_a_body_can_have_are_unpacked_in_time(service: Service) -> None:
    packed = gzip.compress(b"", mtime=0) * 800_000  # 16 MB
    body = json.dumps({"observations": [ROW], "seed": 7}).encode()
    response = post_encoded(service, packed + gzip.compress(body), "gzip")
    assert response.json() == act(service, observations=[ROW], seed=7)


def test_a_coding_that_is_not_understood_gets_those_that_are(service: Service) -> None:
    response = post_encoded(service, b"{}", "br")
    assert response.status == 415
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("body", "encoding", "status", "detail"),
    [
        (b"{}", "br", 415, "the Content-Encoding is 'br', not 'gzip' or 'deflate'"),
        (b"{}", "gzip", 400, "the body is not gzip"),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip", 400, "not one whole gzip stream"),
        (zlib.compress(b"{}") * 2, "deflate", 400, "not one whole deflate stream"),
        (b"{}", "gzip, gzip", 415, "the Content-Encoding is 'gzip, gzip'"),
        (gzip.compress(b" " * 200_000_000, 9), "gzip", 413, "longer than 16777216 bytes"),
    ],
)
def test_a_body_packed_wrongly_is_refused(
    service: Service, body: bytes, encoding: str, status: int, detail: str
) -> None:
    assert detail in expect_problem(post_encoded(service, body, encoding), status)["detail"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 10_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_not_http_is_answered_in_the_same_shape(
    service: Service, sent: bytes, status: int
) -> None:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(sent)
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == status
