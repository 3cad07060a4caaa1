"""Documents: YAML, or JSON, as values that know where they stand, so that an error names the file and the key.

Only plain data is read: no tag makes an object. What an alias stands for is never copied, and never printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..errors import UsageError
from .recipe import Gradient, Scalar

_KINDS: dict[str, Any] = {
    "truth value": bool,
    "number": int | float,
    "text": str,
    "list": list,
    "mapping": dict,
    "missing value": type(None),
}
_MOST = 1 << 20  # characters: a recipe has a few hundred


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a document. All that read it raise ``UsageError`` if it is of another kind than they give."""

    raw: Any
    origin: str
    key: str = ""

    def error(self, words: str) -> UsageError:
        """An error that begins with the file and the key."""
        return UsageError(": ".join(filter(None, (self.origin, self.key, words))))

    @property
    def empty(self) -> bool:
        return self.raw is None

    def is_a(self, *kinds: type) -> bool:
        return isinstance(self.raw, kinds)

    # -- what holds others -------------------------------------------------------------------------------------------

    def entries(self) -> dict[str, Value]:
        """The entries of a mapping, in order."""
        if not isinstance(self.raw, dict):
            raise self.error("has to be a mapping")
        for name in self.raw:
            if not isinstance(name, str):
                raise self.error(f"a name in it is read as a {_kind(name)}: put it in quotes")
        return {name: self._inner(f".{name}" if self.key else name, item) for name, item in self.raw.items()}

    def fields(self, *known: str) -> dict[str, Value]:
        """The entries of a mapping that has no others than these; one without a value is left out."""
        entries = self.entries()
        for name, item in entries.items():
            if name not in known:
                raise item.error(f"is not a key here: there are {', '.join(known)}")
        return {name: item for name, item in entries.items() if not item.empty}

    def items(self) -> list[Value]:
        """The items of a list."""
        if not isinstance(self.raw, list):
            raise self.error("has to be a list")
        return [self._inner(f"[{index}]", item) for index, item in enumerate(self.raw)]

    def _inner(self, key: str, raw: Any) -> Value:
        return Value(raw, self.origin, self.key + key)

    # -- what does not -----------------------------------------------------------------------------------------------

    def text(self) -> str:
        if not isinstance(self.raw, str):
            hint = "" if self.is_a(list, dict) or self.empty else ": put it in quotes"
            raise self.error(f"has to be a text, not a {_kind(self.raw)}{hint}")
        if not self.raw:
            raise self.error("is empty")
        return self.raw

    def texts(self) -> tuple[str, ...]:
        """A list of texts, or one alone."""
        return tuple(item.text() for item in self.items()) if self.is_a(list) else (self.text(),)

    def word(self, *words: str) -> str:
        """One of these."""
        if self.raw not in words:
            raise self.error(f"has to be one of {', '.join(words)}")
        return str(self.raw)

    def truth(self) -> bool:
        if not isinstance(self.raw, bool):
            raise self.error("has to be true or false")
        return self.raw

    def number(self) -> float:
        """A finite number. YAML takes 1e-3, without a point, for a text: it is one of those that pass."""
        try:
            number = float(self.raw) if isinstance(self.raw, int | float | str) and not self.is_a(bool) else None
        except (ValueError, OverflowError):
            number = None
        if number is None or not isfinite(number):
            raise self.error("has to be a number")
        return number

    def scalar(self) -> Scalar:
        """A number, or ``{gradient: [...]}``."""
        if not self.is_a(dict):
            return self.number()
        return Gradient(tuple(item.number() for item in self._gradient().items()))

    def option(self) -> object:
        """What an option of a strategy may be: a number, a text, true or false, a gradient, or one for each model."""
        if self.is_a(list):
            return tuple(item.scalar() for item in self.items())
        if self.is_a(dict):
            return self.scalar()
        if not self.is_a(bool, int, float, str):
            raise self.error("has to be a number, a text, true, false, or a gradient")
        return self.number() if self.is_a(float) else self.raw

    def _gradient(self) -> Value:
        fields = self.fields("gradient")
        if not fields or not fields["gradient"].is_a(list) or not fields["gradient"].raw:
            raise self.error("has to be a number or {gradient: [numbers]}")
        return fields["gradient"]


def read(text: str, origin: str) -> Value:
    """A document of one mapping. Raises ``UsageError`` if it is none; ``origin`` is what errors call the file."""
    import yaml  # 40 ms that only a merge with a recipe file pays

    if len(text) > _MOST:
        raise UsageError(f"{origin}: is longer than {_MOST} characters")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{origin}: is no YAML{_where(error)}") from None
    except (ValueError, RecursionError, TypeError):  # impossible dates and numbers, nesting, keys that are lists
        raise UsageError(f"{origin}: is no YAML that can be read") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{origin}: has to be a mapping, such as 'strategy: ties'")
    return Value(raw, origin)


def _where(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    return f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _kind(raw: Any) -> str:
    """What YAML took something for."""
    for name, kinds in _KINDS.items():
        if isinstance(raw, kinds):
            return name
    return "date"
