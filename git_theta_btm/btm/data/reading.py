"""Text as people have it, as a stream of documents: JSON lines, plain text, Parquet, data sets of Hugging Face's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import ThetaError
from .compressed import SUFFIXES, pieces
from .documents import FIELD, BadDocument, check, load, split

_JSON = (".jsonl", ".ndjson", ".json")
_ARROW = ("dataset_info.json", "dataset_dict.json")  # what marks a folder that save_to_disk wrote
_BATCH = 1024  # rows of a table that are read at a time


class Document(NamedTuple):
    """A text, and the domain that its file says it is of; empty if it was not asked."""

    text: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a file has its documents.

    ``field`` is the text's in JSON and tables, ``domain`` the domain's: names with dots lead into objects. Plain text
    is one document a file, or one for each block of lines between empty ones.
    """

    field: str = FIELD
    domain: str = ""
    paragraphs: bool = False


class Reader:
    """Reads documents; counts those that are ``bad`` if told to go on after one."""

    def __init__(self, layout: Layout = Layout(), *, skip_bad: bool = False) -> None:
        self._layout, self._skip = layout, skip_bad
        self.bad = 0

    def documents(self, paths: Iterable[str]) -> Iterator[Document]:
        """The documents of files, and of all files below a folder, in order.

        Raises ``BadDocument`` with the file and the line of what is none, ``ThetaError`` for a broken file.
        """
        for path in paths:
            for file in _files(path):
                yield from self._file(file)

    def _file(self, path: str) -> Iterator[Document]:
        if os.path.isdir(path) or path.endswith(".parquet"):
            yield from self._records(path, _arrow(path) if os.path.isdir(path) else _parquet(path, self._layout))
            return
        plain = next((path.removesuffix(suffix) for suffix in SUFFIXES if path.endswith(suffix)), path)
        if plain.endswith(_JSON):
            yield from self._records(path, _json(path))
        else:
            yield from self._plain(path)

    def _records(self, path: str, records: Iterable[tuple[int, Any]]) -> Iterator[Document]:
        """The documents in numbered records: lines of JSON as bytes, or rows of a table."""
        for number, record in records:
            try:
                found = self._document(load(record) if isinstance(record, bytes) else record)
            except BadDocument as error:
                self._report(f"{path}:{number}", error)
                continue
            yield found

    def _document(self, record: Any) -> Document:
        text = check(_value(record, self._layout.field))
        if not self._layout.domain:
            return Document(text)
        domain = _value(record, self._layout.domain)
        if not isinstance(domain, str) or not domain:
            raise BadDocument(f"its {self._layout.domain} is no name")
        return Document(text, domain)

    def _plain(self, path: str) -> Iterator[Document]:
        if self._layout.domain:
            raise ThetaError(f"{path} is plain text: it has no field {self._layout.domain}")
        content = pieces(path)
        blocks = _blocks(content) if self._layout.paragraphs else [(1, b"".join(content))]
        for number, block in blocks:
            try:
                text = block.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                line = number + block.count(b"\n", 0, error.start)
                self._report(f"{path}:{line}", BadDocument("it is not UTF-8"))
                continue
            if text.strip():
                yield Document(text)

    def _report(self, place: str, error: BadDocument) -> None:
        self.bad += 1
        if not self._skip:
            raise BadDocument(f"{place}: {error} ('--skip-bad' leaves out what is no document)")


def _files(path: str) -> Iterator[str]:
    """The files of a folder and of those below it, by name, without hidden ones; a data set counts as a file."""
    if not os.path.isdir(path) or _is_dataset(path):
        if not os.path.exists(path):
            raise ThetaError(f"there is no file {path}")
        yield path
        return
    for name in sorted(os.listdir(path)):
        inner = os.path.join(path, name)
        if not name.startswith((".", "__pycache__")) and not (
            os.path.islink(inner) and os.path.isdir(inner)
        ):  # which may lead back
            yield from _files(inner)


def _is_dataset(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in _ARROW)


def _value(record: Any, field: str) -> Any:
    """The field of a record: by its whole name, or by the names between its dots. Raises ``BadDocument``."""
    if isinstance(record, Mapping) and field in record:
        return record[field]
    for name in field.split("."):
        if not isinstance(record, Mapping) or name not in record:
            raise BadDocument(f"it has no field {field}")
        record = record[name]
    return record


def _json(path: str) -> Iterator[tuple[int, Any]]:
    """Numbered lines that are not empty; of one list, which is held in memory as a whole, its numbered items."""
    numbered = enumerate(split(pieces(path)), 1)
    first = next(((number, line) for number, line in numbered if line.strip()), None)
    if first is None:
        return
    if first[1].lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        try:
            yield from enumerate(load(b"\n".join([first[1], *(line for _, line in numbered)])), 1)
        except BadDocument as error:
            raise BadDocument(f"{path}: {error}") from None
        return
    yield first
    yield from ((number, line) for number, line in numbered if line.strip())


def _blocks(content: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks of lines between empty ones, each with the number of its first line."""
    block: list[bytes] = []
    number = 0
    for number, line in enumerate(split(content), 1):
        if line.strip():
            block.append(line.removesuffix(b"\r"))
        elif block:
            yield number - len(block), b"\n".join(block)
            block = []
    if block:
        yield number - len(block) + 1, b"\n".join(block)


def _parquet(path: str, layout: Layout) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            wanted = {name for field in (layout.field, layout.domain) for name in (field, field.partition(".")[0])}
            batches = file.iter_batches(_BATCH, columns=sorted(wanted & names))
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as error:
        raise ThetaError(f"{path} is no Parquet file: {str(error).partition(chr(10))[0]}") from None


def _arrow(path: str) -> Iterator[tuple[int, Any]]:
    import datasets

    try:
        found = datasets.load_from_disk(path)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's own are among them
        raise ThetaError(f"{path} is no data set: {str(error).partition(chr(10))[0]}") from None
    parts = found.values() if isinstance(found, datasets.DatasetDict) else [found]
    yield from enumerate((row for part in parts for row in part), 1)
