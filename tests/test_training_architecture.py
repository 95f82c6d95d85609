"""The layers of `training/`: a run uses a trainer, the trainer its stages, and never back."""

from pathlib import Path

from tests.test_architecture import imported, loaded_by, trees

# From top to bottom: each file imports only what stands below its own line.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands", "train_command", "tune_command"},
    {"tune"},
    {"ray_tune"},
    {"trial", "study"},
    {"search"},
    {"options", "config_options"},
    {"run", "benchmark", "export", "workers"},
    # what a run leaves, and what it shows
    {"checkpoint", "metrics", "reporting", "storing"},
    {"card", "trainer"},
    {"state", "evaluator"},
    {"advantages", "selection", "robustness", "pictures", "signing", "writing"},
    {"artefact", "rollout", "learner", "evaluation", "savedmodel", "warmup"},
    {"model", "intervals", "histograms", "scores", "folder", "versions"},
    {"names", "normalization", "presets", "pushes"},
    {"ray_cluster"},
    {"envs", "finite"},
    {"config", "spaces", "ray_shares"},
    {"shares"},
    {"types", "files", "errors", "libraries", "processes", "ray_probe"},
]


def imports_of_training() -> dict[str, set[str]]:
    """Which files of `training` each of them imports, inside functions too."""
    return {
        Path(path).stem: {
            name.split(".")[1] for name in imported(path, tree) if name.startswith("training.")
        }
        for path, tree in trees("training").items()
    }


def test_every_file_of_training_imports_only_what_stands_below_it() -> None:
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    found = imports_of_training()
    assert set(found) == {"__init__", *rank}
    upward = {
        f"{name} imports {other}"
        for name, others in found.items()
        for other in others
        if rank[other] <= rank.get(name, len(LAYERS))
    }
    assert not upward


def test_mistakes_are_reported_before_tensorflow_is_imported() -> None:
    assert "tensorflow" not in loaded_by("training.cli")


def test_only_tuning_imports_optuna() -> None:
    assert not {"optuna", "sqlalchemy"} & loaded_by("training.cli", "training.search")


def test_acting_and_evaluating_need_no_tensorflow() -> None:
    assert "tensorflow" not in loaded_by("training.rollout", "training.evaluation")


def test_only_a_cluster_needs_ray_and_a_worker_needs_no_tensorflow() -> None:
    assert "ray" not in loaded_by("training.cli", "training.workers", "training.trainer")
    assert "tensorflow" not in loaded_by("training.ray_shares", "training.rollout")
