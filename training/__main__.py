"""`python -m training` and `actor-critic-train`."""

import sys


def main() -> None:
    """Run the command line; exit status 2 if packages that it needs are missing."""
    try:
        from training.cli import main as run

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "training":
            raise
        sys.stderr.write(f"Error: {package} is not installed: install actor-critic[train]\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
