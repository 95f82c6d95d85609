"""How many episodes `compare` needs to find that a policy's mean return is higher by 20.

Returns are those of real episodes of CartPole: a hand-written policy plays them, with a share of
its actions replaced at random so that its mean return is that of a row of the table. They are
played once; streams of episodes are drawn from them, so the true means are known.

    python -m benchmarks.comparison_power
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import click
import gymnasium as gym
import numpy as np
import numpy.typing as npt

from benchmarks.common import table
from serving.record.confidence import DISPROOF, difference, log_capital, paired_differences

DoubleArray = npt.NDArray[np.float64]

BOUNDS = (0.0, 500.0)
EPISODES = 5_000  # of each policy
WEIGHTS = np.array([0.02, 0.1, 1.0, 0.5])  # pushes towards the side to which the pole falls
PAIRS = ((480, 500), (460, 480), (260, 280))  # mean returns of the champion and the challenger
SHARES = (0.5, 0.1)  # of the episodes, for the challenger
REPETITIONS, EQUAL_REPETITIONS = 100, 400
MAX_EPISODES, EQUAL_EPISODES = 60_000, 5_000


class Stream(NamedTuple):
    """Episodes `[E]` in the order in which they began."""

    is_challenger: list[bool]
    returns: list[float]


def play(noise: float) -> DoubleArray:
    """Returns `[EPISODES]` of a policy with that share of its actions replaced at random."""
    rng = np.random.default_rng(0)
    envs = gym.make_vec(
        "CartPole-v1", num_envs=EPISODES, vectorization_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT
    )
    observations, _ = envs.reset(seed=0)
    returns, running = np.zeros(EPISODES), np.ones(EPISODES, np.bool_)
    while running.any():  # the first episode of each: short ones are not played more often
        is_random = rng.random(EPISODES) < noise
        actions = np.where(is_random, rng.integers(0, 2, EPISODES), observations @ WEIGHTS > 0)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += running * rewards
        running &= ~(terminated | truncated)
    envs.close()
    return returns


def play_with_mean(target: float) -> DoubleArray:
    """Returns of a policy whose mean is as close to the target as 12 bisections bring it."""
    low, high = 0.0, 1.0
    returns = play(low)
    for _ in range(12):
        if abs(returns.mean() - target) < 0.05:
            break
        middle = (low + high) / 2
        returns = play(middle)
        low, high = (middle, high) if returns.mean() > target else (low, middle)
    return returns


def streams(
    champion: DoubleArray, challenger: DoubleArray, share: float, episodes: int, seed: int
) -> Iterator[Stream]:
    """Streams drawn from the returns of two policies, without end."""
    rng = np.random.default_rng(seed)
    while True:
        is_challenger = rng.random(episodes) < share
        drawn = rng.choice(challenger, episodes), rng.choice(champion, episodes)
        yield Stream(is_challenger.tolist(), np.where(is_challenger, *drawn).tolist())


def wrong_answers(
    returns: DoubleArray, share: float, repetitions: int, episodes: int, seed: int
) -> int:
    """How many comparisons of a policy with itself have an answer after any of the episodes.

    An answer never changes, so counting at the end misses none.
    """
    equal = streams(returns, returns, share, episodes, seed)
    answers = (difference(*next(equal), BOUNDS).answer for _ in range(repetitions))
    return sum(answer != "not yet known" for answer in answers)


def episodes_to_better(stream: Stream) -> float:
    """After how many episodes the challenger is found to be better; infinite if it is not."""
    pairs = paired_differences(*stream) / (BOUNDS[1] - BOUNDS[0])
    is_found = log_capital((pairs + 1) / 2, 0.5) >= DISPROOF
    if not is_found.any():
        return np.inf
    needed = int(is_found.argmax()) + 1

    def pairs_of(episodes: int) -> int:
        return len(paired_differences(stream.is_challenger[:episodes], stream.returns[:episodes]))

    return bisect_left(range(len(stream.returns)), needed, key=pairs_of)


def main() -> None:
    """Print both tables."""
    played = {mean: play_with_mean(mean) for pair in PAIRS for mean in pair}
    click.echo("a policy that is 20 returns better:")
    rows: list[tuple[str, ...]] = [
        ("champion", "challenger", "share", "found", "median episodes", "90 % within")
    ]
    for first, second in PAIRS:
        for share in SHARES:
            drawn = streams(played[first], played[second], share, MAX_EPISODES, seed=1)
            needed = [episodes_to_better(next(drawn)) for _ in range(REPETITIONS)]
            within = np.quantile(needed, [0.5, 0.9], method="higher")
            rows.append(
                (
                    f"{played[first].mean():.1f}",
                    f"{played[second].mean():.1f}",
                    f"{share:g}",
                    f"{np.isfinite(needed).sum()} of {REPETITIONS}",
                    *(f"{episodes:,.0f}" for episodes in within),
                )
            )
    click.echo(table(rows))
    click.echo(f"equal policies, an answer within {EQUAL_EPISODES:,} episodes:")
    rows = [("both", "share", "wrong answers")]
    for mean in (480, 260):
        for share in SHARES:
            wrong = wrong_answers(played[mean], share, EQUAL_REPETITIONS, EQUAL_EPISODES, seed=2)
            both = f"{played[mean].mean():.1f}"
            rows.append((both, f"{share:g}", f"{wrong} of {EQUAL_REPETITIONS}"))
    click.echo(table(rows))


if __name__ == "__main__":
    main()
