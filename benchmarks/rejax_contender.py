"""One run of rejax's PPO on CartPole-v1, in the virtual environment that pins it.

    python rejax_contender.py first-pass SEED
    python rejax_contender.py speed NUM_ENVS

The hyperparameters are those of our preset `ppo`, as far as rejax has them. The result is one JSON
object on standard output; `benchmarks/training_report.py` defines its fields.

Environments, learning and evaluations are one compiled program, which always runs for the whole
budget and cannot be timed inside. So the seconds to the first pass are an estimate: the time of the
whole run, times the share of its evaluations up to and including the first that reaches the
threshold. The evaluations are of sampled actions only. A second program, the same without
evaluations, gives the time of learning; the set-up is the compilation of the first one.
"""

import importlib
import json
import sys
import time
from typing import Any

REWARD_THRESHOLD = 475.0
EVALUATION_INTERVAL = 5_120  # environment steps, as in our preset
EVALUATION_EPISODES = 100
MAX_ENV_STEPS = 39 * EVALUATION_INTERVAL  # the most within our preset's budget
SPEED_ENV_STEPS = 1_000_000


def make_program(
    seed: int, *, num_envs: int = 32, max_env_steps: int = MAX_ENV_STEPS, evaluated: bool
) -> Any:
    """Compile a run; calling the result returns the mean return of each evaluation."""
    import jax
    from rejax import get_algo
    from rejax.evaluate import evaluate

    def mean_return(algorithm: Any, state: Any, rng: Any) -> Any:
        limit = algorithm.env_params.max_steps_in_episode
        act, env, env_params = algorithm.make_act(state), algorithm.env, algorithm.env_params
        return evaluate(act, rng, env, env_params, EVALUATION_EPISODES, limit)[1].mean()

    algorithm = get_algo("ppo").create(
        env="CartPole-v1",
        total_timesteps=max_env_steps,
        eval_freq=EVALUATION_INTERVAL if evaluated else max_env_steps,
        skip_initial_evaluation=True,
        num_envs=num_envs,
        num_steps=32,
        gamma=0.99,
        gae_lambda=0.95,
        agent_kwargs={"hidden_layer_sizes": (64,), "activation": "tanh"},
        learning_rate=5e-3,
        num_epochs=10,
        num_minibatches=8,
        clip_eps=0.2,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
    )
    algorithm = algorithm.replace(eval_callback=mean_return if evaluated else lambda *_: ())
    key = jax.random.PRNGKey(seed)
    compiled = jax.jit(algorithm.train).lower(key).compile()
    return lambda: jax.block_until_ready(compiled(key))[1]


def timed(program: Any) -> tuple[float, Any]:
    """Seconds of a call, and what it returns."""
    started = time.perf_counter()
    result = program()
    return time.perf_counter() - started, result


def first_pass(seed: int) -> dict[str, Any]:
    """Train for the whole budget, and read the first pass off the evaluations."""
    import_seconds, _ = timed(lambda: importlib.import_module("rejax"))
    setup_seconds, program = timed(lambda: make_program(seed, evaluated=True))
    seconds, means = timed(program)
    learning_seconds, _ = timed(make_program(seed, evaluated=False))
    means = [float(mean) for mean in means]
    last = next((i for i, mean in enumerate(means) if mean >= REWARD_THRESHOLD), len(means) - 1)
    share = (last + 1) / len(means)
    return {
        "passed": means[last] >= REWARD_THRESHOLD,
        "env_steps": (last + 1) * EVALUATION_INTERVAL,
        "import_seconds": import_seconds,
        "setup_seconds": setup_seconds,
        "seconds": share * seconds,
        "learning_seconds": share * learning_seconds,
        "greedy": None,
        "sampled": means[last],
    }


def speed(num_envs: int) -> dict[str, Any]:
    """Learn for at least `SPEED_ENV_STEPS`, without evaluations."""
    rollout_size = num_envs * 32
    max_env_steps = -(-SPEED_ENV_STEPS // rollout_size) * rollout_size
    program = make_program(0, num_envs=num_envs, max_env_steps=max_env_steps, evaluated=False)
    seconds, _ = timed(program)
    return {"steps_per_second": max_env_steps / seconds}


if __name__ == "__main__":
    json.dump({"first-pass": first_pass, "speed": speed}[sys.argv[1]](int(sys.argv[2])), sys.stdout)
