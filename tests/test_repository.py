from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Once, Repo
from safetensors.numpy import save

from git_theta_btm.errors import ManifestError, ThetaError
from git_theta_btm.repository import Repository, attributes, read_stub

STATE = {"w": np.arange(4, dtype="<f4")}
NAMES = ["m.safetensors", "dir/with space.safetensors", '-größe "q".safetensors']


def populated(repo: Repo) -> None:
    for name in NAMES:
        repo.write(name, STATE)
    repo.write("code.py", b"print()\n")
    repo.commit()


@pytest.fixture
def models(repo: Repo, once: Once) -> Repo:
    """A repository with models and another file."""
    return once(repo, populated)


def paths(found: list) -> list[str]:
    return sorted(model.path for model in found)


def test_models_are_what_has_the_filter(models: Repo) -> None:
    found = Repository().models()
    assert paths(found) == sorted(NAMES)
    assert all(model.manifest and model.manifest.format == "safetensors" for model in found)


def test_from_a_subdirectory(models: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.path / "dir")
    repository = Repository()
    assert paths(repository.models()) == paths(repository.models_of("HEAD")) == sorted(NAMES)
    assert paths(repository.models("with space.safetensors")) == [NAMES[1]]
    assert paths(repository.models_of("HEAD", "with space.safetensors")) == [NAMES[1]]
    assert repository.relative(NAMES[0]) == "../m.safetensors"


@pytest.mark.parametrize("way", ["GIT_WORK_TREE", "core.worktree"])
def test_from_outside_of_the_worktree(models: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """With paths as git itself takes and prints them there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    monkeypatch.setenv("GIT_DIR", os.path.relpath(models.path / ".git"))
    if way == "core.worktree":
        models.run("config", "core.worktree", "..", env={"GIT_DIR": ".git"})
    else:
        monkeypatch.setenv("GIT_WORK_TREE", os.path.relpath(models.path))
    repository = Repository()
    assert repository.root == str(models.path)
    assert paths(repository.models()) == paths(repository.models_of("HEAD")) == sorted(NAMES)
    assert paths(repository.models(NAMES[1])) == paths(repository.models_of("HEAD", NAMES[1])) == [NAMES[1]]
    assert repository.relative(NAMES[1]) == NAMES[1]
    stated = subprocess.run(["git", "theta", "status"], capture_output=True, text=True, check=False)
    assert (stated.returncode, stated.stderr) == (0, "")
    listed = subprocess.run(["git", "theta", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert len(listed.splitlines()) == len(NAMES) and listed.splitlines()[-1].endswith(f"  {NAMES[0]}")


def test_a_path_that_matches_no_model(models: Repo) -> None:
    for path in ("code.py", "nothing"):
        with pytest.raises(ThetaError, match=f"pathspec '{path}' did not match"):
            Repository().models(path)


def test_a_commit_has_the_attributes_that_it_had(models: Repo) -> None:
    (models.path / ".gitattributes").write_text("*.py filter=theta merge=theta -text\n")
    repository = Repository()
    assert paths(repository.models()) == ["code.py"]
    assert paths(repository.models_of("HEAD")) == sorted(NAMES)


def test_a_revision_that_is_none(models: Repo) -> None:
    for revision in ("nope", "HEAD~9", "-x", "--all", "HEAD:code.py", ""):
        with pytest.raises(ThetaError, match="no revision"):
            Repository().models_of(revision)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ThetaError, match="not a git repository"):
        Repository(str(tmp_path))


def test_a_bare_repository_has_models_in_commits_only(models: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", models.path, bare], check=True)
    repository = Repository(str(bare))
    assert repository.models() == []
    assert paths(repository.models_of("HEAD")) == sorted(NAMES)
    with pytest.raises(ThetaError, match="no worktree"):
        repository.worktree()


def test_a_linked_worktree_shares_the_store(models: Repo, tmp_path: Path) -> None:
    models.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked tree"))
    linked = Repository(str(tmp_path / "linked tree"))
    assert linked.store.root == Repository().store.root
    assert linked.worktree() == str(tmp_path / "linked tree")
    assert paths(linked.models()) == sorted(NAMES)


def test_gits_own_variables_are_obeyed(models: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.path / "dir")
    monkeypatch.setenv("GIT_DIR", "../.git")
    monkeypatch.setenv("GIT_WORK_TREE", "..")
    repository = Repository()
    assert repository.worktree() == str(models.path)
    assert paths(repository.models()) == sorted(NAMES)


def test_a_broken_manifest_is_told_from_none(models: Repo) -> None:
    models.git("config", "filter.theta.clean", "cat")
    models.write("m.safetensors", b"git-theta-btm manifest 1: cut short")
    models.write("new.safetensors", b"plain")
    models.git("add", ".")
    found = {model.path: model for model in Repository().models()}
    assert found["new.safetensors"].text is None and found["new.safetensors"].manifest is None
    with pytest.raises(ManifestError):
        assert found["m.safetensors"].manifest


def test_attributes(models: Repo) -> None:
    found = attributes(Repository().git, [*NAMES, "code.py"], "filter", "text")
    assert found["code.py"] == {"filter": "unspecified", "text": "unspecified"}
    assert all(found[name] == {"filter": "theta", "text": "unset"} for name in NAMES)


def test_missing_objects(models: Repo) -> None:
    repository = Repository()
    manifest = repository.models("m.safetensors")[0].manifest
    assert manifest and repository.missing(manifest) == []
    gone = next(manifest.needs())
    Path(repository.store.path(gone.digest)).unlink()
    assert repository.missing(manifest) == [gone]


def test_only_a_regular_file_is_a_stub(models: Repo, tmp_path: Path) -> None:
    text = models.blob("m.safetensors")
    stub = tmp_path / "stub"
    stub.write_bytes(text)
    (tmp_path / "link").symlink_to(stub)
    assert read_stub(str(stub)) == text
    for other in (tmp_path / "link", tmp_path, tmp_path / "missing", models.path / "m.safetensors"):
        assert read_stub(str(other)) is None


def test_a_pattern_with_a_slash_and_a_path(repo: Repo) -> None:
    """git's own pathspec of attributes finds none of these."""
    repo.write(".gitattributes", b"deep/**/*.safetensors filter=theta\n")
    repo.write("deep/er/model.safetensors", save({"w": np.zeros(4, np.float32)}))
    repo.write("deep/er/other.txt", b"text")
    repo.commit("deep")
    repository = Repository(str(repo.path))
    assert [found.path for found in repository.models("deep/er/model.safetensors")] == ["deep/er/model.safetensors"]
    assert [found.path for found in repository.models("deep")] == ["deep/er/model.safetensors"]
    assert "deep/er/model.safetensors" in [found.path for found in repository.models()]
    with pytest.raises(ThetaError, match=r"pathspec 'deep/er/other\.txt' did not match any model"):
        repository.models("deep/er/other.txt")
