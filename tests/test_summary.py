from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save

from git_theta_btm.api import Checkpoint
from git_theta_btm.errors import CorruptObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.manifest import Blob, Digest, Entry, Manifest
from git_theta_btm.source import BytesSource
from git_theta_btm.store import Forgetful, MemoryStore
from git_theta_btm.summary import Statistics, chain, statistics
from git_theta_btm.tensor import DTYPES, Tensor


def checkpoint_of(**state: np.ndarray) -> Checkpoint:
    store = MemoryStore()
    return Checkpoint(clean(BytesSource(save(state)), store, Forgetful()), store)


@given(arrays("f4", st.tuples(st.integers(0, 6), st.integers(0, 6)), elements=st.floats(width=32)))
@settings(deadline=None, max_examples=100)
def test_statistics_are_those_of_numpy(values: np.ndarray) -> None:
    found = statistics(checkpoint_of(w=values), "w")
    finite = values[np.isfinite(values)].astype("f8")
    assert found.count == values.size
    assert found.nonfinite == values.size - finite.size
    if finite.size:
        assert (found.minimum, found.maximum) == (finite.min(), finite.max())
        assert found.zeros == int((finite == 0).sum())
        scale = float(np.abs(finite).max()) or 1.0
        assert found.mean == pytest.approx(finite.mean(), abs=1e-9 * scale)
        assert found.deviation == pytest.approx(finite.std(), abs=1e-9 * scale)
    else:
        assert found.minimum is None


def test_parts_are_joined() -> None:
    values = np.random.default_rng(0).normal(1e6, 1.0, (3000, 400))  # 9.6 MB, and a mean that would swamp its variance
    found = statistics(checkpoint_of(w=values), "w")
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(values.std(), rel=1e-9)


def test_scalars_and_complex_numbers() -> None:
    assert statistics(checkpoint_of(w=np.array(3, "i8")), "w") == Statistics(1, 0, 0, 3, 3, 3, 0)
    with pytest.raises(ThetaError, match="parameter w: complex"):
        statistics(checkpoint_of(w=np.ones(3, "c8")), "w")


def test_bytes_that_are_not_those_of_the_digest_have_no_statistics() -> None:
    store = MemoryStore()
    state = {"w": np.random.default_rng(0).integers(0, 255, 9_000_000, "u1")}  # in three parts
    checkpoint = Checkpoint(clean(BytesSource(save(state)), store, Forgetful()), store)
    assert statistics(checkpoint, "w").count == 9_000_000
    digest = checkpoint.entries["w"].digest
    store.objects[digest] = store.objects[digest][:-1] + b"\xff"
    with pytest.raises(CorruptObject, match="parameter w: its bytes have another SHA-256: run 'git theta fsck'"):
        statistics(checkpoint, "w")
    assert statistics(checkpoint, "w", 0, 2).count == 2  # a part has no digest


def test_numbers_in_blocks_are_no_numbers_of_numpy() -> None:
    blocks = Entry("q", Tensor(DTYPES["Q8_0"], (2, 32)), Digest.of(b"q"))
    checkpoint = Checkpoint(Manifest("gguf", 68, Blob(Digest.of(b""), 0), (blocks,)), MemoryStore())
    with pytest.raises(ThetaError, match="parameter q: NumPy has no type for Q8_0"):
        statistics(checkpoint, "q")


def test_a_parameter_without_rows() -> None:
    with pytest.raises(ThetaError, match="parameter w: a tensor I64.* has no rows"):
        statistics(checkpoint_of(w=np.array(3, "i8")), "w", 0, 1)


def test_chains() -> None:
    checkpoint = checkpoint_of(small=np.ones(3), large=np.random.default_rng(0).integers(0, 255, 20_000, "u1"))
    kinds = {name: [link.kind for link in chain(checkpoint.manifest, checkpoint.entries[name])] for name in checkpoint}
    assert kinds == {"large": ["raw"], "small": ["packed"]}
    assert chain(checkpoint.manifest, checkpoint.entries["small"])[0].size == 24
