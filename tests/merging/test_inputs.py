"""What is read of several models: rows in the first one's order, in as few reads as can be."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from git_theta_btm.api import Checkpoint
from git_theta_btm.blobs import Opened
from git_theta_btm.filters.clean import clean
from git_theta_btm.merging.inputs import Models
from git_theta_btm.merging.resolve import Rows
from git_theta_btm.source import BytesSource
from git_theta_btm.store import Forgetful, MemoryStore

COLUMNS = 500
ROW = 4 * COLUMNS  # bytes
OURS, THEIRS = (
    np.random.default_rng(seed).standard_normal((rows, COLUMNS), np.float32) for seed, rows in ((0, 7), (1, 9))
)


class Reads:
    """What is read from a store's sources."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int, int]] = []
        view = BytesSource.view

        def counted(source: BytesSource, offset: int, size: int) -> memoryview:
            self.seen.append((offset // ROW, size // ROW))
            return view(source, offset, size)

        monkeypatch.setattr(BytesSource, "view", counted)


@pytest.mark.parametrize(
    ("places", "reads"),
    [
        ((0, 1, 2, 3, 4, 5, 6), [(0, 7)]),
        ((2, 3, 4, None, None, 0, 1), [(2, 3), (3, 2), (0, 2)]),
        ((None, 8, None, 7, None, 6, None), [(0, 1), (8, 1), (2, 1), (7, 1), (4, 1), (6, 1), (6, 1)]),
        ((1, 2, None, 3, 4, 5, 6), [(1, 2), (2, 1), (3, 4)]),
        ((None,) * 7, [(0, 7)]),
    ],
)
def test_rows_that_follow_each_other_are_read_together(
    places: tuple[int | None, ...], reads: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, memory = MemoryStore(), Forgetful()
    tips = tuple(
        Checkpoint(clean(BytesSource(save({"embed": table})), store, memory), store) for table in (OURS, THEIRS)
    )
    models = Models(tips, rows={1: Rows(len(THEIRS), places)})
    expected = b"".join(
        (OURS[index] if place is None else THEIRS[place]).tobytes() for index, place in enumerate(places)
    )
    with Opened() as opened:
        source = models.open(1, "embed", opened)
        assert source.size == OURS.nbytes
        for start, size in ((ROW - 4, ROW + 8), (5, 2), (3 * ROW, 4 * ROW)):
            assert source.read(start, size) == expected[start : start + size]
        seen = Reads(monkeypatch).seen
        assert source.read(0, source.size) == expected
    assert seen == reads
