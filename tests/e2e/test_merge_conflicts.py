"""Conflicts of names and deletions around models that are merged, and failures that must not look like conflicts."""

from __future__ import annotations

import pytest
from branches import MODEL, Tensors, mean, merged, same, theta, trained, trio, trio_template
from conftest import Repo

from git_theta_btm.manifest import Manifest, loads

__all__ = ["trio", "trio_template"]


def stages(repo: Repo) -> dict[tuple[str, str], Manifest]:
    """The stages of all conflicts, each of which has to be a manifest: by path and number."""
    rows = (row.partition("\t") for row in repo.git("ls-files", "-u").splitlines())
    found = {}
    for meta, _, path in rows:
        _, oid, stage = meta.split()
        found[path, stage] = loads(repo.run("cat-file", "blob", oid).stdout)
    return found


def average() -> Tensors:
    return mean([trained(1), trained(2)])


@pytest.mark.parametrize("order", ["legal medical gone", "legal gone medical", "gone legal medical"])
def test_one_of_three_has_deleted_it(trio: Repo, order: str) -> None:
    """The two others are merged, and what git asks about is the merged model, not one of them or a stand-in."""
    trio.git("checkout", "--quiet", "-b", "gone", "main")
    trio.git("rm", "--quiet", MODEL)
    trio.git("commit", "--quiet", "-m", "gone")
    first, *others = order.split()
    trio.git("checkout", "--quiet", first)
    theta(trio, "merge", *others, code=1)
    side = "3" if first == "gone" else "2"
    assert set(stages(trio)) == {(MODEL, "1"), (MODEL, side)}
    assert same(merged(trio), average())
    theta(trio, "resolve", "--theirs" if side == "3" else "--ours")
    assert same(merged(trio), average())
    trio.git("commit", "--quiet", "--no-edit")
    assert trio.git("status", "--porcelain") == ""
    theta(trio, "verify")
    theta(trio, "fsck")


def test_both_rename_it_and_not_alike(trio: Repo) -> None:
    for name in ("legal", "medical"):
        trio.git("checkout", "--quiet", name)
        trio.git("mv", MODEL, f"{name}.safetensors")
        trio.git("commit", "--quiet", "-m", "rename")
    theta(trio, "merge", "legal", code=1)
    assert set(stages(trio)) == {(MODEL, "1"), ("medical.safetensors", "2"), ("legal.safetensors", "3")}
    for name in ("legal", "medical"):
        assert same(merged(trio, f"{name}.safetensors"), average())
    theta(trio, "merge", "--abort")
    assert same(merged(trio, "medical.safetensors"), trained(2))


def test_a_sparse_checkout_without_attributes(trio: Repo) -> None:
    """git merge-tree does not see what is in the index alone."""
    trio.git("checkout", "--quiet", "legal")
    trio.git("sparse-checkout", "set", "--no-cone", "/README")
    assert not (trio.path / ".gitattributes").exists()
    trio.git("merge", "--quiet", "-s", "theta", "--no-edit", "medical")
    trio.git("sparse-checkout", "disable")
    assert same(merged(trio), average())


def test_an_error_that_nobody_expects_is_no_conflict(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "legal")
    head = trio.git("rev-parse", "HEAD")
    for words in (("-n",), ()):
        said = theta(trio, "merge", "medical", "--device", "nonsense", *words, code=128 if words else 2).stderr
        assert "torch has no device nonsense here" in said
    assert trio.git("rev-parse", "HEAD") == head
    assert not (trio.path / ".git/MERGE_HEAD").exists()
    assert trio.git("status", "--porcelain") == ""


@pytest.mark.parametrize("words", [("-s", "fisher"), ("--rule", "h.1.* regmean")])
def test_statistics_that_nobody_gave(trio: Repo, words: tuple[str, str]) -> None:
    """Without them either would be a weighted mean, and recorded as what it is not."""
    said = theta(trio, "merge", "legal", "medical", *words, code=2).stderr
    assert "needs a file of statistics of each expert: --statistics FILE" in said


def test_what_is_in_the_way(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "legal")
    (trio.path / MODEL).write_bytes((trio.path / MODEL).read_bytes()[:-4] + b"abcd")
    done = trio.run("merge", "--quiet", "-s", "theta", "--no-edit", "--no-autostash", "medical", check=False)
    assert done.returncode
    assert b"commit, stash or move what is in the way" in done.stderr
