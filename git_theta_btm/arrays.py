"""Arrays: the bytes of a tensor as NumPy sees them. Bit patterns stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ThetaError
from .tensor import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
    NumpyType: TypeAlias = np.dtype[Any]

_NATIVE = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "C128": "<c16", "QINT8": "i1",
    "QUINT8": "u1", "QINT32": "<i4",
}  # fmt: skip
ML_DTYPES = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def numpy_type(name: str) -> NumpyType:
    """NumPy's type for an element type; ml_dtypes has what NumPy itself has not. Raises ``ThetaError``."""
    import numpy as np

    if name in _NATIVE:
        return np.dtype(_NATIVE[name])
    if name not in ML_DTYPES:
        raise ThetaError(f"NumPy has no type for {name}; its bytes can be had raw")
    try:
        import ml_dtypes
    except ImportError:
        raise ThetaError(f"{name} needs ml_dtypes ('pip install ml_dtypes'); its bytes can be had raw") from None
    found: NumpyType = np.dtype(getattr(ml_dtypes, ML_DTYPES[name]))
    return found


def array(data: bytes | memoryview, tensor: Tensor) -> Array:
    """The memory of a tensor, ``tensor.nbytes`` long, as a read-only array. Raises ``ThetaError`` as above."""
    import numpy as np

    dtype = numpy_type(tensor.dtype.name)
    if not tensor.numel:
        return np.empty(tensor.shape, dtype)
    flat = np.frombuffer(data, dtype)
    if tensor.strides is None:
        return flat.reshape(tensor.shape)
    strides = tuple(step * dtype.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)


def rows(tensor: Tensor, start: int | None, stop: int | None) -> tuple[Tensor, int]:
    """Some rows of a tensor as one of its own, and the byte at which that begins; the bounds are those of a slice.

    Raises ``ThetaError`` if there are no rows, or if one is not a whole number of bytes.
    """
    if not tensor.shape or tensor.dtype.block > 1:
        raise ThetaError(f"a tensor {tensor} has no rows")
    first, last, _ = slice(start, stop).indices(tensor.shape[0])
    part = Tensor(tensor.dtype, (max(0, last - first), *tensor.shape[1:]), tensor.strides)
    if not part.numel:
        return part, 0
    step = tensor.strides[0] if tensor.strides else part.numel // part.shape[0]
    return part, first * step * tensor.dtype.size
