"""Delta predicts the base itself."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_btm.errors import FormatError
from git_theta_btm.planes import TYPES
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import Span
from git_theta_btm.updates.delta import predict

BASE = np.random.default_rng(0).bytes(8000)


@pytest.mark.parametrize("width", sorted(TYPES))
@pytest.mark.parametrize(("offset", "size"), [(0, 8000), (0, 8), (4096, 3904), (16, 1024)])
def test_the_same_elements(width: int, offset: int, size: int) -> None:
    values = predict(Span(offset, size, width), [BytesSource(BASE)], {})
    assert values.dtype == TYPES[width]
    assert values.tobytes() == BASE[offset : offset + size]


def test_a_base_that_is_too_short() -> None:
    with pytest.raises(FormatError):
        predict(Span(7996, 8, 4), [BytesSource(BASE)], {})


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_bases(count: int) -> None:
    with pytest.raises(ValueError, match="unpack"):
        predict(Span(0, 8, 4), [BytesSource(BASE)] * count, {})
