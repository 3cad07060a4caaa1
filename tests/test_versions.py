from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.care.lineage import lineage
from git_theta_btm.care.versions import Manifests, located, steps
from git_theta_btm.errors import ThetaError
from git_theta_btm.manifest import Digest
from git_theta_btm.repository import Repository


def test_steps_are_in_order_and_say_what_changed(repo: Repo) -> None:
    root = repo.git("rev-parse", "HEAD")
    repo.write("a.txt", b"1")
    first = repo.commit()
    repo.git("switch", "--quiet", "--create", "side")
    repo.write("a.txt", b"2")
    second = repo.commit()
    repo.git("switch", "--quiet", "main")
    repo.git("rm", "--quiet", "a.txt")
    repo.write("b.txt", b"3")
    third = repo.commit()
    repo.git("merge", "--quiet", "--strategy", "ours", "side")
    merge = repo.git("rev-parse", "HEAD")
    found = {step.commit: step for step in steps(Repository(str(repo.path)), ["--all"])}
    assert list(found)[:2] == [root, first] and list(found)[-1] == merge
    assert found[first].files == (("a.txt", repo.git("rev-parse", f"{first}:a.txt")),)
    assert dict(found[third].files) == {"a.txt": None, "b.txt": repo.git("rev-parse", "main:b.txt")}
    assert found[merge].parents == (third, second)
    assert found[merge].files == ()


@pytest.mark.parametrize("name", [b"two\nlines", b"tab\t", b"\xff\xfe", "größe".encode(), b":x", b"-x", b'"quoted"'])
def test_any_file_name(repo: Repo, name: bytes) -> None:
    with open(os.path.join(os.fsencode(repo.path), name), "wb") as file:
        file.write(b"x")
    repo.commit()
    assert steps(Repository(str(repo.path)), ["HEAD"])[-1].files[0][0] == os.fsdecode(name)


def test_an_unknown_revision(repo: Repo) -> None:
    with pytest.raises(ThetaError, match="frob"):
        steps(Repository(str(repo.path)), ["frob"])


def test_what_is_no_manifest_is_none(repo: Repo) -> None:
    repo.write("m.safetensors", {"w": np.ones(3, "f4")})
    repo.commit()
    repository = Repository(str(repo.path))
    with repository.git.blobs() as reader:
        manifests = Manifests(reader)
        assert manifests.get(repo.git("rev-parse", ":m.safetensors")) == repo.manifest("m.safetensors")
        for _ in range(2):
            assert manifests.get(repo.git("rev-parse", ":.gitattributes")) is None
        assert manifests.get("0" * 40) is None


def test_paths_are_found_from_any_directory(repo: Repo) -> None:
    (repo.path / "dir").mkdir()
    repository = Repository(str(repo.path / "dir"))
    assert located(repository, "m.pt") == "dir/m.pt"
    assert located(repository, "../m.pt") == "m.pt"
    assert located(repository, str(repo.path / "m.pt")) == "m.pt"


def test_descent_names_parents_then_merge_base_then_the_oldest(repo: Repo) -> None:
    def write(seed: int) -> Digest:
        repo.write("m.safetensors", {"w": np.random.default_rng(seed).standard_normal(9000, dtype="f4")})
        repo.commit(str(seed))
        return repo.manifest("m.safetensors").entries[0].digest

    oldest, base = write(0), write(1)
    repo.git("switch", "--quiet", "--create", "side")
    theirs = write(2)
    repo.git("switch", "--quiet", "main")
    ours = write(3)
    repo.run("merge", "--no-commit", "--strategy", "ours", "side")
    merged = write(4)
    repository = Repository(str(repo.path))
    found = {
        descent.entry.digest: descent
        for descent in lineage(repository, repository.models(), everything=False, narrow=False).descents
    }
    assert found[merged].bases == (ours, theirs, base, oldest)
    assert found[theirs].bases == (base, oldest)
    assert found[oldest].bases == ()
    assert [digest for digest, descent in found.items() if descent.wanted] == [merged]
    everything = lineage(repository, repository.models(), everything=True, narrow=True).descents
    assert all(descent.wanted for descent in everything) and len(everything) == 5


def test_without_a_commit_there_is_the_index(repo: Repo) -> None:
    repo.git("update-ref", "-d", "HEAD")
    repo.write("m.safetensors", {"w": np.ones(9000, "f4")})
    repo.git("add", "--all")
    repository = Repository(str(repo.path))
    for everything in (True, False):
        (descent,) = lineage(repository, repository.models(), everything=everything, narrow=False).descents
        assert (descent.path, descent.bases, descent.wanted) == ("m.safetensors", (), True)
