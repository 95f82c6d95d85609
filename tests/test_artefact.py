"""Faults in a version's files, found without TensorFlow and reported by `verify`."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.policy import artefact as module
from serving.policy.artefact import Artefact, ArtefactError, require_return
from serving.policy.artefact import read as read_copy
from serving.registry.store import Store, find_files
from tests.artefacts import CARD, GOLDEN, edit, edit_card, edit_golden, files, reseal
from tests.conftest import Trained, run


@pytest.fixture
def model_dir(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "3")


def read(model_dir: Path) -> Artefact:
    """Copy a version, and read the copy."""
    with Store() as store:
        try:
            return read_copy(store.path(store.copy(model_dir, find_files(model_dir).paths)))
        except OSError as error:
            raise ArtefactError(f"cannot be read: {error}") from error


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def refusal(model_dir: Path) -> str:
    with pytest.raises(ArtefactError) as refused:
        read(model_dir)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_unchanged_version_is_accepted(trained: Trained) -> None:
    names = files(trained.model_dir)
    assert {"saved_model.pb", "variables/variables.index", CARD, GOLDEN} <= set(names)
    assert set(read(trained.model_dir).card.checksums) == set(names)


def test_a_flipped_byte_in_any_file_is_refused_by_verify(model_dir: Path) -> None:
    for name in files(model_dir):
        content = (model_dir / name).read_bytes()
        flip(model_dir / name, len(content) // 2)
        finished = run("serving", "verify", str(model_dir))
        assert finished.returncode == 1, name
        assert finished.stdout.startswith("refused: ")
        assert name in finished.stdout
        assert finished.stdout.count("\n") == 1
        (model_dir / name).write_bytes(content)
    assert run("serving", "verify", str(model_dir)).returncode == 0


def test_a_flipped_byte_at_any_place_is_refused(model_dir: Path) -> None:
    sizes = {name: (model_dir / name).stat().st_size for name in files(model_dir)}
    places = st.sampled_from(sorted(sizes)).flatmap(
        lambda name: st.tuples(st.just(name), st.integers(0, sizes[name] - 1))
    )

    @settings(max_examples=500, deadline=None)
    @given(places, st.integers(0, 7))
    def check(place: tuple[str, int], bit: int) -> None:
        path = model_dir / place[0]
        content = path.read_bytes()
        changed = bytearray(content)
        changed[place[1]] ^= 1 << bit
        path.write_bytes(changed)
        try:
            refusal(model_dir)
        finally:
            path.write_bytes(content)

    check()


@pytest.mark.parametrize("byte", range(0, 64, 9))
def test_the_cards_own_checksum_is_protected_too(model_dir: Path, byte: int) -> None:
    own = read(model_dir).card.checksums[CARD].encode()
    flip(model_dir / CARD, (model_dir / CARD).read_bytes().index(own) + byte)
    assert CARD in refusal(model_dir)


def edit_histograms(**fields: object) -> Callable[[Path], object]:
    """A change of the card's histograms; each field is of one of the four numbers, or of all."""

    def change(card: dict[str, Any]) -> None:
        known = card["observations"]["histograms"]
        known.update(rows=8, edges=[[0.0]] * 4, shares=[[0.5, 0.5]] * 4)
        known.update(fields)

    return lambda folder: edit_card(folder, change)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "saved_model.pb").unlink(), "saved_model.pb is missing"),
        (lambda folder: shutil.rmtree(folder / "variables"), "variables.* is missing"),
        (lambda folder: (folder / CARD).unlink(), "policy.json is missing"),
        (lambda folder: (folder / GOLDEN).unlink(), "golden.json is missing"),
        (lambda folder: (folder / "new").touch(), "new is not on the card"),
        (lambda folder: os.symlink("/etc/passwd", folder / "link"), "'link' is a symbolic link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "'pipe' is neither a file nor a folder"),
        (lambda folder: shutil.rmtree(folder), "cannot be read: .*No such file"),
        (lambda folder: edit(folder / CARD, dict.clear), "policy.json: .*missing.*environment"),
        *(
            (
                lambda folder, own=own: edit(
                    folder / CARD, lambda card: card["checksums"].update({CARD: own})
                ),
                "policy.json: Expected `str` matching regex",
            )
            for own in ("", "a", "0" * 63, "A" * 64)
        ),
        (lambda folder: edit_card(folder, lambda card: card.pop("solved")), "solved"),
        (
            lambda folder: edit_card(folder, lambda card: card.update(solved="yes")),
            "Expected `bool`, got `str` - at `.*solved`",
        ),
        (
            lambda folder: edit_card(
                folder, lambda card: card["observations"].update(seen_low=[0.0])
            ),
            "ranges and names of different lengths",
        ),
        (
            lambda folder: edit_card(
                folder, lambda card: card["observations"].update(names=["a", "a", "b", "c"])
            ),
            "two of its observations have the same name",
        ),
        (edit_histograms(rows=0), "Expected `int` >= 1 - at `.*histograms.rows`"),
        (edit_histograms(edges=[[0.0]] * 3), "histograms and names have different lengths"),
        (edit_histograms(edges=[[0.0, 1.0]] * 4), "'cart_position' has 2 edges and 2 shares"),
        *(
            (
                edit_histograms(edges=[edges] * 4, shares=[[0.5, 0.5, 0]] * 4),
                "'cart_position' has edges that are not finite and increasing",
            )
            for edges in ([1.0, 0.0], [1.0, 1.0], [1.0, 1.0 + 1e-12], [0.0, 1e300])
        ),
        *(
            (edit_histograms(shares=[shares] * 4), "has shares that do not add up to 1")
            for shares in ([0.5, 0.4], [1.5, -0.5])
        ),
        (
            lambda folder: edit_golden(folder, lambda golden: golden.update(observations=[])),
            "golden.json: Expected `array` of length >= 1",
        ),
        (
            lambda folder: edit_golden(folder, lambda golden: golden.update(tolerance=1.0)),
            "golden.json: Expected `float` <= 0.001",
        ),
    ],
)
def test_damage_is_refused_with_the_reason(
    model_dir: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(model_dir)
    with pytest.raises(ArtefactError, match=reason):
        read(model_dir)


@pytest.mark.parametrize("name", [CARD, GOLDEN])
def test_a_card_or_golden_values_of_too_many_bytes_are_refused_undecoded(
    model_dir: Path, name: str
) -> None:
    (model_dir / name).write_bytes(b"[" * (16 * 1024 * 1024 + 1))
    assert refusal(model_dir) == f"{name} has more than 16777216 bytes"


def test_of_large_files_only_the_checksum_is_kept(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = 24 * 1024 * 1024
    for name in ("episode.gif", "weights"):
        (model_dir / "assets.extra" / name).write_bytes(bytes(large))
    reseal(model_dir)
    monkeypatch.setattr(Path, "read_bytes", read_at_most(module.MAX_KEPT_BYTES))
    assert set(read(model_dir).pictures) == {"learning_curve.png"}


def read_at_most(size: int) -> Callable[[Path], bytes]:
    """`Path.read_bytes`, for files of at most so many bytes."""
    original = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        assert path.stat().st_size <= size
        return original(path)

    return read_bytes


def test_names_on_the_card_forge_no_line_and_command_no_terminal(model_dir: Path) -> None:
    name = "\x1b[2J\u202e\nfiles          9, each with its checksum on the card" + "x" * 1_000
    edit(model_dir / CARD, lambda card: card["checksums"].update({name: "0" * 64}))
    finished = run("serving", "verify", str(model_dir))
    assert finished.returncode == 1, finished.stderr
    line = finished.stdout.removesuffix("\n")
    assert line.isprintable()
    assert line.startswith(r"refused: \x1b[2J\u202e\nfiles  ")
    assert len(line) < 600


def test_a_version_that_is_a_symbolic_link_is_refused(model_dir: Path) -> None:
    link = model_dir.parent / "4"
    link.symlink_to(model_dir)
    assert refusal(link) == "it is a symbolic link"


def test_with_new_checksums_it_is_accepted_so_the_tests_above_refuse_for_their_own_reason(
    model_dir: Path,
) -> None:
    reseal(model_dir)
    read(model_dir)


def test_other_histograms_are_accepted_so_the_tests_above_refuse_for_their_own_reason(
    model_dir: Path,
) -> None:
    edit_histograms()(model_dir)
    assert read(model_dir).card.observations.histograms is not None


def test_a_policy_below_min_return_is_refused(model_dir: Path) -> None:
    card = read(model_dir).card
    card.evaluation.greedy.mean, card.evaluation.sampled.mean = 500.0, 480.0
    require_return(card, None)
    require_return(card, 480.0)
    with pytest.raises(ArtefactError, match=r"its sampled mean return 480 is below 480\.5"):
        require_return(card, 480.5)
    card.solved = False
    with pytest.raises(ArtefactError, match="not solved"):
        require_return(card, None)


def test_verify_refuses_what_the_service_would_refuse(model_dir: Path) -> None:
    edit_card(model_dir, lambda card: card.update(solved=False))
    finished = run("serving", "verify", str(model_dir))
    assert finished.returncode == 1
    assert finished.stdout == "refused: its card says that it is not solved\n"


def test_verify_refuses_the_links_that_the_service_refuses(model_dir: Path) -> None:
    base = model_dir.parent
    (base / "7").symlink_to(model_dir.name)
    linked = run("serving", "verify", str(base / "7"))
    assert (linked.returncode, linked.stdout) == (1, "refused: it is a symbolic link\n")
    (base.parent / "linked").symlink_to(base.name)
    linked = run("serving", "verify", str(base.parent / "linked" / model_dir.name))
    reason = "its model's folder is a symbolic link"
    assert (linked.returncode, linked.stdout) == (1, f"refused: {reason}\n")


@pytest.mark.parametrize(("name", "shown"), [(b"\xff", r"\udcff"), (b"a\nb", r"a\nb")])
def test_a_name_that_cannot_be_shown_is_refused_in_one_line(
    model_dir: Path, name: bytes, shown: str
) -> None:
    (model_dir / os.fsdecode(name)).touch()
    finished = run("serving", "verify", str(model_dir))
    reason = f"the name '{shown}' has characters that cannot be shown"
    assert (finished.returncode, finished.stdout) == (1, f"refused: {reason}\n")


def test_verify_reports_its_checks(trained: Trained) -> None:
    finished = run("serving", "verify", str(trained.model_dir))
    assert finished.returncode == 0, finished.stderr
    files_line, signatures, golden, evaluation = finished.stdout.splitlines()
    assert files_line.split()[:2] == ["files", f"{len(files(trained.model_dir))},"]
    assert "4 numbers in, 2 actions" in signatures
    assert "rows within 1e-05" in golden
    assert "solved, mean return 500 greedy" in evaluation


@pytest.mark.parametrize(
    ("folder", "message"),
    [("none", "does not exist"), ("tests", "not a version"), ("007", "not a version")],
)
def test_verify_rejects_a_folder_that_is_no_version(
    model_dir: Path, folder: str, message: str
) -> None:
    model_dir.rename(model_dir.parent / "007")
    (model_dir.parent / "tests").mkdir()
    finished = run("serving", "verify", str(model_dir.parent / folder))
    assert finished.returncode == 2
    assert message in finished.stderr
