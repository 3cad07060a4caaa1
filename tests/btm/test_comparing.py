"""What training changed, against NumPy's own sums."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from git_theta_btm.btm.cli.compare import compare as command
from git_theta_btm.btm.comparing import By, Comparison, compare
from git_theta_btm.btm.opening import open_model
from git_theta_btm.errors import CorruptObject

State = dict[str, Any]


def between(folder: Path, one: State, other: State, by: By = "parameter") -> Comparison:
    save_file(one, folder / "one.safetensors")
    save_file(other, folder / "other.safetensors")
    with ExitStack() as stack:
        sides = [open_model(str(folder / f"{name}.safetensors"), stack) for name in ("one", "other")]
        return compare(sides[0].checkpoint, sides[1].checkpoint, by)


def model(seed: int) -> State:
    chance = np.random.default_rng(seed)
    names = ("h.0.a", "h.0.b", "h.1.a", "h.10.a", "wte.weight")
    return {name: chance.standard_normal((3, 5)).astype(np.float32) for name in names}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), dtype=st.sampled_from(["float32", "float16", "float64", "int32"]))
def test_numbers_are_those_of_numpy(tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: str) -> None:
    chance = np.random.default_rng(seed)
    one, other = ((chance.standard_normal((4, 9)) * 10).astype(dtype) for _ in range(2))
    (row,) = between(tmp_path_factory.mktemp("files"), {"w": one}, {"w": other}).rows
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    assert row.sums.changed == np.count_nonzero(a != b)
    assert row.l2 == pytest.approx(np.linalg.norm(a - b))
    assert row.sums.largest == np.abs(a - b).max()
    assert row.sums.absolute == pytest.approx(np.abs(a - b).sum())
    assert row.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    assert row.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_untouched_layers_are_zero(tmp_path: Path) -> None:
    one = model(1)
    other = one | {"h.1.a": one["h.1.a"] + np.float32(0.5)}
    found = between(tmp_path, one, other, "layer")
    assert [row.name for row in found.rows] == ["h.0", "h.1", "h.10", "wte"]
    told = {row.name: row for row in found.rows}
    assert (told["h.0"].parameters, told["h.0"].differing) == (2, 0)
    assert (told["h.0"].l2, told["h.0"].relative, told["h.0"].cosine) == (0, 0, 1)
    assert told["h.1"].sums.changed == 15
    assert told["h.1"].l2 == pytest.approx(0.5 * np.sqrt(15))
    assert (found.total.parameters, found.total.differing, found.total.elements) == (5, 1, 75)


def test_pairs_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    one = np.array([1, np.nan, 3, np.inf, 5], np.float32)
    other = np.array([2, 2, np.inf, np.inf, 5], np.float32)
    (row,) = between(tmp_path, {"w": one}, {"w": other}).rows
    assert (row.sums.skipped, row.sums.changed, row.l2, row.sums.largest) == (3, 1, 1, 1)


def test_what_has_no_numbers_in_common(tmp_path: Path) -> None:
    one: State = {"gone": np.zeros(1, np.float32), "shape": np.zeros((2, 2), np.float32)}
    other: State = {"new": np.zeros(1, np.float32), "shape": np.zeros(4, np.float32)}
    found = between(tmp_path, one, other)
    assert (found.added, found.removed) == (("new",), ("gone",))
    assert found.total.incomparable == 3
    assert all(row.values()["l2"] == 0 for row in found.rows)


def test_two_precisions_are_compared(tmp_path: Path) -> None:
    one = model(3)["h.0.a"]
    (row,) = between(tmp_path, {"w": one}, {"w": one.astype(np.float16)}).rows
    assert row.incomparable == 0
    assert 0 < row.relative < 1e-3


def test_only_what_differs_is_read(tmp_path: Path) -> None:
    """A file that changes after its digests were taken is noticed where it is read, and only there."""
    one = model(1)
    other = one | {"h.1.a": one["h.1.a"] * 2}
    for name, content in {"one": one, "other": other}.items():
        save_file(content, tmp_path / f"{name}.safetensors")
    with ExitStack() as stack:
        sides = [open_model(str(tmp_path / f"{name}.safetensors"), stack) for name in ("one", "other")]
        path = tmp_path / "other.safetensors"
        data = bytearray(path.read_bytes())
        start = data.index(other["h.0.a"].tobytes())
        data[start : start + 4] = b"\xff\xff\xff\x7f"
        path.write_bytes(data)
        assert compare(sides[0].checkpoint, sides[1].checkpoint, "layer").total.differing == 1
        start = data.index(other["h.1.a"].tobytes())
        data[start : start + 4] = b"\xff\xff\xff\x7f"
        path.write_bytes(data)
        with pytest.raises(CorruptObject, match=r"h\.1\.a"):
            compare(sides[0].checkpoint, sides[1].checkpoint, "layer")


def test_the_command(tmp_path: Path) -> None:
    save_file(model(1), tmp_path / "a.safetensors")
    save_file(model(2) | {"h.0.a": np.full((3, 5), np.nan, np.float32)}, tmp_path / "b.safetensors")
    files = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    run = CliRunner()
    told = json.loads(run.invoke(command, [*files, "--json"]).stdout)
    assert [row["name"] for row in told["rows"]] == ["h.0", "h.1", "h.10", "wte"]
    assert told["total"]["skipped"] == 15
    lines = run.invoke(command, [*files, "--by-parameter", "--csv"]).stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("name,parameters,differing")
    table = run.invoke(command, files).stdout.splitlines()
    assert table[0].split()[0] == "layer"
    assert table[-1].split()[0] == "total"
    assert run.invoke(command, [*files, "--csv", "--json"]).exit_code != 0
