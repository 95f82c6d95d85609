"""Which hyperparameters `tune` searches, and in which ranges."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.config import TrainingConfig, config_from
from training.config_options import to_values
from training.presets import FOR_OTHER_ENVIRONMENTS

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


def _hidden_units(trial: "BaseTrial") -> list[int]:
    # Always suggest both widths: the sampler learns less about a parameter that comes and goes.
    widths = [2 ** trial.suggest_int(f"log2_hidden_units_{layer}", 5, 8) for layer in (1, 2)]
    return widths[: trial.suggest_int("hidden_layers", 1, 2)]


def _logarithmic(trial: "BaseTrial", name: str, low: float, high: float) -> float:
    return _short(trial.suggest_float(name, low, high, log=True))


def _short(number: float) -> float:
    """Round to three digits, for a file of hyperparameters that is easy to read."""
    return float(f"{number:.3g}")


POINTS = 20  # in the budget at which trials are compared and may be pruned

# The ranges hold the values of the presets and of rl-zoo3's tuned hyperparameters for
# environments of this kind.
SPACE: Mapping[str, Callable[["BaseTrial"], Any]] = {
    "num_steps": lambda trial: 2 ** trial.suggest_int("log2_num_steps", 4, 9),
    "gamma": lambda trial: round(1 - _logarithmic(trial, "one_minus_gamma", 0.001, 0.1), 6),
    "gae_lambda": lambda trial: _short(trial.suggest_float("gae_lambda", 0.8, 1.0)),
    "hidden_units": _hidden_units,
    "learning_rate": lambda trial: _logarithmic(trial, "learning_rate", 1e-4, 1e-2),
    "num_epochs": lambda trial: trial.suggest_int("num_epochs", 3, 20),
    "num_minibatches": lambda trial: 2 ** trial.suggest_int("log2_num_minibatches", 0, 5),
    "clip_coef": lambda trial: _short(trial.suggest_float("clip_coef", 0.1, 0.4)),
    "ent_coef": lambda trial: _logarithmic(trial, "ent_coef", 1e-8, 0.1),
    "max_grad_norm": lambda trial: _logarithmic(trial, "max_grad_norm", 0.3, 5.0),
}


def searched(config: TrainingConfig, given: Collection[str]) -> list[str]:
    """The hyperparameters to search: those that are not given and have an effect."""
    fixed = set(given)
    if config.clip_coef is None:
        # The plain policy gradient, which is valid for only one pass over a rollout.
        fixed |= {"clip_coef", "num_epochs", "num_minibatches"}
    if config.estimator == "monte_carlo":
        fixed.add("gae_lambda")
    if config.whole_episodes:
        fixed.add("num_steps")
    return [name for name in SPACE if name not in fixed]


def propose(config: TrainingConfig, names: Sequence[str], trial: "BaseTrial") -> TrainingConfig:
    """A config with other values for some names.

    If the rollout size changes, `evaluation_interval` changes too: evaluations stay as frequent
    in environment steps, so that trials can be compared.

    Raises:
        ConfigError: the values are not possible together.
    """
    values = {name: SPACE[name](trial) for name in names}
    proposed = config_from({**to_values(config), **values})
    steps = config.evaluation_interval * config.rollout_size
    interval = max(1, round(steps / proposed.rollout_size))
    return config_from({**to_values(proposed), "evaluation_interval": interval})


def differences(config: TrainingConfig, preset: TrainingConfig) -> dict[str, Any]:
    """The values that turn a preset into a config, as in a file for `--config`."""
    start, values = to_values(preset), to_values(config)
    # Always include what another environment would replace: the user may have set it explicitly.
    changed = FOR_OTHER_ENVIRONMENTS if config.environment != preset.environment else {}
    return {
        name: value for name, value in values.items() if value != start[name] or name in changed
    }
