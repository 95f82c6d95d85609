"""Everything that decides how a policy is learned."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from training.errors import TrainingError

Activation = Literal["tanh", "relu", "linear"]

Count = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # of arrays, and TensorFlow's counters
Fraction = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]


class ConfigError(TrainingError):
    """A hyperparameter is unknown or has an invalid value; the message says which."""


class Environment(NamedTuple):
    """What an environment is made from, by `gymnasium.make`."""

    id: str  # may begin with the module that registers it: "mypackage:MyEnv-v0"
    kwargs: Mapping[str, Any] = MappingProxyType({})
    max_episode_steps: int | None = None  # replaces its own time limit, if given
    wrappers: tuple[str, ...] = ()  # "module:callable", each called with what it wraps

    def modules(self) -> list[str]:
        """The modules that are imported to make it."""
        named = [name.partition(":") for name in (self.id, *self.wrappers)]
        return [module for module, colon, _ in named if colon]


def about(text: str) -> Meta:
    """Describe a hyperparameter, for the command line and the documentation."""
    return Meta(description=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Hyperparameters of one training run.

    Values from outside go through `config_from`, which checks them.
    """

    # The environment
    env_id: Annotated[
        str, about("Gymnasium environment, such as CartPole-v1 or mypackage:MyEnv-v0.")
    ]
    env_kwargs: Annotated[
        dict[str, Any], about("Arguments of the environment, as a JSON object.")
    ] = field(default_factory=dict, hash=False)
    max_episode_steps: Annotated[
        Count | None, about("Time limit of an episode, in place of the environment's own.")
    ] = None
    wrappers: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[\w.]+:\w+\Z")], ...],
        about("Wrapper around the environment, as module:callable; can be repeated."),
    ] = ()
    observation_names: Annotated[
        tuple[str, ...], about("Names of the numbers of a flat observation.")
    ] = ()
    action_names: Annotated[tuple[str, ...], about("Names of the actions.")] = ()
    reward_threshold: Annotated[
        float | None,
        about("Mean return from which the policy is solved, in place of the environment's own."),
    ] = None
    return_bounds: Annotated[
        tuple[float, float] | None,
        about("Lowest and highest possible return of an episode, for confidence intervals."),
    ] = None

    # Collecting
    num_envs: Annotated[Size, about("Environments stepped in parallel (N).")]
    num_steps: Annotated[Size, about("Steps of each environment in one rollout (T).")]
    whole_episodes: Annotated[
        bool,
        about(
            "End a rollout when every environment has finished one episode; the steps from there "
            "to num_steps are padding."
        ),
    ] = False
    max_env_steps: Annotated[Count, about("Stop after this many environment steps.")]
    max_episodes: Annotated[Count | None, about("Stop after this many episodes.")] = None
    push_standard_deviation: Annotated[
        NonNegative,
        about(
            "Push carts and poles in training, by normal numbers in m/s and rad/s, and keep the "
            "policy that withstands pushes longest: CartPole only."
        ),
    ] = 0.0

    # Estimating
    estimator: Annotated[
        Literal["gae", "monte_carlo"],
        about(
            "GAE (Schulman et al. 2016), or the discounted returns standardised over the rollout."
        ),
    ] = "gae"
    gamma: Annotated[Fraction, about("Discount per step.")]
    gae_lambda: Annotated[Fraction, about("The lambda of GAE.")] = 1.0
    normalize_observations: Annotated[
        bool,
        about("Standardise observations by their running mean and variance, in the graph too."),
    ] = False
    scale_rewards: Annotated[
        bool,
        about("Learn from rewards divided by the standard deviation of the discounted return."),
    ] = False

    # Learning
    hidden_units: Annotated[
        Annotated[tuple[Size, ...], Meta(min_length=1)],
        about("Widths of the hidden layers, such as 64,64."),
    ]
    activation: Annotated[Activation, about("Activation of the hidden layers.")]
    trunk: Annotated[
        Literal["shared", "separate"],
        about("Whether actor and critic share the hidden layers, or have them each."),
    ] = "shared"
    initializer: Annotated[
        Literal["orthogonal", "glorot_uniform"],
        about("How the first weights are drawn (Andrychowicz et al. 2021; Glorot & Bengio 2010)."),
    ] = "orthogonal"
    learning_rate: Annotated[Positive, about("Of Adam (Kingma & Ba 2015).")]
    anneal_learning_rate: Annotated[bool, about("Decrease it linearly, to 0 at max_env_steps.")] = (
        False
    )
    adam_epsilon: Annotated[Positive, about("Of Adam.")]
    num_epochs: Annotated[Size, about("Passes over a rollout.")] = 1
    num_minibatches: Annotated[
        Size, about("Minibatches that a rollout is shuffled into in each pass.")
    ] = 1
    clip_coef: Annotated[
        Positive | None, about("PPO's clipping range; none takes the plain policy gradient.")
    ] = None
    normalize_advantages: Annotated[bool, about("Standardise the advantages of a rollout.")] = False
    differentiate_advantages: Annotated[
        bool,
        about("Let the policy's gradient flow through the advantages into the critic."),
    ] = False
    value_loss: Annotated[Literal["squared", "huber"], about("Squared is halved.")] = "squared"
    reduction: Annotated[
        Literal["mean", "sum"], about("Of the losses over the samples of a minibatch.")
    ] = "mean"
    ent_coef: Annotated[NonNegative, about("Weight of the entropy bonus.")] = 0.0
    vf_coef: Annotated[NonNegative, about("Weight of the value loss.")]
    max_grad_norm: Annotated[
        Positive | None, about("Clip the global norm of the gradient to this.")
    ] = None

    # Evaluating and stopping
    evaluation_interval: Annotated[Count, about("Rollouts between two evaluations.")]
    evaluation_episodes: Annotated[
        Size, about("Episodes of one evaluation, each for greedy and sampled.")
    ] = 100
    endurance_steps: Annotated[
        Count | None,
        about(
            "Time limit of the endurance test: 20 greedy episodes, all of which must last to it."
        ),
    ] = None
    patience: Annotated[
        Count,
        about(
            "Evaluations for which a run continues after the first one that reaches the "
            "threshold, to find a policy with a margin: every single evaluated episode reaches "
            "it, and the endurance test is passed."
        ),
    ] = 20
    wait_for_running_return: Annotated[
        bool, about("Evaluate only once the running return exceeds the threshold.")
    ] = False
    checkpoint_interval: Annotated[Count, about("Rollouts between two checkpoints.")] = 50

    @property
    def environment(self) -> Environment:
        """What the environment is made from."""
        return Environment(self.env_id, self.env_kwargs, self.max_episode_steps, self.wrappers)

    @property
    def rollout_size(self) -> int:
        """Samples in one rollout, padding included."""
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        """Samples in one minibatch."""
        return self.rollout_size // self.num_minibatches


class RunSettings(NamedTuple):
    """Settings of a run: together with the code, they determine everything that it does."""

    run_id: str  # unique; also on the card of the exported version
    config: TrainingConfig
    preset: str
    seed: int
    models: str  # folder in which the exported version gets its number
    allow_unsolved: bool  # export the policy even if it is not solved
    start_from: str | None = None  # folder of the version whose weights it began with
    env_workers: int = 0  # number that step the environments; 0: this process does


# Fields in configs of older versions, each with the only value that it ever had.
_REMOVED = {"running_return_rate": 0.01}


def config_from(values: Mapping[str, Any]) -> TrainingConfig:
    """Make a config from JSON or TOML values by the names of its fields, and check it.

    Raises:
        ConfigError: a name is unknown or missing, or a value is invalid.
    """
    names = [one.name for one in fields(TrainingConfig)]
    given = {name: value for name, value in values.items() if (name, value) not in _REMOVED.items()}
    for name in given.keys() - names:
        close = difflib.get_close_matches(name, names, 1)
        raise ConfigError(f"{name} is unknown" + (f": did you mean {close[0]}?" if close else ""))
    if isinstance(given.get("hidden_units"), int):  # older versions have a single width
        given["hidden_units"] = (given["hidden_units"],)
    try:
        config = msgspec.convert(given, TrainingConfig)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise ConfigError(f"{where.rstrip('`')}: {what}" if where else what) from error
    _check(config)
    return config


def _check(config: TrainingConfig) -> None:
    """Raise `ConfigError` for values that the types of the fields do not rule out."""
    for one in fields(config):
        value = getattr(config, one.name)
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{one.name} is {number}")
    if config.return_bounds is not None and not config.return_bounds[0] < config.return_bounds[1]:
        raise ConfigError("return_bounds must be two numbers, the smaller one first")
    if config.num_minibatches > config.rollout_size:
        raise ConfigError(
            f"num_minibatches is {config.num_minibatches}, more than the {config.rollout_size} "
            "samples of a rollout (num_envs times num_steps)"
        )
    for name in ("observation_names", "action_names"):
        names = getattr(config, name)
        if len(set(names)) < len(names) or "" in names:
            raise ConfigError(f"{name} must all be different and not empty")
    for name in ("env_kwargs", "observation_names", "action_names"):
        try:
            json.dumps(getattr(config, name), allow_nan=False, ensure_ascii=False).encode()
        except (RecursionError, TypeError, ValueError) as error:
            raise ConfigError(f"{name} cannot be stored as JSON: {error}") from error
    reserved = config.env_kwargs.keys() & {"id", "render_mode", "max_episode_steps"}
    if reserved:
        raise ConfigError(f"env_kwargs cannot have {reserved.pop()}")
