"""The page /docs: it reads as one line per route, and each route can be tried on it."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import urllib3
from playwright.sync_api import Locator, Page, expect

from tests.conftest import Service, Trained, running_with_key
from tests.web.conftest import Visit, serious_violations
from tests.web.test_layout import DESKTOP, OBSERVE_SHIFTS, PHONE

pytestmark = pytest.mark.long

KEY = "a-key-that-a-reader-enters"
ROW = [0.01, -0.02, 0.03, 0.04]
INPUT = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": ROW}
# Requests of every protocol that are answered the same each time.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "act": ("act", {"observation": ROW, "seed": 7}),
    "act_by_name": ("models/cartpole/act", {"observation": ROW, "seed": 8}),
    "tf_predict": (
        "v1/models/cartpole:predict",
        {
            "signature_name": "act",
            "instances": [{"observations": ROW, "uniforms": 0.5, "deterministic": False}],
        },
    ),
    "oip_infer": (
        "v2/models/cartpole/infer",
        {"inputs": [INPUT], "parameters": {"seed": 7}},
    ),
}


@pytest.fixture(scope="module")
def keyed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_with_key(trained.models, tmp_path_factory.mktemp("keyed"), KEY) as service:
        yield service


def send(page: Page, route: str, body: str | None = None) -> Locator:
    """Send the request of an opened route; its answer."""
    opened = page.locator(f"#{route}")
    if body is not None:
        opened.get_by_label("Body", exact=True).fill(body)
    opened.get_by_role("button", name="Send").click()
    return opened.locator(".answer")


def answered(answer: Locator, status: str) -> Any:
    """The JSON of an answer with this status."""
    expect(answer.get_by_role("status")).to_contain_text(status)
    return json.loads(answer.locator("pre").inner_text())


@pytest.mark.parametrize("route", REQUESTS)
def test_a_request_is_answered_as_a_direct_one(route: str, service: Service, visit: Visit) -> None:
    path, body = REQUESTS[route]
    direct = urllib3.request("POST", f"{service.url}/{path}", json=body)
    page = visit(f"{service.url}/docs#{route}")
    answer = send(page, route, json.dumps(body))
    assert answered(answer, "200 OK in ") == direct.json()
    expect(answer).to_contain_text("X-Request-ID")


def test_requests_have_the_key_that_was_entered(keyed: Service, visit: Visit) -> None:
    page = visit(f"{keyed.url}/docs", forgive="401")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    for route, (path, body) in REQUESTS.items():
        direct = urllib3.request(
            "POST", f"{keyed.url}/{path}", json=body, headers={"Authorization": f"Bearer {KEY}"}
        )
        page.locator(f"#{route} > summary").click()
        assert answered(send(page, route, json.dumps(body)), "200 OK") == direct.json()
    assert KEY not in page.content()


def test_parameters_of_the_path_and_headers_are_sent(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#act_by_name", forgive="404")
    form = page.locator("#act_by_name form")
    form.get_by_label("X-Episode-ID").fill("e-1")
    with page.expect_request("**/models/cartpole/act") as sent:
        answered(send(page, "act_by_name"), "200 OK")
    assert sent.value.headers["x-episode-id"] == "e-1"
    form.get_by_label("name", exact=False).first.fill("no such")
    problem = answered(send(page, "act_by_name"), "404 Not Found")
    assert problem["detail"] == "no model is called 'no such'; there are cartpole"


@pytest.mark.parametrize(
    ("route", "body", "status", "detail"),
    [
        ("act", "{", "400 Bad Request", "JSON"),
        ("act", '{"observation": [1, 2]}', "422 Unprocessable", "expected 4"),
        ("tf_predict", '{"instances": []}', "400 Bad Request", "No values in 'instances'"),
        ("oip_infer", '{"inputs": []}', "400 Bad Request", "observations"),
    ],
)
def test_a_refused_request_is_shown_with_its_reason(
    route: str, body: str, status: str, detail: str, service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/docs#{route}", forgive=status[:3])
    problem = answered(send(page, route, body), status)
    assert detail in problem.get("detail", problem.get("error"))
    expect(page.locator("#problem")).to_be_hidden()
    # The next one is answered on the same page.
    example = json.dumps(REQUESTS[route][1])
    assert answered(send(page, route, example), "200 OK")


def test_a_service_that_does_not_answer_is_named_as_such(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#models", forgive="ERR_FAILED")
    answered(send(page, "models"), "200 OK")
    page.route("**/models", lambda route: route.abort())
    answer = send(page, "models")
    expect(answer.get_by_role("status")).to_have_text("No answer: it cannot be reached")
    expect(answer.locator("pre")).to_be_hidden()


def test_examples_can_be_chosen_and_the_command_follows(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#act")
    form = page.locator("#act form")
    form.get_by_label("Example").select_option(
        label="One observation by name, the most probable action"
    )
    chosen = json.loads(form.get_by_label("Body", exact=True).input_value())
    assert chosen["deterministic"] is True
    assert "cart_position" in chosen["observation"]
    form.get_by_label("X-Episode-ID").fill("e-1")
    expect(page.locator("#act .command")).to_contain_text("-H 'X-Episode-ID: e-1'")
    answer = answered(send(page, "act"), "200 OK")
    command = page.locator("#act .command").inner_text()
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout) == answer | {"seed": json.loads(finished.stdout)["seed"]}


def test_a_quote_in_a_body_is_one_in_the_command(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#act", forgive="422")
    problem = answered(send(page, "act", '{"observation": {"it\'s": 1}}'), "422")
    command = page.locator("#act .command").inner_text()
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout) == problem
    assert "it's" in problem["detail"]


def test_the_command_has_no_key(keyed: Service, visit: Visit) -> None:
    page = visit(f"{keyed.url}/docs#models", forgive="401")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#models .command")).to_contain_text("-H 'Authorization: Bearer <key>'")
    page.locator("#live > summary").click()
    expect(page.locator("#live .command")).not_to_contain_text("Authorization")  # it needs none


def test_what_a_request_changes_is_said_before_it_is_sent(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs", forgive="403|409")
    said = page.locator("details.route:has(form .notice)")
    routes = ["feedback", "oip_load", "oip_unload"]
    assert said.evaluate_all("routes => routes.map(({ id }) => id)") == routes
    for route in routes:
        page.locator(f"#{route} > summary").click()
        expect(page.locator(f"#{route} form .notice")).to_be_visible()
        # This service has neither a decision log nor keys.
        status = "409" if route == "feedback" else "403"
        assert answered(send(page, route), status)


@pytest.mark.parametrize("anchor", ["act", "oip_infer_by_version", "ActBatchRequest", "types"])
def test_an_anchor_opens_what_it_names_and_nothing_else(
    anchor: str, service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/docs#{anchor}")
    expect(page.locator(f"#{anchor} > summary")).to_be_in_viewport()
    opened = page.locator("details[open]").evaluate_all("parts => parts.map(({ id }) => id)")
    within = {"oip_infer_by_version": [""], "ActBatchRequest": ["types"]}
    assert opened == [*within.get(anchor, []), anchor]


def test_links_lead_to_types_and_back(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs")
    page.locator("#act > summary").click()
    expect(page).to_have_url(f"{service.url}/docs#act")
    link = page.locator("#act").get_by_role("link", name="ActRequest")
    link.click()
    expect(page.locator("#ActRequest")).to_have_attribute("open", "")
    expect(page.locator("#ActRequest > summary")).to_be_in_viewport()
    page.go_back()
    expect(page.locator("#act > summary")).to_be_in_viewport()
    # A type that was closed again opens again.
    link.click()
    page.locator("#ActRequest > summary").click()
    expect(page.locator("#ActRequest")).not_to_have_attribute("open", "")
    link.click()
    expect(page.locator("#ActRequest")).to_have_attribute("open", "")


def test_a_route_is_tried_by_keyboard(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs")

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab never reaches {selector}")

    tab_to("#act > summary")
    page.keyboard.press("Enter")
    tab_to("#act select")
    page.keyboard.press("ArrowDown")
    tab_to("#act textarea")
    tab_to("#act button")
    page.keyboard.press("Enter")
    answer = answered(page.locator("#act .answer"), "200 OK")
    assert len(answer["actions"]) == 1  # the second example has one observation
    tab_to("#act_by_name > summary")  # there is a way out


def open_everything(page: Page) -> None:
    answered(send(page, "act"), "200 OK")
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")


@pytest.mark.parametrize(("size", "screens"), [(DESKTOP, 3), (PHONE, 6)], ids=["desktop", "phone"])
def test_it_is_short_until_it_is_opened(
    size: dict[str, int], screens: int, service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/docs", viewport=size)
    expect(page.locator("#types > summary")).to_be_visible()
    height = page.evaluate("document.documentElement.scrollHeight")
    assert size["height"] < height < screens * size["height"]


def test_everything_opened_fits_a_phone(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#act", viewport=PHONE, has_touch=True, is_mobile=True)
    open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation_in_what_is_opened(
    scheme: Literal["light", "dark"], service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/docs#act", color_scheme=scheme)
    open_everything(page)
    assert serious_violations(page) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_moves_while_the_page_loads_at_an_anchor(
    size: dict[str, int], service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/docs#tf_predict", viewport=size, first=OBSERVE_SHIFTS)
    expect(page.locator("#tf_predict textarea")).to_be_visible()
    page.wait_for_timeout(300)
    assert page.evaluate("window.shifts") == []


def test_it_reads_without_a_script(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/docs", java_script_enabled=False)
    page.locator("#act > summary").click()
    opened = page.locator("#act")
    expect(opened.locator(".command")).to_contain_text("curl -s http://127.0.0.1:8000/act \\")
    expect(opened.locator(".command")).to_contain_text('"seed":7')
    expect(opened.locator("noscript pre")).to_be_visible()  # the second example
    expect(opened.get_by_role("button", name="Send")).to_be_disabled()
    expect(opened).to_contain_text("422 The body is JSON")


def test_json_keeps_its_digits_and_other_text_stays_as_it_is(
    service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/docs")
    given = [
        '{"a":[1.0,1e-7],"b":{},"c":12345678901234567890}',
        '{"rows":[[0.1,0.2],[0.3,0.4]],"text":"' + "x" * 50 + '"}',
        '{"predictions": [NaN]}',
    ]
    lines = page.evaluate(
        "async texts => texts.map((await import(`${location.origin}/web/json.js`)).withLines)",
        given,
    )
    assert lines == [
        '{"a": [1.0, 1e-7], "b": {}, "c": 12345678901234567890}',
        '{\n  "rows": [[0.1, 0.2], [0.3, 0.4]],\n  "text": "' + "x" * 50 + '"\n}',
        '{"predictions": [NaN]}',
    ]
