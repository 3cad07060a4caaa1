from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.blobs import Blobs
from git_theta_btm.care.fsck import Options as Checks
from git_theta_btm.care.fsck import fsck
from git_theta_btm.care.repack import Options, Report, repack
from git_theta_btm.care.staging import own_size, restored
from git_theta_btm.errors import CorruptObject, ThetaError
from git_theta_btm.filters.places import Places
from git_theta_btm.repository import Repository
from git_theta_btm.store import Forgetful

SEED = "seed.safetensors"
EXPERT = "experts/legal.safetensors"
COUNT = 300_000  # elements of a matrix: a model of less than 2 MiB is never encoded


def model(noise: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Two matrices; a shift leaves them close to what they were."""
    generator = np.random.default_rng(0)
    drift = np.random.default_rng(noise)
    return {
        f"h.{index}.w": generator.standard_normal(COUNT, dtype="f4")
        + np.float32(shift) * drift.standard_normal(COUNT, dtype="f4")
        for index in range(2)
    }


@pytest.fixture
def experts(repo: Repo) -> Repo:
    """An expert under a path of its own, which no ``git add`` sees the seed of."""
    repo.write(SEED, model(0))
    repo.commit("seed")
    repo.write(EXPERT, model(1, 1e-5))
    repo.commit("expert")
    return repo


def run(repo: Repo, **fields: Any) -> Report:
    return repack(Repository(str(repo.path)), Options(**fields))


def sound(repo: Repo) -> bool:
    return not fsck(Repository(str(repo.path)), Checks()).problems


def test_a_better_base_is_found_under_another_path(experts: Repo) -> None:
    before, sha = experts.objects(), experts.sha(EXPERT)
    old = experts.manifest(EXPERT)
    report = run(experts, stage=True)
    assert report.staged == (EXPERT,)
    assert [item.parameter for item in report.repacked] == ["h.0.w", "h.1.w"]
    seeds = {entry.digest for entry in experts.manifest(SEED).entries}
    assert {item.base for item in report.repacked} == seeds
    assert all(item.after < 0.6 * item.before for item in report.repacked)
    assert before.items() <= experts.objects().items()  # nothing is deleted
    new = experts.manifest(EXPERT)
    assert new.digest == old.digest
    assert own_size(new) < 0.6 * own_size(old)
    assert experts.status() == f"M  {EXPERT}"
    assert experts.sha(EXPERT) == sha
    assert sound(experts)


def test_both_manifests_of_a_version_are_checked_out_clean(experts: Repo) -> None:
    sha = experts.sha(EXPERT)
    run(experts, stage=True)
    experts.git("commit", "--quiet", "--message", "smaller")
    for revision in ("HEAD~1", "main", "HEAD~2", "main"):
        experts.git("checkout", "--quiet", revision)
        assert experts.status() == ""
    assert experts.sha(EXPERT) == sha
    assert "object delta" in experts.blob(EXPERT, "main").decode()


def test_a_second_run_finds_nothing_more(experts: Repo) -> None:
    run(experts, stage=True)
    objects, staged = experts.objects(), experts.blob(EXPERT)
    report = run(experts, stage=True)
    assert (report.repacked, report.staged, report.tensors) == ((), (), 2 + 2)
    assert (experts.objects(), experts.blob(EXPERT)) == (objects, staged)


def test_what_an_earlier_run_made_is_staged_later(experts: Repo) -> None:
    first = run(experts)
    assert len(first.repacked) == 2 and first.staged == ()
    assert experts.status() == ""
    objects = experts.objects()
    second = run(experts, stage=True)
    assert (second.repacked, second.staged) == ((), (EXPERT,))
    assert objects.items() <= experts.objects().items()
    assert experts.status() == f"M  {EXPERT}"


def test_a_dry_run_only_estimates(experts: Repo) -> None:
    objects, index = experts.objects(), (experts.path / ".git/index").read_bytes()
    estimates = run(experts, dry_run=True, stage=True).repacked
    assert experts.objects() == objects
    assert (experts.path / ".git/index").read_bytes() == index
    results = run(experts).repacked
    for estimate, result in zip(estimates, results, strict=True):
        assert estimate.base == result.base
        assert estimate.after == pytest.approx(result.after, rel=0.1)


def test_raw_stays_raw(experts: Repo) -> None:
    with (experts.path / ".gitattributes").open("a") as file:
        file.write(f"{EXPERT} theta-store=raw\n")
    report = run(experts, stage=True, mode="small")
    assert not report.repacked and not report.staged


def test_paths(experts: Repo) -> None:
    assert not run(experts, paths=[SEED]).repacked
    assert len(run(experts, paths=[EXPERT], everything=True).repacked) == 2
    with pytest.raises(ThetaError, match="frob"):
        run(experts, paths=["frob"])


def test_every_version_of_every_branch(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    shas = []
    for name in ("a", "b", "c"):
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2024-01-02T00:00:0{'abc'.index(name)}Z")
        repo.git("switch", "--quiet", "--orphan", name)
        (repo.path / ".gitattributes").write_text("*.safetensors filter=theta -text\n")
        shas.append(repo.write(f"{name}.safetensors", model(ord(name), 1e-5)))
        repo.commit(name)
    assert not run(repo).repacked  # nothing else is in the history of HEAD
    report = run(repo, everything=True, mode="small")
    assert (len(report.repacked), report.tensors) == (4, 6)
    assert run(repo, everything=True, stage=True).staged == ("c.safetensors",)
    repo.git("commit", "--quiet", "--message", "smaller")
    assert sound(repo)
    for name, sha in zip("abc", shas, strict=True):
        repo.git("switch", "--quiet", name)
        assert (repo.sha(f"{name}.safetensors"), repo.status()) == (sha, "")


def test_no_chain_of_bases_leads_back_or_grows_long(repo: Repo) -> None:
    for step in range(8):
        repo.write(f"{step}.safetensors", model(step, 1e-5 * step))
        repo.commit()
    run(repo, stage=True)
    for step in range(8):
        blobs = Blobs(repo.manifest(f"{step}.safetensors").objects, repo.store)
        assert all(blobs.work(digest) <= 5 for digest in blobs.lines)
    assert sound(repo)


def test_a_stub_is_not_staged(experts: Repo) -> None:
    (experts.path / EXPERT).unlink()
    experts.run("checkout", "--", EXPERT, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    report = run(experts, stage=True)
    assert len(report.repacked) == 2 and report.staged == ()
    assert experts.status() == ""


def test_a_locked_index_leaves_all_as_it_was(experts: Repo) -> None:
    (experts.path / ".git/index.lock").touch()
    with pytest.raises(ThetaError, match=r"index\.lock"):
        run(experts, stage=True)
    (experts.path / ".git/index.lock").unlink()
    (experts.path / EXPERT).touch()
    assert experts.status() == ""


def test_a_corrupt_object_is_never_taken_as_a_source(experts: Repo) -> None:
    line = next(line for line in experts.manifest(EXPERT).objects if line.encoded)
    path = experts.store.path(line.oid)
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(line.size // 2)
        file.write(b"\xff\x00" * 64)
    with pytest.raises(CorruptObject, match="fsck"):
        run(experts, stage=True)
    assert experts.status() == ""


def test_missing_objects_are_left_out(experts: Repo) -> None:
    for line in experts.manifest(SEED).objects:
        if line.encoded:
            os.unlink(experts.store.path(line.oid))
    assert not run(experts, stage=True).repacked


def test_it_goes_on_after_it_was_killed(experts: Repo) -> None:
    count = len(experts.objects())
    command = [sys.executable, "-c", "from git_theta_btm.cli import main; main()", "repack"]
    with subprocess.Popen(command, cwd=experts.path) as process:
        deadline = time.monotonic() + 20
        while len(experts.objects()) == count and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert sound(experts)
    assert run(experts, stage=True).staged == (EXPERT,)
    assert sound(experts)


def test_small_encoded_objects_go_into_packs(repo: Repo) -> None:
    repo.write(SEED, model(0))
    repo.commit()
    state = model(0)
    state["h.1.w"] = state["h.1.w"].copy()
    state["h.1.w"][:3] = 0
    (repo.path / ".gitattributes").write_text("*.safetensors filter=theta -text theta-store=raw\n")
    repo.write(EXPERT, state)
    repo.commit()
    (repo.path / ".gitattributes").write_text("*.safetensors filter=theta -text\n")
    assert run(repo, stage=True).staged == (EXPERT,)
    manifest = repo.manifest(EXPERT)
    lines = [line for line in manifest.objects if line.packed]
    assert len(lines) == 1
    packs = Blobs(manifest.objects, repo.store).packed
    assert lines[0].oid in packs
    (repo.path / EXPERT).unlink()
    for line in lines:
        os.unlink(repo.store.path(line.oid))  # the pack alone is what a clone gets
    repo.git("checkout", "--", EXPERT)
    assert repo.sha(EXPERT) == repo.write("expected", repo.run("cat-file", "--filters", f":{EXPERT}").stdout)


def test_restored_is_the_manifest_where_nothing_changed(experts: Repo) -> None:
    memory = Forgetful()
    for path in (SEED, EXPERT):
        manifest = experts.manifest(path)
        places = Places(experts.store, memory, [manifest])
        assert restored(manifest, places, (experts.store, memory)) == manifest
