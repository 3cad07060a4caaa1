from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Once, Repo

from git_theta_btm.care.checkup import Finding, examine, repair
from git_theta_btm.git import Git
from git_theta_btm.remotes import hooks
from git_theta_btm.repository import Repository
from git_theta_btm.setup.install import install

STATE = {"w": np.arange(40_000, dtype="<f4")}
NAME = "model.safetensors"


def sound(repo: Repo) -> None:
    install(Repository(str(repo.path)).git, "local")
    repo.write(NAME, STATE)
    repo.write("empty.safetensors", b"")
    repo.commit()


@pytest.fixture
def repo(repo: Repo, once: Once) -> Repo:
    """A repository with nothing wrong in it."""
    return once(repo, sound)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in findings]


def check(repo: Repo, *expected: tuple[str, str], fixable: bool = False) -> None:
    """The findings are these, all fixable or none, and a repair leaves none or all."""
    findings = examine(Repository())
    assert codes(findings) == list(expected)
    assert {finding.fixable for finding in findings} == {fixable}
    assert all(finding.message and finding.remedy for finding in findings)
    repair(Repository(), findings)
    assert codes(examine(Repository())) == ([] if fixable else list(expected))


def make_stub(repo: Repo) -> None:
    (repo.path / NAME).unlink()
    repo.run("checkout", "--", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})


def test_nothing_is_wrong(repo: Repo) -> None:
    assert examine(Repository()) == []


def test_a_clone_without_configuration(repo: Repo) -> None:
    for section in ("filter.theta", "merge.theta", "merge.theta-ours"):
        repo.git("config", "--remove-section", section)
    check(repo, ("not-installed", ""), fixable=True)


def test_a_merge_driver_that_is_missing(repo: Repo) -> None:
    repo.git("config", "--unset", "merge.theta.driver")
    check(repo, ("key-missing", "merge.theta.driver"), fixable=True)


def test_a_foreign_filter(repo: Repo) -> None:
    repo.git("config", "filter.theta.clean", "git-theta-filter clean %f")
    check(repo, ("key-foreign", "filter.theta.clean"))


def test_a_program_that_is_gone(repo: Repo) -> None:
    repo.git("config", "filter.theta.smudge", "/gone/git-theta-filter smudge -- %f")
    check(repo, ("program-missing", "filter.theta.smudge"), fixable=True)


def test_without_git_lfs(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.git("config", "alias.none", "status")
    program = tmp_path / "bin" / "git-lfs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    check(repo, ("lfs-missing", ""))


def test_a_stub_whose_objects_are_here(repo: Repo) -> None:
    before = repo.sha(NAME)
    make_stub(repo)
    check(repo, ("stub", NAME), fixable=True)
    assert repo.sha(NAME) == before
    assert repo.status() == ""


@pytest.mark.parametrize(("stub", "code"), [(True, "objects-missing"), (False, "objects-lost")])
def test_objects_that_are_missing(repo: Repo, *, stub: bool, code: str) -> None:
    if stub:
        make_stub(repo)
    Path(repo.store.path(next(repo.manifest(NAME).needs()).digest)).unlink()
    check(repo, (code, NAME))


def test_a_file_that_was_committed_as_it_is(repo: Repo) -> None:
    repo.write("old.model", b"weights")
    repo.commit()
    with (repo.path / ".gitattributes").open("a") as file:
        file.write("*.model filter=theta merge=theta -text\n")
    check(repo, ("plain-blob", "old.model"))
    repo.git("add", "--renormalize", "old.model")
    assert examine(Repository()) == []


def stage(repo: Repo, data: bytes) -> None:
    """Put a blob into the index that the filter would not let in."""
    oid = repo.run("hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()
    repo.git("update-index", "--cacheinfo", f"100644,{oid},{NAME}")


def test_conflict_markers(repo: Repo) -> None:
    stage(repo, repo.blob(NAME) + b"<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    check(repo, ("conflict-markers", NAME))


def test_a_broken_manifest(repo: Repo) -> None:
    stage(repo, repo.blob(NAME)[:-10])
    check(repo, ("manifest-broken", NAME))


def test_a_manifest_of_a_later_version_is_not_added_again(repo: Repo) -> None:
    stage(repo, repo.blob(NAME).replace(b"manifest 1:", b"manifest 2:"))
    check(repo, ("manifest-later", NAME))
    assert "--upgrade" in examine(Repository())[0].remedy


@pytest.mark.parametrize("attribute", ["text", "text=auto", "eol=crlf text", "ident", "working-tree-encoding=UTF-16"])
def test_attributes_that_translate(repo: Repo, attribute: str) -> None:
    with (repo.path / ".git/info/attributes").open("w") as file:
        file.write(f"{NAME} {attribute}\n")
    check(repo, ("translation", NAME))


def test_end_of_line_does_not_count_without_text(repo: Repo) -> None:
    (repo.path / ".git/info/attributes").write_text("*.safetensors eol=lf\n")
    assert examine(Repository()) == []


def test_no_merge_driver_in_the_attributes(repo: Repo) -> None:
    (repo.path / ".git/info/attributes").write_text(f"{NAME} !merge\n")
    check(repo, ("merge-attribute", NAME))


def test_a_way_to_store_that_there_is_not(repo: Repo) -> None:
    (repo.path / ".git/info/attributes").write_text(f"{NAME} theta-store=small\n")
    assert examine(Repository()) == []
    (repo.path / ".git/info/attributes").write_text(f"{NAME} theta-store=bogus\n")
    check(repo, ("store-attribute", NAME))


def test_a_manifest_whose_attribute_is_gone(repo: Repo) -> None:
    repo.write("notes.txt", b"about\n" + repo.blob(NAME))
    repo.write("notes.md", repo.blob(NAME).splitlines()[0].split(b";")[0][1:])
    repo.git("add", ".")
    (repo.path / ".gitattributes").write_text("")
    check(repo, ("attribute-missing", NAME))


def test_what_killed_processes_left(repo: Repo) -> None:
    for name, age in (("old", 2 * 86400), ("new", 0)):
        file = repo.theta / "tmp" / name
        file.write_bytes(b"")
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    check(repo, ("temporary-files", str(repo.theta / "tmp")), fixable=True)
    assert os.listdir(repo.theta / "tmp") == ["new"]


def test_a_broken_catalogue(repo: Repo) -> None:
    path = repo.theta / "catalogue.sqlite3"
    path.write_bytes(b"no database" * 1000)
    check(repo, ("catalogue", str(path)), fixable=True)
    assert repo.status() == ""


def test_everything_at_once_is_repaired_at_once(repo: Repo) -> None:
    make_stub(repo)
    repo.git("config", "--remove-section", "filter.theta")
    (repo.theta / "catalogue.sqlite3").write_bytes(b"x" * 5000)
    findings = examine(Repository())
    assert {"key-missing", "stub", "catalogue"} <= {finding.code for finding in findings}
    repair(Repository(), findings)
    assert examine(Repository()) == []


def test_hooks_that_git_looks_for_elsewhere(repo: Repo, tmp_path: Path) -> None:
    """Without one a push brings no objects, without the other a merge leaves no record."""
    if Git().version() >= hooks.CONFIGURED:
        pytest.skip("this git has hooks in its configuration")
    repo.git("config", "core.hooksPath", str(tmp_path / "hooks"))
    names = [str(tmp_path / "hooks" / name) for name in ("pre-push", "prepare-commit-msg")]
    check(repo, *(("hook-missing", name) for name in names), fixable=True)
    for name in names:
        Path(name).write_text("#!/usr/bin/env python3\n")
    check(repo, *(("hook-foreign", name) for name in names))
    remedies = [finding.remedy for finding in examine(Repository())]
    assert "git theta pre-push" in remedies[0] and remedies[1].endswith('git theta prepare-commit-msg "$@"')
