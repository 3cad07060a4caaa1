"""What is beside the tensors of a file: the same in every save, whatever the tensors are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from safetensors.numpy import save

from git_theta_btm.merging.remainder import digest
from git_theta_btm.source import BytesSource

FORMATS = ["safetensors", "pt", "old pt", "npz", "h5"]


def saved(kind: str, number: int, note: str) -> bytes:
    """A model with weights by number and a note, as its library saves it."""
    weights = np.random.default_rng(number).standard_normal((90, 64), "f4")
    if kind == "safetensors":
        return bytes(save({"w": weights}, {"note": note}))
    file = io.BytesIO()
    if kind == "npz":
        np.savez(file, w=weights, note=np.array([note], dtype=object))
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(file, "w") as group:
            group.create_dataset("w", data=weights)
            group.attrs["note"] = note
    else:
        torch = pytest.importorskip("torch")
        state = {"w": torch.from_numpy(weights), "bias": torch.zeros(9), "note": note}
        torch.save(state, file, _use_new_zipfile_serialization=kind == "pt")
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_have_no_say_and_the_rest_has(kind: str) -> None:
    kept = [saved(kind, number, "one") for number in (1, 2, 3)]  # all of them live, so that no address is used twice
    assert len({digest(BytesSource(data)) for data in kept}) == 1
    assert digest(BytesSource(saved(kind, 1, "two"))) != digest(BytesSource(kept[0]))


def test_old_files_are_told_apart_by_which_storages_they_share() -> None:
    torch = pytest.importorskip("torch")

    def two(*, tied: bool) -> str:
        one = torch.ones(9)
        file = io.BytesIO()
        torch.save({"a": one, "b": one if tied else one.clone()}, file, _use_new_zipfile_serialization=False)
        return digest(BytesSource(file.getvalue()))

    assert two(tied=True) == two(tied=True)
    assert two(tied=True) != two(tied=False)
