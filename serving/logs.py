"""Logs: JSON lines for programs, plain lines on a terminal."""

import io
import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger

logger = logging.getLogger(__name__)

# What every record has; the rest was given with `extra`.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, process, message, and what else was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode one record."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        content |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


class TextFormatter(logging.Formatter):
    """One line for a person: time, level and message. Lines of an exception are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; what a client sent cannot begin a line or move the cursor."""
        lines = [f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"]
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            lines += [f"    {line}" for line in traceback.splitlines()]
        return "\n".join(map(_printable, lines))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class GunicornLogger(Logger):
    """Sends gunicorn's messages to the same handler as ours."""

    def setup(self, _cfg: Any) -> None:
        """Leave formatting and writing to the root logger."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)


class PrintedLines(io.TextIOBase):
    """Replaces standard error: lines that Python code prints, such as gunicorn's, are logged."""

    line = ""

    def write(self, text: str) -> int:
        """Log every line that `text` completes, except blank ones."""
        *lines, self.line = (self.line + text).split("\n")
        for line in filter(str.strip, lines):
            logger.warning("%s", line)
        return len(text)


def log_uncaught(what: Any) -> None:
    """Log an exception that ended a thread or could not be raised; never SystemExit."""
    if not issubclass(what.exc_type, SystemExit):
        where = getattr(what, "thread", None) or getattr(what, "object", None)
        info = (what.exc_type, what.exc_value, what.exc_traceback)
        logger.error("uncaught exception in %r", where, exc_info=info)


def set_up_logs(log_format: str) -> None:
    """Log to standard error, and log whatever Python code writes there."""
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.raiseExceptions = False  # failed writes would be reported on the same standard error
    logging.captureWarnings(True)
    sys.excepthook = lambda *info: logger.critical("uncaught exception", exc_info=info)
    threading.excepthook = sys.unraisablehook = log_uncaught
    sys.stderr = PrintedLines()
