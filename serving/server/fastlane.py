"""A way around Flask for plain `POST /act` requests: from their bytes to the answers' bytes.

Parsing HTTP, WSGI and Flask cost several times what a decision costs. A request is taken here
only if nothing about it is out of the ordinary, and all that arrive together are decided in
one call of the policy. Every other request, and every one that is not answered with 200, goes
the ordinary way, which alone knows about errors. Both ways use the same functions and give
the same answers; a test compares them.
"""

import os
import re
import time
from collections.abc import Sequence
from email.utils import formatdate

from serving.api.act import Asked, answer_act, read_act
from serving.api.encoding import encode
from serving.api.keys import Keys
from serving.errors import NotReadyError, ProblemError
from serving.metrics import Metrics
from serving.policy.decide import Decided, Question, decide_together
from serving.policy.observations import require_rows, to_array
from serving.policy.savedmodel import Policy
from serving.registry.repository import Repository
from serving.settings import Settings

_HEAD = re.compile(
    rb"POST /act HTTP/1\.1\r\n((?:[A-Za-z-]+:[ \t]*[\x21-\x7e][\x20-\x7e]*\r\n)+)\r\n"
)
_ORDINARY = {
    b"accept",
    b"accept-encoding",
    b"accept-language",
    b"authorization",
    b"connection",
    b"content-length",
    b"content-type",
    b"host",
    b"user-agent",
}
_JSON = {b"application/json", b"application/json; charset=utf-8"}
_MAX_HEADS = 1024


class FastLane:
    """Answers plain requests of the default model."""

    def __init__(
        self, repository: Repository, settings: Settings, metrics: Metrics, keys: Keys
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        # A client sends the same head again and again: whether it is ordinary, by its bytes.
        self._heads: dict[bytes, bool] = {}
        self._common = (0, b"")  # of all answers within one second: the second, the head

    def answer(self, requests: Sequence[bytes]) -> list[bytes | None]:
        """Answer what can be answered here.

        Args:
            requests: whole ones, each with as long a body as its head says.

        Returns:
            For each the HTTP response, or None where the ordinary way has to answer.
        """
        started = time.perf_counter()
        answers: list[bytes | None] = [None] * len(requests)
        read = [(place, self._read(request)) for place, request in enumerate(requests)]
        asked = {place: one for place, one in read if one is not None}
        if not asked:
            return answers
        try:
            policy = self._repository.policy()
            decided = self._decide(policy, list(asked.values()))
        except NotReadyError:
            return answers
        # Whatever it is, the ordinary way meets it again, and tells it.
        except Exception:
            if len(asked) > 1:  # one of them fails, and not its neighbours
                for place in asked:
                    (answers[place],) = self.answer([requests[place]])
            return answers
        head = self._common_head()
        for place, decision in zip(asked, decided, strict=True):
            body = encode(answer_act(policy, decision))
            request_id = os.urandom(8).hex().encode()
            answers[place] = b"%bX-Request-ID: %b\r\nContent-Length: %d\r\n\r\n%b" % (
                head,
                request_id,
                len(body),
                body,
            )
        seconds = time.perf_counter() - started
        self._metrics.answered("/act", 200, seconds, len(asked))
        return answers

    def _read(self, request: bytes) -> Asked | None:
        end = request.find(b"\r\n\r\n") + 4
        head = request[:end]
        ordinary = self._heads.get(head)
        if ordinary is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            ordinary = self._heads[head] = self._is_ordinary(head)
        if not ordinary:
            return None
        try:
            return read_act(request[end:])
        except ProblemError:
            return None

    def _is_ordinary(self, head: bytes) -> bool:
        found = _HEAD.fullmatch(head)
        if found is None or self._settings.log_requests == "all":
            return False
        lines = [line.partition(b":") for line in found[1].split(b"\r\n")[:-1]]
        headers = {name.lower(): value.strip() for name, _, value in lines}
        if len(headers) < len(lines) or not headers.keys() <= _ORDINARY or b"host" not in headers:
            return False
        if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return False
        if headers.get(b"content-type", b"").lower() not in _JSON:
            return False
        try:
            if self._keys:
                self._keys.require(headers.get(b"authorization", b"").decode("ascii"))
        except ProblemError:
            return False
        return True

    def _decide(self, policy: Policy, asked: list[Asked]) -> list[Decided]:
        questions = [Question(len(one.rows), one.seed, one.deterministic) for one in asked]
        for question in questions:
            require_rows(question.rows, self._settings.max_rows)
        rows = [row for one in asked for row in one.rows]
        observations = to_array(rows, policy.card.observations.names, max_rows=len(rows))
        return decide_together(policy, observations, questions, self._metrics)

    def _common_head(self) -> bytes:
        now = int(time.time())
        if self._common[0] != now:
            head = (
                "HTTP/1.1 200 OK\r\nServer: gunicorn\r\n"
                f"Date: {formatdate(now, usegmt=True)}\r\n"
                "Connection: keep-alive\r\nContent-Type: application/json\r\n"
                "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
            )
            self._common = now, head.encode("ascii")
        return self._common[1]
