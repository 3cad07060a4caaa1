from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

MODEL = {f"h.{index}": np.full(10_000, index, "f4") for index in range(3)}


def run(
    repo: Repo, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a filter as git would, but with nothing open."""
    return subprocess.run(
        ["git-theta-filter", *arguments],
        cwd=repo.path,
        input=stdin,
        capture_output=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return done.stderr.decode().splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["clean"], ["smudge"], ["clean", "--"], ["clean", "a", "b"], ["clean", "--skip", "a"], ["frob", "a"],
        ["--help"], ["clean", "--", "a", "b"], ["smudge", "--skip"], ["", "a"], ["clean", ""],
    ],
)  # fmt: skip
def test_usage_errors(repo: Repo, arguments: list[str]) -> None:
    done = run(repo, *arguments)
    assert done.returncode == 129
    assert done.stdout == b""
    assert lines(done) == ["usage: git-theta-filter (clean | smudge [--skip]) [--] <path>"]


@pytest.mark.parametrize("path", ["--", "-x", "a b", "ü/ö", "--skip", "clean", "new\nline"])
def test_paths_of_any_kind(repo: Repo, path: str) -> None:
    text = run(repo, "clean", "--", path, stdin=b"some bytes")
    assert (text.returncode, text.stderr) == (0, b"")
    file = run(repo, "smudge", "--", path, stdin=text.stdout)
    assert (file.returncode, file.stdout, file.stderr) == (0, b"some bytes", b"")


def test_a_path_that_is_no_text(repo: Repo) -> None:
    path = os.fsdecode(b"caf\xe9.dat")
    text = run(repo, "clean", "--", path, stdin=b"some bytes")
    assert (text.returncode, text.stderr) == (0, b"")
    assert run(repo, "smudge", "--", path, stdin=text.stdout).stdout == b"some bytes"


@pytest.mark.parametrize("value", ["1", "true", "yes", "on", "TRUE"])
def test_smudging_can_be_skipped(repo: Repo, value: str) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    done = run(repo, "smudge", "x", stdin=text, env={"GIT_THETA_SKIP_SMUDGE": value})
    assert (done.returncode, done.stdout, done.stderr) == (0, text, b"")
    assert run(repo, "smudge", "--skip", "x", stdin=text).stdout == text


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off", "False"])
def test_smudging_is_not_skipped_by_a_false_value(repo: Repo, value: str) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    assert run(repo, "smudge", "x", stdin=text, env={"GIT_THETA_SKIP_SMUDGE": value}).stdout == b"some bytes"


def test_skipping_has_no_say_in_cleaning(repo: Repo) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    assert run(repo, "clean", "x", stdin=b"some bytes", env={"GIT_THETA_SKIP_SMUDGE": "1"}).stdout == text


@pytest.mark.parametrize("verb", ["clean", "smudge"])
def test_an_empty_file_stays_empty(repo: Repo, verb: str) -> None:
    done = run(repo, verb, "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "data", [b"x", b"git-theta-btm", b"git-theta-btm manifest", bytes(3_000_000), b"\xff" * 70_000]
)
def test_what_is_no_manifest_passes_through_smudge(repo: Repo, data: bytes) -> None:
    done = run(repo, "smudge", "x", stdin=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


@pytest.mark.parametrize("verb", ["clean", "smudge"])
def test_a_manifest_of_a_later_version_is_never_taken_for_a_file(repo: Repo, verb: str) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    later = text.replace(b"manifest 1: a model", b"manifest 12: what is to come")
    done = run(repo, verb, "x", stdin=later)
    assert (done.returncode, done.stdout) == ((1, b"") if verb == "clean" else (0, later))
    (line,) = lines(done)
    assert line.startswith("theta: x: a manifest that needs a newer git-theta-btm: pip install --upgrade")


def test_a_manifest_passes_through_clean(repo: Repo) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    assert run(repo, "clean", "y", stdin=text).stdout == text


@pytest.mark.parametrize("tail", [b"\n", b"more", b"\0" * 100_000])
def test_a_manifest_with_more_behind_it_is_an_error(repo: Repo, tail: bytes) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    done = run(repo, "clean", "x", stdin=text + tail)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = lines(done)
    assert line.startswith("theta: x: ")
    assert "manifest" in line or "line" in line


def test_conflict_markers_are_one_line_and_an_error(repo: Repo) -> None:
    text = run(repo, "clean", "x", stdin=b"some bytes").stdout
    first, rest = text.split(b"\n", 1)
    marked = first + b"\n<<<<<<< HEAD\n" + rest + b"=======\n" + rest + b">>>>>>> legal\n"
    done = run(repo, "clean", "x", stdin=marked)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = lines(done)
    assert "conflict markers" in line
    assert "git checkout --ours|--theirs -- x" in line
    left = run(repo, "smudge", "x", stdin=marked)
    assert (left.returncode, left.stdout, len(lines(left))) == (0, marked, 1)


def test_outside_of_a_repository(tmp_path: Path) -> None:
    done = subprocess.run(
        ["git-theta-filter", "clean", "x"], cwd=tmp_path, input=b"x", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr == b"theta: x: not in a git repository\n"


def test_a_message_cannot_steer_a_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        ["git-theta-filter", "clean", "a\x1b[31m\nb\u202e"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.stderr == b"theta: a\\x1b[31m\\nb\\u202e: not in a git repository\n"


def test_a_missing_object_leaves_a_stub(repo: Repo) -> None:
    repo.write("m.safetensors", MODEL)
    repo.commit()
    text, missing = repo.blob("m.safetensors"), repo.manifest("m.safetensors").entries[1]
    os.unlink(repo.store.path(missing.digest))
    done = run(repo, "smudge", "m.safetensors", stdin=text)
    assert (done.returncode, done.stdout) == (0, text)
    (line,) = lines(done)
    assert "m.safetensors" in line
    assert "h.1" in line
    assert missing.digest in line


@pytest.mark.parametrize("whose", ["h.1", "pack"])
@pytest.mark.parametrize("remembered", [True, False])
def test_a_flipped_bit_leaves_a_stub(repo: Repo, whose: str, remembered: bool) -> None:  # noqa: FBT001
    repo.write("m.safetensors", MODEL)
    repo.commit()
    manifest = repo.manifest("m.safetensors")
    oid = manifest.entries[1].digest if whose == "h.1" else manifest.objects[0].oid
    path = Path(repo.store.path(oid))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    if not remembered:
        for file in repo.theta.glob("catalogue*"):
            file.unlink()
    done = run(repo, "smudge", "m.safetensors", stdin=manifest.dumps())
    assert (done.returncode, done.stdout) == (0, manifest.dumps())
    (line,) = lines(done)
    owner = "parameter h.1" if whose == "h.1" else "layout"  # which alone is in the pack
    assert f"m.safetensors: {owner}: " in line
    assert oid in line


def test_an_object_that_is_a_directory_leaves_a_stub(repo: Repo) -> None:
    repo.write("m.safetensors", MODEL)
    repo.commit()
    text, entry = repo.blob("m.safetensors"), repo.manifest("m.safetensors").entries[1]
    os.unlink(repo.store.path(entry.digest))
    os.mkdir(repo.store.path(entry.digest))
    done = run(repo, "smudge", "m.safetensors", stdin=text)
    assert (done.returncode, done.stdout, len(lines(done))) == (0, text, 1)


def test_a_reader_that_goes_away(repo: Repo) -> None:
    repo.write("m.safetensors", {"w": np.zeros(1_000_000)})
    repo.commit()
    process = subprocess.Popen(
        ["git-theta-filter", "smudge", "m.safetensors"],
        cwd=repo.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(repo.blob("m.safetensors"))
    process.stdin.close()
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_a_store_that_cannot_be_written_is_one_line(repo: Repo) -> None:
    repo.theta.write_text("a file in the way")
    done = run(repo, "clean", "x", stdin=b"some bytes")
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = lines(done)
    assert line.startswith("theta: x: ")
    assert line.endswith("nothing was changed")


def test_two_at_once_on_the_same_new_content(repo: Repo) -> None:
    data = np.random.default_rng(0).bytes(20_000_000)
    (repo.path / "x").write_bytes(data)
    running = []
    for _ in range(3):
        with (repo.path / "x").open("rb") as file:
            running.append(
                subprocess.Popen(["git-theta-filter", "clean", "x"], cwd=repo.path, stdin=file, stdout=subprocess.PIPE)
            )
    texts = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(texts) == 1
    assert run(repo, "smudge", "x", stdin=texts.pop()).stdout == data
    assert list((repo.theta / "tmp").iterdir()) == []
