from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.changes import Change, count, diff
from git_theta_btm.manifest import Blob, Digest, Entry, Manifest, order
from git_theta_btm.tensor import Tensor

LAYOUT = Blob(Digest.of(b"layout"), 6)


def entry(name: str, value: int, *, tensor: str = "F32[2]", view: bool = False) -> Entry:
    return Entry(name, Tensor.parse(tensor), Digest.of(bytes([value])), view)


def manifest(values: dict[str, int]) -> Manifest:
    names = sorted(values, key=order)
    return Manifest("safetensors", 100, LAYOUT, tuple(entry(name, values[name]) for name in names))


def test_the_kind_follows_from_the_two_sides() -> None:
    old, new = entry("w", 1), entry("w", 2)
    kinds = [Change(*sides).kind for sides in ((None, new), (old, None), (old, new), (old, old), (None, None))]
    assert kinds == ["added", "removed", "changed", "same", "same"]


def test_another_shape_of_the_same_bytes_is_a_change() -> None:
    assert Change(entry("w", 1), entry("w", 1, tensor="F32[1,2]"))


def test_the_way_it_is_stored_is_no_change() -> None:
    assert not Change(entry("w", 1), entry("w", 1, view=True))


def test_changes_stand_in_natural_order() -> None:
    changes = diff(manifest({"h.10": 1, "h.2": 1, "same": 1}), manifest({"h.10": 2, "h.1": 1, "same": 1}))
    assert [(change.name, change.kind) for change in changes] == [
        ("h.1", "added"),
        ("h.2", "removed"),
        ("h.10", "changed"),
    ]
    assert count(changes) == {"changed": 1, "added": 1, "removed": 1}


versions = st.dictionaries(st.text("abc.012", min_size=1, max_size=4), st.integers(0, 3), max_size=6)


@given(versions, versions)
def test_applying_the_changes_gives_the_new_version(old: dict[str, int], new: dict[str, int]) -> None:
    before, after = manifest(old), manifest(new)
    result = {entry.name: entry for entry in before.entries}
    for change in diff(before, after):
        result.pop(change.name, None)
        result |= {change.name: change.new} if change.new else {}
    assert result == {entry.name: entry for entry in after.entries}


@given(versions)
def test_nothing_differs_from_itself(values: dict[str, int]) -> None:
    assert diff(manifest(values), manifest(values)) == []
    assert len(diff(None, manifest(values))) == len(diff(manifest(values), None)) == len(values)
