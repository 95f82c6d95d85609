"""`make demo`: train, serve on a free port, play five episodes over HTTP, stop everything."""

import signal
import subprocess
import sys

PYTHON = sys.executable


def main() -> int:
    """Run the three programs one after the other; the first failure is the exit status."""
    # As Ctrl-C does: an exception, so that nothing that was started stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        subprocess.run([PYTHON, "-m", "training", "train", "--models", "models"], check=True)
        with subprocess.Popen(
            [PYTHON, "-m", "serving", "run", "--models", "models", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        ) as service:
            try:
                assert service.stdout is not None
                url = service.stdout.readline().strip()
                if url:
                    play = [PYTHON, "-m", "serving", "play", "--url", url, "--wait", "60"]
                    subprocess.run(play, check=True)
            finally:
                service.terminate()
                service.wait()  # after Ctrl-C `with` alone would not wait for its end
        return 0 if url else service.returncode
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
