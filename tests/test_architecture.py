"""The rules that keep programs, layers and libraries apart."""

import ast
import functools
import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest

from serving.prometheus_adapter import observe
from tests.conftest import ROOT

# `serving/` in layers: each imports only what stands below it, and itself.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"record_commands"},
    {"score_command"},
    {"version_commands"},
    {"compare_command"},
    {"score"},
    {"server"},
    {"rpc"},
    {"api"},
    {"service"},
    {"record"},
    {"registry"},
    {"policy"},
    {"schemas", "settings", "logs", "metrics"},
    {"prometheus_adapter", "statistics", "collection"},
    {"errors"},
]
# What talks to a running service may know how requests and answers look, and no more.
CLIENTS = {"client", "demo", "healthcheck"}
MAX_LINES = 300

# By adapter file: names that their library does not document, which any version may change.
UNDOCUMENTED = {
    "serving/server/gunicorn_adapter.py": [
        "gunicorn.arbiter.Arbiter",
        "gunicorn.arbiter.Arbiter.WORKERS",
        "gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR",
        "gunicorn.arbiter.Arbiter.murder_workers",
        "gunicorn.arbiter.Arbiter.reexec",
    ],
    "serving/policy/tensorflow_adapter.py": [
        "tensorflow.core.protobuf.config_pb2.CallableOptions",
        "tensorflow.core.protobuf.config_pb2.RunOptions.inter_op_thread_pool",
        "tensorflow.python.client.session.Session._make_callable_from_options",
        "tensorflow.core.protobuf.saved_model_pb2.SavedModel",
    ],
    "serving/prometheus_adapter.py": [
        "prometheus_client.values.MultiProcessValue",
        "prometheus_client.values.MutexValue",
        "prometheus_client.values.ValueClass",
    ],
}
# Of an object, not of a module or a class.
UNDOCUMENTED_ATTRIBUTES = {"serving/prometheus_adapter.py": {"_sum", "_upper_bounds", "_buckets"}}
# Modules that their library documents: gunicorn's for custom applications, workers and loggers.
DOCUMENTED = {
    "gunicorn": {"gunicorn.app.base", "gunicorn.workers.base", "gunicorn.glogging"},
    "tensorflow": {"tensorflow"},
    "prometheus_client": {
        *("prometheus_client", "prometheus_client.core", "prometheus_client.registry"),
        *("prometheus_client.exposition", "prometheus_client.multiprocess"),
    },
    "model_signing": {"model_signing"},
}
PUBLIC_BUT_FOR_THEIR_NAMES = {"_asdict", "_fields", "_make", "_replace", "_exit"}


def trees(package: str) -> dict[str, ast.Module]:
    """The parsed files of a package, by their paths."""
    found = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for path in (ROOT / package).rglob("*.py")
    }
    assert found
    return found


def imported(path: str, tree: ast.Module) -> set[str]:
    """What a file imports, inside functions too: whole names such as `serving.policy.decide`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            assert node.module is not None
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imports(package: str) -> dict[str, set[str]]:
    """Top-level names that each file of a package imports."""
    return {
        path: {name.split(".")[0] for name in imported(path, tree)}
        for path, tree in trees(package).items()
    }


def parts_imported() -> dict[str, set[str]]:
    """Which parts of `serving`, such as `api`, each of its files imports."""
    return {
        path: {name.split(".")[1] for name in imported(path, tree) if name.startswith("serving.")}
        for path, tree in trees("serving").items()
    }


def part_of(path: str) -> str:
    return Path(path).parts[1].removesuffix(".py")


def loaded_by(*modules: str) -> set[str]:
    """The top-level names that a new process has loaded after it imported the modules."""
    code = f"import {', '.join(modules)}, sys; print(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in finished.stdout.split()}


def modules_of(*folders: str) -> list[str]:
    return [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    ]


def test_training_and_serving_never_import_each_other() -> None:
    assert not [path for path, names in imports("training").items() if "serving" in names]
    assert not [path for path, names in imports("serving").items() if "training" in names]


def test_every_layer_of_serving_imports_only_what_stands_below_it() -> None:
    rank = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    assert {part_of(path) for path in trees("serving")} == {"__init__", *CLIENTS, *rank}
    upward = {
        f"{path} imports serving.{part}"
        for path, parts in parts_imported().items()
        if part_of(path) not in {"__init__", *CLIENTS}
        for part in parts
        - {part_of(path)}
        - (CLIENTS if part_of(path) in ("cli", "__main__") else set())
        if part in CLIENTS or rank[part] <= rank[part_of(path)]
    }
    assert not upward


def test_the_client_and_the_demo_know_only_what_requests_and_answers_look_like() -> None:
    known = {
        part: {
            name
            for path, names in parts_imported().items()
            if part_of(path) == part
            for name in names
        }
        for part in CLIENTS
    }
    assert known["healthcheck"] == set()
    assert known["client"] <= {"schemas", "errors"}
    assert known["demo"] <= {"demo", "client", "schemas", "errors"}


def test_policies_and_versions_are_served_without_flask() -> None:
    modules = modules_of("serving/policy", "serving/registry")
    assert not {"flask", "werkzeug", "gunicorn"} & loaded_by(*modules)


def test_observations_are_read_with_neither_flask_nor_tensorflow() -> None:
    assert not {"flask", "werkzeug", "tensorflow"} & loaded_by("serving.policy.observations")


def test_only_the_policy_imports_tensorflow_in_serving() -> None:
    with_tensorflow = {path for path, names in imports("serving").items() if "tensorflow" in names}
    assert with_tensorflow == {
        "serving/policy/graph.py",
        "serving/policy/savedmodel.py",
        "serving/policy/tensorflow_adapter.py",
    }


def test_only_what_signs_and_what_checks_signatures_imports_their_library() -> None:
    with_signing = {
        path
        for package in ("training", "serving")
        for path, names in imports(package).items()
        if names & {"model_signing", "cryptography", "sigstore", "OpenSSL"}
    }
    assert with_signing == {
        *("training/signing.py", "serving/policy/signature.py", "serving/record/signing.py")
    }
    # They are what the library documents as stable.
    used = imported("training/signing.py", trees("training")["training/signing.py"])
    assert {name for name in used if name.startswith("model_signing")} == {
        *("model_signing.hashing", "model_signing.signing")
    }


def test_the_library_that_checks_signatures_is_loaded_only_where_keys_are_set() -> None:
    where_keys_are_set = {"serving.policy.signature", "serving.record.signing"}
    modules = [name for name in modules_of("serving") if name not in where_keys_are_set]
    assert not {"model_signing", "cryptography", "sigstore"} & loaded_by("training.cli", *modules)


def test_only_the_source_of_versions_imports_obstore_and_only_when_it_is_read() -> None:
    with_obstore = {path for path, names in imports("serving").items() if "obstore" in names}
    assert with_obstore == {"serving/registry/source.py"}
    assert "obstore" not in loaded_by("serving.cli", "serving.registry.pull")


def test_only_rpc_imports_grpc_and_nothing_loads_it_before_the_fork() -> None:
    libraries = {"grpc", "grpc_health", "grpc_reflection", "tritonclient", "tensorflow_serving"}
    with_grpc = {path for path, names in imports("serving").items() if names & libraries}
    assert {Path(path).parent.as_posix() for path in with_grpc} == {"serving/rpc"}
    modules = ("serving.cli", "serving.server.master", "serving.server.worker")
    assert not libraries & loaded_by(*modules)


@pytest.mark.parametrize("name", list(itertools.chain(*UNDOCUMENTED.values())))
def test_what_a_library_does_not_document_is_still_there(name: str) -> None:
    module = name
    attributes: list[str] = []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
    if name.startswith("tensorflow.core.protobuf"):
        message, *fields = attributes
        assert set(fields) <= set(getattr(found, message).DESCRIPTOR.fields_by_name)
    else:
        functools.reduce(getattr, attributes, found)


def test_what_a_histogram_does_not_document_is_still_there() -> None:
    histogram = prometheus_client.Histogram("a", "b", buckets=[1, 2], registry=None)
    observe(histogram, 1.5, 3)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for metric in histogram.collect()
        for sample in metric.samples
    }
    assert samples["a_bucket", "1.0"] == 0
    assert samples["a_bucket", "2.0"] == samples["a_count", None] == 3
    assert samples["a_sum", None] == 4.5


def test_undocumented_modules_are_imported_by_the_adapters_only() -> None:
    elsewhere = set()
    for path, tree in trees("serving").items():
        for name in imported(path, tree):
            documented = DOCUMENTED.get(name.split(".")[0], {name})
            if path not in UNDOCUMENTED and not {name, name.rpartition(".")[0]} & documented:
                elsewhere.add(f"{path} imports {name}")
    assert not elsewhere


def test_undocumented_names_are_used_by_the_adapters_only_and_are_listed_here() -> None:
    listed = {
        path: {name.rpartition(".")[2] for name in names} | UNDOCUMENTED_ATTRIBUTES.get(path, set())
        for path, names in UNDOCUMENTED.items()
    }
    of_gunicorn = listed["serving/server/gunicorn_adapter.py"]
    wrong = set()
    for path, tree in trees("serving").items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or node.attr in PUBLIC_BUT_FOR_THEIR_NAMES:
                continue
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            is_private = node.attr.startswith("_") and not node.attr.startswith("__") and not is_own
            is_known = node.attr in listed.get(path, set())
            if (is_private or node.attr in of_gunicorn) and not is_known:
                wrong.add(f"{path} uses {node.attr}")
    for path, names in listed.items():
        text = (ROOT / path).read_text()
        wrong |= {f"{path}: no {name}" for name in names if not re.search(rf"\b{name}\b", text)}
    assert not wrong


def test_no_file_is_longer_than_what_is_read_at_once() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for package in ("serving", "training")
        for path in (ROOT / package).rglob("*.py")
    }
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_the_benchmarks_hide_no_package() -> None:
    # Python puts a script's own folder first on the path.
    for path in (ROOT / "benchmarks").iterdir():
        if path.suffix == ".py" or (path.is_dir() and not path.name.startswith((".", "_"))):
            assert importlib.util.find_spec(path.stem) is None, path


def test_training_knows_nothing_of_http_and_serving_nothing_of_learning() -> None:
    for names in imports("training").values():
        assert not names & {"flask", "gunicorn", "urllib3"}
    with_gymnasium = {path for path, names in imports("serving").items() if "gymnasium" in names}
    assert with_gymnasium == {"serving/demo/environment.py"}


@pytest.mark.parametrize("module", ["serving.demo.player", "serving.client", "serving.cli"])
def test_the_demo_player_needs_neither_tensorflow_nor_flask(module: str) -> None:
    assert not {"tensorflow", "flask", "gunicorn", "orjson"} & loaded_by(module)


def test_importing_any_module_prints_nothing_and_starts_nothing() -> None:
    modules = modules_of("training", "serving")
    code = (
        "import tensorflow, threading, os; before = threading.active_count(), os.listdir()\n"
        + "\n".join(f"import {module}" for module in modules)
        + "\nassert before == (threading.active_count(), os.listdir())"
    )
    finished = subprocess.run(
        [sys.executable, "-B", "-W", "error::ResourceWarning", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
