"""A client that processes share after a fork."""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.conftest import ENVIRONMENT, ROOT

FORKING = """
import json, os, sys
from serving.client import PolicyClient

client = PolicyClient(sys.argv[1], api_key="a-key")
def ask(): return [client.policy_card("x") for _ in range(2)]
before = ask()
if os.fork():
    os.wait()
    print(json.dumps({"before": before, "after": ask()}))
else:
    print(json.dumps({"child": ask()}), flush=True)
    os._exit(0)
"""


class Naming(BaseHTTPRequestHandler):
    """Answers with the connection and the key that a request came with."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        policy = {"connection": self.client_address[1], "key": self.headers["Authorization"]}
        body = json.dumps({"policy": policy}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_forked_process_has_connections_of_its_own_and_its_parent_keeps_its_own() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Naming) as server:
        Thread(target=server.serve_forever).start()
        try:
            finished = subprocess.run(
                [sys.executable, "-c", FORKING, f"http://127.0.0.1:{server.server_port}"],
                cwd=ROOT,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            server.shutdown()
    assert finished.returncode == 0, finished.stderr
    of_child, of_parent = (json.loads(line) for line in finished.stdout.splitlines())
    (child, again), (parent, *others) = of_child["child"], of_parent["before"] + of_parent["after"]
    assert others == [parent] * 3
    assert again == child
    assert child["connection"] != parent["connection"]
    assert child["key"] == parent["key"] == "Bearer a-key"
