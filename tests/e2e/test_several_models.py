"""One merge of several models, each by its own attribute: the record says what each of them had, and verifies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from branches import Tensors, mean, merged, message, pack, same, seed, sprout, theta, trained
from conftest import Repo, surroundings

AVERAGE, OTHER, PLAIN = "a.safetensors", "b.safetensors", "c.safetensors"
NAMES = (AVERAGE, OTHER, PLAIN)
EXPERTS = ("legal", "medical")


def only(tensors: Tensors) -> Tensors:
    return {"h.0.w": tensors["h.0.w"][:40]}


@pytest.fixture(scope="module")
def several_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three models whose attributes differ, trained on two branches."""
    repo = Repo(Path(shutil.copytree(template, tmp_path_factory.mktemp("several") / "repo", symlinks=True)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(repo.path.parent).items():
            patch.setenv(name, value)
        with open(repo.path / ".gitattributes", "a") as file:
            file.write(f"{AVERAGE} theta-merge=average\n{OTHER} theta-merge=task-arithmetic\n")
        for name in NAMES:
            repo.write(name, pack(only(seed())))
        repo.commit("seed")
        sprout(repo, {expert: dict.fromkeys(NAMES, pack(only(trained(n)))) for n, expert in enumerate(EXPERTS, 1)})
        repo.git("checkout", "--quiet", "legal")
    yield repo.path


@pytest.fixture
def several(several_template: Path, tmp_path: Path) -> Repo:
    return Repo(Path(shutil.copytree(several_template, tmp_path / "several", symlinks=True)))


def ways(repo: Repo) -> list[str]:
    """The trailers that say how, without their options."""
    lines = message(repo).splitlines()
    return [" ".join(line.split()[:3]) for line in lines if line.startswith(("Theta-Merge", "Theta-File", "Theta-V"))]


def driver(repo: Repo) -> None:
    repo.git("merge", "--quiet", "--no-edit", "medical")


def strategy(repo: Repo) -> None:
    repo.git("merge", "--quiet", "--no-edit", "-s", "theta", "medical")


def command(repo: Repo) -> None:
    theta(repo, "merge", "medical")


def tampered(repo: Repo, path: str, revision: str) -> str:
    """A child of a commit where one bit of one number of a model is another."""
    repo.git("checkout", "--quiet", "--detach", revision)
    content = bytearray((repo.path / path).read_bytes())
    content[-2] ^= 1
    repo.write(path, bytes(content))
    return repo.commit("tampered")


def forged(repo: Repo, tree: str, text: str) -> str:
    """A merge like the one at HEAD, with another tree or message."""
    parents = [word for parent in repo.git("log", "-1", "--format=%P").split() for word in ("-p", parent)]
    return repo.git("commit-tree", f"{tree}^{{tree}}", *parents, "-m", text)


@pytest.mark.parametrize("door", [driver, strategy, command])
def test_each_file_is_recorded_and_verified(several: Repo, door: Callable[[Repo], None]) -> None:
    door(several)
    start, (one, two) = only(seed()), (only(trained(1)), only(trained(2)))
    assert same(merged(several, AVERAGE), mean([one, two]))
    assert same(merged(several, PLAIN), mean([one, two]))
    moved = start["h.0.w"] + (one["h.0.w"] - start["h.0.w"]) + (two["h.0.w"] - start["h.0.w"])
    np.testing.assert_allclose(merged(several, OTHER)["h.0.w"], moved, rtol=1e-5, atol=1e-6)
    expected = ["Theta-Merge: average missing=error", f"Theta-File: {OTHER} task_arithmetic", "Theta-Version: 2"]
    assert ways(several) == expected
    assert several.status() == ""
    assert "average, task_arithmetic of legal, medical: 3 models" in theta(several, "verify").stderr


def test_a_bit_of_an_input_or_of_the_result(several: Repo) -> None:
    strategy(several)
    done, text = several.git("rev-parse", "HEAD"), message(several)
    other = tampered(several, OTHER, "medical")
    several.git("checkout", "--quiet", "--detach", done)
    found = forged(several, done, text.replace(several.git("rev-parse", "medical"), other))
    assert [line.split(": ")[0] for line in theta(several, "verify", found, code=1).stdout.splitlines()] == [OTHER]
    result = tampered(several, PLAIN, done)
    several.git("checkout", "--quiet", "--detach", done)
    found = forged(several, result, text)
    assert [line.split(": ")[0] for line in theta(several, "verify", found, code=1).stdout.splitlines()] == [PLAIN]


def test_a_conflict_that_was_resolved_another_way_is_recorded(several: Repo) -> None:
    (several.path / ".git/info").mkdir(exist_ok=True)
    (several.path / ".git/info/attributes").write_text(f"{OTHER} theta-merge=magic\n")
    assert several.run("merge", "--no-edit", "medical", check=False).returncode == 1
    theta(several, "resolve", OTHER, "-s", "ties", "-o", "density=0.5")
    several.git("commit", "--quiet", "--no-edit")
    assert ways(several)[1] == f"Theta-File: {OTHER} ties"
    theta(several, "verify")


def test_previews_and_cards_name_the_file(several: Repo) -> None:
    assert f"Theta-File: {OTHER} task_arithmetic" in theta(several, "merge", "medical", "--dry-run").stdout
    command(several)
    assert f"{OTHER} was merged by task\\_arithmetic lambda=1.0" in theta(several, "card").stdout


def test_a_frozen_model_that_nobody_changed_is_in_nobodys_way(several: Repo) -> None:
    several.git("checkout", "--quiet", "-b", "start", "main")
    several.write("0.safetensors", pack(only(seed())))
    with open(several.path / ".gitattributes", "a") as file:
        file.write("0.safetensors -theta-merge\n")
    several.commit("frozen")
    theta(several, "merge", "legal", "medical")
    theta(several, "verify")


def test_a_configured_base_is_the_base_everywhere(several: Repo) -> None:
    several.git("config", "theta.merge.base", "medical")
    several.git("config", "theta.merge.strategy", "task_arithmetic")
    (several.path / ".git/info").mkdir(exist_ok=True)
    (several.path / ".git/info/attributes").write_text(f"{PLAIN} theta-merge=magic\n")
    assert several.run("merge", "--no-edit", "medical", check=False).returncode == 1
    theta(several, "resolve", PLAIN, "-s", "task_arithmetic")
    several.git("commit", "--quiet", "--no-edit")
    assert f"Theta-Base: {several.git('rev-parse', 'medical')}" in message(several)
    assert same(merged(several, OTHER), only(trained(1))) and same(merged(several, PLAIN), only(trained(1)))
    theta(several, "verify")
