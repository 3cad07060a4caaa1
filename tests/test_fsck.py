from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Once, Repo

from git_theta_btm.care.fsck import Options, fsck
from git_theta_btm.errors import ThetaError
from git_theta_btm.manifest import Digest, Manifest
from git_theta_btm.repository import Repository

NAME = "dir/model.safetensors"


def state(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"h.0.w": random.standard_normal(40_000).astype("<f4"), "h.0.b": random.standard_normal(3).astype("<f4")}


def two_versions(repo: Repo) -> None:
    for seed in (1, 2):
        repo.write(NAME, state(seed))
        repo.commit()


@pytest.fixture
def repo(repo: Repo, once: Once) -> Repo:
    """A repository with two versions of a model."""
    return once(repo, two_versions)


def problems(options: Options = Options()) -> list[tuple[str, str, str]]:  # noqa: B008 - a frozen value
    return [
        (item.where, item.parameter, item.problem.partition(":")[0]) for item in fsck(Repository(), options).problems
    ]


def largest(manifest: Manifest) -> Digest:
    return max(manifest.needs(), key=lambda blob: blob.size).digest


def spoil(repo: Repo, oid: Digest) -> None:
    """Flip one bit of an object."""
    path = Path(repo.store.path(oid))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def short(repo: Repo, revision: str) -> str:
    return repo.git("rev-parse", "--short", revision)


def test_all_is_well(repo: Repo) -> None:
    report = fsck(Repository(), Options(all_objects=True))
    assert (report.manifests, report.problems, report.moved) == (2, (), 0)
    assert report.objects == len(repo.objects())


def test_progress_counts_every_object(repo: Repo) -> None:
    seen: list[tuple[int, int]] = []
    report = fsck(Repository(), Options(), lambda done, total: seen.append((done, total)))
    assert sorted(seen)[-1] == (report.objects, report.objects)
    assert len(seen) == report.objects


@pytest.mark.parametrize("how", ["missing", "corrupt", "short"])
def test_one_object_names_commit_path_and_parameter(repo: Repo, how: str) -> None:
    oid = largest(repo.manifest(NAME, "HEAD~1"))
    path = Path(repo.store.path(oid))
    if how == "missing":
        path.unlink()
    elif how == "corrupt":
        spoil(repo, oid)
    else:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
    report = fsck(Repository(), Options())
    assert [(item.where, item.parameter, item.object) for item in report.problems] == [
        (f"{short(repo, 'HEAD~1')}:{NAME}", "h.0.w", oid)
    ]
    assert report.problems[0].problem.startswith("missing" if how == "missing" else "corrupt")


def test_a_revision_is_all_that_is_looked_at(repo: Repo) -> None:
    Path(repo.store.path(largest(repo.manifest(NAME, "HEAD~1")))).unlink()
    assert problems(Options(revisions=["HEAD~1..HEAD"])) == []
    assert len(problems(Options(revisions=["HEAD"]))) == 1
    with pytest.raises(ThetaError):
        problems(Options(revisions=["--output=x"]))


@pytest.mark.parametrize("keeper", ["index", "stash", "reflog", "worktree", "tag"])
def test_everything_that_git_keeps_is_looked_at(repo: Repo, tmp_path: Path, keeper: str) -> None:
    repo.write(NAME, state(3))
    repo.git("add", ".")
    oid = largest(repo.manifest(NAME))
    if keeper == "stash":
        repo.git("stash", "--quiet")
    elif keeper != "index":
        repo.git("commit", "--quiet", "-m", "three")
        if keeper == "worktree":
            repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
        elif keeper == "tag":
            repo.git("tag", "kept")
        repo.git("reset", "--quiet", "--hard", "HEAD~1")
        if keeper != "reflog":
            repo.git("reflog", "expire", "--expire=all", "--all")
    Path(repo.store.path(oid)).unlink()
    (problem,) = fsck(Repository(), Options()).problems
    assert problem.where.endswith(f":{NAME}")
    assert problem.where.startswith("index:") == (keeper == "index")


def test_a_corrupt_object_is_moved_aside_and_stored_again(repo: Repo) -> None:
    oid = largest(repo.manifest(NAME))
    spoil(repo, oid)
    report = fsck(Repository(), Options(fix=True))
    assert report.moved == 1
    assert os.listdir(repo.theta / "corrupt") == [oid]
    repo.git("add", "--renormalize", NAME)
    assert problems() == []
    assert repo.status() == ""


def test_a_missing_object_is_stored_again(repo: Repo) -> None:
    Path(repo.store.path(largest(repo.manifest(NAME)))).unlink()
    assert len(problems()) == 1
    repo.git("add", "--renormalize", NAME)
    assert problems() == []


def test_objects_that_no_manifest_names(repo: Repo) -> None:
    with repo.store.writer() as writer:
        writer.write(b"something else")
        oid = writer.commit()
    spoil(repo, oid)
    assert problems() == []
    (problem,) = fsck(Repository(), Options(all_objects=True)).problems
    assert (problem.where, problem.object) == ("", oid)


def commit_manifest(repo: Repo, text: bytes) -> str:
    """Commit a text that the filter would not let in."""
    oid = repo.run("hash-object", "-w", "--stdin", stdin=text).stdout.decode().strip()
    repo.git("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    repo.git("commit", "--quiet", "-m", "forged")
    return f"{short(repo, 'HEAD')}:{NAME}"


def test_a_manifest_that_does_not_parse(repo: Repo) -> None:
    where = commit_manifest(repo, repo.blob(NAME)[:-9])
    assert [(place, parameter) for place, parameter, _ in problems()] == [(where, "")]


def test_a_manifest_of_a_later_version(repo: Repo) -> None:
    where = commit_manifest(repo, repo.blob(NAME).replace(b"manifest 1:", b"manifest 2:"))
    ((place, _, words),) = problems()
    assert place == where and "needs a newer git-theta-btm" in words


def test_a_digest_that_no_object_has(repo: Repo) -> None:
    manifest = repo.manifest(NAME)
    entries = tuple(
        replace(entry, digest=Digest("0" * 64)) if entry.name == "h.0.b" else entry for entry in manifest.entries
    )
    where = commit_manifest(repo, replace(manifest, entries=entries).dumps())
    assert problems() == [(where, "h.0.b", "what is stored for it is not it")]


def test_a_layout_of_another_file(repo: Repo) -> None:
    manifest = repo.manifest(NAME)
    where = commit_manifest(repo, replace(manifest, size=manifest.size + 1).dumps())
    assert problems() == [(where, "", "the layout's segments overlap, or leave a gap without glue")]


def test_a_view_that_its_chunks_do_not_hold(repo: Repo) -> None:
    torch = pytest.importorskip("torch")
    whole = torch.arange(20_000, dtype=torch.float32)
    torch.save({"a": whole[:15_000], "b": whole[5_000:]}, repo.path / "views.pt")
    repo.git("add", "views.pt")
    assert problems() == []
    manifest = repo.manifest("views.pt")
    assert any(entry.view for entry in manifest.entries)
    entries = tuple(replace(entry, digest=Digest("1" * 64)) for entry in manifest.entries)
    where = commit_manifest(repo, replace(manifest, entries=entries).dumps())
    assert [(place, words) for place, _, words in problems()] == [
        (where, "the chunks that it is a view of hold other bytes")
    ] * len(entries)


def test_a_bare_repository_without_objects(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    report = fsck(Repository(str(tmp_path / "bare.git")), Options())
    assert report.manifests == 2
    assert {item.problem for item in report.problems} == {"missing"}


def test_an_empty_repository(tmp_path: Path) -> None:
    os.system(f"git init --quiet {tmp_path}/new")
    assert fsck(Repository(f"{tmp_path}/new"), Options()).manifests == 0
