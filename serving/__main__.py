"""`python -m serving` and `actor-critic-serve`."""

import os
import sys


def main() -> None:
    """Run the command line; exit status 2 if packages that the command needs are missing."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file opened would take its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+"))

    host, port = os.environ.get("SERVING_HOST"), os.environ.get("SERVING_PORT", "")
    if sys.argv[1:] == ["health"] and host and port.isdecimal():
        # The images' health check, every few seconds: importing click would double its time.
        from serving.healthcheck import report

        report(host, int(port))
        return
    try:
        from serving.cli import main as run

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "serving":
            raise
        extra = "play" if "play" in sys.argv[1:2] else "serve"
        sys.stderr.write(f"Error: {package} is not installed: install actor-critic[{extra}]\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
