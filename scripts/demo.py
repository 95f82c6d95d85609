"""`make demo`: train, serve on a free port, play five episodes over HTTP, stop everything."""

import subprocess
import sys

from scripts.programs import exit_at_signals, run_and_show, running, say

NEXT = """
The policy is in models/. To serve it:

    make serve

and open http://127.0.0.1:8000 in a browser. Ctrl-C ends the service."""


def main() -> int:
    """Run the three programs one after the other; the first failure is the exit status."""
    exit_at_signals()
    say("\nTraining a policy for CartPole-v1: some 10 seconds")
    status = run_and_show([sys.executable, "-m", "training", "train", "--models", "models"])
    if status:
        return status
    say("\nStarting a service of it on a free port: some 5 seconds")
    serve = [sys.executable, "-m", "serving", "run", "--models", "models", "--port", "0"]
    with running(serve, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        if not url:
            return service.wait()
        say(f"\nPlaying five episodes through {url}/act")
        play = [sys.executable, "-m", "serving", "play", "--url", url, "--wait", "60"]
        with running(play) as playing:
            status = playing.wait()
        if status == 0:
            say("\nStopping the service")
    if status == 0:
        say(NEXT)
    return status


if __name__ == "__main__":
    sys.exit(main())
