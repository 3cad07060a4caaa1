"""Which module answers for a kind of object."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from git_theta_btm.errors import ObjectError
from git_theta_btm.planes import Values
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import BUILT_IN, Span, load

PLUG_IN = """
def predict(span, bases, parameters):
    import numpy as np
    from git_theta_btm.planes import TYPES
    return ~np.frombuffer(bases[0].read(span.offset, span.size), TYPES[span.width])
"""


def install(directory: Path, module: str, code: str, point: str) -> None:
    """What installing a package leaves behind."""
    (directory / f"{module}.py").write_text(code)
    metadata = directory / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[git_theta_btm.updates]\n{point}\n")


@pytest.mark.parametrize("kind", BUILT_IN)
def test_built_in_updates_predict(kind: str) -> None:
    assert callable(load(kind).predict)


@pytest.mark.parametrize(
    "kind", ["", "this", "os", "../delta", "..planes", ".delta", "delta.predict", "__init__", "Delta", "x" * 9999]
)
def test_a_kind_that_is_none_imports_nothing(kind: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ObjectError, match="plug-in"):
        load(kind)
    imported = set(sys.modules) - before
    assert "this" not in imported
    assert not [name for name in imported if name.startswith("git_theta_btm")]


def test_a_plug_in_is_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "theta_inverted", PLUG_IN, "inverted = theta_inverted")
    monkeypatch.syspath_prepend(tmp_path)
    values: Values | None = load("inverted").predict(Span(0, 4, 1), [BytesSource(b"\0\1\xfe\xff")], {})
    assert np.array_equal(values, [255, 254, 1, 0])


@pytest.mark.parametrize("point", ["broken = theta_absent", "broken = theta_empty:nothing"])
def test_a_plug_in_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    install(tmp_path, "theta_empty", "", point)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ObjectError, match="broken"):
        load("broken")


def test_a_plug_in_never_stands_in_for_a_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "theta_other", PLUG_IN, "delta = theta_other")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("delta").__name__ == "git_theta_btm.updates.delta"  # type: ignore[attr-defined]
