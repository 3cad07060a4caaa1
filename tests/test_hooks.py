from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Repo

from git_theta_btm.git import Git
from git_theta_btm.remotes import hooks

LFS = '#!/bin/sh\ncommand -v git-lfs >/dev/null 2>&1 || exit 2\ngit lfs pre-push "$@"\n'
FOREIGN = {
    "git-lfs": LFS,
    "bash": '#!/usr/bin/env bash\nset -eu\nwhile read -r line; do echo "$line"; done\n',
    "no newline": "#!/bin/sh\ntrue",
}
LINES = "refs/heads/main 1 refs/heads/main 0\nrefs/heads/a 2 refs/heads/a 0\n"


@pytest.fixture
def git(repo: Repo) -> Git:
    """A repository without the hook."""
    git = Git(str(repo.path))
    if git.version() >= hooks.CONFIGURED:
        pytest.skip("this git has hooks in its configuration, and files stay as they are")
    hooks.uninstall(git)
    return git


def file(git: Git) -> Path:
    return Path(hooks.path(git))


def put(git: Git, text: str, mode: int = 0o755) -> Path:
    file(git).write_text(text)
    file(git).chmod(mode)
    return file(git)


def run(git: Git, stdin: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the hook as git does, with a ``git theta pre-push`` that tells what it is given."""
    script = tmp_path / "git-theta"
    script.write_text('#!/bin/sh\necho "theta $@"\ncat\nexit "${CODE:-0}"\n')
    script.chmod(0o755)
    text = file(git).read_text().replace(f"{os.path.dirname(sys.executable)}/git-theta", str(script))
    put(git, text)
    return subprocess.run(
        [str(file(git)), "origin", "a url"], input=stdin, capture_output=True, text=True, check=False, cwd=git.directory
    )


# -- coming and going ------------------------------------------------------------------------------------------------


def test_it_is_installed_once_and_leaves_nothing(git: Git) -> None:
    assert hooks.state(git) == "missing"
    assert hooks.install(git) == "missing"
    assert hooks.install(git) == "installed"
    assert stat.S_IMODE(file(git).stat().st_mode) == 0o755
    assert f"{os.path.dirname(sys.executable)}/git-theta pre-push --lfs" in file(git).read_text()
    hooks.uninstall(git)
    assert not file(git).exists()
    hooks.uninstall(git)


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_what_others_wrote_stays_byte_for_byte(git: Git, text: str) -> None:
    put(git, text, 0o700)
    assert hooks.install(git) == "missing"
    first, _, rest = text.partition("\n")
    assert file(git).read_text().startswith(f"{first}\n# >>> git-theta >>>\n")
    assert file(git).read_text().endswith(f"# <<< git-theta <<<\n{rest}")
    assert stat.S_IMODE(file(git).stat().st_mode) == 0o700
    hooks.uninstall(git)
    assert file(git).read_text().rstrip("\n") == text.rstrip("\n")


def test_an_older_block_is_renewed(git: Git) -> None:
    put(git, "#!/bin/sh\necho before\n# >>> git-theta >>>\ngit theta old\n# <<< git-theta <<<\necho after\n")
    assert hooks.state(git) == "outdated"
    assert hooks.install(git) == "outdated"
    text = file(git).read_text()
    assert "git theta old" not in text
    assert text.endswith("# <<< git-theta <<<\necho before\necho after\n")
    assert hooks.state(git) == "installed"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("#!/usr/bin/env python3\nprint()\n", 0o755),
        ("echo no first line that says what it is\n", 0o755),
        ("#!/bin/sh\necho git does not run this\n", 0o644),
        ("\x7fELF", 0o755),
    ],
)
def test_what_is_no_shell_script_is_left_alone(git: Git, text: str, mode: int) -> None:
    put(git, text, mode)
    assert hooks.install(git) == "foreign"
    assert file(git).read_text() == text
    assert stat.S_IMODE(file(git).stat().st_mode) == mode
    assert str(file(git)) in hooks.remedy(git)


def test_a_link_to_a_hook_of_others_is_left_alone(git: Git, tmp_path: Path) -> None:
    (tmp_path / "everybodys").write_text("#!/bin/sh\n")
    (tmp_path / "everybodys").chmod(0o755)
    file(git).symlink_to(tmp_path / "everybodys")
    assert hooks.install(git) == "foreign"
    assert (tmp_path / "everybodys").read_text() == "#!/bin/sh\n"


def test_binary_hooks_are_left_alone(git: Git) -> None:
    file(git).write_bytes(b"\xff\xfe\x00")
    assert hooks.install(git) == "foreign"


# -- where git looks for it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [".my hooks", "absolute"])
def test_core_hooks_path(git: Git, tmp_path: Path, where: str) -> None:
    path = str(tmp_path / "hooks") if where == "absolute" else where
    git.run("config", "core.hooksPath", path)
    hooks.install(git)
    assert file(git) == Path(git.directory, path, "pre-push")
    assert "| git theta pre-push" in file(git).read_text()  # others may share it: by name


def test_linked_worktrees_share_it(git: Git, tmp_path: Path) -> None:
    git.run("worktree", "add", "--quiet", str(tmp_path / "linked"))
    hooks.install(Git(str(tmp_path / "linked")))
    assert hooks.state(git) == "installed"
    assert file(git) == Path(git.directory, ".git", "hooks", "pre-push")


def test_a_place_where_no_hook_can_be(git: Git) -> None:
    git.run("config", "core.hooksPath", "/dev/null")
    assert hooks.install(git) == "foreign"


def test_pre_commit_moves_it_and_runs_it(git: Git) -> None:
    hooks.install(git)
    file(git).rename(f"{file(git)}.legacy")
    put(git, "#!/usr/bin/env bash\n# File generated by pre-commit: https://pre-commit.com\n")
    assert hooks.install(git) == "installed"
    assert "git-theta" not in file(git).read_text()


# -- what it does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stdin", [LINES, ""])
def test_both_get_the_same_input_and_arguments(git: Git, tmp_path: Path, stdin: str) -> None:
    put(git, '#!/bin/sh\necho "other $@"\ncat\n')
    hooks.install(git)
    done = run(git, stdin, tmp_path)
    assert done.stdout == f"theta pre-push --lfs origin a url\n{stdin or chr(10)}other origin a url\n{stdin}"
    assert done.returncode == 0


def test_git_lfs_runs_by_its_own_line_if_it_has_one(git: Git) -> None:
    put(git, LFS)
    hooks.install(git)
    assert 'pre-push "$@" || exit' in file(git).read_text()
    assert "--lfs" not in file(git).read_text()


def test_a_failure_stops_the_push_before_others_run(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(git, "#!/bin/sh\necho other\n")
    hooks.install(git)
    monkeypatch.setenv("CODE", "128")
    done = run(git, LINES, tmp_path)
    assert done.returncode == 128
    assert "other" not in done.stdout


def test_a_program_that_is_gone_stops_the_push(git: Git) -> None:
    hooks.install(git)
    put(git, file(git).read_text().replace(os.path.dirname(sys.executable), "/nowhere"))
    done = subprocess.run([str(file(git))], input=LINES, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "/nowhere/git-theta" in done.stderr
