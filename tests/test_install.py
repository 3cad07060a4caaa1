from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.setup.install import KEYS, Scope, effective, install, is_ours, is_runnable, settings, uninstall

FILES = {
    "comments": "# mine\n[user]\n\tname = me ; also me\n\n[alias]\n    st = status\n",
    "crowded": '[core]\n\teditor = vi\n[filter "lfs"]\n\tclean = git-lfs clean -- %f\n[alias]\n\ts = status\n',
    "own comment": "[user]\n\tname = me\n# the last line is a comment\n",
    "blank lines": "\n\n[user]\nname=me\n\n\n",
}


@pytest.fixture
def git(tmp_path: Path) -> Git:
    directory = tmp_path / "repo"
    git = Git(str(tmp_path))
    git.run("init", "--quiet", "repo")
    return Git(str(directory))


def test_the_filters_are_written_with_the_whole_path(git: Git) -> None:
    assert install(git, "global") == list(KEYS)
    program = os.path.join(os.path.dirname(sys.executable), "git-theta-filter")
    assert effective(git) == {
        "filter.theta.clean": f"{program} clean -- %f",
        "filter.theta.smudge": f"{program} smudge -- %f",
        "filter.theta.required": "true",
        "merge.theta.name": "merge models parameter by parameter",
        "merge.theta.recursive": "binary",
        "merge.theta-ours.name": "keep our side",
        "merge.theta-ours.driver": "true",
        "merge.theta.driver": f"{os.path.dirname(program)}/git-theta-merge auto %O %A %B %P",
    }


def test_the_driver_of_an_earlier_version_is_replaced(git: Git) -> None:
    git.run("config", "--global", "merge.theta.driver", "false")
    assert "merge.theta.driver" in install(git, "global")
    git.run("config", "--global", "merge.theta.driver", "someone-elses %A")
    with pytest.raises(ThetaError, match=r"merge\.theta\.driver"):
        install(git, "global")


def test_a_second_time_changes_nothing(git: Git, home: Path) -> None:
    install(git, "global")
    before = (home / ".gitconfig").stat()
    assert install(git, "global") == []
    assert (home / ".gitconfig").stat() == before


def test_skip_smudge_goes_both_ways(git: Git) -> None:
    install(git, "local")
    assert install(git, "local", skip_smudge=True) == ["filter.theta.smudge"]
    assert " smudge --skip -- %f" in effective(git)["filter.theta.smudge"]
    assert install(git, "local") == ["filter.theta.smudge"]


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_uninstalling_gives_the_file_back_byte_for_byte(git: Git, home: Path, content: str) -> None:
    config = home / ".gitconfig"
    config.write_text(content)
    install(git, "global")
    assert config.read_text().startswith(content)
    assert uninstall(git, "global") == list(KEYS)
    assert config.read_text() == content
    assert uninstall(git, "global") == []


@pytest.mark.parametrize("scope", ["local", "worktree"])
def test_the_repositorys_own_file_comes_back_too(git: Git, home: Path, scope: Scope) -> None:
    config = Path(git.directory, ".git", "config")
    before = config.read_bytes()
    install(git, scope)
    assert not (home / ".gitconfig").exists()
    uninstall(git, scope)
    assert config.read_bytes() == before


def test_the_systems_file(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIT_CONFIG_NOSYSTEM")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "etc"))
    install(git, "system")
    assert "git-theta-filter" in (tmp_path / "etc").read_text()
    assert effective(git) == settings()
    uninstall(git, "system")
    assert not (tmp_path / "etc").exists()


def test_a_file_that_install_made_is_removed(git: Git, home: Path) -> None:
    install(git, "global")
    uninstall(git, "global")
    assert not (home / ".gitconfig").exists()


def test_what_was_written_below_since_then_stays(git: Git, home: Path) -> None:
    install(git, "global")
    with (home / ".gitconfig").open("a") as config:
        config.write("# about the alias\n[alias]\n\tst = status\n")
    uninstall(git, "global")
    assert effective(git) == {}
    assert (home / ".gitconfig").read_text().endswith("# about the alias\n[alias]\n\tst = status\n")


def test_keys_that_others_put_beside_ours_stay(git: Git, home: Path) -> None:
    install(git, "global")
    git.run("config", "--global", "filter.theta.extra", "1")
    uninstall(git, "global")
    assert (home / ".gitconfig").read_text() == '[filter "theta"]\n\textra = 1\n'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("filter.theta.clean", "git-theta-filter clean %f"),
        ("filter.theta.smudge", "cat"),
        ("filter.theta.required", "false"),
        ("merge.theta.driver", "git-theta-merge %O %A %B %P"),
        ("merge.theta.name", "another"),
    ],
)
def test_a_foreign_value_is_refused(git: Git, home: Path, key: str, value: str) -> None:
    git.run("config", "--global", key, value)
    before = (home / ".gitconfig").read_bytes()
    for change in (install, uninstall):
        with pytest.raises(ThetaError, match="--force") as refusal:
            change(git, "global")
        assert key in str(refusal.value) and value in str(refusal.value)
    assert (home / ".gitconfig").read_bytes() == before
    assert key in install(git, "global", force=True)
    assert effective(git)[key] == settings()[key]


def test_several_values_are_replaced_by_force(git: Git) -> None:
    for value in ("one", "two"):
        git.run("config", "--global", "--add", "filter.theta.clean", value)
    install(git, "global", force=True)
    assert git.fields("config", "-z", "--get-all", "filter.theta.clean") == [settings()["filter.theta.clean"]]
    git.run("config", "--global", "--add", "filter.theta.clean", "three")
    uninstall(git, "global", force=True)
    assert effective(git) == {}


def test_another_environments_values_are_ours(git: Git) -> None:
    git.run("config", "--global", "filter.theta.clean", "'/old venv/bin/git-theta-filter' clean -- %f")
    assert "filter.theta.clean" in install(git, "global")


@pytest.mark.parametrize(
    "value", ["", "'unclosed clean -- %f", "x clean -- %f", "git-theta-filter clean -- %f; rm -rf /"]
)
def test_what_is_not_ours(value: str) -> None:
    assert not is_ours("filter.theta.clean", value)


def test_what_can_be_run(tmp_path: Path) -> None:
    assert all(is_runnable(settings()[key]) for key in ("filter.theta.clean", "filter.theta.smudge"))
    assert not is_runnable(f"{tmp_path}/git-theta-filter clean -- %f")
    assert not is_runnable("")


@pytest.mark.parametrize("name", ["my venv", "it's", "100%f", 'double"quote', "dollar$HOME"])
def test_any_path_survives_the_shell_and_gits_own_expansion(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    program = tmp_path / name / "git-theta-filter"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(os.path.dirname(sys.executable))}/git-theta-filter "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / name / "python"))
    install(git, "local")
    Path(git.directory, ".gitattributes").write_text("*.bin filter=theta\n")
    Path(git.directory, "a model.bin").write_bytes(b"weights" * 9)
    git.run("add", ".")
    assert git.blob(":./a model.bin").startswith(b"git-theta-btm manifest 1")
    assert is_ours("filter.theta.clean", effective(git)["filter.theta.clean"])
    assert is_runnable(effective(git)["filter.theta.clean"])


def test_a_file_that_cannot_be_written_is_one_line(git: Git, home: Path) -> None:
    (home / ".gitconfig").write_text("")
    (home / ".gitconfig.lock").write_text("")
    with pytest.raises(ThetaError, match="could not lock config file"):
        install(git, "global")


def test_outside_a_repository_only_the_user_can_be_configured(tmp_path: Path) -> None:
    git = Git(str(tmp_path))
    with pytest.raises(ThetaError):
        install(git, "local")
    install(git, "global")
    assert effective(git) == settings()


def test_an_old_git_is_refused(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho git version 2.17.1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(old.parent), prepend=os.pathsep)
    with pytest.raises(ThetaError, match=r"git 2\.17\.1 is too old"):
        install(git, "global")


def test_an_unconfigured_clone_conflicts_and_ours_stays(git: Git) -> None:
    """The driver is a safe conflict: what a text merge of manifests would mix silently."""
    install(git, "local")
    done = subprocess.run(effective(git)["merge.theta.driver"], shell=True, check=False)  # noqa: S602 - as git does
    assert done.returncode == 1
