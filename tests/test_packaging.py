"""The installed package: built from git, installed in environments of its own, used elsewhere."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import serving.cli
import training.cli
from serving.client import PolicyClient
from tests.conftest import ENVIRONMENT, ROOT, Service, run
from tests.pull.sources import Rclone

if TYPE_CHECKING:
    from tests.signatures import Key

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS = {"training": training.cli.commands, "serving": serving.cli.commands}


def pip(*arguments: str | Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


class Environment:
    """A virtual environment that has nothing, and an empty folder to run its programs in."""

    def __init__(self, folder: Path) -> None:
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self._bin = folder / "environment" / "bin"
        venv.create(self._bin.parent)
        # What the tests run with, for every package that could come along.
        self._constraints = folder / "constraints.txt"
        pinned = re.findall(
            r"^([a-z].*==.*?) \\$", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE
        )
        self._constraints.write_text("\n".join(pinned))

    def install(self, wheel: Path, extras: str = "") -> None:
        """Install the wheel with extras, such as `[serve,pull]`."""
        options = ("--quiet", "--no-compile", "--constraint", self._constraints)
        python = self._bin / "python"
        pip("--python", python, "install", *options, f"actor-critic{extras} @ {wheel.as_uri()}")

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        return [str(self._bin / name), *map(str, arguments)]

    def run(
        self, name: str, *arguments: str | Path, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *arguments),
            cwd=self.elsewhere,
            env=ENVIRONMENT | variables,
            capture_output=True,
            text=True,
        )

    @contextmanager
    def service(self, models: Path) -> Iterator[PolicyClient]:
        """Run the installed service on a free port, and stop it."""
        with (
            (self.elsewhere / "log").open("w") as log,
            subprocess.Popen(
                self.command("actor-critic-serve", "run", "--models", models, "--port", "0"),
                cwd=self.elsewhere,
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                with PolicyClient(process.stdout.readline().strip()) as client:
                    client.wait_until_ready(60)
                    yield client
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by pip from a git repository that has what this checkout has now."""
    folder = tmp_path_factory.mktemp("wheel")
    repository = folder / "repository"
    for package in ("serving", "training"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, repository / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, repository)
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *identity, *command], cwd=repository, check=True)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    pip("wheel", *options, f"git+{repository.as_uri()}")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the package and no extra."""
    environment = Environment(tmp_path_factory.mktemp("base"))
    environment.install(wheel)
    return environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def expect_missing(finished: subprocess.CompletedProcess[str], extra: str) -> None:
    """It failed in one line that says which extra to install."""
    assert (finished.returncode, finished.stdout) == (2, "")
    assert re.fullmatch(rf"Error: .*\bactor-critic\[{extra}\].*\n", finished.stderr)


def test_without_extras_it_is_a_client_in_every_folder(base: Environment, service: Service) -> None:
    code = (
        "from importlib.metadata import distributions\n"
        "from serving.client import PolicyClient\n"
        f"with PolicyClient({service.url!r}) as client:\n"
        "    print(client.act([[0.01, -0.02, 0.03, 0.04]], seed=7))\n"
        "print(*sorted(one.name for one in distributions()))\n"
    )
    finished = base.run("python", "-W", "error", "-c", code)
    assert finished.returncode == 0, finished.stderr
    answer, installed = finished.stdout.splitlines()
    with PolicyClient(service.url) as client:
        assert answer == str(client.act([[0.01, -0.02, 0.03, 0.04]], seed=7))
    assert installed.split() == ["actor-critic", "msgspec", "numpy", "urllib3"]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("actor-critic-train --version", "train"),
        ("actor-critic-train train", "train"),
        ("actor-critic-serve run --help", "serve"),
        ("actor-critic-serve play --url http://127.0.0.1:9", "play"),
        ("python -m training", "train"),
        ("python -m serving verify .", "serve"),
    ],
)
def test_a_command_without_its_extra_says_which_it_is(
    base: Environment, command: str, extra: str
) -> None:
    expect_missing(base.run(*command.split()), extra)


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("serving", "training")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files
    assert {"serving/py.typed", "training/py.typed", "serving/web/index.html"} <= names


def test_the_wheel_has_the_version_that_the_commands_show(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    for program in PROGRAMS:
        shown = run(program, "--version")
        assert (shown.returncode, shown.stdout) == (0, f"actor-critic {version}\n")


@pytest.mark.parametrize(
    ("program", "name"),
    [(program, name) for program, group in PROGRAMS.items() for name in group.commands],
)
def test_every_command_has_two_options_for_help(
    program: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group = PROGRAMS[program]
    shown = []
    for option in ("-h", "--help"):
        with pytest.raises(click.exceptions.Exit):
            group.commands[name].make_context(
                name, [option], parent=group.make_context(program, [name])
            )
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith(f"Usage: {program} {name} ")


def test_the_documentation_lists_every_extra() -> None:
    table = (ROOT / "docs" / "install.md").read_text().split("| extra | adds |\n|---|---|\n")[1]
    first_cells = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()]
    listed = re.findall(r"`(\w+)`", " ".join(first_cells))
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"])


@pytest.mark.long
def test_play_needs_no_more_than_its_extra(
    environment: Environment, wheel: Path, service: Service
) -> None:
    environment.install(wheel, "[play]")
    play = ("play", "--url", service.url, "--episodes", "1", "--json")
    finished = environment.run("actor-critic-serve", *play)
    assert finished.returncode == 0, finished.stderr
    assert len(json.loads(finished.stdout)["episodes"]) == 1
    expect_missing(environment.run("actor-critic-serve", "run", "--models", "."), "serve")
    completed = environment.run(
        "actor-critic-serve",
        _ACTOR_CRITIC_SERVE_COMPLETE="bash_complete",
        COMP_WORDS="actor-critic-serve ro",
        COMP_CWORD="1",
    )
    assert completed.stdout == "plain,rollback\n"


@pytest.mark.long
def test_serving_needs_no_more_than_its_extras(
    environment: Environment, wheel: Path, signed: Path, key: "Key", tmp_path: Path
) -> None:
    environment.install(wheel, "[serve]")
    models = signed.parent.parent
    with environment.service(models) as client:
        assert client.act([[0.01, -0.02, 0.03, 0.04]], deterministic=True).actions[0] in (0, 1)

    verify = ("verify", signed, "--trusted-keys", key.trusted)
    expect_missing(environment.run("actor-critic-serve", *verify), "sign")
    environment.install(wheel, "[serve,sign]")
    finished = environment.run("actor-critic-serve", *verify)
    assert finished.returncode == 0, finished.stderr

    source = Rclone(tmp_path / "source")
    shutil.copytree(models, source.models, dirs_exist_ok=True)
    pulled = environment.elsewhere / "pulled"
    pulled.mkdir()
    url = f"http://127.0.0.1:{source.port}/bucket/some/models"
    pull = ("pull", "--source", url, "--models", pulled)
    expect_missing(environment.run("actor-critic-serve", *pull), "pull")
    environment.install(wheel, "[serve,pull]")
    source.start("webdav")
    try:
        finished = environment.run("actor-critic-serve", *pull)
    finally:
        source.stop()
    assert (finished.returncode, finished.stdout) == (0, "pulled cartpole version 1\n"), (
        finished.stderr
    )
    assert (pulled / "cartpole" / "1" / "saved_model.pb").exists()


@pytest.mark.long
def test_training_needs_no_more_than_its_extras(
    environment: Environment, wheel: Path, key: "Key"
) -> None:
    environment.install(wheel, "[train]")
    finished = environment.run("actor-critic-train", "train", "--json")
    assert finished.returncode == 0, finished.stderr
    model_dir = environment.elsewhere / "models" / "cartpole" / "1"
    assert json.loads(finished.stdout)["model_dir"] == "models/cartpole/1"

    sign = ("sign", model_dir, "--key", key.private)
    expect_missing(environment.run("actor-critic-train", *sign), "sign")
    environment.install(wheel, "[train,sign]")
    finished = environment.run("actor-critic-train", *sign)
    assert finished.returncode == 0, finished.stderr
    assert (model_dir / "model.sig").exists()

    tune = ("tune", "--trials", "1", "--seeds", "1", "--max-env-steps", "2000")
    expect_missing(environment.run("actor-critic-train", *tune), "tune")
    environment.install(wheel, "[train,tune]")
    finished = environment.run("actor-critic-train", *tune)
    assert finished.returncode == 0, finished.stderr
    assert (environment.elsewhere / "tune" / "ppo.toml").exists()
