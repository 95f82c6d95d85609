"""The report of the comparison of training speed."""

from benchmarks.training_report import Run, contender_table, ratios, report


def run(contender: str, seconds: float, *, seed: int = 0, setup_seconds: float = 1.0) -> Run:
    """A run with 1,000 steps, of whose time half was learning."""
    return Run(
        seed=seed,
        contender=contender,
        passed=True,
        env_steps=1_000,
        import_seconds=3.0 if contender == "rejax" else None,
        setup_seconds=setup_seconds,
        seconds=seconds,
        learning_seconds=seconds / 2,
        steps_per_second=2_000 / seconds,
        greedy=None,
        sampled=480.0,
    )


def test_a_ratio_above_one_says_that_ours_is_faster() -> None:
    by_seed = ratios([run("ours", 2.0), run("sb3_ppo", 8.0)])  # set-ups of 1 s
    assert by_seed == {0: {"PPO s / our s": 4.0, "with set-up": 3.0, "our steps/s / PPO's": 4.0}}


def test_a_contender_of_some_seeds_only_has_no_ratio_on_the_others() -> None:
    runs = [run("command", 2.0, seed=seed) for seed in (5, 6)]
    by_seed = ratios([*runs, run("sb3_ppo_full", 12.0, seed=5)])
    name = "full PPO learning s / our command s"
    assert by_seed == {5: {name: 3.0}, 6: {name: None}}


def test_the_tables_have_only_the_contenders_that_ran() -> None:
    runs = [run("sb3_ppo", 8.0), run("ours", 2.0)]
    rows = contender_table(runs).splitlines()[1:]
    assert [row.partition("1/1")[0].strip() for row in rows] == ["ours", "stable-baselines3 PPO"]
    assert "rejax" not in report(runs)


def test_the_import_of_rejax_is_told_apart() -> None:
    runs = [run("ours", 2.0), run("rejax", 1.0, setup_seconds=5.0)]
    assert "rejax is imported in 3.00 (3.00..3.00) s" in report(runs)
    # 1 s / 2 s; 6 s / 3 s; 1,000 / 2,000 steps per second
    assert list(ratios(runs)[0].values()) == [0.5, 2.0, 0.5]
