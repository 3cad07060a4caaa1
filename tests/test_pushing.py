from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.manifest import Blob, Digest
from git_theta_btm.remotes import keeping
from git_theta_btm.remotes.fetching import wanted
from git_theta_btm.remotes.lfs import write_pointers
from git_theta_btm.remotes.pushing import Lines
from git_theta_btm.remotes.transfer import known, needs_of, remotes, scan
from git_theta_btm.repository import Repository

NAME = "my model.safetensors"
STATE = {f"h{index}": np.random.default_rng(index).standard_normal(9_000, dtype="f4") for index in range(3)}
SMALL = {"b": np.ones(3, "<f4")}


@pytest.fixture
def model(repo: Repo) -> Repo:
    repo.write(NAME, STATE | SMALL)
    repo.commit("one")
    return repo


def digests(blobs: list[Blob]) -> set[str]:
    return {str(blob.digest) for blob in blobs}


# -- what a range needs ----------------------------------------------------------------------------------------------


def test_a_range_needs_what_its_new_manifests_name(model: Repo) -> None:
    git = Git(str(model.path))
    model.write(NAME, STATE | SMALL | {"h1": STATE["h1"] + 1})
    second = model.commit("two")
    first = scan(git, ["HEAD~"])
    assert digests(first.blobs) == {str(blob.digest) for blob in model.manifest(NAME, "HEAD~").needs()}
    both, new = scan(git, [second]), scan(git, [second], ["HEAD~"])
    assert digests(new.blobs) == {str(blob.digest) for blob in model.manifest(NAME).needs()}
    assert digests(both.blobs) == digests(first.blobs) | digests(new.blobs)
    need = next(need for need in new.needs.values() if need.owner == "parameter h1")
    assert str(need) == f"{NAME}: parameter h1: object {need.blob.digest}"
    assert scan(git, [second], [second]).needs == {}


def test_tags_trees_and_pointers_of_git_lfs(model: Repo) -> None:
    git = Git(str(model.path))
    model.git("tag", "-a", "v1", "-m", "tag")
    assert scan(git, [model.git("rev-parse", "v1")]).blobs == scan(git, ["HEAD"]).blobs
    assert not scan(git, ["HEAD"]).pointers
    found = scan(git, [write_pointers(git, [Blob(Digest.of(b""), 0)])])
    assert found.pointers and not found.needs


def test_a_broken_manifest_is_told_and_does_not_stop_the_rest(model: Repo) -> None:
    model.write("notes.txt", model.blob(NAME)[:-5])
    model.commit()
    found = scan(Git(str(model.path)), ["HEAD"])
    assert len(found.broken) == 1 and found.broken[0].startswith("notes.txt: ")
    assert digests(found.blobs) == {str(blob.digest) for blob in model.manifest(NAME).needs()}


def test_objects_that_only_the_remote_has_are_not_known(model: Repo) -> None:
    head = model.git("rev-parse", "HEAD")
    assert known(Git(str(model.path)), [head, "1" * 40, head]) == [head]


def test_what_git_tells_the_hook() -> None:
    zero, one, two = "0" * 40, "1" * 40, "2" * 40
    own = f"refs/heads/a {one} refs/heads/a {zero}\n(delete) {zero} refs/heads/b {one}\nHEAD {two} refs/heads/c {one}\n"
    keep = f"{keeping.PREFIX}{one}"
    lines = Lines.of(f"{own}{keep} {one} {keep} {zero}\n\n")
    assert (lines.text, lines.commits, lines.keeps) == (own, (one, two), {keep})
    assert Lines.of("\n") == Lines.of("") == Lines("", (), frozenset())


# -- parts of a model ------------------------------------------------------------------------------------------------


def test_parameters_need_their_own_objects_alone(model: Repo) -> None:
    manifest = model.manifest(NAME)
    everything = digests(list(manifest.needs()))
    packs = {str(stored.oid) for stored in manifest.objects if stored.kind == "pack"}
    parts = [digests(needs_of(manifest, [name])) for name in ("h0", "h1", "h2")]
    assert all(len(part) == 1 and not part & packs for part in parts)
    assert set.union(*parts) | packs == everything
    assert digests(needs_of(manifest, ["b"])) == packs
    assert digests(needs_of(manifest, ["h*"])) == set.union(*parts)
    assert digests(needs_of(manifest, [])) == everything
    assert needs_of(manifest, ["none"]) == []


def test_an_encoded_parameter_needs_its_bases(model: Repo) -> None:
    model.write(NAME, {name: values + np.float32(2**-12) for name, values in (STATE | SMALL).items()})
    model.commit()
    manifest = model.manifest(NAME)
    (entry,) = (entry for entry in manifest.entries if entry.name == "h1")
    line = next((stored for stored in manifest.objects if stored.rest[:1] == (entry.digest,)), None)
    expected = {str(line.oid), *line.rest[1:]} if line else {str(entry.digest)}
    assert expected <= digests(needs_of(manifest, ["h1"]))


def test_a_pattern_that_matches_nothing_is_an_error(model: Repo) -> None:
    with pytest.raises(ThetaError, match="no parameter matches x or y"):
        wanted(Repository(str(model.path)).models(), ["x", "y"])


# -- remotes ---------------------------------------------------------------------------------------------------------


def test_the_order_of_remotes(repo: Repo) -> None:
    git = Git(str(repo.path))
    assert remotes(git) == []
    for name in ("backup", "origin", "upstream"):
        repo.git("remote", "add", name, f"/nowhere/{name}")
    assert remotes(git) == ["origin", "backup", "upstream"]
    repo.git("config", "branch.main.remote", "upstream")
    assert remotes(git) == ["upstream", "origin", "backup"]
    assert remotes(git, "backup") == ["backup", "upstream", "origin"]
    repo.git("checkout", "--quiet", "--detach")
    assert remotes(git)[0] == "origin"


@pytest.mark.parametrize("key", ["theta.keepref", "remote.origin.thetakeepref"])
def test_keep_refs_can_be_refused(repo: Repo, key: str) -> None:
    git = Git(str(repo.path))
    assert keeping.wanted(git, "origin")
    repo.git("config", key, "false")
    assert not keeping.wanted(git, "origin")


def test_only_a_remote_with_a_name_can_be_remembered(repo: Repo) -> None:
    git = Git(str(repo.path))
    repo.git("remote", "add", "origin", "/nowhere")
    assert keeping.refuse(git, "origin")
    assert not keeping.refuse(git, "https://example.com/a.git")
    assert "example" not in Path(repo.path, ".git", "config").read_text()
