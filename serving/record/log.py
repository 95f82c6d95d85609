"""The decision log of a worker: accepts lines without waiting; its own thread writes them."""

import logging
import threading
import time
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import UNSET

from serving.metrics import Metrics
from serving.record.encoding import Clock, DecidedRequest, decision_lines
from serving.record.files import MAX_FILE_BYTES, Sign, Stream, recover
from serving.record.lines import Feedback, Lost, encode_line
from serving.record.retention import delete_old
from serving.schemas import FeedbackRequest
from serving.settings import Settings

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 0.05  # a killed worker loses this much, plus a few milliseconds
MAX_PENDING_BYTES = 16 * 1024 * 1024  # lines that wait for a slow or full disk
_LOST = "the disk is slow or full, or the lines are too long for the size of the log"
_CLEAN_UP_SECONDS = 60.0
_CLOSE_SECONDS = 2.0  # for the last writes when the worker ends


class _Block(NamedTuple):
    lines: list[bytes]
    number: int  # of the next line after them


class DecisionLog:
    """Numbers lines and hands them to the thread that writes; called from several threads.

    It never waits for the disk: while that is slow or full, lines wait in memory, and those that
    do not fit are lost and counted. So are lines that take more than half of the log's size: the
    file with them would be deleted as soon as it is complete.
    """

    def __init__(self, settings: Settings, metrics: Metrics, sign: Sign | None) -> None:
        """Start the thread, which also completes the files of workers that were killed.

        Args:
            settings: with the folder, `decision_log`.
            metrics: count what is written and lost.
            sign: signs each block, where there is a key.
        """
        assert settings.decision_log is not None
        self._folder = settings.decision_log
        self._settings = settings
        self._metrics = metrics
        self._sign = sign
        # Keeps the files being written a small part of the total.
        file_bytes = settings.decision_log_bytes // (8 * settings.workers)
        self._file_bytes = min(MAX_FILE_BYTES, file_bytes)
        self._stream = Stream(
            self._folder,
            file_bytes=self._file_bytes,
            sample=settings.decision_log_sample,
            rows=settings.decision_log_rows,
            sign=sign,
        )
        self._clock = Clock()
        self._lock = threading.Lock()
        self._pending = _Block([], 1)
        self._pending_bytes = 0
        self._lost = 0  # lines since the last one that was taken
        self._unwritten: _Block | None = None  # what is not on the disk yet
        self._ends = threading.Event()
        self._failures: list[str] = []  # already logged
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    def record_decisions(self, decided: Sequence[DecidedRequest], milliseconds: float) -> None:
        """Record decisions that were made together, in so many milliseconds."""
        sample = self._settings.decision_log_sample
        if sample < 1:
            decided = [one for one in decided if _sampled(one.request.episode or one.id, sample)]
        rows = self._settings.decision_log_rows
        with self._lock:
            number, now = self._pending.number, self._clock.now()
            self._take(decision_lines(decided, number, now, milliseconds, rows=rows))

    def record_feedback(self, own_id: str, given: FeedbackRequest) -> None:
        """Record feedback that a request with this id brought, if its episode is recorded."""
        sample = self._settings.decision_log_sample
        if given.episode is UNSET or _sampled(given.episode, sample):
            with self._lock:
                line = Feedback(
                    number=self._pending.number,
                    id=own_id,
                    time=self._clock.now(),
                    episode=None if given.episode is UNSET else given.episode,
                    request=None if given.request is UNSET else given.request,
                    step=None if given.step is UNSET else int(given.step),
                    rewards=None if given.rewards is UNSET else given.rewards,
                    return_=None if given.return_ is UNSET else given.return_,
                    ended=given.request is UNSET if given.ended is UNSET else given.ended,
                )
                self._take([encode_line(line)])

    def close(self) -> None:
        """Write what was taken and complete the file, unless the disk is too slow for that."""
        self._ends.set()
        self._thread.join(_CLOSE_SECONDS)

    def _take(self, lines: list[bytes]) -> None:
        """Queue numbered lines for writing, in the order of their numbers."""
        pending, number = self._pending
        size = sum(map(len, lines))
        block_bytes = self._pending_bytes + size
        if (
            self._pending_bytes > MAX_PENDING_BYTES
            or block_bytes > self._settings.decision_log_bytes // 2
        ):
            self._lost += len(lines)
            self._metrics.decision_log_lost.inc(len(lines))
        else:
            if self._lost:
                pending.append(self._lost_line(number))
            pending += lines
            self._pending_bytes = block_bytes
        self._pending = _Block(pending, number + len(lines))

    def _lost_line(self, number: int) -> bytes:
        lost = Lost(first=number - self._lost, lines=self._lost, reason=_LOST)
        self._lost = 0
        return encode_line(lost)

    def _run(self) -> None:
        clean_up_at, is_failing, ends = 0.0, False, False
        while not ends:
            ends = self._ends.wait(BLOCK_SECONDS)
            try:
                if not ends and time.monotonic() >= clean_up_at:
                    # Before writing, as this may free space on a full disk.
                    clean_up_at = time.monotonic() + _CLEAN_UP_SECONDS
                    self._clean_up()
                part = self._stream.part
                self._metrics.decision_log_lost.inc(self._stream.leave_removed())
                while self._write() and ends:
                    pass  # until nothing is left
                if not ends:
                    self._stream.rotate()
                if self._stream.part > part:
                    self._clean_up()
                if ends:
                    self._stream.close()
                is_failing = False
            except OSError as error:
                if not is_failing:
                    logger.error("the decision log cannot be written: %s", error)
                is_failing = True

    def _write(self) -> bool:
        """Write the queued lines, if there are any; they are kept until that succeeds."""
        if self._unwritten is None:
            with self._lock:
                if self._lost:
                    self._pending.lines.append(self._lost_line(self._pending.number))
                self._unwritten, self._pending = self._pending, _Block([], self._pending.number)
                self._pending_bytes = 0
        lines, number = self._unwritten
        if lines:
            self._stream.write(lines, number)
            self._metrics.decision_log_lines.inc(len(lines))
        self._unwritten = None
        return bool(lines)

    def _clean_up(self) -> None:
        failures = delete_old(
            self._folder,
            days=self._settings.decision_log_days,
            total_bytes=self._settings.decision_log_bytes,
            file_bytes=self._file_bytes,
        )
        failures += recover(self._folder, self._sign)  # needs free space
        for failure in failures:
            if failure not in self._failures:
                logger.error("%s", failure)
        self._failures = failures


def _sampled(key: str, sample: float) -> bool:
    """Whether a key is in the sample; an episode's decisions share one key: all are, or none."""
    return zlib.crc32(key.encode()) < sample * 2**32
