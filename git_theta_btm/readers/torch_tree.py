"""The tensors in what ``torch.save`` pickled, by the path of keys and attributes that leads to each.

Objects of unknown classes are searched by their arguments, items and attributes; no class is ever looked up. A tensor
that is reached on two paths has two names: that is how tied weights are saved.

Specification: PyTorch, torch/_utils.py (the ``_rebuild_*`` functions) and ``Tensor.__reduce_ex__`` in torch/_tensor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..errors import FormatError
from ..layout import Located
from ..tensor import DTYPES, DType, Tensor
from .pickled import Pickle
from .symbols import Call, Global, Pairs, PersistentId, Value
from .torch_types import Storage, dtype_of, is_storage, number, numbers, storage_of

Extent = tuple[int, int]  # offset in the file, size in bytes

# A container that is shared is walked on every path to it, so that the walk can be exponentially longer than the
# pickle. A step is a value or a character of its path; saved models take one to six per byte of pickle.
_STEPS_PER_BYTE, _FREE_STEPS, _MAX_STEPS = 16, 1 << 16, 1 << 28
_STEPS_PER_TENSOR = 128  # what a tensor takes compared to a value that is passed over: 12 us against 0.1

_SEQUENCES = (tuple, list)
_CONTAINERS = (tuple, list, Call)
_HOLDERS = (tuple, list, Call, PersistentId)

_Child = tuple[str, Value]


def find(pickle: Pickle, extents: Mapping[str, Extent | None]) -> list[Located]:
    """All tensors and bare storages of ``pickle``, in its order, given where the bytes of each storage are.

    ``extents`` has one entry per storage key, ``None`` for one whose bytes are there but compressed. Tensors of an
    element type that has no counterpart are left out. Raises ``FormatError`` for a tensor outside its storage.
    """
    finder = _Finder(extents, min((pickle.end - pickle.start) * _STEPS_PER_BYTE + _FREE_STEPS, _MAX_STEPS))
    finder.walk(pickle.value)
    return list(finder.found.values())


class _Finder:
    def __init__(self, extents: Mapping[str, Extent | None], budget: int) -> None:
        self.extents = extents
        self.budget = budget
        self.found: dict[str, Located] = {}
        self.copies: dict[str, int] = {}

    def walk(self, root: Value) -> None:
        """Visit everything below ``root``, depth first; a container inside itself is not entered again."""
        path: list[tuple[Value, Iterator[_Child]]] = [(None, iter([("", root)]))]
        entered: set[int] = set()
        while path:
            for name, value in path[-1][1]:
                self.spend(1 + len(name))
                if not self.leaf(name, value) and isinstance(value, _CONTAINERS) and id(value) not in entered:
                    self.spend(_length(value))
                    entered.add(id(value))
                    path.append((value, _children(name, value)))
                    break
            else:
                entered.discard(id(path.pop()[0]))

    def spend(self, steps: int) -> None:
        self.budget -= steps
        if self.budget < 0:
            raise FormatError("a pickle whose values take too long to visit")

    def leaf(self, name: str, value: Value) -> bool:
        """Record ``value`` if it is a tensor or a storage; whether it is one that contains no other."""
        if isinstance(value, Call) and isinstance(value.function, Global) and value.function in _TENSORS:
            self.tensor(name, value)
            return value.function != _QUANTISED
        if not is_storage(value):
            return False
        storage = storage_of(value)
        if storage:
            count = (storage.end - storage.begin) // storage.dtype.size
            self.record(name, storage, _laid_out(storage.dtype, (count,), (1,)), 0)
        return True

    def tensor(self, name: str, call: Call) -> None:
        """Record what a call of ``_rebuild_tensor(storage, offset, shape, strides, ...)`` would rebuild."""
        self.spend(_STEPS_PER_TENSOR)
        typed = call.function == _TENSOR_V3
        if len(call.args) < (7 if typed else 4):
            raise FormatError(f"a tensor with too few arguments: {name[:100]!r}")
        storage = storage_of(call.args[0])
        dtype = dtype_of(call.args[6]) if typed else storage and storage.dtype
        if storage and dtype:
            tensor = _laid_out(dtype, _sizes(call.args[2]), _sizes(call.args[3]))
            self.record(name, storage, tensor, number(call.args[1]))

    def record(self, name: str, storage: Storage, tensor: Tensor | None, skipped: int) -> None:
        """Locate ``tensor``, which begins ``skipped`` elements into ``storage``."""
        if storage.key not in self.extents:
            raise FormatError(f"storage {storage.key[:100]!r} is not in the file")
        extent = self.extents[storage.key]
        if extent is None or tensor is None or (tensor.dtype.block > 1 and skipped):
            return
        offset, size = extent
        begin = storage.begin + (skipped * tensor.dtype.size if tensor.numel else 0)
        if storage.size > size or begin + tensor.nbytes > storage.end:
            raise FormatError(f"{name[:100]!r} reaches outside its storage")
        name = self.unique(name or "tensor")
        self.found[name] = Located(name, tensor, offset + begin)

    def unique(self, name: str) -> str:
        """``name``, or with ``#2``, ``#3`` ... behind it the first that is not taken."""
        if name not in self.found:
            return name
        count = self.copies.get(name, 1) + 1
        while f"{name}#{count}" in self.found:
            count += 1
        self.copies[name] = count
        return f"{name}#{count}"


def _laid_out(dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor | None:
    """The tensor of this layout; ``None`` if its elements are packed and are not whole bytes one after the other."""
    if dtype.block == 1:
        return Tensor(dtype, shape, strides)
    if Tensor(DTYPES["U8"], shape, strides).strides is not None or not shape:
        return None
    if dtype.name == "F4":  # torch counts pairs of them
        return Tensor(dtype, (*shape[:-1], shape[-1] * dtype.block))
    return None if Tensor(DTYPES["U8"], shape).numel % dtype.block else Tensor(dtype, shape)


def _sizes(value: Value) -> tuple[int, ...]:
    """A shape, which PyTorch before 0.4 pickled as a call of ``torch.Size``."""
    if isinstance(value, Call) and value.function == Global("torch", "Size") and value.args:
        value = value.args[0]
    return numbers(value)


def _length(value: Value) -> int:
    """How many values are looked at when ``value`` is entered."""
    if isinstance(value, Call):
        parts = (value.args, value.kwargs, value.items, value.pairs, *value.args)
        return sum(len(part) for part in parts if isinstance(part, _SEQUENCES))
    return len(value) if isinstance(value, _SEQUENCES) else 0


def _children(name: str, value: Value) -> Iterator[_Child]:
    """What can hold tensors inside ``value``, each with its path."""
    if isinstance(value, Call):
        special = _SPECIAL.get(value.function) if isinstance(value.function, Global) else None
        yield from special(name, value.args) if special else _arguments(name, value)
        yield from _members(name, value)
    elif isinstance(value, Pairs):
        yield from _named(name, value)
    elif isinstance(value, tuple | list):
        yield from _numbered(name, value)


def _numbered(name: str, values: tuple[Value, ...] | list[Value]) -> Iterator[_Child]:
    for index, value in enumerate(values):
        if isinstance(value, _HOLDERS):
            yield _joined(name, str(index)), value


def _named(name: str, pairs: Pairs) -> Iterator[_Child]:
    for index in range(0, len(pairs), 2):
        key, value = pairs[index], pairs[index + 1]
        if isinstance(value, _HOLDERS):
            label = key if isinstance(key, str) else str(key if type(key) is int else index // 2)
            yield _joined(name, label), value


def _joined(path: str, label: str) -> str:
    return f"{path}.{label}" if path else label


def _arguments(name: str, call: Call) -> Iterator[_Child]:
    """The arguments of a call; those of an ``OrderedDict`` are its keys and values (Python 2 wrote it so)."""
    if call.function == Global("collections", "OrderedDict") and len(call.args) == 1:
        (entries,) = call.args
        if isinstance(entries, list) and all(isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries):
            yield from _named(name, Pairs(part for entry in entries for part in entry))
            return
    yield from _numbered(name, call.args)
    if call.kwargs:
        yield from _named(name, call.kwargs)


def _members(name: str, call: Call) -> Iterator[_Child]:
    """What was put into the object after the call: keys, items, attributes."""
    if call.pairs:
        yield from _named(name, call.pairs)
    if call.items:
        yield from _numbered(name, call.items)
    yield from _state(name, call.state)


def _state(name: str, state: Value) -> Iterator[_Child]:
    """The attributes of an object; where it has slots, its state is a pair: a dictionary or ``None``, and another."""
    if isinstance(state, tuple) and len(state) == 2 and all(part is None or isinstance(part, Pairs) for part in state):
        yield from ((name, part) for part in state if part is not None)
    elif state is not None:
        yield name, state


Args = tuple[Value, ...]


def _parameter(name: str, args: Args) -> Iterator[_Child]:
    yield from ((name, value) for value in args[:1])
    yield from (child for state in args[3:4] for child in _state(name, state))


def _wrapped(name: str, args: Args) -> Iterator[_Child]:
    yield from ((name, value) for value in args[:1])


def _subclass(name: str, args: Args) -> Iterator[_Child]:
    """``_rebuild_from_type_v2(function, type, args, state)``: what ``function(*args)`` returns, with attributes."""
    if len(args) < 4 or not isinstance(args[2], tuple):
        raise FormatError(f"a tensor subclass with wrong arguments: {name[:100]!r}")
    yield name, Call(args[0], args[2])
    yield from _state(name, args[3])


def _sparse(name: str, args: Args) -> Iterator[_Child]:
    """``_rebuild_sparse_tensor(layout, data)``: the parts depend on the layout."""
    if len(args) < 2 or not isinstance(args[0], Call) or not isinstance(args[1], tuple):
        raise FormatError(f"a sparse tensor with wrong arguments: {name[:100]!r}")
    layout = args[0].args[:1]
    yield from _parts(name, args[1], next((parts for key, parts in _SPARSE.items() if layout == (key,)), ()))


def _quantised(name: str, args: Args) -> Iterator[_Child]:
    """The fifth argument: scheme, scales, zero points; the latter are tensors if every channel has its own."""
    scheme = args[4] if len(args) > 4 and isinstance(args[4], tuple) else ()
    yield from _parts(name, scheme[1:], ("scales", "zero_points"))


def _nested(name: str, args: Args) -> Iterator[_Child]:
    yield from _parts(name, args, ("values", "sizes", "strides", "offsets"))


def _parts(name: str, values: Args, labels: tuple[str, ...]) -> Iterator[_Child]:
    yield from ((_joined(name, label), value) for label, value in zip(labels, values, strict=False))


def _nothing(_name: str, _args: Args) -> Iterator[_Child]:
    return iter(())


_TENSOR = Global("torch._utils", "_rebuild_tensor")
_TENSOR_V2 = Global("torch._utils", "_rebuild_tensor_v2")
_TENSOR_V3 = Global("torch._utils", "_rebuild_tensor_v3")
_QUANTISED = Global("torch._utils", "_rebuild_qtensor")
_TENSORS = frozenset((_TENSOR, _TENSOR_V2, _TENSOR_V3, _QUANTISED))
_SPARSE = {
    "torch.sparse_coo": ("indices", "values"),
    "torch.sparse_csr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_bsr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_csc": ("ccol_indices", "row_indices", "values"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices", "values"),
}
_SPECIAL: dict[Global, Callable[[str, Args], Iterator[_Child]]] = {
    _QUANTISED: _quantised,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _wrapped,
    Global("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    Global("torch._utils", "_rebuild_nested_tensor"): _nested,
    Global("torch._utils", "_rebuild_meta_tensor_no_storage"): _nothing,
    Global("torch._tensor", "_rebuild_from_type"): _subclass,
    Global("torch._tensor", "_rebuild_from_type_v2"): _subclass,
}
