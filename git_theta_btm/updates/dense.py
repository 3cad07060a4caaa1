"""Dense: the tensor by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..source import Source
from . import Span


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> None:
    """Nothing is known beforehand."""
