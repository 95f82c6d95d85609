"""`python -m serving`."""

import os
import sys

if __name__ == "__main__":
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file opened would take its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+"))

    host, port = os.environ.get("SERVING_HOST"), os.environ.get("SERVING_PORT", "")
    if sys.argv[1:] == ["health"] and host and port.isdecimal():
        # As the images ask, every few seconds: half the time goes into importing click.
        from serving.healthcheck import report

        report(host, int(port))
    else:
        from serving.cli import main

        main()
