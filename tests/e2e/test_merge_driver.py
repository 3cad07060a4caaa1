"""The merge driver, whoever of git's commands runs it: merges mix experts, everything else applies a change."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo
from experts import MODEL, branch, branched, check, expert, mean, parents, plus, repo, rounded, state

__all__ = ["branched", "repo"]

BOTH = mean(expert(1), expert(2))
APPLIED = plus(expert(1), expert(2), expert(0))  # medical's change on legal


@pytest.fixture
def legal(repo: Repo) -> Repo:
    """The branches, with legal checked out."""
    repo.git("checkout", "--quiet", "legal")
    return repo


def merge(repo: Repo, *words: str) -> None:
    repo.git("merge", "--quiet", "--no-edit", *words)


def trailers(repo: Repo, revision: str = "HEAD") -> list[str]:
    text = repo.git("log", "-1", "--format=%(trailers:only,unfold)", revision)
    return [line for line in text.splitlines() if line.startswith("Theta-")]


# -- merges ------------------------------------------------------------------------------------------------------------


def test_a_merge_mixes(legal: Repo) -> None:
    merge(legal, "medical")
    check(legal, BOTH)
    parents(legal, "legal~", "medical")
    experts = [line.split() for line in trailers(legal) if "Expert" in line]
    assert [(words[2], words[3]) for words in experts] == [("1.0", "legal"), ("1.0", "medical")]
    merge(legal, "code")
    check(legal, mean(rounded(BOTH), expert(3), weights=(2, 1)))
    assert any(line.endswith("legal mass=2.0") for line in trailers(legal))


def test_by_configuration_and_attribute(legal: Repo) -> None:
    legal.git("config", "theta.merge.strategy", "task_arithmetic")
    merge(legal, "medical")
    check(legal, APPLIED)
    legal.git("reset", "--quiet", "--hard", "legal~")
    legal.write(".gitattributes", (legal.path / ".gitattributes").read_bytes() + f"{MODEL} theta-merge=ours\n".encode())
    legal.commit("attributes")
    merge(legal, "medical")
    check(legal, expert(1))
    assert trailers(legal)[0].startswith("Theta-Merge: ours")
    legal.git("reset", "--quiet", "--hard", "legal~")
    legal.git("config", "theta.merge.strategy", "nonsense")
    legal.write(".git/info/attributes", f"{MODEL} theta-merge=average\n".encode())
    legal.git("config", "theta.merge.weights", "1,3")
    merge(legal, "medical")
    check(legal, mean(expert(1), expert(2), weights=(1, 3)))


def test_what_both_did_and_what_one_did(legal: Repo) -> None:
    merge(legal, "twin")
    check(legal, expert(1))
    merge(legal, "notes")
    check(legal, expert(1))
    legal.git("checkout", "--quiet", "notes")
    merge(legal, "medical")
    check(legal, expert(2))
    assert not trailers(legal)


def test_both_add_it(repo: Repo) -> None:
    for number, name in ((5, "one"), (6, "two")):
        branch(repo, name, "seed~", {"new ü.safetensors": expert(number)})
    merge(repo, "one")
    check(repo, mean(expert(6), expert(5)), "new ü.safetensors")
    repo.git("checkout", "--quiet", "--orphan", "alien")
    repo.write(MODEL, expert(8))
    repo.commit("alien")
    merge(repo, "--allow-unrelated-histories", "legal")
    check(repo, mean(expert(8), expert(1)))


def test_a_rename(legal: Repo) -> None:
    legal.git("checkout", "--quiet", "-b", "moved", "seed")
    (legal.path / "sub dir").mkdir()
    legal.git("mv", MODEL, "sub dir/other.safetensors")
    legal.write("sub dir/other.safetensors", {**expert(0), "h.0.w": expert(5)["h.0.w"]})
    legal.commit("moved")
    legal.git("checkout", "--quiet", "legal")
    merge(legal, "moved")
    check(legal, mean(expert(1), {**expert(0), "h.0.w": expert(5)["h.0.w"]}), "sub dir/other.safetensors")
    assert trailers(legal)


def test_deleted_by_one(legal: Repo) -> None:
    legal.git("checkout", "--quiet", "-b", "without", "seed")
    legal.git("rm", "--quiet", MODEL)
    legal.commit("no model")
    legal.git("checkout", "--quiet", "legal")
    assert legal.run("merge", "without", check=False).returncode == 1
    check(legal, expert(1), status=f"UD {MODEL}")
    legal.git("merge", "--abort")
    check(legal, expert(1))


def test_criss_cross(legal: Repo) -> None:
    legal.git("checkout", "--quiet", "-b", "left", "legal")
    merge(legal, "medical")
    legal.git("checkout", "--quiet", "-b", "right", "medical")
    merge(legal, "-s", "ours", "legal")
    assert not trailers(legal)
    branch(legal, "right2", "right", {MODEL: expert(5)})
    legal.git("checkout", "--quiet", "left")
    merge(legal, "right2")
    check(legal, mean(rounded(BOTH), expert(5), weights=(2, 1)))
    legal.git("reset", "--quiet", "--hard", "left~")
    legal.git("config", "theta.merge.strategy", "task_arithmetic")
    merge(legal, "right2")
    (base,) = (line.split()[1] for line in trailers(legal) if "Base" in line)
    check(legal, plus(state(legal, "left~"), expert(5), state(legal, base)))


def test_conflicts(legal: Repo) -> None:
    done = legal.run("merge", "clash", check=False)
    assert done.returncode == 1
    check(legal, mean(expert(1), expert(4)), status=f"UU README\nM  {MODEL}")
    legal.git("merge", "--abort")
    check(legal, expert(1))
    assert legal.run("merge", "clash", check=False).returncode == 1
    legal.write("README", b"both\n")
    legal.git("add", "README")
    legal.git("commit", "--quiet", "--no-edit")
    parents(legal, "legal~", "clash")
    check(legal, mean(expert(1), expert(4)))
    assert trailers(legal)


@pytest.mark.parametrize(
    ("key", "value", "word"), [("h.1.w", np.ones((9, 9), "f4"), "shapes"), ("steps", np.ones(4, "i8"), "I64")]
)
def test_conflicts_in_the_model(repo: Repo, key: str, value: np.ndarray, word: str) -> None:
    branch(repo, "ours", "seed", {MODEL: {**expert(1), "steps": np.zeros(4, "i8")}})
    branch(repo, "theirs", "seed", {MODEL: {**expert(2), key: value}, "x": b"x"})
    repo.git("checkout", "--quiet", "ours")
    for command in (["merge", "theirs"], ["cherry-pick", "theirs"]):
        done = repo.run(*command, check=False)
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("theta: "))
        assert all(part in line for part in (MODEL, key, "git theta resolve"))
        assert repo.git("ls-files", "-u", MODEL).count("\n") == 2
        check(repo, state(repo, "ours"), status=f"UU {MODEL}\nA  x")
        repo.git(command[0], "--abort")
        check(repo, state(repo, "ours"))


def test_without_a_commit(legal: Repo) -> None:
    merge(legal, "--no-commit", "medical")
    check(legal, BOTH, status=f"M  {MODEL}\nA  medical.txt")
    legal.git("merge", "--abort")
    check(legal, expert(1))
    merge(legal, "-s", "ours", "medical")  # the same heads, but another merge
    assert not trailers(legal)
    legal.git("reset", "--quiet", "--hard", "legal~")
    merge(legal, "--no-commit", "medical")
    legal.git("commit", "--quiet", "-m", "title\n\nReviewed-by: A. B. <a@b>")
    assert trailers(legal)
    assert legal.git("log", "-1", "--format=%(trailers:key=Reviewed-by)")
    legal.git("commit", "--quiet", "--amend", "-m", "another title")
    assert not trailers(legal)
    assert not (legal.path / ".git" / "THETA_MERGE").exists()


def test_what_is_not_committed(legal: Repo) -> None:
    legal.write(MODEL, expert(9))
    done = legal.run("merge", "medical", check=False)
    assert done.returncode in (1, 2)
    assert b"would be overwritten" in done.stderr
    check(legal, expert(9), status=f" M {MODEL}")
    merge(legal, "--autostash", "medical")
    check(legal, plus(state(legal), expert(9), expert(1)), status=f" M {MODEL}")
    legal.git("reset", "--quiet", "--hard")
    check(legal, BOTH)


# -- changes -----------------------------------------------------------------------------------------------------------


def test_picks(legal: Repo) -> None:
    legal.git("cherry-pick", "medical")
    check(legal, APPLIED)
    assert not trailers(legal)
    legal.git("revert", "--no-edit", "HEAD~")
    check(legal, plus(state(legal, "HEAD~"), expert(0), expert(1)))
    legal.git("reset", "--quiet", "--hard", "HEAD~2")
    branch(legal, "range", "medical", {MODEL: expert(5)})
    legal.git("checkout", "--quiet", "legal")
    legal.git("cherry-pick", "seed..range")
    check(legal, plus(state(legal, "HEAD~"), expert(5), expert(2)))


def test_rebases(legal: Repo) -> None:
    branch(legal, "three", "medical", {MODEL: expert(5), "5": b""})
    legal.write(MODEL, expert(6))
    legal.commit("six")
    for words in (["--merge"], ["--apply"], ["--interactive"]):
        legal.git("checkout", "--quiet", "-B", "work", "three")
        legal.git("rebase", "--quiet", *words, "legal")
        check(legal, plus(state(legal, "HEAD~"), expert(6), expert(5)))
        np.testing.assert_allclose(state(legal, "HEAD~2")["h.0.w"], APPLIED["h.0.w"], rtol=1e-6, atol=1e-7)
    legal.git("checkout", "--quiet", "-B", "work", "seed")
    branch(legal, "up", "seed", {"up": b""})
    legal.git("checkout", "--quiet", "-B", "work", "legal")
    merge(legal, "medical")
    legal.git("rebase", "--quiet", "--rebase-merges", "up")
    check(legal, BOTH)


def test_stash_and_checkout(legal: Repo) -> None:
    legal.write(MODEL, expert(2))
    legal.git("stash", "--quiet")
    legal.git("checkout", "--quiet", "code")
    legal.git("stash", "pop", "--quiet")
    check(legal, plus(expert(3), expert(2), expert(1)), status=f" M {MODEL}")
    legal.git("checkout", "--quiet", "--force", "legal")
    legal.write(MODEL, expert(2))
    legal.git("checkout", "--quiet", "-m", "code")
    check(legal, plus(expert(3), expert(2), expert(1)), status=f" M {MODEL}")


def test_mail(legal: Repo) -> None:
    patch = legal.run("format-patch", "--stdout", "--full-index", "--binary", "-1", "medical").stdout
    legal.run("am", "--quiet", "-3", stdin=patch)
    check(legal, APPLIED)


# -- places ------------------------------------------------------------------------------------------------------------


def test_in_memory(repo: Repo, tmp_path: Path) -> None:
    bare = Repo(tmp_path / "bare.git")
    repo.git("clone", "--quiet", "--bare", ".", str(bare.path))
    shutil.copytree(repo.theta, bare.path / "theta")
    bare.git("config", "merge.theta.driver", repo.git("config", "merge.theta.driver"))
    (bare.path / "info").mkdir(exist_ok=True)
    (bare.path / "info" / "attributes").write_text("*.safetensors filter=theta merge=theta -text\n")
    tree = bare.git("merge-tree", "--write-tree", "legal", "medical")
    assert re.fullmatch("[0-9a-f]{40}\n\nAuto-merging m.safetensors", tree) or re.fullmatch("[0-9a-f]{40}", tree)
    shutil.copytree(bare.path / "theta" / "objects", repo.theta / "objects", dirs_exist_ok=True)
    repo.git("fetch", "--quiet", str(bare.path), "main")
    blob = bare.run("cat-file", "blob", f"{tree[:40]}:{MODEL}").stdout
    repo.git("read-tree", "HEAD")
    repo.write("text", blob)
    repo.git("update-index", "--cacheinfo", f"100644,{repo.git('hash-object', '-w', '--no-filters', 'text')},{MODEL}")
    (repo.path / "text").unlink()
    repo.git("checkout", "--", MODEL)
    check(repo, BOTH, status=f"M  {MODEL}")


def test_worktree_and_subdirectory(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "legal")
    linked = Repo(tmp_path / "linked")
    (linked.path / "sub").mkdir()
    linked.run("merge", "--quiet", "--no-edit", "medical", cwd="sub")
    check(linked, BOTH)
    assert trailers(linked)


def test_objects_that_are_not_here(legal: Repo) -> None:
    known = {blob.digest for blob in legal.manifest(MODEL, "legal").needs()}
    (blob, *_) = (blob for blob in legal.manifest(MODEL, "medical").needs() if blob.digest not in known)
    (file,) = (path for path in legal.theta.glob("objects/**/*") if path.name in blob.digest and path.is_file())
    content = file.read_bytes()
    file.unlink()
    for word in ("is not here", "differ"):
        done = legal.run("merge", "medical", check=False)
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("theta: "))
        assert MODEL in line
        assert blob.digest in line, word
        check(legal, expert(1), status=f"UU {MODEL}\nA  medical.txt")
        legal.git("merge", "--abort")
        check(legal, expert(1))
        file.write_bytes(content[:-9] + bytes(9))
    file.write_bytes(content)
    merge(legal, "medical")
    check(legal, BOTH)


def test_stubs_stay_stubs(legal: Repo) -> None:
    legal.git("theta", "install", "--local", "--skip-smudge")
    (legal.path / MODEL).unlink()
    legal.git("checkout", "--", MODEL)
    merge(legal, "medical")
    assert (legal.path / MODEL).read_bytes() == legal.blob(MODEL)
    assert legal.status() == ""
    legal.git("theta", "pull")
    check(legal, BOTH)


def test_one_side_is_no_model(legal: Repo) -> None:
    branch(legal, "opaque", "seed", {MODEL: b"\x93 no model " * 999})
    raw = legal.git("hash-object", "-w", "--no-filters", MODEL)
    legal.git("checkout", "--quiet", "--detach")
    legal.git("update-index", "--cacheinfo", f"100644,{raw},{MODEL}")
    legal.git("commit", "--quiet", "-m", "raw")
    legal.git("tag", "raw")
    legal.git("checkout", "--quiet", "--force", "legal")
    for name in ("opaque", "raw"):
        for words in (["merge"], ["merge", "-s", "theta", "code"]):
            done = legal.run(*words, name, check=False)
            assert done.returncode in (1, 2)
            assert sum(MODEL in line for line in done.stderr.decode().splitlines() if line.startswith("theta: ")) == 1
            check_kept = (legal.path / MODEL).read_bytes()
            assert len(check_kept) > 10000
            legal.run("merge", "--abort", check=False)
            check(legal, expert(1))


def test_a_killed_driver(legal: Repo) -> None:
    """What it leaves is ours or, if it was killed on its way out, the result: to the byte, and never half of one."""
    driver = legal.git("config", "merge.theta.driver")
    ours = legal.sha(MODEL)
    start = time.monotonic()
    merge(legal, "medical")
    took = time.monotonic() - start
    result = legal.sha(MODEL)
    for share in (0.15, 0.4, 0.6, 0.8):
        legal.git("reset", "--quiet", "--hard", "legal-0")
        legal.git("config", "merge.theta.driver", f"timeout -s KILL {share * took:.3f} {driver}")
        done = legal.run("merge", "--quiet", "--no-edit", "medical", check=False)
        if done.returncode:
            assert legal.sha(MODEL) in (ours, result)
            legal.git("merge", "--abort")
            check(legal, expert(1))
        else:
            check(legal, BOTH)
    legal.git("config", "merge.theta.driver", driver)
    legal.git("reset", "--quiet", "--hard", "legal-0")
    merge(legal, "medical")
    check(legal, BOTH)


@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_other_formats(repo: Repo, suffix: str) -> None:
    def write(path: str, number: int) -> None:
        made = {name: value for name, value in expert(number).items() if name != "steps"}
        if suffix == "npz":
            np.savez(repo.path / path, **made)
        else:
            torch = pytest.importorskip("torch")
            torch.save({name: torch.from_numpy(value) for name, value in made.items()}, repo.path / path)

    def read(path: str) -> dict[str, np.ndarray]:
        if suffix == "npz":
            return dict(np.load(repo.path / path))
        import torch

        return {name: value.numpy() for name, value in torch.load(repo.path / path, weights_only=True).items()}

    names = [f"shards/model-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    (repo.path / "shards").mkdir()
    for number, name in ((0, "base"), (1, "one"), (2, "two"), (3, "three")):
        repo.git("checkout", "--quiet", "-b", name, "base" if number else "seed")
        (repo.path / "shards").mkdir(exist_ok=True)
        for offset, path in enumerate(names):
            write(path, 10 * offset + number if number else 20 + offset)
        repo.commit(name)
    repo.git("checkout", "--quiet", "one")
    merge(repo, "two")
    assert repo.status() == ""
    merge(repo, "-s", "theta", "three")
    assert repo.status() == ""
    for offset, path in enumerate(names):
        pair = mean(*({k: v for k, v in expert(10 * offset + number).items() if k != "steps"} for number in (1, 2)))
        third = {k: v for k, v in expert(10 * offset + 3).items() if k != "steps"}
        expected = mean(rounded(pair), third, weights=(2, 1))
        for name, value in read(path).items():
            np.testing.assert_allclose(value, expected[name], rtol=1.2e-7)


def test_hooks(legal: Repo) -> None:
    hook = legal.path / ".git" / "hooks" / "prepare-commit-msg"
    ours = hook.read_text()
    hook.write_text(ours + 'echo "Hook-Said: $2" >>"$1"\n')
    merge(legal, "medical")
    text = legal.git("log", "-1", "--format=%B")
    assert "Hook-Said: merge" in text
    assert len([line for line in trailers(legal) if "Theta-Merge" in line]) == 1
    hook.unlink()
    legal.git("reset", "--quiet", "--hard", "legal-0")
    hook.write_text('#!/bin/sh\necho "Hook-Said: $2" >>"$1"\n')
    hook.chmod(0o755)
    legal.git("theta", "install", "--local")
    legal.write("../template", b"title\n\n# a comment\n")
    legal.git("config", "commit.template", str(legal.path.parent / "template"))
    merge(legal, "--no-commit", "medical")
    legal.run("commit", "--quiet", env={"GIT_EDITOR": "true"})
    text = legal.git("log", "-1", "--format=%B")
    assert text.startswith("Merge branch 'medical'")
    assert text.count("Theta-Merge: ") == text.count("Hook-Said: merge") == 1
    legal.write("later", b"later")
    legal.commit("later")
    assert not trailers(legal)
    assert not (legal.path / ".git" / "THETA_MERGE").exists()
