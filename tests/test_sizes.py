from __future__ import annotations

import shutil

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.care.sizes import Room, sizes
from git_theta_btm.errors import ThetaError
from git_theta_btm.repository import Repository


def weights(seed: int, count: int = 50_000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count, dtype="f4")


def by_name(rooms: list[Room]) -> dict[str, Room]:
    return {room.name: room for room in rooms}


@pytest.fixture
def history(repo: Repo) -> Repo:
    """A seed, an expert on a branch of its own with one of two matrices changed, and a copy of the seed on main."""
    seed = {"a": weights(1), "b": weights(2), "bias": np.ones(7, "f4")}
    repo.write("m.safetensors", seed)
    repo.commit("seed")
    repo.git("switch", "--quiet", "--create", "legal")
    repo.write("m.safetensors", {**seed, "b": weights(3)})
    repo.commit("expert")
    repo.git("switch", "--quiet", "main")
    repo.write("copy.safetensors", seed)
    repo.commit("copy")
    return repo


def test_total(history: Repo) -> None:
    (total,) = sizes(Repository(str(history.path)))
    size = (history.path / "m.safetensors").stat().st_size
    layout = history.manifest("m.safetensors").layout.size
    assert total.versions == 3
    assert total.logical == 3 * size
    assert total.copies == 2 * size  # the copy is the same file
    assert total.unique == 3 * 200_000 + 28 + layout
    assert total.stored == sum(history.objects().values())
    assert 0 < total.ratio < 1


def test_every_object_is_added_by_one_commit(history: Repo) -> None:
    *commits, total = sizes(Repository(str(history.path)), by="commit")
    assert sum(room.added for room in commits) == total.stored
    added = by_name(commits)
    assert added[history.git("rev-parse", "main")].added == 0
    assert 0 < added[history.git("rev-parse", "legal")].added < added[history.git("rev-parse", "main~1")].added


def test_branches_are_charged_for_what_no_other_has(history: Repo) -> None:
    rooms = by_name(sizes(Repository(str(history.path)), by="branch"))
    assert rooms["main"].added == 0
    assert rooms["legal"].added == rooms["total"].stored - rooms["main"].stored > 0
    assert rooms["legal"].stored == rooms["total"].stored
    assert (rooms["main"].versions, rooms["legal"].versions) == (2, 2)


def test_paths(history: Repo) -> None:
    rooms = by_name(sizes(Repository(str(history.path)), by="path"))
    assert rooms.keys() == {"copy.safetensors", "m.safetensors", "total"}
    assert rooms["copy.safetensors"].added == 0
    assert rooms["m.safetensors"].versions == 2


def test_parameters(history: Repo) -> None:
    rooms = by_name(sizes(Repository(str(history.path)), by="parameter"))
    assert list(rooms) == ["a", "b", "bias", "total"]
    assert rooms["a"].unique == 200_000
    assert rooms["b"].unique == 400_000
    assert rooms["bias"].stored == 28
    assert rooms["total"].stored == sum(history.objects().values())


def test_revisions_narrow_it_down(history: Repo) -> None:
    repository = Repository(str(history.path))
    assert sizes(repository, ["main~1"])[0].versions == 1
    assert sizes(repository, ["main~1..legal"])[0].versions == 1
    names = [room.name for room in sizes(repository, ["legal", "main~1"], by="branch")]
    assert names == ["legal", "main~1", "total"]
    with pytest.raises(ThetaError, match="frob"):
        sizes(repository, ["frob"])


def test_only_manifests_are_read(history: Repo) -> None:
    before = sizes(Repository(str(history.path)), by="commit")
    shutil.rmtree(history.theta)
    assert sizes(Repository(str(history.path)), by="commit") == before


def test_an_evil_merge_counts(history: Repo) -> None:
    history.git("merge", "--quiet", "--no-commit", "--no-ff", "legal")
    history.write("m.safetensors", {"b": weights(4)})
    merge = history.commit("merge")
    rooms = by_name(sizes(Repository(str(history.path)), by="commit"))
    assert rooms[merge].versions == 1
    assert rooms[merge].added > 0


def test_without_a_commit_there_is_nothing(repo: Repo) -> None:
    repo.git("update-ref", "-d", "HEAD")
    assert sizes(Repository(str(repo.path)), by="commit") == [Room("total")]
    assert Room("total").ratio == 1
