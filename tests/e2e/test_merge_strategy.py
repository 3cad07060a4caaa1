"""``git merge -s theta``: any number of experts become one model, in one commit, and git says and does all else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import Repo
from experts import MODEL, branch, branched, check, expert, mean, parents, plus, repo, rounded, state

__all__ = ["branched", "repo"]


def theta(repo: Repo, *words: str) -> None:
    repo.git("merge", "--quiet", "--no-edit", "-s", "theta", *words)


def trailers(repo: Repo, revision: str = "HEAD") -> list[str]:
    text = repo.git("log", "-1", "--format=%(trailers:only,unfold)", revision)
    return [line for line in text.splitlines() if line.startswith("Theta-")]


@pytest.mark.parametrize("names", [("legal", "medical"), ("legal", "medical", "code")])
def test_an_untouched_main_is_no_expert(repo: Repo, names: tuple[str, ...]) -> None:
    theta(repo, "--no-ff", *names)
    check(repo, mean(*(expert(number + 1) for number in range(len(names)))))
    parents(repo, "main~", *names) if len(names) > 1 else None
    assert sum(line.startswith("Theta-Expert: ") for line in trailers(repo)) == len(names)
    assert (repo.path / "medical.txt").exists()
    assert (repo.path / "README").read_text() == "legal\n"


def test_a_head_with_commits_of_its_own_counts(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "code")
    theta(repo, "legal", "medical")
    check(repo, mean(expert(3), expert(1), expert(2)))
    parents(repo, "code~", "legal", "medical")
    assert [line.split()[-1] for line in trailers(repo) if "Expert" in line] == ["code", "legal", "medical"]


def test_a_head_whose_model_is_the_seeds_does_not(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "notes")
    theta(repo, "legal", "medical")
    check(repo, mean(expert(1), expert(2)))
    parents(repo, "notes~", "legal", "medical")


def test_twins_count_twice(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "twin", "medical")
    check(repo, mean(expert(1), expert(1), expert(2)))
    repo.git("checkout", "--quiet", "-B", "other", "main")


def test_twins_alone(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "twin")
    check(repo, expert(1))


def test_weights_and_methods(repo: Repo) -> None:
    theta(repo, "--no-ff", "-X", "weights=1,3", "legal", "medical")
    check(repo, mean(expert(1), expert(2), weights=(1, 3)))
    repo.git("reset", "--quiet", "--hard", "seed")
    theta(repo, "--no-ff", "-X", "weights=medical=3,legal=1", "legal", "medical")
    check(repo, mean(expert(1), expert(2), weights=(1, 3)))
    repo.git("reset", "--quiet", "--hard", "seed")
    theta(repo, "--no-ff", "-X", "strategy=task_arithmetic", "-X", "lambda=0.5", "legal", "medical")
    expected = expert(0)
    for number in (1, 2):
        expected = plus(expected, mean(expert(number), expert(0)), expert(0))
    check(repo, expected)


def test_one_after_the_other_is_all_at_once(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "medical")
    theta(repo, "code")
    check(repo, mean(rounded(mean(expert(1), expert(2))), expert(3), weights=(2, 1)))
    assert any(line.endswith("main mass=2.0") for line in trailers(repo))


def test_a_driver_goes_on_where_the_strategy_ended(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "medical")
    repo.git("merge", "--quiet", "--no-edit", "code")
    check(repo, mean(rounded(mean(expert(1), expert(2))), expert(3), weights=(2, 1)))


def test_one_head(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    theta(repo, "medical")
    check(repo, mean(expert(1), expert(2)))
    theta(repo, "notes")
    check(repo, mean(expert(1), expert(2)))
    assert not trailers(repo)
    theta(repo, "--no-ff", "seed")


def test_one_sided(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "notes")
    theta(repo, "legal")
    check(repo, expert(1))
    repo.git("checkout", "--quiet", "medical")
    branch(repo, "more", "seed", {"more.txt": b"more"})
    repo.git("checkout", "--quiet", "medical")
    theta(repo, "notes~", "more")
    parents(repo, "medical~", "notes~", "more")
    check(repo, expert(2))


def test_a_conflict_in_a_text(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "code")
    done = repo.run("merge", "-s", "theta", "legal", "clash", check=False)
    assert done.returncode == 1
    assert b"CONFLICT" in done.stderr
    assert repo.git("ls-files", "-u").count("README") == 3
    assert "<<<<<<<" in (repo.path / "README").read_text()
    check(repo, mean(expert(3), expert(1), expert(4)), status=f"UU README\nM  {MODEL}")
    repo.git("merge", "--abort")
    check(repo, expert(3))
    assert (repo.path / "README").read_text() == "hello\n"
    assert repo.run("merge", "-s", "theta", "legal", "clash", check=False).returncode == 1
    repo.write("README", b"both\n")
    repo.git("add", "README")
    repo.git("merge", "--continue")
    parents(repo, "code~", "legal", "clash")
    check(repo, mean(expert(3), expert(1), expert(4)))
    assert trailers(repo)


@pytest.mark.parametrize(
    ("key", "value", "word"), [("h.1.w", (40, 31), "shapes"), ("steps", (4,), "I64")], ids=["shapes", "integers"]
)
def test_a_conflict_in_a_model(repo: Repo, key: str, value: tuple[int, ...], word: str) -> None:
    import numpy as np

    other = {**expert(5), key: np.ones(value, expert(0)[key].dtype)}
    repo.git("checkout", "--quiet", "medical")
    branch(repo, "other", "seed", {MODEL: other, "x": b"x"})
    last = {**expert(2), "steps": np.zeros(4, "i8")}
    branch(repo, "base", "medical", {MODEL: last})
    done = repo.run("merge", "-s", "theta", "other", "code", check=False)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert sum(MODEL in line and key in line and word in line for line in lines) == 1, lines
    check(repo, last)
    assert not (repo.path / ".git" / "MERGE_HEAD").exists()
    assert not (repo.path / ".git" / "THETA_MERGE").exists()
    assert not (repo.path / "x").exists()


def test_a_rename_on_one_side(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "moved", "seed")
    repo.git("mv", MODEL, "new name é.safetensors")
    repo.commit("moved")
    repo.git("checkout", "--quiet", "legal")
    theta(repo, "moved", "medical", "code")
    check(repo, mean(expert(1), expert(2), expert(3)), "new name é.safetensors")
    assert not (repo.path / MODEL).exists()
    repo.git("checkout", "--quiet", "moved")
    theta(repo, "medical", "code")
    check(repo, mean(expert(2), expert(3)), "new name é.safetensors")
    repo.git("checkout", "--quiet", "code")
    done = repo.run("merge", "--quiet", "--no-edit", "-s", "theta", "-X", "strategy=ties", "medical", "legal", "moved~")
    assert done.returncode == 0


def test_a_rename_with_a_change(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "moved", "seed")
    repo.git("mv", MODEL, "sub.safetensors")
    own = {**expert(0), "h.0.w": expert(5)["h.0.w"]}
    repo.write("sub.safetensors", own)
    repo.commit("moved and changed")
    repo.git("checkout", "--quiet", "medical")
    theta(repo, "moved", "code")
    check(repo, mean(expert(2), own, expert(3)), "sub.safetensors")
    repo.git("checkout", "--quiet", "-B", "main", "seed")
    theta(repo, "--no-ff", "-X", "strategy=task_arithmetic", "moved", "medical~")
    expected = {name: own[name].astype("f8") + expert(2)[name] - expert(0)[name] for name in own if name != "steps"}
    check(repo, {**expected, "steps": own["steps"]}, "sub.safetensors")


def test_added_by_all_and_unrelated(repo: Repo) -> None:
    for number, name in ((5, "one"), (6, "two"), (7, "three")):
        branch(repo, name, "seed~", {MODEL: expert(number), f"{name}.txt": b""})
    theta(repo, "one", "two")
    check(repo, mean(expert(7), expert(5), expert(6)))
    repo.git("checkout", "--quiet", "--orphan", "alien")
    repo.write(MODEL, expert(8))
    repo.commit("alien")
    repo.git("checkout", "--quiet", "legal")
    assert b"refusing" in repo.run("merge", "-s", "theta", "alien", check=False).stderr
    theta(repo, "--allow-unrelated-histories", "alien", "medical")
    check(repo, mean(expert(1), expert(8), expert(2)))


def test_deleted_by_one(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "without", "seed")
    repo.git("rm", "--quiet", MODEL)
    repo.commit("no model")
    repo.git("checkout", "--quiet", "legal")
    done = repo.run("merge", "-s", "theta", "notes", "without", check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"CONFLICT (deleted by them): m.safetensors") == 1
    check(repo, expert(1), status=f"UD {MODEL}\nA  notes.txt")
    repo.git("merge", "--abort")
    check(repo, expert(1))
    repo.git("checkout", "--quiet", "notes")
    theta(repo, "without", "medical~")
    assert not (repo.path / MODEL).exists()
    assert repo.status() == ""


def test_criss_cross(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "left", "legal")
    theta(repo, "medical")
    repo.git("checkout", "--quiet", "-b", "right", "medical")
    repo.git("merge", "--quiet", "--no-edit", "-s", "ours", "legal")
    branch(repo, "right2", "right", {MODEL: expert(5)})
    repo.git("checkout", "--quiet", "left")
    assert len(repo.git("merge-base", "--all", "left", "right2").splitlines()) == 2
    theta(repo, "right2")
    check(repo, mean(rounded(mean(expert(1), expert(2))), expert(5), weights=(2, 1)))
    repo.git("reset", "--quiet", "--hard", "left~")
    theta(repo, "right2", "code")


def test_without_a_commit(repo: Repo) -> None:
    merged = mean(expert(1), expert(2))
    repo.git("checkout", "--quiet", "legal")
    theta(repo, "--no-commit", "medical")
    check(repo, merged, status=f"M  {MODEL}\nA  medical.txt")
    repo.git("merge", "--abort")
    check(repo, expert(1))
    theta(repo, "--no-commit", "medical")
    repo.git("merge", "--continue")
    check(repo, merged)
    parents(repo, "legal~", "medical")
    assert trailers(repo)
    repo.git("commit", "--quiet", "--amend", "--no-edit", "--signoff")
    assert sum(line.startswith("Theta-Merge") for line in trailers(repo)) == 1
    assert not (repo.path / ".git" / "THETA_MERGE").exists()
    repo.git("reset", "--quiet", "--hard", "legal~")
    repo.git("merge", "--squash", "-s", "theta", "medical", "code")
    check(repo, mean(expert(1), expert(2), expert(3)), status=f"A  code.txt\nM  {MODEL}\nA  medical.txt")
    repo.git("commit", "--quiet", "--no-edit")
    assert len(repo.git("log", "-1", "--format=%P").split()) == 1


def test_what_is_not_committed_stays(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    repo.write(MODEL, expert(9))
    done = repo.run("merge", "-s", "theta", "medical", "code", check=False)
    assert done.returncode == 2
    assert b"m.safetensors" in done.stderr
    check(repo, expert(9), status=f" M {MODEL}")
    repo.write("README", b"mine\n")
    repo.git("checkout", "--quiet", "--", MODEL)
    theta(repo, "medical", "code")
    check(repo, mean(expert(1), expert(2), expert(3)), status=" M README")
    repo.git("reset", "--quiet", "--hard", "legal~")
    repo.write("medical.txt", b"untracked")
    assert repo.run("merge", "-s", "theta", "medical", "code", check=False).returncode == 2
    check(repo, expert(1), status="?? medical.txt")
    (repo.path / "medical.txt").unlink()
    repo.write("README", b"staged\n")
    repo.git("add", "README")
    done = repo.run("merge", "-s", "theta", "medical", "code", check=False)
    assert done.returncode == 2
    check(repo, expert(1), status="M  README")


def test_autostash(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    repo.write(MODEL, expert(9))
    theta(repo, "--autostash", "medical", "code")
    check(repo, plus(state(repo), expert(9), expert(1)), status=f" M {MODEL}")
    repo.git("checkout", "--quiet", "--", MODEL)
    check(repo, mean(expert(1), expert(2), expert(3)))


def test_pull_octopus_and_twohead(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "pull.octopus", "theta")
    repo.git("config", "pull.twohead", "theta")
    repo.git("checkout", "--quiet", "legal")
    repo.git("merge", "--quiet", "--no-edit", "medical", "code")
    check(repo, mean(expert(1), expert(2), expert(3)))
    repo.git("reset", "--quiet", "--hard", "legal~")
    repo.git("merge", "--quiet", "--no-edit", "medical")
    check(repo, mean(expert(1), expert(2)))
    repo.git("reset", "--quiet", "--hard", "legal~")
    repo.git("cherry-pick", "medical", "code")  # a change is applied, and not averaged
    applied = rounded(plus(expert(1), expert(2), expert(0)))
    check(repo, plus(applied, expert(3), expert(0)))
    assert not trailers(repo)
    repo.git("reset", "--quiet", "--hard", "legal~2")
    repo.git("rebase", "--quiet", "medical")
    check(repo, plus(expert(2), expert(1), expert(0)))
    repo.git("reset", "--quiet", "--hard", "legal@{1}")
    repo.git("cherry-pick", "--no-commit", "notes")
    repo.git("cherry-pick", "--no-commit", "code")
    check(repo, plus(state(repo), expert(3), expert(0)), status=f"A  code.txt\nM  {MODEL}\nA  notes.txt")


def test_pull_from_another_clone(repo: Repo, tmp_path: Path) -> None:
    other = clone(repo, tmp_path)
    branch(other, "physics", "origin/main", {MODEL: expert(5)})
    repo.git("remote", "add", "other", str(other.path))
    repo.git("checkout", "--quiet", "legal")
    repo.git("config", "pull.octopus", "theta")
    repo.git("pull", "--quiet", "--no-rebase", "--no-edit", "other", "physics")  # two heads: the driver
    check(repo, mean(expert(1), expert(5)))
    assert len([line for line in trailers(repo) if "Expert" in line]) == 2
    repo.git("reset", "--quiet", "--hard", "legal~")
    other.git("checkout", "--quiet", "-b", "medical", "origin/medical")
    repo.git("pull", "--quiet", "--no-rebase", "--no-edit", "other", "physics", "medical")
    check(repo, mean(expert(1), expert(5), expert(2)))
    assert len([line for line in trailers(repo) if "Expert" in line]) == 3


def clone(repo: Repo, to: Path) -> Repo:
    """A clone with the filters; objects come from the other one's store."""
    made = Repo(to / "clone")
    repo.git("clone", "--quiet", "--no-checkout", ".", str(made.path))
    made.git("theta", "install", "--local")
    made.git("checkout", "--quiet", "main")
    return made


def test_objects_that_are_not_here(repo: Repo, tmp_path: Path) -> None:
    other = clone(repo, tmp_path)
    other.git("checkout", "--quiet", "-b", "work", "origin/legal")
    repo.theta.rename(tmp_path / "away")
    done = other.run("merge", "-s", "theta", "origin/medical", "origin/code", check=False)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("theta: "))
    assert re.match(f"theta: {MODEL}: object [0-9a-f]+ and .* not here", line)
    check(other, expert(1))
    (tmp_path / "away").rename(repo.theta)
    theta(other, "origin/medical", "origin/code")  # they are fetched
    check(other, mean(expert(1), expert(2), expert(3)))


def test_a_corrupt_object(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    known = {blob.digest for blob in repo.manifest(MODEL, "legal").needs()}
    (blob, *_) = (blob for blob in repo.manifest(MODEL, "medical").needs() if blob.digest not in known)
    (file,) = (path for path in repo.theta.glob("objects/**/*") if path.name in blob.digest and path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    done = repo.run("merge", "-s", "theta", "medical", "code", check=False)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("theta: "))
    assert MODEL in line
    assert blob.digest in line
    check(repo, expert(1))


def test_stubs_stay_stubs(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    repo.git("theta", "install", "--local", "--skip-smudge")
    (repo.path / MODEL).unlink()
    repo.git("checkout", "--", MODEL)
    assert (repo.path / MODEL).read_bytes() == repo.blob(MODEL)
    theta(repo, "medical", "code")
    assert (repo.path / MODEL).read_bytes() == repo.blob(MODEL)
    assert repo.status() == ""
    repo.git("theta", "pull")
    check(repo, mean(expert(1), expert(2), expert(3)))


def test_elsewhere(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "legal")
    linked = Repo(tmp_path / "linked")
    (linked.path / "sub").mkdir()
    linked.run("merge", "--quiet", "--no-edit", "-s", "theta", "medical", "code", cwd="sub")
    check(linked, mean(expert(1), expert(2), expert(3)))
    assert trailers(linked)
    linked.git("reset", "--quiet", "--hard", "legal~")
    linked.run("merge", "--quiet", "--no-edit", "medical", cwd="sub")
    check(linked, mean(expert(1), expert(2)))
    assert trailers(linked)
    check(repo, expert(0))


def test_many_branches(repo: Repo) -> None:
    models = [expert(number) for number in range(10, 26)]
    for number, model in enumerate(models):
        repo.write(f"{number}.safetensors", model)
    repo.git("add", ".")
    others = "".join(f"{line}\n" for line in repo.git("ls-tree", "HEAD").splitlines() if MODEL not in line)
    names = [f"b{number}" for number in range(64)]
    for number, name in enumerate(names):
        blob = repo.git("rev-parse", f":{number % 16}.safetensors")
        rows = f"{others}100644 blob {blob}\t{MODEL}\n100644 blob {blob}\t{name}.copy\n"
        tree = repo.run("mktree", stdin=rows.encode()).stdout.decode().strip()
        repo.git("branch", name, repo.git("commit-tree", tree, "-p", "seed", "-m", "expert"))
    repo.git("reset", "--quiet", "--hard")
    start = time.monotonic()
    theta(repo, "--no-ff", *names)
    assert time.monotonic() - start < 30
    check(repo, mean(*models))
    parents(repo, "main~", *names)


def end(session: int) -> None:
    """Kill whatever is left of a session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
    time.sleep(0.1)


@pytest.mark.parametrize("alone", [True, False], ids=["the strategy", "git too"])
def test_killed(repo: Repo, tmp_path: Path, *, alone: bool) -> None:
    """git restores everything if the strategy dies; if git dies too, or a git that the strategy runs lives on,
    ``git reset --hard`` does. No file is ever half of one."""
    repo.git("checkout", "--quiet", "legal")
    whole = {repo.sha(MODEL), *(sha256(repo.blob(MODEL, name)).hexdigest() for name in ("HEAD", "medical"))}
    start = time.monotonic()
    theta(repo, "medical", "code")
    took = time.monotonic() - start
    whole |= {repo.sha(MODEL), sha256(repo.blob(MODEL)).hexdigest()}
    wrapper = tmp_path / "bin" / "git-merge-theta"
    wrapper.parent.mkdir()
    path = os.pathsep.join([str(wrapper.parent), os.environ["PATH"]])
    for share in (0.4, 0.75, 0.9):
        repo.git("reset", "--quiet", "--hard", "legal-0")
        limit = ["timeout", "--signal=KILL", f"{share * took:.3f}"]
        if alone:
            wrapper.write_text(f'#!/bin/sh\nexec {" ".join(limit)} {shutil.which("git-merge-theta")} "$@"\n')
            wrapper.chmod(0o755)
        words = ["git", "merge", "--quiet", "--no-edit", "-s", "theta", "medical", "code"]
        done = subprocess.Popen(
            words if alone else [*limit, *words],
            cwd=repo.path,
            env={**os.environ, "PATH": path},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        done.wait()
        end(done.pid)  # of children that are left alone, too
        content = (repo.path / MODEL).read_bytes()
        assert sha256(content).hexdigest() in whole
        (repo.path / ".git" / "index.lock").unlink(missing_ok=True)
        if done.returncode:
            repo.git("reset", "--quiet", "--hard")
            repo.git("clean", "--quiet", "--force")  # what git had written, and not yet put into its index
        check(repo, expert(1) if done.returncode else mean(expert(1), expert(2), expert(3)))
