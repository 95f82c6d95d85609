"""The page's physics against Gymnasium's."""

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from tests.conftest import Service
from tests.web.conftest import Visit

STEPS = 10_000

# Steps one cart as the page does, from the initial states of Gymnasium's episodes.
DRIVE = """async ({ starts, actions }) => {
    const { Carts, move } = await import("/web/carts.js");
    const { observe } = await import("/web/physics.js");
    const next = starts.values();
    const begin = () => {
        const cart = new Carts([null], 1, () => ({ seed: 0, spread: 0 })).watched;
        cart.state = next.next().value;
        return cart;
    };
    let cart = begin();
    return actions.map((action) => {
        const ended = move(cart, action);
        const result = {
            state: cart.state, observation: observe(cart.state), fell: cart.fell, ended,
        };
        if (ended) cart = begin();
        return result;
    });
}"""


def state(env: gym.Env[Any, Any]) -> list[float]:
    """The state in float64, as Gymnasium keeps it."""
    state = cast(CartPoleEnv, env.unwrapped).state
    assert state is not None
    return cast(list[float], state.tolist())


def gymnasium_episodes() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Episodes that terminate or are truncated, from usual and from wide initial states."""
    env = gym.make("CartPole-v1", disable_env_checker=True)  # it objects to the widest starts
    rng = np.random.default_rng(0)
    starts: list[list[float]] = []
    actions: list[int] = []
    results: list[dict[str, Any]] = []
    ended = True
    while len(actions) < STEPS:
        if ended:
            spread = rng.choice([0.05, 0.2, 1.0])
            env.reset(seed=len(starts), options={"low": -spread, "high": spread})
            noise = rng.choice([0.0, 0.3, 1.0], p=[0.05, 0.05, 0.9])
            starts.append(state(env))
        position, velocity, angle, angular_velocity = state(env)
        right = angle + 0.3 * angular_velocity + 0.02 * position + 0.05 * velocity > 0
        action = int(rng.integers(2) if rng.random() < noise else right)
        observation, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        actions.append(action)
        results.append(
            {
                "state": state(env),
                "observation": observation.tolist(),
                "fell": terminated,
                "ended": ended,
            }
        )
    env.close()
    starts.append([0.0] * 4)  # should the last step end an episode
    return {"starts": starts, "actions": actions}, results


def test_ten_thousand_steps_are_gymnasiums_to_the_last_bit(service: Service, visit: Visit) -> None:
    # Equal states need equal sines and cosines, which C and JavaScript leave to the library:
    # glibc's, which NumPy calls, and Chromium's copy of them agree in every bit on these.
    episodes, expected = gymnasium_episodes()
    assert sum(result["fell"] for result in expected) > 100
    assert sum(result["ended"] and not result["fell"] for result in expected) > 3
    page = visit(service.url, reduced_motion="reduce")
    results = page.evaluate(DRIVE, episodes)
    assert len(results) == STEPS
    assert results == expected


def test_an_impulse_has_the_effect_of_the_same_force_for_one_step(
    service: Service, visit: Visit
) -> None:
    page = visit(service.url, reduced_motion="reduce")
    for blow, moved in (({"cart": 0.2}, 1), ({"tip": 0.01}, 3)):
        before = [0.1, 0.2, 0.05, -0.1]
        after = page.evaluate(
            """async ([state, blow]) =>
                (await import("/web/physics.js")).strike(state, blow)""",
            [before, blow],
        )
        assert after[0] == before[0]
        assert after[2] == before[2]
        assert after[moved] > before[moved]
    # Gymnasium's push of 10 N for 20 ms, less what gravity and the pole's turning do meanwhile.
    pushed, idle = (
        page.evaluate(
            """async ([state, action]) =>
                (await import("/web/physics.js")).step(state, action)""",
            [[0.0, 0.0, 0.05, 0.0], action],
        )
        for action in (1, 0)
    )
    struck = page.evaluate(
        """async () => (await import("/web/physics.js")).strike([0, 0, 0.05, 0], { cart: 0.4 })"""
    )
    jumps = np.subtract(pushed, idle)
    np.testing.assert_allclose(struck, jumps + np.array([0, 0, 0.05, 0]), atol=1e-12)


@pytest.mark.parametrize(
    ("card", "playable"),
    [
        ({}, True),
        ({"environment_options": {"kwargs": {}, "wrappers": []}}, True),
        ({"environment_options": {"kwargs": {"x_threshold": 1}}}, False),
        ({"environment_options": {"wrappers": ["somebodys:twice"]}}, False),
        ({"environment": "CartPole-of-mine-v1"}, False),
        ({"observations": {"names": ["a"] * 8}}, False),
        ({"actions": {"names": ["a", "b", "c"]}}, False),
    ],
)
def test_what_the_live_page_can_play(
    card: dict[str, Any], playable: bool, service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/web/physics.js", forgive="404")  # of a favicon
    plain = {
        "environment": "CartPole-v1",
        "observations": {"names": ["a", "b", "c", "d"]},
        "actions": {"names": ["left", "right"]},
    }
    result = page.evaluate(
        "async card => (await import('/web/physics.js')).isPlayable(card)", plain | card
    )
    assert result is playable
