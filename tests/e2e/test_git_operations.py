"""Whatever git does with a model: the right bytes are in the worktree afterwards, and the status is clean."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo, install
from safetensors.numpy import save

from git_theta_btm.manifest import FIRST_LINE


def model(*changes: int) -> bytes:
    """Six tensors, of which some are changed."""
    state = {f"h.{index}.w": np.full(9000, index, "f4") for index in range(6)}
    state |= {f"h.{index}.b": np.full(10, index, "f4") for index in range(6)}
    for index in changes:
        state[f"h.{index}.w"] = state[f"h.{index}.w"] + 1
    return save(state)


SEED, SECOND, THIRD, LEGAL = model(), model(0), model(0, 1), model(4)


class Forgetful(Repo):
    """Loses the catalogue before every call of git."""

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        check: bool = True,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        for file in self.theta.glob("catalogue*"):
            file.unlink()
        return super().run(*arguments, stdin=stdin, check=check, cwd=cwd, env=env)


@pytest.fixture(scope="module")
def history(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``main``: the seed, then two versions. ``legal``: another version of the seed. ``notes``: the seed and a text."""
    path = tmp_path_factory.mktemp("history") / "repo"
    shutil.copytree(template, path)
    repo = Repo(path)
    with pytest.MonkeyPatch.context() as patch:
        from conftest import surroundings

        for name, value in surroundings(path.parent).items():
            patch.setenv(name, value)
        repo.write("m.safetensors", SEED)
        repo.commit("seed")
        repo.git("tag", "seed")
        for branch, file, content in (("notes", "notes.txt", b"notes"), ("legal", "m.safetensors", LEGAL)):
            repo.git("checkout", "--quiet", "-b", branch, "seed")
            repo.write(file, content)
            repo.commit(branch)
        repo.git("checkout", "--quiet", "main")
        for number, content in enumerate((SECOND, THIRD)):
            repo.write("m.safetensors", content)
            repo.commit(f"version {number + 2}")
    return path


@pytest.fixture(params=[Repo, Forgetful], ids=["remembering", "forgetful"])
def repo(request: pytest.FixtureRequest, history: Path, tmp_path: Path) -> Repo:
    made: Repo = request.param(shutil.copytree(history, tmp_path / "repo", symlinks=True))
    return made


def holds(repo: Repo, expected: bytes, path: str = "m.safetensors") -> bool:
    """Whether the worktree's file has these bytes and git sees no change."""
    assert repo.status() == ""
    return repo.sha(path) == sha256(expected).hexdigest()


def test_checkout_and_switch(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    assert holds(repo, LEGAL)
    repo.git("switch", "--quiet", "main")
    assert holds(repo, THIRD)
    repo.git("checkout", "--quiet", "--detach", "seed")
    assert holds(repo, SEED)


def test_restore(repo: Repo) -> None:
    repo.write("m.safetensors", LEGAL)
    assert repo.status() == " M m.safetensors"
    repo.git("restore", "m.safetensors")
    assert holds(repo, THIRD)
    repo.git("restore", "--source=legal", "--staged", "--worktree", "m.safetensors")
    assert repo.status() == "M  m.safetensors"
    assert repo.sha("m.safetensors") == sha256(LEGAL).hexdigest()
    (repo.path / "m.safetensors").unlink()
    repo.git("restore", "--staged", "--worktree", "m.safetensors")
    assert holds(repo, THIRD)


def test_stash_and_pop(repo: Repo) -> None:
    repo.write("m.safetensors", LEGAL)
    repo.git("stash", "--quiet")
    assert holds(repo, THIRD)
    repo.git("stash", "pop", "--quiet")
    assert repo.status() == " M m.safetensors"
    assert repo.sha("m.safetensors") == sha256(LEGAL).hexdigest()


def test_stash_staged_and_new(repo: Repo) -> None:
    repo.write("m.safetensors", LEGAL)
    repo.write("new.safetensors", SECOND)
    repo.git("add", ".")
    repo.git("stash", "--quiet", "--include-untracked")
    assert holds(repo, THIRD)
    repo.git("stash", "apply", "--quiet", "--index")
    assert repo.status() == "M  m.safetensors\nA  new.safetensors"
    assert repo.sha("new.safetensors") == sha256(SECOND).hexdigest()


def test_rebase(repo: Repo) -> None:
    repo.git("rebase", "--quiet", "notes", "main")
    assert holds(repo, THIRD)
    assert (repo.path / "notes.txt").exists()
    repo.git("checkout", "--quiet", "main~")
    assert holds(repo, SECOND)


def test_rebase_with_apply(repo: Repo) -> None:
    repo.git("rebase", "--quiet", "--apply", "notes", "legal")
    assert holds(repo, LEGAL)


def test_cherry_pick_and_revert(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "notes")
    repo.git("cherry-pick", "legal")
    assert holds(repo, LEGAL)
    repo.git("revert", "--no-edit", "HEAD")
    assert holds(repo, SEED)


def test_reset(repo: Repo) -> None:
    repo.write("m.safetensors", LEGAL)
    repo.git("reset", "--quiet", "--hard")
    assert holds(repo, THIRD)
    repo.git("reset", "--quiet", "--hard", "seed")
    assert holds(repo, SEED)
    repo.git("reset", "--quiet", "--hard", "main@{1}")
    assert holds(repo, THIRD)
    repo.git("reset", "--quiet", "--soft", "HEAD~")
    assert repo.status() == "M  m.safetensors"
    repo.git("reset", "--quiet", "--mixed", "HEAD")
    assert repo.status() == " M m.safetensors"


def test_merge(repo: Repo) -> None:
    repo.git("merge", "--quiet", "--no-edit", "notes")
    assert holds(repo, THIRD)
    repo.git("checkout", "--quiet", "notes")
    repo.git("merge", "--quiet", "--no-edit", "legal")
    assert holds(repo, LEGAL)
    repo.git("checkout", "--quiet", "-B", "octopus", "seed")
    repo.git("merge", "--quiet", "--no-edit", "notes", "legal")
    assert holds(repo, LEGAL)


def test_fast_forward(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "behind", "seed")
    repo.git("merge", "--quiet", "--ff-only", "main")
    assert holds(repo, THIRD)


def test_worktrees(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "legal")
    linked = Repo(tmp_path / "linked")
    assert holds(linked, LEGAL)
    linked.write("m.safetensors", SECOND)
    linked.write("sub/new.safetensors", THIRD)
    assert linked.status() == " M m.safetensors\n?? sub/"
    linked.commit("in the linked worktree")
    assert holds(linked, SECOND)
    assert holds(repo, THIRD)
    assert not (tmp_path / "linked" / "theta").exists()
    repo.git("checkout", "--quiet", "--detach", "legal")
    assert holds(repo, SECOND)


def test_checkout_with_merge(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-B", "work", "seed")
    repo.write("m.safetensors", LEGAL)
    repo.git("checkout", "--quiet", "-m", "notes")
    assert repo.status() == " M m.safetensors"
    assert repo.sha("m.safetensors") == sha256(LEGAL).hexdigest()
    repo.git("checkout", "--quiet", "-f", "main")
    assert holds(repo, THIRD)


def test_bisect(repo: Repo) -> None:
    repo.git("bisect", "start", "main", "seed")
    assert holds(repo, SECOND)
    assert "is the first bad commit" in repo.git("bisect", "bad")
    repo.git("bisect", "reset")
    assert holds(repo, THIRD)


def test_move_and_remove(repo: Repo) -> None:
    repo.git("mv", "m.safetensors", "other name.safetensors")
    assert repo.status() == 'R  m.safetensors -> "other name.safetensors"'
    repo.git("commit", "--quiet", "--message", "moved")
    assert holds(repo, THIRD, "other name.safetensors")
    repo.git("rm", "--quiet", "other name.safetensors")
    repo.git("reset", "--quiet", "--hard")
    assert holds(repo, THIRD, "other name.safetensors")


def test_amend(repo: Repo) -> None:
    repo.write("m.safetensors", LEGAL)
    repo.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    assert holds(repo, LEGAL)


def test_add_renormalize(repo: Repo) -> None:
    repo.git("add", "--renormalize", ".")
    assert holds(repo, THIRD)


def test_archive(repo: Repo) -> None:
    with tarfile.open(fileobj=io.BytesIO(repo.run("archive", "legal").stdout)) as archive:
        member = archive.extractfile("m.safetensors")
        assert member is not None
        assert member.read() == LEGAL


def test_cat_file_with_filters(repo: Repo) -> None:
    assert repo.run("cat-file", "--filters", "legal:m.safetensors").stdout == LEGAL


def test_a_touched_file_is_no_change(repo: Repo) -> None:
    (repo.path / "m.safetensors").touch()
    assert holds(repo, THIRD)
    shutil.copy(repo.path / "m.safetensors", repo.path / "copy")
    shutil.move(repo.path / "copy", repo.path / "m.safetensors")
    assert holds(repo, THIRD)


def test_a_deleted_file_and_a_symbolic_link(repo: Repo) -> None:
    (repo.path / "m.safetensors").unlink()
    assert repo.status() == " D m.safetensors"
    repo.write("elsewhere.txt", b"secret")
    (repo.path / "m.safetensors").symlink_to("elsewhere.txt")
    assert repo.status() == " T m.safetensors\n?? elsewhere.txt"
    repo.commit("a link")
    assert repo.blob("m.safetensors") == b"elsewhere.txt"
    repo.git("checkout", "--quiet", "main~")
    assert holds(repo, THIRD)
    repo.git("checkout", "--quiet", "main")
    assert (repo.path / "m.safetensors").is_symlink()
    assert (repo.path / "elsewhere.txt").read_bytes() == b"secret"


def test_diff_names_the_changed_parameters(repo: Repo) -> None:
    changed = repo.git("diff", "--unified=0", "seed", "legal", "--", "m.safetensors").splitlines()
    assert sum(line.startswith("+param ") for line in changed) == 1
    assert any(line.startswith("+param h.4.w F32[9000] ") for line in changed)
    assert not any("h.3" in line for line in changed)


# -- clones ----------------------------------------------------------------------------------------------------------


def clone(repo: Repo, to: Path) -> Repo:
    subprocess.run(["git", "clone", "--quiet", str(repo.path), str(to)], check=True, capture_output=True)
    return Repo(to)


def test_a_clone_with_the_objects(repo: Repo, tmp_path: Path) -> None:
    copy = clone(repo, tmp_path / "clone")
    shutil.copytree(repo.theta, copy.theta)
    install(copy)
    copy.git("rm", "--quiet", "--cached", "m.safetensors")
    (copy.path / "m.safetensors").unlink()
    copy.git("reset", "--quiet", "--hard")
    assert holds(copy, THIRD)
    copy.git("checkout", "--quiet", "legal")
    assert holds(copy, LEGAL)


def test_a_clone_without_the_extension(repo: Repo, tmp_path: Path) -> None:
    copy = clone(repo, tmp_path / "clone")
    text = (copy.path / "m.safetensors").read_bytes()
    assert text == repo.blob("m.safetensors")
    assert text.startswith(FIRST_LINE.encode() + b"\n")
    assert copy.status() == ""


def test_a_clone_without_the_objects(repo: Repo, tmp_path: Path, home: Path) -> None:
    for key in ("clean", "smudge", "required"):
        subprocess.run(
            ["git", "config", "--global", f"filter.theta.{key}", repo.git("config", f"filter.theta.{key}")], check=True
        )
    (repo.theta / "objects").rename(tmp_path / "objects")  # where the clone would have found them
    copy = clone(repo, tmp_path / "clone")
    assert (copy.path / "m.safetensors").read_bytes() == repo.blob("m.safetensors")
    assert copy.status() == ""
    copy.git("checkout", "--quiet", "legal")  # stubs do not stand in the way
    assert (copy.path / "m.safetensors").read_bytes() == repo.blob("m.safetensors", "legal")
    copy.write("notes.txt", b"more")
    copy.commit("work around the stub")
    assert copy.blob("m.safetensors") == repo.blob("m.safetensors", "legal")
