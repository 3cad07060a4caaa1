"""Histories of models: small, right, clean in git's eyes, and unharmed by what is forgotten or broken on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.blobs import MAX_WORK, Blobs
from git_theta_btm.catalogue import Catalogue
from git_theta_btm.filters.encode import Candidate, offer
from git_theta_btm.manifest import Blob, Digest, is_manifest, loads
from git_theta_btm.tensor import DTYPES, Tensor
from git_theta_btm.updates import Span
from git_theta_btm.updates.linear import predict

MODEL = "model.safetensors"
COUNT = 2  # tensors of a model
SIZE = 1 << 20  # bytes of each; less than two megabytes of new tensors are not encoded at all

Floats = np.ndarray


def seed(number: int = 0) -> Floats:
    return np.random.default_rng(number).normal(0, 0.02, (COUNT, SIZE // 2)).astype("<f4")


def tuned(model: Floats, number: int, rate: float = 1e-4) -> Floats:
    """The model after some training."""
    return model + np.random.default_rng(number).normal(0, rate, model.shape).astype("<f4")


def bfloat16(model: Floats) -> list[bytes]:
    return [(row.view("<u4") >> 16).astype("<u2").tobytes() for row in model]


def container(tensors: Mapping[str, bytes], dtype: str = "BF16") -> bytes:
    """A safetensors file."""
    header, end = {}, 0
    for name, data in tensors.items():
        shape = [len(data) // DTYPES[dtype].size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def file_of(model: Floats) -> bytes:
    return container({f"h.{index}.weight": data for index, data in enumerate(bfloat16(model))})


def forget(repo: Repo) -> None:
    for file in repo.theta.glob("catalogue*"):
        file.unlink()


def kinds(repo: Repo, revision: str = "", path: str = MODEL) -> list[str]:
    return sorted(line.kind for line in repo.manifest(path, revision).objects)


def total(repo: Repo) -> int:
    return sum(repo.objects().values())


def check_all(repo: Repo) -> int:
    """No version is built on itself, or too high; returns how high the highest is."""
    listed = repo.git("rev-list", "--objects", "--all", "--reflog", "--indexed-objects").splitlines()
    highest = 0.0
    for oid in (line.split(" ")[0] for line in listed if line.endswith(".safetensors")):
        text = repo.run("cat-file", "blob", oid).stdout
        assert is_manifest(text)
        blobs = Blobs(loads(text).objects, repo.store)
        highest = max([highest, *map(blobs.work, blobs.lines)])
    assert highest <= MAX_WORK
    return int(highest)


def expect(repo: Repo, data: bytes, path: str = MODEL) -> None:
    assert repo.sha(path) == sha256(data).hexdigest()
    assert repo.status() == ""


# -- histories -------------------------------------------------------------------------------------------------------


def test_a_history_on_branches_takes_a_fraction_of_its_copies(repo: Repo) -> None:
    model, versions = seed(), {}
    for branch in ("main", "legal", "medical"):
        repo.git("checkout", "--quiet", "-B", branch, *(["main~2"] if branch != "main" else []))
        for step in range(5 if branch == "main" else 1):
            model = tuned(model, len(versions), 1e-5) if versions else model
            versions[f"{branch}-{step}"] = file_of(model)
            repo.write(MODEL, versions[f"{branch}-{step}"])
            repo.commit(f"{branch}-{step}")
            repo.git("tag", f"{branch}-{step}")
            assert repo.status() == ""
    assert total(repo) < 0.35 * sum(map(len, versions.values()))
    assert check_all(repo) == 5
    for name, data in random.Random(0).sample(sorted(versions.items()), 5):
        repo.git("checkout", "--quiet", name)
        expect(repo, data)
    assert repo.run("theta", "fsck").returncode == 0


class Forgetting:
    """A repository with three versions, tagged, whose catalogue is deleted before each step, or never."""

    def __init__(self, repo: Repo, *, forgetful: bool) -> None:
        self.repo, self.forgetful = repo, forgetful
        self.models = [file_of(seed()), *(file_of(tuned(seed(), number)) for number in (1, 2))]
        for number, data in enumerate(self.models):
            self.commit(data)
            repo.git("tag", f"v{number}")

    def add(self, data: bytes, path: str = MODEL) -> None:
        self.repo.write(path, data)
        self.git("add", "--all")

    def commit(self, data: bytes, path: str = MODEL) -> None:
        self.add(data, path)
        self.git("commit", "--quiet", "--message", "a commit")

    def git(self, *arguments: str) -> None:
        if self.forgetful:
            forget(self.repo)
        self.repo.git(*arguments)


@pytest.fixture(params=[False, True], ids=["remembered", "forgotten"])
def history(repo: Repo, request: pytest.FixtureRequest) -> Forgetting:
    return Forgetting(repo, forgetful=request.param)


def test_an_old_version_over_the_newest(repo: Repo, history: Forgetting) -> None:
    for number in (0, 1):
        history.add(history.models[number])
        assert repo.manifest(MODEL).digest == repo.manifest(MODEL, f"v{number}").digest
        if not history.forgetful:
            assert repo.git("rev-parse", f":{MODEL}") == repo.git("rev-parse", f"v{number}:{MODEL}")
        history.git("reset", "--quiet", "--hard")
        expect(repo, history.models[-1])
    history.commit(history.models[1])
    history.git("mv", MODEL, "renamed.safetensors")
    history.git("commit", "--quiet", "--message", "renamed")
    history.add(history.models[0], "renamed.safetensors")
    history.git("commit", "--quiet", "--amend", "--message", "renamed, and back to the first")
    expect(repo, history.models[0], "renamed.safetensors")
    check_all(repo)
    history.git("checkout", "--quiet", "v2")
    expect(repo, history.models[2])
    history.git("checkout", "--quiet", "main")
    expect(repo, history.models[0], "renamed.safetensors")


def test_a_rebase(repo: Repo, history: Forgetting) -> None:
    history.git("checkout", "--quiet", "-b", "notes", "v1")
    (repo.path / "notes.txt").write_text("notes")
    history.git("add", "notes.txt")
    history.git("commit", "--quiet", "--message", "notes")
    history.git("checkout", "--quiet", "-b", "side", "v1")
    history.commit(history.models[0])
    history.git("rebase", "--quiet", "notes")
    expect(repo, history.models[0])
    check_all(repo)
    for name, data in (("v1", history.models[1]), ("side", history.models[0])):
        history.git("checkout", "--quiet", name)
        expect(repo, data)
        (repo.path / MODEL).touch()
        if history.forgetful:
            forget(repo)
        assert repo.status() == ""


def test_a_random_walk(repo: Repo) -> None:
    """Few versions, added in any order on any branch, with a memory that fails at random."""
    chance = random.Random(1)
    models = [file_of(tuned(seed(), number)) for number in range(3)]
    for number in range(7):
        data = chance.choice(models)
        if chance.random() < 0.4:
            forget(repo)
        if number and chance.random() < 0.5:
            repo.git("checkout", "--quiet", "--detach", chance.choice(repo.git("tag").split()))
        if chance.random() < 0.3:
            forget(repo)
        repo.write(MODEL, data)
        repo.git("add", "--all")
        repo.git("commit", "--quiet", "--allow-empty", "--message", str(number))
        repo.git("tag", f"t{number}", "--annotate", "--message", sha256(data).hexdigest())
        assert repo.status() == ""
    forget(repo)
    for tag in repo.git("tag").split():
        repo.git("checkout", "--quiet", tag)
        assert repo.sha(MODEL) == repo.git("tag", "--list", "--format=%(contents:subject)", tag)
        assert repo.status() == ""
    check_all(repo)


def test_a_clone_without_the_objects_takes_a_new_model(repo: Repo, tmp_path: Path) -> None:
    """Everything that the last version was made of is missing: the next one is stored without it."""
    repo.write(MODEL, file_of(seed()))
    repo.commit()
    repo.git("clone", "--quiet", str(repo.path), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.git("theta", "install", "--local")
    assert is_manifest((clone.path / MODEL).read_bytes())
    data = file_of(tuned(seed(), 1))
    clone.write(MODEL, data)
    clone.commit()
    (clone.path / MODEL).unlink()
    clone.git("checkout", "--quiet", MODEL)
    expect(clone, data)


# -- sizes -----------------------------------------------------------------------------------------------------------


def test_a_few_rows_of_a_large_embedding(repo: Repo) -> None:
    rows = np.random.default_rng(0).normal(0, 0.02, (12_500, 1024)).astype("<f4")  # 51 MB
    repo.write(MODEL, container({"wte.weight": rows.tobytes()}, "F32"))
    repo.commit()
    before = total(repo)
    rows[[3, 4, 5000, 9999, 12_499]] += np.float32(0.5)
    sha = repo.write(MODEL, container({"wte.weight": rows.tobytes()}, "F32"))
    repo.commit()
    added = total(repo) - before
    assert added < 2 * 5 * 4096 + 4096
    assert kinds(repo).count("delta") == 1
    repo.git("checkout", "--quiet", "HEAD~")
    repo.git("checkout", "--quiet", "main")
    assert repo.sha(MODEL) == sha


def test_a_change_of_one_unit_in_the_last_place(repo: Repo) -> None:
    first = bytearray(container({"a": b"".join(bfloat16(seed())), "b": b"".join(bfloat16(seed(1)))}))
    repo.write(MODEL, bytes(first))
    repo.commit()
    before = total(repo)
    first[-4000] ^= 1
    sha = repo.write(MODEL, bytes(first))
    assert repo.status() == f" M {MODEL}"
    repo.commit()
    changed = [entry for entry in repo.manifest(MODEL).entries if entry not in repo.manifest(MODEL, "HEAD~").entries]
    assert [entry.name for entry in changed] == ["b"]
    assert total(repo) - before < 4096
    repo.git("checkout", "--quiet", "HEAD~")
    repo.git("checkout", "--quiet", "main")
    assert repo.sha(MODEL) == sha


def test_modes(repo: Repo) -> None:
    """``theta-store`` is obeyed for what is new, and nothing that is stored already changes when it is set."""
    sizes, stored = {}, {}
    for mode in ("raw", "fast", "small"):
        with (repo.path / ".gitattributes").open("a") as attributes:
            attributes.write(f"{mode}.safetensors theta-store={mode}\n")
        first = seed(len(stored))
        for number, model in enumerate([first, tuned(first, 6)]):
            data = container({f"{mode}.{index}": raw for index, raw in enumerate(bfloat16(model))})
            before = total(repo)
            repo.write(f"{mode}.safetensors", data)
            repo.commit(f"{mode} {number}")
            sizes[mode] = total(repo) - before
        stored[mode] = kinds(repo, path=f"{mode}.safetensors")
    assert stored["raw"] == ["pack"]
    assert "delta" in stored["fast"]
    assert "delta" in stored["small"]
    assert sizes["small"] <= sizes["fast"] < 0.6 * sizes["raw"]
    before = repo.objects()
    for mode in ("small", "fast", "raw"):
        (repo.path / ".gitattributes").write_text(f"*.safetensors filter=theta -text theta-store={mode}\n")
        for path in ("raw", "fast", "small"):
            (repo.path / f"{path}.safetensors").touch()
        assert repo.status() == " M .gitattributes"
    assert repo.objects() == before
    forget(repo)
    (repo.path / "small.safetensors").touch()
    assert repo.status() == " M .gitattributes"


# -- several processes, and one that dies ----------------------------------------------------------------------------


def test_two_processes_add_at_once(repo: Repo, tmp_path: Path) -> None:
    """Two worktrees encode different children of one parent at the same time, and then each other's."""
    repo.write(MODEL, file_of(seed()))
    repo.commit()
    repo.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    worktrees = [repo, Repo(tmp_path / "linked")]
    models = [file_of(tuned(seed(), number)) for number in (1, 2)]
    for turn in (0, 1):
        for index, one in enumerate(worktrees):
            one.write(MODEL, models[(index + turn) % 2])
        running = [subprocess.Popen(["git", "add", MODEL], cwd=one.path) for one in worktrees]
        assert [process.wait() for process in running] == [0, 0]
        for index, one in enumerate(worktrees):
            one.git("commit", "--quiet", "--message", "turn")
            (one.path / MODEL).unlink()
            one.git("checkout", "--quiet", MODEL)
            expect(one, models[(index + turn) % 2])
    assert list((repo.theta / "tmp").iterdir()) == []
    check_all(repo)


def test_an_encoding_add_is_killed(repo: Repo) -> None:
    base = np.random.default_rng(0).normal(0, 0.02, 5 << 20).astype("<f4")
    first = container({"a": base.tobytes()}, "F32")
    repo.write(MODEL, first)
    repo.commit()
    second = container({"a": (base + np.float32(1e-5)).tobytes()}, "F32")
    repo.write(MODEL, second)
    started = time.perf_counter()
    repo.git("hash-object", "--path", MODEL, MODEL)
    duration = time.perf_counter() - started
    kills, chance = 0, random.Random(0)
    for number in range(5):
        changed = container({"a": (base + np.float32(1e-5 * (number + 2))).tobytes()}, "F32")
        repo.write(MODEL, changed)
        killed = subprocess.Popen(["git", "add", MODEL], cwd=repo.path, start_new_session=True)
        try:
            killed.wait(chance.uniform(0.1, 0.9) * duration)
        except subprocess.TimeoutExpired:
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
            kills += 1
        (repo.path / ".git" / "index.lock").unlink(missing_ok=True)
        for oid in repo.store:
            assert sha256(Path(repo.store.path(oid)).read_bytes()).hexdigest() == oid
    assert kills >= 2
    repo.git("reset", "--quiet", "--hard")
    expect(repo, first)
    repo.write(MODEL, second)
    repo.commit()
    repo.git("checkout", "--quiet", "HEAD~")
    expect(repo, first)
    repo.git("checkout", "--quiet", "main")
    expect(repo, second)


# -- what rots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["dense", "delta"])
@pytest.mark.parametrize("remembered", [True, False])
def test_a_flipped_bit_is_noticed_and_named(repo: Repo, which: str, remembered: bool) -> None:  # noqa: FBT001
    first, second = file_of(seed()), file_of(tuned(seed(), 1))
    for data in (first, second):
        repo.write(MODEL, data)
        repo.commit()
    manifest = repo.manifest(MODEL)
    delta = next(line for line in manifest.objects if line.kind == "delta")
    base = next(line for line in manifest.objects if line.kind == "dense" and line.rest[0] == delta.rest[1])
    (owner,) = (entry.name for entry in manifest.entries if entry.digest == delta.rest[0])
    broken = delta if which == "delta" else base
    path = Path(repo.store.path(broken.oid))
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:5000] + bytes([good[5000] ^ 16]) + good[5001:])
    if not remembered:
        forget(repo)
    (repo.path / MODEL).unlink()
    done = repo.run("checkout", "--quiet", MODEL)
    (line,) = done.stderr.decode().splitlines()
    assert f"object {broken.oid} is corrupt" in line
    if which == "delta":
        assert f"parameter {owner}: " in line
    assert (repo.path / MODEL).read_bytes() == repo.blob(MODEL)
    assert repo.status() == ""
    path.write_bytes(good)
    (repo.path / MODEL).unlink()
    repo.git("checkout", "--quiet", MODEL)
    expect(repo, second)


# -- a merge that knows how it came about ----------------------------------------------------------------------------


def test_a_merge_of_three_costs_next_to_nothing(repo: Repo) -> None:
    repo.write(MODEL, file_of(seed()))
    repo.commit()
    experts = [tuned(seed(), number, 1e-3) for number in (1, 2, 3)]
    for number, expert in enumerate(experts):
        repo.git("checkout", "--quiet", "-b", f"expert{number}", "main")
        repo.write(MODEL, file_of(expert))
        repo.commit()
    repo.git("checkout", "--quiet", "-b", "merged", "main")
    before = total(repo)
    parameters = {"dtype": "BF16", "weights": [(1 / 3).hex()] * 3}
    manifests = [repo.manifest(MODEL, f"expert{number}") for number in range(3)]
    blobs = Blobs([line for manifest in manifests for line in manifest.objects], repo.store)
    tensors, catalogue = {}, Catalogue(str(repo.theta / "catalogue.sqlite3"))
    for rows in zip(*(manifest.entries for manifest in manifests), strict=True):
        bases = tuple(Blob(Digest(row.digest), row.tensor.nbytes) for row in rows)
        with ExitStack() as stack:
            sources = [stack.enter_context(blobs.open(base.digest)) for base in bases]
            data = predict(Span(0, SIZE, 2), sources, parameters).tobytes()
        tensor = Tensor(DTYPES["BF16"], (SIZE // 2,))
        offer(data, tensor, Candidate("linear", bases, parameters), blobs, (repo.store, catalogue))
        tensors[rows[0].name] = data
    catalogue.close()
    merged = container(tensors)
    repo.write(MODEL, merged)
    repo.commit("merged")
    assert total(repo) - before < 0.01 * len(merged)
    assert kinds(repo).count("linear") == COUNT
    forget(repo)
    repo.git("checkout", "--quiet", "main")
    repo.git("checkout", "--quiet", "merged")
    expect(repo, merged)
    assert repo.run("theta", "fsck").returncode == 0
    mean = sum(experts) / 3
    (first, *_) = tensors.values()
    found = (np.frombuffer(first, "<u2").astype("<u4") << 16).view("<f4")
    assert np.allclose(found, mean[0], atol=1e-3)
