"""What Git's configuration and attributes say, and which of them has its way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from git_theta_btm.errors import UsageError
from git_theta_btm.git import Git
from git_theta_btm.merges.ties import Ties
from git_theta_btm.merging.configured import attributed, configured, settings
from git_theta_btm.merging.drafts import Draft, Prior, resolve
from git_theta_btm.merging.reading import from_pairs

NAMES = ("legal", "medical")


@pytest.fixture
def git(tmp_path: Path) -> Git:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return Git(str(tmp_path))


def test_nothing_configured(git: Git) -> None:
    assert configured(git) == []
    assert settings(git, "model.safetensors", Draft()) == Draft()


def test_keys_in_their_order(git: Git, tmp_path: Path) -> None:
    for key, value in [
        ("strategy", "dare-ties"),
        ("missing", "any"),
        ("exclude", "a*"),
        ("exclude", "b\nc=d"),
        ("top-k", "2"),
        ("prior", "priors/p.json"),
        ("rule", "'*.w x' average"),
        ("ties.density", "0.1"),
        ("dare-ties.select-topk", "0.3"),
    ]:
        git.run("config", "--add", f"theta.merge.{key}", value)
    git.run("config", "theta.merges.other", "x")
    assert configured(git) == [
        ("strategy", "dare-ties"),
        ("missing", "any"),
        ("exclude", "a*"),
        ("exclude", "b\nc=d"),
        ("top_k", "2"),
        ("prior", str(tmp_path / "priors/p.json")),
        ("rule", "'*.w x' average"),
        ("ties.density", "0.1"),
        ("dare_ties.select_topk", "0.3"),
    ]
    assert from_pairs(configured(git)).weights == Prior(str(tmp_path / "priors/p.json"))


def test_an_option_belongs_to_its_strategy(git: Git) -> None:
    git.run("config", "theta.merge.strategy", "average")
    git.run("config", "theta.merge.ties.density", "0.1")
    assert resolve(settings(git, "m", Draft()), NAMES).options == {}
    chosen = resolve(settings(git, "m", Draft(strategy="ties")), NAMES)
    assert chosen.choose("w", 2).strategy == Ties(density=(0.1,))


def test_an_option_without_a_strategy_is_an_error(git: Git) -> None:
    git.run("config", "theta.merge.density", "0.1")
    with pytest.raises(UsageError, match=r"theta.merge.density is no key: .* theta.merge.STRATEGY.density"):
        settings(git, "m", Draft())


def test_a_broken_value_is_told_to_be_configured(git: Git) -> None:
    git.run("config", "theta.merge.missing", "maybe")
    with pytest.raises(UsageError, match="Git's configuration of merges: missing cannot be 'maybe'"):
        settings(git, "m", Draft())


def test_a_key_without_a_value(git: Git, tmp_path: Path) -> None:
    with open(tmp_path / ".git/config", "a", encoding="utf-8") as file:
        file.write('[theta "merge"]\n\tstrategy\n')
    with pytest.raises(UsageError, match="strategy has no value"):
        settings(git, "m", Draft())


def test_attributes_name_the_strategy(git: Git, tmp_path: Path) -> None:
    (tmp_path / ".gitattributes").write_text("*.st theta-merge=dare-ties\nlast.st -theta-merge\nset.st theta-merge\n")
    assert attributed(git, "a b.st") == Draft(strategy="dare_ties")
    assert attributed(git, "set.st") == attributed(git, "a.bin") == Draft()
    with pytest.raises(UsageError, match="last.st is not to be merged"):
        attributed(git, "last.st")


def test_configuration_then_attribute_then_file_then_flags(git: Git, tmp_path: Path) -> None:
    git.run("config", "theta.merge.strategy", "sce")
    git.run("config", "theta.merge.missing", "any")
    git.run("config", "theta.merge.ties.lambda", "0.5")
    assert settings(git, "m.st", Draft()).strategy == "sce"
    (tmp_path / ".gitattributes").write_text("*.st theta-merge=task_arithmetic\n")
    assert settings(git, "m.st", Draft()).strategy == "task_arithmetic"
    file = tmp_path / "merge.yml"
    file.write_text("{strategy: ties, options: {density: 0.3}, missing: ours}")
    given = from_pairs([("density", "0.4"), ("recipe", str(file))])
    recipe = resolve(settings(git, "m.st", given), NAMES)
    assert recipe.missing == "ours"
    assert recipe.choose("w", 2).strategy == Ties(density=(0.4,), lambda_=0.5)
