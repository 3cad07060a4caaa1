"""Sealed surroundings, and a real Git repository to work in.

No test sees the configuration, identity, locale or Git variables of whoever runs it, and none leaves anything behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, settings

from git_theta_btm.manifest import Manifest, loads
from git_theta_btm.store import DiskStore

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")

State = Mapping[str, Any]  # tensors as NumPy arrays by name


def surroundings(home: Path) -> dict[str, str]:
    """The environment that tests run in: the caller's, without whatever steers Git or changes its words."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "LC_", "XDG_", "EMAIL"))}
    return kept | {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_EDITOR": "true",
        "GIT_AUTHOR_NAME": "A. U. Thor",
        "GIT_AUTHOR_EMAIL": "author@example.com",
        "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
        "GIT_COMMITTER_NAME": "C. O. Mitter",
        "GIT_COMMITTER_EMAIL": "committer@example.com",
        "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
    }


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, in the sealed environment that every test runs in."""
    directory = tmp_path_factory.mktemp("home")
    sealed = surroundings(directory)
    for name in os.environ.keys() - sealed.keys():
        monkeypatch.delenv(name)
    for name, value in sealed.items():
        monkeypatch.setenv(name, value)
    return directory


class Repo:
    """A repository with a worktree whose models go through the filters."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def theta(self) -> Path:
        return self.path / ".git" / "theta"

    @property
    def store(self) -> DiskStore:
        return DiskStore(str(self.theta))

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        check: bool = True,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git; ``env`` is added to the environment."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path / cwd,
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, **(env or {})},
        )
        if check and done.returncode:
            raise AssertionError(f"git {' '.join(arguments)}: {done.returncode}\n{os.fsdecode(done.stderr)}")
        return done

    def git(self, *arguments: str) -> str:
        """git's output without its last newline; the test fails if git does."""
        return os.fsdecode(self.run(*arguments).stdout).removesuffix("\n")

    def write(self, path: str, content: bytes | State) -> str:
        """Write bytes, or tensors as safetensors, and return the file's SHA-256."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            from safetensors.numpy import save

            content = save(dict(content), {"format": "pt"})
        file.write_bytes(content)
        return self.sha(path)

    def sha(self, path: str) -> str:
        return sha256((self.path / path).read_bytes()).hexdigest()

    def status(self) -> str:
        return self.git("status", "--porcelain")

    def commit(self, message: str = "a commit") -> str:
        """Commit everything, and return the commit's name."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def blob(self, path: str, revision: str = "") -> bytes:
        """What is staged (or committed in ``revision``) at ``path``."""
        return self.run("cat-file", "blob", f"{revision}:{path}").stdout

    def manifest(self, path: str, revision: str = "") -> Manifest:
        return loads(self.blob(path, revision))

    def objects(self) -> dict[str, int]:
        """Sizes in bytes of all objects in the store, by object id."""
        return {str(oid): self.store.size(oid) or 0 for oid in self.store}


SUFFIXES = ("safetensors", "pt", "bin", "npz", "npy", "gguf", "h5", "dat")


Once: TypeAlias = Callable[[Repo, Callable[[Repo], None]], Repo]


def install(repo: Repo) -> None:
    """Set the filters up, and track models."""
    repo.git("theta", "install", "--local")
    repo.git("theta", "track", *(f"*.{suffix}" for suffix in SUFFIXES))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the filters set up and one commit, made once and copied for each test."""
    directory = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(directory).items():
            patch.setenv(name, value)
        repo = Repo(directory / "repo")
        repo.path.mkdir()
        repo.git("init", "--quiet", "--initial-branch=main")
        install(repo)
        repo.commit("attributes")
    return repo.path


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Repo:
    """A fresh repository on branch ``main`` that tracks models."""
    return Repo(Path(shutil.copytree(template, tmp_path / "repo", symlinks=True)))


@pytest.fixture(scope="module")
def built() -> list[Path]:
    """What the first test of a file built, for the others to copy: each filter call takes a tenth of a second."""
    return []


@pytest.fixture
def once(built: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Once:
    """For a file's own fixture: a repository that is built for its first test; each test works in a copy."""

    def copied(repo: Repo, build: Callable[[Repo], None]) -> Repo:
        if not built:
            build(repo)
            built.append(repo.path)
        copy = Repo(Path(shutil.copytree(built[0], tmp_path / "copy")))
        monkeypatch.chdir(copy.path)
        return copy

    return copied


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, which soon is full."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a file system of a few megabytes")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
