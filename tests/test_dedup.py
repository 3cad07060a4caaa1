from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.care.dedup import Place, Share, Unsupported, dedup, plan
from git_theta_btm.cli.dedup import dedup as command
from git_theta_btm.errors import ThetaError
from git_theta_btm.filters.session import stat_key
from git_theta_btm.layout import Segment
from git_theta_btm.manifest import Blob, Digest
from git_theta_btm.repository import Repository

BLOCK = 4096
MEGA = 1 << 18  # elements: a mebibyte


def state(**changes: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    model = {f"h{index}": random.integers(0, 1 << 32, MEGA, dtype="u4") for index in range(4)}
    return {name: values + np.uint32(changes.get(name, 0)) for name, values in model.items()}


@pytest.fixture(params=["btrfs", "xfs"])
def shared_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system on which files can share space."""
    mkfs = shutil.which(f"mkfs.{request.param}")
    image, directory = tmp_path / "image", tmp_path / str(request.param)
    if os.geteuid() != 0 or not mkfs or not shutil.which("mount"):
        pytest.skip(f"only root can mount a new file system, and only where there is a mkfs.{request.param}")
    with image.open("wb") as file:
        file.truncate(320 << 20)  # the least that xfs takes
    directory.mkdir()
    made = subprocess.run([mkfs, "-q", str(image)], capture_output=True)
    if made.returncode or subprocess.run(["mount", "-o", "loop", image, directory], capture_output=True).returncode:
        pytest.skip(f"{request.param} cannot be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def roomy(shared_disk: Path, template: Path) -> Repo:
    """A repository there."""
    return Repo(Path(shutil.copytree(template, shared_disk / "repo", symlinks=True)))


def taken(path: Path) -> int:
    """Bytes in use on a file system."""
    os.sync()
    disk = os.statvfs(path)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def shared(repo: Repo, *paths: str) -> dict[str, int]:
    outcomes = dedup(Repository(str(repo.path)), [str(repo.path / path) for path in paths])
    assert not any(outcome.problem for outcome in outcomes)
    return {outcome.path: outcome.shared for outcome in outcomes}


# -- where it works --------------------------------------------------------------------------------------------------


def test_two_worktrees_share_what_their_models_have_in_common(roomy: Repo, tmp_path: Path) -> None:
    repo, other = roomy, Repo(roomy.path.parent / "other")
    repo.write("m.safetensors", state())
    repo.commit()
    repo.git("worktree", "add", "--quiet", "-b", "expert", str(other.path))
    other.write("m.safetensors", state(h1=1))
    other.commit()
    files = [repo.path / "m.safetensors", other.path / "m.safetensors"]
    before = [(stat_key(os.stat(file)), file.read_bytes()) for file in files]
    used = taken(repo.path)
    found = shared(other)["m.safetensors"]
    assert 3 * (4 * MEGA - 2 * BLOCK) <= found <= 3 * 4 * MEGA
    if roomy.path.parent.name == "xfs":  # btrfs frees an extent, which may be the whole file, when nobody has any of it
        assert used - taken(repo.path) > found - (512 << 10)  # less what the file system writes of its own
    assert [(stat_key(os.stat(file)), file.read_bytes()) for file in files] == before
    assert repo.status() == other.status() == ""
    assert shared(other)["m.safetensors"] == found  # once more is no harm
    with files[0].open("r+b") as file:
        file.seek(MEGA)
        file.write(b"changed")
    assert files[1].read_bytes() == before[1][1]


def test_raw_objects_are_shared_where_the_blocks_meet(roomy: Repo) -> None:
    (roomy.path / ".gitattributes").write_text("*.dat filter=theta theta-store=raw\n")
    roomy.write("opaque.dat", np.random.default_rng(1).bytes(3 << 20))
    roomy.commit()
    first, *others = roomy.manifest("opaque.dat").chunks
    assert all(sum(chunk.size for chunk in (first, *others[:end])) % BLOCK for end in range(len(others)))
    size, oid = (roomy.path / "opaque.dat").stat().st_size, first.digest
    assert shared(roomy, "opaque.dat") == {"opaque.dat": first.size // BLOCK * BLOCK}
    (roomy.path / "opaque.dat").write_bytes(b"\0" * size)
    assert Digest.of(Path(roomy.store.path(oid)).read_bytes()) == oid


def test_only_what_is_the_same_is_shared(roomy: Repo) -> None:
    for name in ("a", "b"):
        roomy.write(f"{name}.safetensors", state())
    roomy.commit()
    file = roomy.path / "b.safetensors"
    modified = bytearray(file.read_bytes())
    modified[len(modified) // 2] ^= 1
    file.write_bytes(modified)
    whole = shared(roomy, "b.safetensors")["b.safetensors"]
    assert file.read_bytes() == modified and whole < len(modified) - BLOCK
    file.write_bytes(b"short")
    outcome = dedup(Repository(str(roomy.path)), [str(file)])[0]
    assert (outcome.problem, file.read_bytes()) == ("it is modified", b"short")


def test_the_command(roomy: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        roomy.write(f"dir/{name}.safetensors", state())
    roomy.commit()
    monkeypatch.chdir(roomy.path / "dir")
    assert command.main([], standalone_mode=False) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^b\.safetensors  4\.0 MiB  4\.0 MiB$", out, re.MULTILINE)
    assert err == "4.0 MiB in 2 files shared\n"
    assert command.main(["--json", "b.safetensors"], standalone_mode=False) == 0
    fields = json.loads(capsys.readouterr().out)
    assert [item["path"] for item in fields["files"]] == ["dir/b.safetensors"]
    os.truncate("a.safetensors", 3)
    (roomy.path / "dir/b.safetensors").write_bytes(roomy.blob("dir/b.safetensors"))  # a stub: nothing to share
    assert command.main([], standalone_mode=False) == 1
    assert "a.safetensors: it is modified: left alone" in capsys.readouterr().err


# -- where it does not -----------------------------------------------------------------------------------------------


def test_other_file_systems_are_one_line(repo: Repo, small_disk: Path) -> None:
    tmpfs = Repo(Path(shutil.copytree(repo.path, small_disk / "repo", symlinks=True)))
    tmpfs.write("m.safetensors", {"w": np.ones(30_000, "f4")})
    tmpfs.commit()
    with pytest.raises(Unsupported, match="btrfs and xfs") as caught:
        dedup(Repository(str(tmpfs.path)))
    assert caught.value.exit_code == 1
    assert tmpfs.status() == "" and list((tmpfs.theta / "tmp").iterdir()) == []


def test_a_path_without_models_is_an_error(repo: Repo) -> None:
    with pytest.raises(ThetaError, match="did not match"):
        dedup(Repository(str(repo.path)), ["frob"])


# -- what is planned -------------------------------------------------------------------------------------------------


def blob(word: int, size: int) -> Segment:
    return Segment(size, Blob(Digest.of(b"%d" % word), size))


def test_neighbours_in_one_file_are_one_run() -> None:
    pieces = [Segment(100, glue=b"g" * 100), blob(1, 5000), blob(2, 5000), blob(3, 5000)]
    places = {
        (Digest.of(b"1"), 100): Place("old", 100 + 4 * BLOCK),
        (Digest.of(b"2"), 5100 % BLOCK): Place("old", 5100 + 4 * BLOCK),
    }
    assert plan(pieces, places, BLOCK) == [Share(Place("old", 5 * BLOCK), BLOCK, BLOCK)]
    assert plan(pieces, {(Digest.of(b"1"), 101): Place("old", 101)}, BLOCK) == []
    assert plan([], {}, BLOCK) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=12), st.integers(0, 40))
def test_whatever_is_planned_is_whole_blocks_of_the_same_bytes(words: list[tuple[int, int]], shift: int) -> None:
    block, sizes = 8, {word: size for word, size in words}
    old = b"".join(bytes([word]) * sizes[word] for word in sorted(sizes))
    starts = dict(zip(sorted(sizes), np.cumsum([0, *(sizes[word] for word in sorted(sizes))]).tolist(), strict=False))
    places = {(Digest.of(b"%d" % word), at % block): Place("old", at) for word, at in starts.items()}
    pieces = [Segment(shift, glue=b"\xff" * shift)] if shift else []
    pieces += [blob(word, sizes[word]) for word, _ in words]
    new = b"\xff" * shift + b"".join(bytes([word]) * sizes[word] for word, _ in words)
    for share in plan(pieces, places, block):
        assert share.size > 0 and share.size % block == share.at % block == share.source.offset % block == 0
        start = share.source.offset
        assert old[start : start + share.size] == new[share.at : share.at + share.size]
