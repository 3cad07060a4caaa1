"""``git theta switch`` leaves behind what ``git switch`` would: files, index, HEAD, reflog, output and exit code."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import Repo, surroundings
from safetensors.numpy import save

from git_theta_btm.repository import read_stub

MODEL = "dir/my model.safetensors"


def model(*changes: int) -> bytes:
    """Six tensors, of which some are changed."""
    numbers = np.random.default_rng(0)
    state = {f"h.{index}": numbers.standard_normal(9000, dtype="f4") for index in range(6)}
    return save({name: values + np.float32(int(name[2:]) in changes) for name, values in state.items()})


def build(repo: Repo) -> None:
    """Branches that each do something else to the model of ``main``."""
    repo.write(MODEL, model())
    repo.write("notes", b"notes\n")
    hook = repo.path / ".git/hooks/post-checkout"
    hook.write_text('#!/bin/sh\necho "$@" >>"$(git rev-parse --git-dir)/checkouts"\n')
    hook.chmod(0o755)
    repo.commit("model")
    repo.git("tag", "v1")

    def branch(name: str, change: Callable[[Path], object]) -> None:
        repo.git("checkout", "--quiet", "-b", name, "main")
        change(repo.path / MODEL)
        repo.commit(name)

    branch("legal", lambda path: path.write_bytes(model(1)))
    branch("other", lambda path: (path.write_bytes(model(2, 3)), repo.write("notes", b"others\n")))
    branch("absent", lambda path: path.unlink())
    branch("link", lambda path: (path.unlink(), path.symlink_to("../notes")))
    branch("folder", lambda path: (path.unlink(), repo.write(f"{MODEL}/part.safetensors", model(4))))
    branch("plain", lambda path: ((repo.path / ".gitattributes").write_text(""), path.write_bytes(b"no model")))
    branch("raw", lambda path: ((repo.path / ".gitattributes").write_text(""), repo.git("add", "--renormalize", ".")))
    branch("renamed", lambda path: path.rename(path.with_name("new.safetensors")))
    branch("executable", lambda path: (path.write_bytes(model(5)), path.chmod(0o755)))
    branch("torn", lambda path: path.write_bytes(b"not a checkpoint at all" * 1000))
    repo.git("update-ref", "refs/remotes/origin/remote", "legal")
    repo.git("config", "remote.origin.url", "nowhere")
    repo.git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    repo.git("checkout", "--quiet", "main")


@pytest.fixture(scope="module")
def built(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built")
    repo = Repo(Path(shutil.copytree(template, path / "repo", symlinks=True)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(path).items():
            patch.setenv(name, value)
        build(repo)
    return repo.path


class Pair(NamedTuple):
    """One repository for us and one for git."""

    ours: Repo
    gits: Repo

    def both(self, job: Callable[[Repo], object]) -> None:
        for repo in self:
            job(repo)

    def switch(self, *arguments: str, cwd: str = ".") -> int:
        """Switch both; all that can be seen is the same afterwards."""
        wanted = self.gits.run("switch", *arguments, check=False, cwd=cwd)
        done = self.ours.run("theta", "switch", *arguments, check=False, cwd=cwd)
        said = [line for line in done.stderr.splitlines() if b" written, " not in line]
        heard = wanted.stderr.replace(
            os.fsencode(self.gits.path.parent / "gits"), os.fsencode(self.ours.path.parent / "ours")
        )
        assert (done.returncode, done.stdout, said) == (wanted.returncode, wanted.stdout, heard.splitlines())
        assert seen(self.ours) == seen(self.gits)
        return done.returncode


def seen(repo: Repo) -> dict[str, object]:
    """Everything of a repository that a switch may change."""
    files: dict[str, object] = {}
    for path in sorted(repo.path.rglob("*")):
        name = str(path.relative_to(repo.path))
        if name != ".git" and not name.startswith(".git/") and not (path.is_dir() and not path.is_symlink()):
            content = os.readlink(path) if path.is_symlink() else path.read_bytes()
            files[name] = (stat.filemode(path.lstat().st_mode), content)
    logs = Path(repo.git("rev-parse", "--git-path", "logs"))
    checkouts = repo.path / repo.git("rev-parse", "--git-dir") / "checkouts"
    return {
        "files": files,
        "unrefreshed": repo.git("diff-files", "--name-only"),  # before the status, which refreshes the index
        "status": repo.git("status", "--porcelain", "--branch"),
        "index": repo.git("ls-files", "--stage", "-v"),
        "head": repo.run("symbolic-ref", "HEAD", check=False).stdout,
        "refs": repo.git("for-each-ref"),
        "reflog": {path.name: path.read_bytes() for path in (repo.path / logs).rglob("*") if path.is_file()},
        "config": (repo.path / ".git/config").read_bytes() if (repo.path / ".git").is_dir() else b"",
        "hooks": checkouts.read_text() if checkouts.exists() else "",
    }


@pytest.fixture
def pair(built: Path, tmp_path: Path) -> Pair:
    repos = [Repo(Path(shutil.copytree(built, tmp_path / name, symlinks=True))) for name in ("ours", "gits")]
    pair = Pair(*repos)
    pair.both(lambda repo: repo.git("update-index", "-q", "--refresh"))
    return pair


def test_a_walk_through_all_kinds_of_branches(pair: Pair) -> None:
    for name in ("legal", "other", "-", "absent", "link", "folder", "plain", "main", "raw", "renamed", "torn"):
        assert pair.switch(name) == 0
    assert pair.switch("executable") == 0
    assert os.access(pair.ours.path / MODEL, os.X_OK)


def test_its_options(pair: Pair) -> None:
    assert pair.switch("--detach", "v1") == 0
    assert pair.switch("-c", "new", "legal") == 0
    assert pair.switch("--quiet", "-C", "new", "other") == 0
    assert pair.switch("remote") == 0
    assert pair.switch("--no-guess", "main") == 0
    assert pair.switch("--orphan", "fresh") == 0
    assert pair.switch("main", cwd="dir" if (pair.ours.path / "dir").exists() else ".") == 0
    assert pair.switch("nothing") == 128
    assert pair.switch("v1") == 128
    assert pair.switch("--nonsense") == 129
    assert pair.switch() == 128


def test_from_a_subdirectory(pair: Pair) -> None:
    pair.both(lambda repo: (repo.path / "sub").mkdir())
    assert pair.switch("legal", cwd="sub") == 0
    assert pair.switch("other", cwd="dir") == 0


def test_what_is_not_committed_is_kept(pair: Pair) -> None:
    pair.both(lambda repo: (repo.write("notes", b"mine\n"), repo.write("new", b"mine\n")))
    assert pair.switch("legal") == 0
    assert (pair.ours.path / "notes").read_bytes() == b"mine\n"
    assert pair.switch("other") == 1
    pair.both(lambda repo: repo.git("checkout", "--", "notes"))
    pair.both(lambda repo: repo.write("mine.safetensors", model(0)))
    pair.both(lambda repo: repo.git("add", "mine.safetensors"))
    assert pair.switch("other") == 0


@pytest.mark.parametrize("staged", [False, True])
def test_a_modified_model_is_never_lost(pair: Pair, *, staged: bool) -> None:
    mine = model(0, 1)
    pair.both(lambda repo: repo.write(MODEL, mine))
    if staged:
        pair.both(lambda repo: repo.git("add", MODEL))
    assert pair.switch("legal") == 1
    assert pair.switch("-c", "new") == 0
    assert (pair.ours.path / MODEL).read_bytes() == mine
    assert pair.switch("--discard-changes", "legal") == 0
    assert pair.ours.status() == ""


def test_an_untracked_file_in_the_way(pair: Pair) -> None:
    assert pair.switch("absent") == 0
    pair.both(lambda repo: repo.write(MODEL, b"mine"))
    assert pair.switch("legal") == 1
    assert (pair.ours.path / MODEL).read_bytes() == b"mine"


def test_an_unfinished_merge(pair: Pair) -> None:
    assert pair.switch("legal") == 0
    pair.both(lambda repo: repo.run("-c", "merge.theta.driver=false", "merge", "--quiet", "other", check=False))
    assert pair.ours.run("ls-files", "--unmerged").stdout
    assert pair.switch("main") == 128


def test_merging_on_the_way_is_left_to_git(pair: Pair) -> None:
    pair.both(lambda repo: repo.write("notes", b"notes\nmine\n"))
    pair.switch("-m", "other")
    pair.both(lambda repo: repo.git("checkout", "--quiet", "--force", "main"))
    pair.both(lambda repo: repo.write(MODEL, model(0)))
    pair.switch("--merge", "legal")


def test_a_locked_index(pair: Pair) -> None:
    pair.both(lambda repo: repo.write(".git/index.lock", b""))
    wanted = pair.gits.run("switch", "legal", check=False)
    done = pair.ours.run("theta", "switch", "legal", check=False)
    assert done.returncode == wanted.returncode == 128
    pair.both(lambda repo: (repo.path / ".git/index.lock").unlink())
    assert seen(pair.ours) == seen(pair.gits)


def test_a_read_only_file(pair: Pair) -> None:
    pair.both(lambda repo: (repo.path / MODEL).chmod(0o444))
    assert pair.switch("legal") == 0
    pair.both(lambda repo: (repo.path / MODEL).chmod(0o444))
    assert pair.switch("absent") == 0


def test_a_hook_that_fails(pair: Pair) -> None:
    pair.both(lambda repo: repo.write(".git/hooks/post-checkout", b"#!/bin/sh\nexit 3\n"))
    pair.switch("legal")
    assert (pair.ours.path / MODEL).read_bytes() == model(1)


def test_a_linked_worktree(pair: Pair, tmp_path: Path) -> None:
    linked = Pair(*(Repo(tmp_path / f"linked-{repo.path.name}") for repo in pair))
    for repo, one in zip(pair, linked, strict=True):
        repo.git("worktree", "add", "--quiet", "--detach", str(one.path), "main")
    assert linked.switch("legal") == 0
    assert linked.switch("main") == 128  # it is checked out in the first worktree
    assert linked.switch("other") == 0
    assert pair.switch("absent") == 0


# -- what git switch cannot do ---------------------------------------------------------------------------------------


@pytest.fixture
def repo(built: Path, tmp_path: Path) -> Repo:
    return Repo(Path(shutil.copytree(built, tmp_path / "repo", symlinks=True)))


def test_the_first_status_reads_nothing(repo: Repo) -> None:
    log = repo.path.parent / "cleaned"
    repo.git("theta", "switch", "legal")
    repo.git("config", "filter.theta.clean", f"echo %f >>'{log}'; git-theta-filter clean -- %f")
    assert repo.git("diff-files") == ""
    assert repo.status() == ""
    assert not log.exists()


# -- large files, of which little changes ----------------------------------------------------------------------------


def large(*changes: int) -> bytes:
    """Ten tensors of a megabyte."""
    numbers = np.random.default_rng(0)
    state = {f"h.{index}": numbers.integers(0, 256, 1 << 20, np.uint8) for index in range(10)}
    return save({name: values + np.uint8(int(name[2:]) in changes) for name, values in state.items()})


@pytest.fixture
def experts(repo: Repo) -> Repo:
    """Two branches that differ in one tensor of a large model, and in another file."""
    for name, data in (("first", large()), ("second", large(3))):
        repo.git("checkout", "--quiet", "-b", name)
        repo.write("large.safetensors", data)
        repo.write("notes", name.encode())
        repo.commit(name)
    return repo


def test_a_large_file_is_changed_where_it_stands(experts: Repo) -> None:
    path, log = experts.path / "large.safetensors", experts.path.parent / "cleaned"
    inode = path.stat().st_ino
    for name, data in (("first", large()), ("second", large(3)), ("first", large())):
        experts.git("theta", "switch", name)
        assert path.read_bytes() == data
        assert (path.stat().st_ino, path.stat().st_nlink) == (inode, 1)
        assert experts.git("diff-files") == ""
    experts.git("config", "filter.theta.clean", f"echo %f >>'{log}'; git-theta-filter clean -- %f")
    assert experts.status() == ""
    assert not log.exists()
    assert os.listdir(experts.theta / "tmp") == []


def test_whoever_has_a_large_file_open_keeps_its_bytes(experts: Repo) -> None:
    with (experts.path / "large.safetensors").open("rb") as file:
        experts.git("theta", "switch", "first")
        assert file.read() == large(3)
    assert (experts.path / "large.safetensors").read_bytes() == large()


def test_a_switch_that_git_refuses_leaves_a_large_file_as_it_was(experts: Repo) -> None:
    path = experts.path / "large.safetensors"
    before = path.stat()
    experts.write("notes", b"mine")
    assert experts.run("theta", "switch", "first", check=False).returncode
    now = path.stat()
    assert (now.st_ino, now.st_mtime_ns, now.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)
    assert path.read_bytes() == large(3)
    assert experts.status() == " M notes"
    assert os.listdir(experts.theta / "tmp") == []


def test_a_missing_object_leaves_a_stub_and_is_named(repo: Repo) -> None:
    both = {blob.digest for blob in repo.manifest(MODEL, "main").needs()}
    (gone,) = (
        blob.digest for blob in repo.manifest(MODEL, "legal").needs() if blob.digest not in both and blob.size > 20_000
    )
    Path(repo.store.path(gone)).rename(repo.path.parent / "object")
    done = repo.run("theta", "switch", "legal", check=False)
    assert done.returncode == 1
    assert gone.encode() in done.stderr
    assert MODEL.encode() in done.stderr
    assert read_stub(str(repo.path / MODEL)) == repo.blob(MODEL, "legal")
    assert repo.status() == ""
    (repo.path.parent / "object").rename(repo.store.path(gone))
    repo.git("theta", "pull")
    assert (repo.path / MODEL).read_bytes() == model(1)
    assert repo.status() == ""


def test_switching_away_and_back_with_a_forgotten_catalogue(repo: Repo) -> None:
    for name, data in (("legal", model(1)), ("other", model(2, 3)), ("main", model())):
        for file in repo.theta.glob("catalogue*"):
            file.unlink()
        repo.git("theta", "switch", name)
        assert (repo.path / MODEL).read_bytes() == data
        assert repo.git("diff-files") == ""


def test_a_file_that_lies_about_its_age_is_not_copied_from(repo: Repo) -> None:
    repo.git("theta", "switch", "legal")
    before = (repo.path / MODEL).stat()
    with (repo.path / MODEL).open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))
    os.utime(repo.path / MODEL, ns=(before.st_atime_ns, before.st_mtime_ns))
    repo.git("-c", "core.trustctime=false", "theta", "switch", "other")
    assert (repo.path / MODEL).read_bytes() == model(2, 3)
    (repo.path / MODEL).write_bytes(bytes(len(model())))
    repo.git("theta", "switch", "--discard-changes", "main")
    assert (repo.path / MODEL).read_bytes() == model()


def test_stubs_stay_stubs_where_smudging_is_skipped(repo: Repo) -> None:
    repo.write("second.safetensors", model(0))
    repo.commit("second")
    repo.git("theta", "install", "--local", "--skip-smudge")
    repo.git("theta", "dematerialize", MODEL)
    repo.git("checkout", "--quiet", "-b", "changed")
    repo.write("second.safetensors", model(1))
    repo.commit("changed")
    repo.git("theta", "switch", "main")
    assert (repo.path / "second.safetensors").read_bytes() == model(0)
    repo.git("theta", "switch", "other")
    assert read_stub(str(repo.path / MODEL)) == repo.blob(MODEL)
    assert repo.status() == ""


def test_without_the_filters_it_is_git_alone(repo: Repo) -> None:
    repo.git("theta", "uninstall", "--local")
    repo.git("checkout", "--quiet", "--force", "main")
    repo.run("theta", "switch", "--force", "legal")
    assert (repo.path / MODEL).read_bytes() == repo.blob(MODEL, "legal")
    assert repo.run("theta", "materialize", check=False).returncode == 128


@pytest.mark.slow
def test_it_is_killed_while_it_changes_a_large_file(experts: Repo) -> None:
    path = experts.path / "large.safetensors"
    versions = {"first": large(), "second": large(3)}
    start = time.monotonic()
    experts.git("theta", "switch", "first")
    whole = time.monotonic() - start
    for share, name in ((0.6, "second"), (0.75, "first"), (0.9, "second")):
        process = subprocess.Popen(
            ["git", "theta", "switch", name], cwd=experts.path, start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(share * whole)
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait()
        assert read_stub(str(path)) is not None or path.read_bytes() in versions.values()
        (experts.path / ".git/index.lock").unlink(missing_ok=True)
        experts.git("switch", "--quiet", "--force", name)
        experts.git("theta", "pull")
        assert path.read_bytes() == versions[name]
        assert experts.status() == ""


def test_it_is_killed(repo: Repo) -> None:
    """Each model is its old version, its new one or a stub, whenever that happens, and a pull completes the switch."""
    versions = {"legal": model(1), "other": model(2, 3)}
    start = time.monotonic()
    repo.git("theta", "switch", "other")
    whole = time.monotonic() - start
    kills = 0
    for share, name in zip((0.1, 0.3, 0.5, 0.65, 0.8, 0.95), [*versions] * 3, strict=True):
        process = subprocess.Popen(
            ["git", "theta", "switch", name], cwd=repo.path, start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(share * whole)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait()
        (repo.path / ".git/index.lock").unlink(missing_ok=True)
        if (repo.path / MODEL).exists() and read_stub(str(repo.path / MODEL)) is None:
            assert (repo.path / MODEL).read_bytes() in (*versions.values(), model())
        if repo.git("branch", "--show-current") != name:  # git itself was killed
            repo.git("switch", "--quiet", "--force", name)
        repo.git("theta", "pull")
        assert (repo.path / MODEL).read_bytes() == versions[name]
        assert repo.status() == ""
    assert kills
    assert os.listdir(repo.path / "dir") == [os.path.basename(MODEL)]
