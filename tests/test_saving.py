from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from conftest import Repo

import git_theta_btm
from git_theta_btm.care.fsck import Options, fsck
from git_theta_btm.care.pruning import Options as Pruning
from git_theta_btm.care.pruning import prune
from git_theta_btm.errors import MissingObject, ThetaError
from git_theta_btm.git import Git
from git_theta_btm.remotes.hooks import CONFIGURED
from git_theta_btm.repository import Repository
from git_theta_btm.setup.install import install
from git_theta_btm.states import safetensors as source_of

NAME = "dir/my model.safetensors"


def state(seed: int = 0, elements: int = 40_000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"h.0.w": random.standard_normal(elements, dtype="f4"), "h.0.b": random.standard_normal(3, dtype="f4")}


def save(repo: Repo, *arguments: object, branch: str | None = "run", **options: object) -> str:
    return git_theta_btm.save(*arguments, branch=branch, repository=str(repo.path), **options)  # type: ignore[arg-type]


def sealed(repo: Repo) -> tuple[str, bytes, list[str]]:
    """All that a save must not touch."""
    files = sorted(str(path) for path in repo.path.rglob("*") if ".git" not in path.parts)
    return repo.status(), (repo.path / ".git/index").read_bytes(), files


def test_a_checkout_gives_the_file_that_the_library_writes(repo: Repo, tmp_path: Path) -> None:
    tensors = {
        "w": torch.randn(300, 200, dtype=torch.bfloat16, requires_grad=True),
        "f8": torch.randn(40_000).to(torch.float8_e4m3fn),
        "step": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }
    before = sealed(repo)
    commit = save(repo, tensors, NAME, "step 7", metadata={"format": "pt"})
    assert sealed(repo) == before
    assert repo.git("rev-parse", "run") == commit
    assert repo.git("rev-parse", "run^") == repo.git("rev-parse", "main")
    assert repo.git("diff", "--name-only", "main", "run") == NAME
    repo.git("checkout", "--quiet", "run")
    safetensors.torch.save_file(tensors, tmp_path / "m", {"format": "pt"})
    assert (repo.path / NAME).read_bytes() == (tmp_path / "m").read_bytes()
    assert repo.status() == ""
    assert fsck(Repository(str(repo.path)), Options()).problems == ()


def test_it_is_the_commit_that_git_would_have_made(repo: Repo) -> None:
    commit = save(repo, state(), NAME, "the same", metadata={"format": "pt"})
    repo.write(NAME, state())
    repo.commit("the same")
    assert repo.git("rev-parse", "HEAD") == commit  # name, mode, manifest, parent, author and date


def test_a_version_is_based_on_the_one_before(repo: Repo) -> None:
    before = state(elements=700_000)
    save(repo, before, NAME, "one")
    save(repo, before | {"h.0.w": before["h.0.w"] * np.float32(1.0001)}, NAME, "two")
    assert "delta" in [line.kind for line in repo.manifest(NAME, "run").objects]
    assert repo.git("log", "--format=%s", "run") == "two\none\nattributes"
    one, two = (git_theta_btm.open(NAME, rev, str(repo.path)) for rev in ("run^", "run"))
    assert [(change.name, change.kind) for change in one.diff(two)] == [("h.0.w", "changed")]
    assert one.diff(one) == []
    assert (two["h.0.w"] == before["h.0.w"] * np.float32(1.0001)).all()


def test_the_attribute_chooses_how_it_is_stored(repo: Repo) -> None:
    (repo.path / ".gitattributes").write_text("*.safetensors filter=theta theta-store=raw\n")
    repo.commit()
    zeros = {"w": np.zeros(1_000_000, "f4")}
    save(repo, zeros, "m.safetensors", "raw", branch="raw")
    assert not any(line.encoded for line in repo.manifest("m.safetensors", "raw").objects)


def test_the_same_again_is_a_commit_with_nothing_in_it(repo: Repo) -> None:
    one = save(repo, state(), NAME, "one")
    objects = repo.objects()
    two = save(repo, state(), NAME, "two")
    assert repo.git("rev-parse", f"{two}^") == one
    assert repo.git("diff", one, two) == "" and repo.objects() == objects


def test_a_push_brings_the_objects_along(repo: Repo, home: Path, tmp_path: Path) -> None:
    install(Git(str(home)), "global")
    repo.git("init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    url = f"file://{tmp_path}/origin.git"
    save(repo, state(), NAME, "one")
    repo.git("push", "--quiet", url, "run")
    repo.git("clone", "--quiet", "--branch", "run", url, str(tmp_path / "clone"))
    data = source_of(state())
    assert (tmp_path / "clone" / NAME).read_bytes() == data.read(0, data.size)


# -- words -----------------------------------------------------------------------------------------------------------


def test_message_and_trailers(repo: Repo) -> None:
    save(repo, state(), NAME, "Größe\n\nWhy it was done.\n---\nMore.", trailers={"Step": 7, "Loss": 0.25})
    assert repo.git("log", "-1", "--format=%B", "run") == (
        "Größe\n\nWhy it was done.\n---\nMore.\n\nStep: 7\nLoss: 0.25\n"
    )
    assert repo.git("log", "-1", "--format=%(trailers:key=Step,valueonly)", "run").strip() == "7"
    assert repo.git("log", "-1", "--format=%an %cn", "run") == "A. U. Thor C. O. Mitter"
    assert "theta save" in repo.git("reflog", "run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"message": "\n "}, "needs a message"),
        ({"trailers": {"a b": 1}}, "not a trailer"),
        ({"trailers": {"Step": "1\nSigned-off-by: x"}}, "not a trailer"),
        ({"branch": "a..b"}, "no name for a branch"),
        ({"branch": "-d"}, "no name for a branch"),
        ({"branch": "HEAD"}, "no name for a branch"),
        ({"message": "a\0b"}, "a commit's message has no NUL"),
        ({"branch": "main"}, "main is checked out in .*: save to another branch"),
        ({"branch": None}, "main is checked out in .*: save to another branch"),
        ({"path": "notes.txt"}, "notes.txt does not have filter=theta in branch run: track=True"),
        ({"path": "../x.safetensors"}, "outside repository"),
        ({"path": ".git/x.safetensors"}, "Invalid path|invalid path"),
        ({"path": ".gitattributes/x.safetensors"}, "file and as a directory"),
        ({"path": ".gitattributes", "track": True}, "git's own"),
        ({"path": "a\0.safetensors"}, "have no NUL"),
        ({"branch": "a\0"}, "have no NUL"),
        ({"trailers": {"Step": "\0"}}, "not a trailer"),
        ({"state": {"w": [1]}}, "'w' is neither"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(repo: Repo, options: dict[str, object], words: str) -> None:
    refs = repo.git("for-each-ref")
    given = {"state": state(), "path": NAME, "message": "m"} | options
    branch = given.pop("branch", "run")
    with pytest.raises(ThetaError, match=words) as caught:
        save(repo, branch=branch, **given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert repo.git("for-each-ref") == refs


def test_an_unknown_author_is_told(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    repo.git("config", "user.useConfigOnly", "true")
    with pytest.raises(ThetaError, match="tell me who you are|no email was given"):
        save(repo, state(), NAME, "m")


# -- branches --------------------------------------------------------------------------------------------------------


def test_a_branch_of_another_worktree_is_not_moved(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "other"))
    with pytest.raises(ThetaError, match=f"other is checked out in {tmp_path}/other"):
        save(repo, state(), NAME, "m", branch="other")
    repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/other")
    with pytest.raises(ThetaError, match="other is checked out"):
        save(repo, state(), NAME, "m", branch="alias")
    Repo(tmp_path / "other").git("switch", "--quiet", "--detach")
    save(Repo(tmp_path / "other"), state(), NAME, "m", branch="alias")
    assert repo.git("log", "-1", "--format=%s", "other") == "m"


@pytest.mark.parametrize("where", ["main", "linked"])
@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_a_branch_that_is_being_rebased_is_not_moved(repo: Repo, tmp_path: Path, where: str, backend: str) -> None:
    repo.write("notes.txt", b"old")
    repo.commit("base")
    place = repo
    if where == "linked":
        repo.git("worktree", "add", "--quiet", "-b", "mine", str(tmp_path / "linked"))
        place = Repo(tmp_path / "linked")
    else:
        repo.git("switch", "--quiet", "--create", "mine")
    place.write("notes.txt", b"mine")
    place.commit("mine")
    place.git("branch", "other", "HEAD~")
    place.git("switch", "--quiet", "other")
    place.write("notes.txt", b"other")
    place.commit("other")
    assert place.run("rebase", backend, "other", "mine", check=False).returncode
    with pytest.raises(ThetaError, match="branch mine is being rebased"):
        save(repo, state(), NAME, "m", branch="mine")
    place.git("rebase", "--abort")
    place.git("switch", "--quiet", "--detach")
    save(repo, state(), NAME, "m", branch="mine")


def test_an_executable_file_stays_one(repo: Repo) -> None:
    repo.write(NAME, state())
    (repo.path / NAME).chmod(0o755)
    repo.commit()
    save(repo, state(1), NAME, "m")
    assert repo.git("ls-tree", "-r", "run", "--", NAME).startswith("100755 ")


def test_a_bare_repository_has_no_worktree_to_disagree(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    bare = Repo(tmp_path / "bare")
    save(bare, state(), NAME, "m", branch=None)
    assert bare.git("log", "-1", "--format=%s", "main") == "m"
    assert git_theta_btm.open(NAME, repository=str(bare.path))["h.0.b"].shape == (3,)


def test_the_first_commit_of_all(tmp_path: Path) -> None:
    fresh = Repo(tmp_path / "fresh")
    fresh.path.mkdir()
    fresh.git("init", "--quiet", "--initial-branch=main")
    save(fresh, state(), "a [1].safetensors", "m", track=True)
    assert fresh.git("rev-list", "--count", "run") == "1"
    assert fresh.blob(".gitattributes", "run") == b"/a[[:space:]]\\[1].safetensors filter=theta merge=theta -text\n"
    assert (fresh.path / ".git/hooks/pre-push").exists() or fresh.git("config", "hook.theta.event") == "pre-push"
    save(fresh, state(1), "a [1].safetensors", "m", track=True)
    assert fresh.git("diff", "--name-only", "run^", "run") == "a [1].safetensors"


def test_a_line_that_is_overruled_is_told(repo: Repo) -> None:
    (repo.path / "dir").mkdir()
    (repo.path / "dir/.gitattributes").write_text("*.safetensors -filter\n")
    repo.commit()
    with pytest.raises(ThetaError, match="another line overrules it"):
        save(repo, state(), NAME, "m", track=True)


def test_a_hook_that_is_not_ours_is_a_warning(repo: Repo) -> None:
    if Git(str(repo.path)).version() >= CONFIGURED:
        pytest.skip("git has hooks in its configuration, beside the file")
    hook = repo.path / ".git/hooks/pre-push"
    hook.unlink()
    hook.symlink_to("/bin/true")
    with pytest.warns(UserWarning, match="pre-push hook .*git theta pre-push"):
        save(repo, state(), NAME, "m")
    assert repo.git("log", "-1", "--format=%s", "run") == "m"


def test_a_detached_head_needs_a_name(repo: Repo) -> None:
    repo.git("switch", "--quiet", "--detach")
    with pytest.raises(ThetaError, match="HEAD is on no branch"):
        save(repo, state(), NAME, "m", branch=None)
    save(repo, state(), NAME, "m", branch="main")


def test_what_the_user_has_staged_and_hooked_stays_out_of_it(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = repo.path / ".git/hooks/post-index-change"
    hook.write_text("#!/bin/sh\ntouch called\n")
    hook.chmod(0o755)
    repo.git("config", "core.splitIndex", "true")
    repo.write("staged.txt", b"x")
    repo.git("add", "staged.txt")
    (repo.path / "called").unlink(missing_ok=True)
    shared = set((repo.path / ".git").glob("sharedindex.*"))
    save(repo, state(), NAME, "m")
    assert not (repo.path / "called").exists() and set((repo.path / ".git").glob("sharedindex.*")) == shared
    assert repo.git("ls-tree", "-r", "--name-only", "run") == f".gitattributes\n{NAME}"
    monkeypatch.chdir(repo.path)
    (repo.path / "dir").mkdir()
    git_theta_btm.save(state(), "my model.safetensors", "m", branch="other", repository="dir")
    assert repo.git("ls-tree", "-r", "--name-only", "other") == f".gitattributes\n{NAME}"


# -- at the same time ------------------------------------------------------------------------------------------------


# git, where somebody else commits to the branch while the first save builds its commit.
MEANWHILE = """#!/bin/sh
case " $* " in *" write-tree "*) if mkdir {done} 2>/dev/null; then (
    export GIT_INDEX_FILE={done}/index
    {git} read-tree main
    {git} update-index --add --cacheinfo 100644,$(echo x | {git} hash-object -w --stdin),notes.txt
    {git} update-ref refs/heads/run $({git} commit-tree -p main -m meanwhile $({git} write-tree))
) fi;; esac
exec {git} "$@"
"""


def test_a_branch_that_moved_meanwhile_keeps_both(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text(MEANWHILE.format(git=shutil.which("git"), done=tmp_path / "done"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    save(repo, state(), NAME, "mine")
    assert repo.git("log", "--format=%s", "run") == "mine\nmeanwhile\nattributes"
    assert repo.git("ls-tree", "-r", "--name-only", "run").split("\n") == [".gitattributes", NAME, "notes.txt"]


def test_a_branch_that_cannot_move_is_one_error(repo: Repo) -> None:
    save(repo, state(), NAME, "one")
    (repo.path / ".git/refs/heads/run.lock").touch()
    with pytest.raises(ThetaError, match=r"run\.lock"):
        save(repo, state(1), NAME, "two")
    assert repo.git("log", "--format=%s", "run") == "one\nattributes"


def test_many_threads_on_one_branch_of_a_new_repository(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "fresh")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main")
    failures: list[BaseException] = []

    def loop(number: int) -> None:
        try:
            for step in range(2):
                save(repo, state(number), f"expert{number}.safetensors", f"{number}.{step}", track=True)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [Thread(target=loop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    subjects = repo.git("log", "--format=%s", "run").split("\n")
    assert sorted(subjects) == sorted(f"{number}.{step}" for number in range(4) for step in range(2))
    for number in range(4):
        found = git_theta_btm.open(f"expert{number}.safetensors", "run", str(repo.path))
        assert (found["h.0.w"] == state(number)["h.0.w"]).all()


LOOP = """
import sys, numpy as np, git_theta_btm
random = np.random.default_rng(1)
while True:
    model = {"w": random.standard_normal(200_000, dtype="f4"), "b": random.standard_normal(3, dtype="f4")}
    print(git_theta_btm.save(model, "m.safetensors", "step", branch="run"), flush=True)
"""


def test_killed_at_any_time_it_leaves_whole_commits(repo: Repo) -> None:
    for delay in (0.0, 0.013, 0.031):
        child = subprocess.Popen([sys.executable, "-c", LOOP], cwd=repo.path, stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    (repo.path / ".git/refs/heads/run.lock").unlink(missing_ok=True)
    assert int(repo.git("rev-list", "--count", "main..run")) >= 3
    repo.git("fsck", "--strict", "--no-dangling")
    assert fsck(Repository(str(repo.path)), Options(all_objects=True)).problems == ()
    save(repo, state(), "m.safetensors", "and on")


def test_what_was_saved_is_not_pruned(repo: Repo) -> None:
    save(repo, state(), NAME, "m")
    saved = repo.objects()
    report = prune(Repository(str(repo.path)), Pruning(since=time.time() + 3600))
    assert report.removed == () and repo.objects() == saved


# -- what is not here ------------------------------------------------------------------------------------------------


def test_a_parent_that_is_not_here_is_not_needed(repo: Repo) -> None:
    save(repo, state(elements=700_000), NAME, "one")
    for oid in list(repo.store):
        os.unlink(repo.store.path(oid))
    (repo.theta / "catalogue.sqlite3").unlink()
    changed = state(elements=700_000) | {"h.0.b": np.zeros(3, "f4")}
    save(repo, changed, NAME, "two")
    with pytest.raises(MissingObject):
        git_theta_btm.open(NAME, "run^", str(repo.path))["h.0.b"]
    assert git_theta_btm.open(NAME, "run", str(repo.path)).raw("h.0.w") == changed["h.0.w"].tobytes()


def test_a_file_that_git_holds_as_it_is_becomes_a_model(repo: Repo) -> None:
    data = safetensors.numpy.save(state())
    oid = repo.run("hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{NAME}")
    repo.git("commit", "--quiet", "-m", "plain")
    save(repo, state(), NAME, "m")
    assert repo.manifest(NAME, "run").size == len(data) == source_of(state()).size
