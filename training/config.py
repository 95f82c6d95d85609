"""Everything that decides how a policy is learned, and the presets that users name."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Activation = Literal["tanh", "linear"]
Initializer = Literal["orthogonal", "glorot_uniform"]
Preset = Literal["ppo", "a2c", "notebook", "acrobot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Hyperparameters of one training run. All counts are whole numbers of at least 1.

    Collecting
        env_id: Gymnasium id of the environment.
        num_envs: environments stepped in parallel (`N`).
        num_steps: steps of each environment in one rollout (`T`).
        whole_episodes: end a rollout when every environment has finished one episode; the
            steps from there to `num_steps` are padding.
        max_env_steps: give up after this many environment steps.
        max_episodes: give up after this many episodes, if set.

    Estimating
        estimator: "gae" (Schulman et al. 2016) or "monte_carlo", the discounted returns
            standardised over the rollout.
        gamma: discount per step.
        gae_lambda: the lambda of GAE.

    Learning
        hidden_units: width of the layer that actor and critic share.
        activation: its activation.
        initializer: how the first weights are drawn.
        learning_rate, adam_epsilon: of Adam (Kingma & Ba 2015).
        num_epochs: passes over a rollout.
        num_minibatches: minibatches that a rollout is shuffled into in each pass.
        clip_coef: PPO's clipping range; None takes the plain policy gradient.
        normalize_advantages: standardise the advantages of a rollout.
        differentiate_advantages: let the gradient of the policy loss flow through the
            advantages into the critic. Only the notebook does.
        value_loss: "squared" (halved) or "huber".
        reduction: "mean" or "sum" of the losses over the samples of a minibatch.
        ent_coef, vf_coef: weights of the entropy bonus and of the value loss.
        max_grad_norm: clip the global norm of the gradient, if set.

    Stopping
        evaluation_interval: rollouts between two evaluations.
        evaluation_episodes: episodes of one evaluation, each for greedy and sampled.
        return_bounds: the lowest and the highest possible return of an episode, if known.
        endurance_steps: time limit of the endurance test, if any: greedy episodes with a
            reward of 1 per step, all of which must last to the limit.
        patience: evaluations for which a run continues after the first one that reaches the
            threshold, to find a policy with a margin: every single evaluated episode
            reaches it, and the endurance test is passed.
        wait_for_running_return: evaluate only once the running return exceeds the threshold.
        checkpoint_interval: rollouts between two checkpoints.
    """

    env_id: str
    num_envs: int
    num_steps: int
    whole_episodes: bool = False
    max_env_steps: int
    max_episodes: int | None = None

    estimator: Literal["gae", "monte_carlo"] = "gae"
    gamma: float
    gae_lambda: float = 1.0

    hidden_units: int
    activation: Activation
    initializer: Initializer = "orthogonal"
    learning_rate: float
    adam_epsilon: float
    num_epochs: int = 1
    num_minibatches: int = 1
    clip_coef: float | None = None
    normalize_advantages: bool = False
    differentiate_advantages: bool = False
    value_loss: Literal["squared", "huber"] = "squared"
    reduction: Literal["mean", "sum"] = "mean"
    ent_coef: float = 0.0
    vf_coef: float
    max_grad_norm: float | None = None

    evaluation_interval: int
    evaluation_episodes: int = 100
    return_bounds: tuple[float, float] | None = None
    endurance_steps: int | None = None
    patience: int = 20
    wait_for_running_return: bool = False
    checkpoint_interval: int = 50

    @property
    def rollout_size(self) -> int:
        """Samples in one rollout, padding included."""
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        """Samples in one minibatch."""
        return self.rollout_size // self.num_minibatches


# Options that commit 0cabd54 stored in run.json, with the only value that each ever had.
REMOVED_OPTIONS = {"anneal_learning_rate": False, "running_return_rate": 0.01}


class RunSettings(NamedTuple):
    """Settings of a run: together with the code, they determine everything that it does."""

    run_id: str  # unique; also on the card of the exported version
    config: TrainingConfig
    preset: str
    seed: int
    models: str  # folder in which the exported version gets its number
    allow_unsolved: bool  # export the policy even if it is not solved


# Schulman et al. 2017, "Proximal Policy Optimization Algorithms".
_PPO = TrainingConfig(
    env_id="CartPole-v1",
    num_envs=32,
    num_steps=32,
    max_env_steps=200_000,
    gamma=0.99,
    gae_lambda=0.95,
    hidden_units=64,
    activation="tanh",
    learning_rate=5e-3,
    adam_epsilon=1e-5,
    num_epochs=10,
    num_minibatches=8,
    clip_coef=0.2,
    normalize_advantages=True,
    vf_coef=0.5,
    max_grad_norm=0.5,
    evaluation_interval=5,
    return_bounds=(0.0, 500.0),
    endurance_steps=10_000,
)

PRESETS: dict[Preset, TrainingConfig] = {
    "ppo": _PPO,
    # Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", in its
    # synchronous form, with Adam in place of RMSProp and GAE in place of n-step returns.
    "a2c": TrainingConfig(
        env_id="CartPole-v1",
        num_envs=32,
        num_steps=8,
        max_env_steps=1_000_000,
        gamma=0.99,
        gae_lambda=0.95,
        hidden_units=64,
        activation="tanh",
        learning_rate=5e-3,
        adam_epsilon=1e-5,
        vf_coef=0.5,
        max_grad_norm=0.5,
        evaluation_interval=100,
        return_bounds=(0.0, 500.0),
        checkpoint_interval=500,
    ),
    # PPO for Acrobot-v1, whose reward of -1 per step needs a longer rollout.
    "acrobot": replace(
        _PPO,
        env_id="Acrobot-v1",
        num_steps=64,
        max_env_steps=1_000_000,
        learning_rate=3e-3,
        evaluation_interval=10,
        return_bounds=(-500.0, 0.0),
        endurance_steps=None,
        patience=5,
    ),
    # The notebook that this project began with, flaws included: no activation, a critic that
    # is also trained through the actor's loss, and no bootstrap where the time limit cuts.
    "notebook": TrainingConfig(
        env_id="CartPole-v0",
        num_envs=1,
        num_steps=1_000,
        whole_episodes=True,
        max_env_steps=10_000_000,
        max_episodes=10_000,
        estimator="monte_carlo",
        gamma=0.99,
        hidden_units=128,
        activation="linear",
        initializer="glorot_uniform",
        learning_rate=0.01,
        adam_epsilon=1e-7,
        differentiate_advantages=True,
        value_loss="huber",
        reduction="sum",
        vf_coef=1.0,
        evaluation_interval=10,
        return_bounds=(0.0, 200.0),
        checkpoint_interval=500,
        wait_for_running_return=True,
    ),
}
