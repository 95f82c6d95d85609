"""`python -m training` and `actor-critic-train`."""

import sys
import traceback
from pathlib import Path


def main() -> None:
    """Run the command line; exit status 2 if packages that it needs are missing."""
    try:
        from training.cli import main as run

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        importer = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        # A module that other code imports, such as an environment's, is not our requirement.
        if package == "training" or importer.parent != Path(__file__).parent:
            raise
        sys.stderr.write(f"Error: {package} is not installed: install actor-critic[train]\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
