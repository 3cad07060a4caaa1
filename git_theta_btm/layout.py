"""The layout: where in the file each blob stands, and the glue, which is every byte that belongs to none.

``plan`` cuts a file along its tensors, ``segments`` puts one together again; both are pure, and each is the other's
inverse. A layout holds no digests, so versions that differ in their weights alone share one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .errors import ManifestError
from .manifest import Blob, Manifest, order
from .tensor import Tensor

GLUE = 1 << 20  # longer runs of glue are cut into chunks, which are stored once however many versions share them
_FIRST_LINE = b"git-theta-btm layout 1\n"

Range = tuple[int, int]  # start and end in bytes, half open
Cut = Callable[[int, int], Iterable[Range]]


@dataclass(frozen=True, slots=True)
class Located:
    """One named tensor and the byte offset in the file at which its first element stands."""

    name: str
    tensor: Tensor
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.tensor.nbytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A file cut up: ``located`` in natural order with, for each, whether it is a view of a chunk; chunk and glue
    ranges in file order. Blobs, chunks and glue cover the file exactly once."""

    located: tuple[Located, ...]
    views: tuple[bool, ...]
    chunks: tuple[Range, ...]
    glue: tuple[Range, ...]

    @property
    def inside(self) -> set[Range]:
        """The ranges of views that are no chunks themselves: they have no blob of their own."""
        views = {(item.offset, item.end) for item, view in zip(self.located, self.views, strict=True) if view}
        return views - set(self.chunks)


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets of the parameters (natural order) and of the chunks (file order), and the glue between them."""

    offsets: tuple[int, ...]
    chunks: tuple[int, ...]
    glue: bytes

    def dumps(self) -> bytes:
        table = json.dumps({"chunks": self.chunks, "offsets": self.offsets}, separators=(",", ":"))
        return _FIRST_LINE + table.encode() + b"\n" + self.glue

    @classmethod
    def loads(cls, data: bytes) -> Layout:
        """The inverse of ``dumps``. Raises ``ManifestError``."""
        table, newline, glue = data.removeprefix(_FIRST_LINE).partition(b"\n")
        try:
            fields = json.loads(table)
            layout = cls(tuple(fields["offsets"]), tuple(fields["chunks"]), glue)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ManifestError("broken layout") from None
        # Types first: a list within a list could still be too deep to write.
        if not all(type(at) is int and at >= 0 for at in layout.offsets + layout.chunks) or layout.dumps() != data:
            raise ManifestError("broken layout: not in canonical form")
        return layout


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of the file: a blob under the name of its parameter (or none, for a chunk), or glue."""

    size: int
    blob: Blob | None = None
    glue: bytes = b""
    name: str | None = None


def plan(size: int, located: Sequence[Located], cut: Cut) -> Plan:
    """Cut a file of ``size`` bytes along its tensors.

    Tensors that overlap without coinciding (views of one storage) become views of chunks that cover their union;
    ``cut(start, end)`` divides chunks and long glue.
    """
    located = sorted(located, key=lambda item: order(item.name))
    unions = _unions([(item.offset, item.end) for item in located if item.tensor.nbytes])
    shared = [(start, end) for start, end, parts in unions if len(parts) > 1]
    whole = {parts.pop() for _, _, parts in unions if len(parts) == 1}
    views = tuple(bool(item.tensor.nbytes) and (item.offset, item.end) not in whole for item in located)
    glue: list[Range] = []
    chunks = [piece for start, end in shared for piece in cut(start, end)]
    edges = [0, *(edge for start, end, _ in unions for edge in (start, end)), size]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start > GLUE:
            chunks += cut(start, end)
        elif end > start:
            glue.append((start, end))
    return Plan(tuple(located), views, tuple(sorted(chunks)), tuple(glue))


def _unions(ranges: Iterable[Range]) -> list[tuple[int, int, set[Range]]]:
    """Maximal runs of overlapping ranges, in order, each with the distinct ranges that it is made of."""
    unions: list[tuple[int, int, set[Range]]] = []
    for start, end in sorted(ranges):
        if unions and start < unions[-1][1]:
            first, last, parts = unions[-1]
            parts.add((start, end))
            unions[-1] = (first, max(last, end), parts)
        else:
            unions.append((start, end, {(start, end)}))
    return unions


def segments(manifest: Manifest, layout: Layout) -> list[Segment]:
    """The file as a list of segments in file order. Raises ``ManifestError`` unless they cover it exactly."""
    if len(layout.offsets) != len(manifest.entries) or len(layout.chunks) != len(manifest.chunks):
        raise ManifestError("the layout belongs to another manifest")
    entries, chunks = manifest.entries, manifest.chunks
    runs: list[tuple[int, Blob, str | None]] = [
        *((at, entry.blob, entry.name) for at, entry in zip(layout.offsets, entries, strict=True) if not entry.view),
        *((at, chunk, None) for at, chunk in zip(layout.chunks, chunks, strict=True)),
    ]
    placed: dict[Range, Segment] = {}
    for at, blob, name in runs:
        if blob.size and placed.setdefault((at, at + blob.size), Segment(blob.size, blob, name=name)).blob != blob:
            raise ManifestError("the same bytes under two digests")
    result, position, used = [], 0, 0
    for (start, end), segment in [*sorted(placed.items()), ((manifest.size, manifest.size), Segment(0))]:
        gap = start - position
        if gap < 0 or gap > len(layout.glue) - used:
            raise ManifestError("the layout's segments overlap, or leave a gap without glue")
        result += [Segment(gap, glue=layout.glue[used : used + gap])] if gap else []
        result += [segment] if segment.size else []
        position, used = end, used + gap
    if used != len(layout.glue):
        raise ManifestError("the layout has more glue than gaps")
    return result
