"""What is no parameter is picked as well: metadata and optimizers' states are those of the side that changed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from branches import MODEL, Tensors, merged, sprout, theta
from conftest import Once, Repo
from safetensors import safe_open
from safetensors.numpy import save

STATE = "optimizer.state"  # which no merge mixes


def tensors(**numbers: int) -> Tensors:
    """Three parameters and a state, each by its number: 0 is the seed's."""
    return {
        name: np.random.default_rng([place, numbers.get(name[0], 0)]).standard_normal((40, 30), "f4")
        for place, name in enumerate(("a", "b", "c", STATE))
    }


def packed(note: str = "seed", **numbers: int) -> bytes:
    return bytes(save(tensors(**numbers), {"note": note}))


def note(repo: Repo) -> str:
    with safe_open(repo.path / MODEL, "np") as file:
        return str(file.metadata()["note"])


def build(repo: Repo) -> None:
    repo.write(MODEL, packed())
    repo.commit("seed")
    sprout(
        repo,
        {
            "trained": {MODEL: packed(a=1)},
            "note": {MODEL: packed("corrected")},
            "both": {MODEL: packed("corrected", b=1, o=1)},
            "other": {MODEL: packed("another", b=1)},
            "state": {MODEL: packed(o=2)},
            "more": {MODEL: bytes(save({**tensors(), "d": np.ones(9, "f4")}, {"note": "seed"}))},
        },
    )


@pytest.fixture
def repo(repo: Repo, once: Once) -> Repo:
    """On trained; the other branches are named for what they changed."""
    copy = once(repo, build)
    copy.git("checkout", "--quiet", "-B", "work", "trained")
    return copy


def check(repo: Repo, words: str, **numbers: int) -> None:
    assert note(repo) == words
    found, expected = merged(repo), tensors(**numbers)
    assert [name for name in expected if found[name].tobytes() != expected[name].tobytes()] == []


def rebased(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-B", "work", "note")
    repo.git("rebase", "--quiet", "trained")
    assert repo.git("log", "-1", "--format=%s") == "train note"


def popped(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "main")
    repo.write(MODEL, packed("corrected"))
    repo.git("stash", "--quiet")
    repo.git("checkout", "--quiet", "trained")
    repo.git("stash", "pop", "--quiet")


def carried(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "main")
    repo.write(MODEL, packed("corrected"))
    repo.git("checkout", "--quiet", "-m", "trained")


def mailed(repo: Repo) -> None:
    patch = repo.run("format-patch", "--stdout", "--full-index", "--binary", "-1", "note").stdout
    repo.run("am", "--quiet", "-3", stdin=patch)


def reverted(repo: Repo) -> None:
    sprout(repo, {"back": {MODEL: packed()}}, "note")
    repo.git("checkout", "--quiet", "-B", "work", "back")
    repo.write(MODEL, packed(a=1))
    repo.commit("trained")
    repo.git("revert", "--no-edit", "HEAD~")


@pytest.mark.parametrize(
    "command",
    [rebased, *(pytest.param(command, marks=pytest.mark.slow) for command in (popped, carried, mailed, reverted))],
)
def test_a_change_of_metadata_alone(repo: Repo, command: Callable[[Repo], None]) -> None:
    command(repo)
    check(repo, "corrected", a=1)


def test_a_change_of_metadata_and_parameters(repo: Repo) -> None:
    repo.git("cherry-pick", "both")
    check(repo, "corrected", a=1, b=1, o=1)
    repo.git("checkout", "--quiet", "both")
    repo.git("cherry-pick", "trained")
    check(repo, "corrected", a=1, b=1, o=1)


def test_a_state_of_an_optimizer(repo: Repo) -> None:
    repo.git("cherry-pick", "state")
    check(repo, "seed", a=1, o=2)
    repo.git("cherry-pick", "note")
    check(repo, "corrected", a=1, o=2)


def test_both_changed_it(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-B", "work", "note")
    for words in (["--theirs"], ["--strategy", "apply"]):
        done = repo.run("cherry-pick", "other", check=False)
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("theta: "))
        assert all(part in line for part in (MODEL, "both sides", "--theirs", "git theta resolve"))
        assert "--strategy apply" in theta(repo, "resolve", code=128).stderr
        theta(repo, "resolve", *words)
        check(repo, "another" if "--theirs" in words else "corrected", b=1)
        repo.git("cherry-pick", "--abort")


def test_parameters_and_metadata_by_different_sides(repo: Repo) -> None:
    repo.git("cherry-pick", "more")
    assert (sorted(merged(repo)), note(repo)) == (["a", "b", "c", "d", STATE], "seed")
    repo.git("checkout", "--quiet", "note")
    assert b"both sides" in repo.run("cherry-pick", "more", check=False).stderr


def test_the_order_of_a_header_is_no_conflict(repo: Repo) -> None:
    """Nor is a header that says that there is no metadata. What one side alone wrote anew is its own all the same."""
    plain = bytes(save(tensors(a=1)))
    sprout(repo, {"bare": {MODEL: bytes(save(tensors()))}})
    empty = {"__metadata__": {}, **json.loads(plain[8 : 8 + int.from_bytes(plain[:8], "little")])}
    header = json.dumps(empty).encode()
    size = int.from_bytes(plain[:8], "little")
    sprout(repo, {"empty": {MODEL: len(header).to_bytes(8, "little") + header + plain[8 + size :]}}, "bare")
    sprout(repo, {"cast": {MODEL: bytes(save({n: v.astype("f2") for n, v in tensors().items()}))}}, "bare")
    repo.git("checkout", "--quiet", "-B", "work", "bare")
    repo.git("cherry-pick", "empty")
    assert repo.manifest(MODEL).digest == repo.manifest(MODEL, "empty").digest
    repo.git("cherry-pick", "cast")
    assert {value.dtype for value in merged(repo).values()} == {np.dtype("f2")}


def test_a_merge_says_whose_metadata_it_keeps(repo: Repo) -> None:
    done = repo.run("merge", "--no-edit", "both")
    assert f"theta: {MODEL}: metadata, counters and the like stay ours'" in done.stderr.decode()
    assert note(repo) == "seed"
    repo.git("checkout", "--quiet", "both")
    assert b"metadata" not in repo.run("merge", "--no-edit", "state").stderr


@pytest.mark.slow
def test_counters_in_a_file_of_pytorch(repo: Repo, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def write(epoch: int, **numbers: int) -> None:
        state = {name: torch.from_numpy(value) for name, value in tensors(**numbers).items()}
        torch.save({"model": state, "epoch": epoch}, repo.path / "m.pt")

    for branch, start, epoch, numbers in (
        ("zero", "main", 0, {}),
        ("one", "zero", 0, {"a": 1}),
        ("two", "zero", 2, {"b": 1}),
        ("three", "zero", 3, {"c": 1}),
    ):
        repo.git("checkout", "--quiet", "-b", branch, start)
        write(epoch, **numbers)
        repo.commit(branch)
    repo.git("rebase", "--quiet", "one", "two")
    found = torch.load(repo.path / "m.pt", weights_only=True)
    assert found["epoch"] == 2
    assert all(found["model"][name].numpy().tobytes() == tensors(a=1, b=1)[name].tobytes() for name in "abc")
    assert repo.run("rebase", "two", "three", check=False).returncode == 1
    theta(repo, "resolve", "--strategy", "apply", "m.pt")
    repo.run("rebase", "--continue")
    found = torch.load(repo.path / "m.pt", weights_only=True)
    assert found["epoch"] == 2
    assert all(found["model"][name].numpy().tobytes() == tensors(a=1, b=1, c=1)[name].tobytes() for name in "abc")
