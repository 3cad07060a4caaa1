"""Merges: how the same parameter of several models becomes one.

A strategy is a frozen dataclass whose fields are its options. It may look at a parameter first (``measure``: norms,
thresholds, angles, as a few numbers), and then computes each run of elements by itself (``combine``), in float64.
What is measured and combined must be the same bits on every machine: elementwise IEEE operations in a fixed order,
and sums by ``maths.sums``. Reading, rounding, storing, threads and memory are the resolver's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, TypeAlias

from ..errors import ThetaError, UsageError
from ..maths.masks import divisor
from ..maths.signs import merged
from ..maths.sums import weighted

Array: TypeAlias = Any  # float64: NumPy's, or torch's where a device was asked for
Measures: TypeAlias = Mapping[str, tuple[float, ...]]

GROUP = "git_theta_btm.merges"

# strategy: module, class. In the order of the help.
BUILT_IN: dict[str, tuple[str, str]] = {
    "ours": ("take", "Ours"),
    "theirs": ("take", "Theirs"),
    "base": ("take", "Base"),
    "average": ("average", "Average"),
    "linear": ("linear", "WeightedSum"),
    "apply": ("apply", "Apply"),
    "passthrough": ("passthrough", "Passthrough"),
    "task_arithmetic": ("task_arithmetic", "TaskArithmetic"),
    "ties": ("ties", "Ties"),
    "dare_linear": ("dare", "DareLinear"),
    "dare_ties": ("dare", "DareTies"),
    "della": ("della", "Della"),
    "della_linear": ("della", "DellaLinear"),
    "breadcrumbs": ("breadcrumbs", "Breadcrumbs"),
    "breadcrumbs_ties": ("breadcrumbs", "BreadcrumbsTies"),
    "sce": ("sce", "Sce"),
    "consensus": ("consensus", "Consensus"),
    "emr": ("emr", "Emr"),
    "slerp": ("slerp", "Slerp"),
    "nuslerp": ("nuslerp", "NuSlerp"),
    "nuslerp_rows": ("nuslerp", "NuSlerpRows"),
    "multislerp": ("multislerp", "MultiSlerp"),
    "karcher": ("karcher", "Karcher"),
    "model_stock": ("model_stock", "ModelStock"),
    "model_stock_rows": ("model_stock", "ModelStockRows"),
    "nearswap": ("nearswap", "NearSwap"),
    "arcee_fusion": ("arcee_fusion", "ArceeFusion"),
    "ram": ("ram", "Ram"),
    "ram_plus": ("ram", "RamPlus"),
    "ram_plus_model": ("ram", "RamPlusModel"),
    "iso_c": ("iso_c", "IsoC"),
    "tsv_m": ("tsv_m", "TsvM"),
    "fisher": ("fisher", "Fisher"),
    "regmean": ("regmean", "RegMean"),
}


@dataclass(frozen=True, slots=True)
class Tile:
    """A run of elements of one parameter: one array for each tip, with the base's if there is one.

    Arrays have one dimension, or the parameter's shape for a strategy that wants it ``whole``.
    """

    tips: tuple[Array, ...]
    weights: tuple[float, ...]
    base: Array | None = None
    start: int = 0  # the place of the first element in the parameter
    keys: tuple[bytes, ...] = ()  # for each tip, what makes its random numbers its own
    statistics: tuple[Array, ...] = ()  # for each tip, if the strategy asks for them

    @property
    def deltas(self) -> list[Array]:
        """The task vectors: what training did to each tip since the base."""
        return [tip - self.base for tip in self.tips]

    @property
    def xp(self) -> ModuleType:
        """The array library that these arrays belong to, as the Python array API standard names its functions."""
        array = self.tips[0]
        if hasattr(array, "__array_namespace__"):
            namespace: ModuleType = array.__array_namespace__()
            return namespace
        return import_module("array_api_compat").array_namespace(array)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Sides:
    """One parameter of all models: what ``measure`` looks at. ``open`` starts a pass over its tiles.

    Tiles have ``floats.TILE`` elements, the last one fewer; a strategy that wants the parameter whole gets one.
    """

    name: str
    shape: tuple[int, ...]
    weights: tuple[float, ...]
    open: Callable[[], Iterable[Tile]]
    has_base: bool = False

    def tiles(self) -> Iterator[Tile]:
        """The tiles in order, as often as it is called."""
        return iter(self.open())


def option(default: Any, text: str, *, low: float | None = None, high: float | None = None, choices: Any = ()) -> Any:
    """A field of a strategy: its default, one line of help, and the range or the words that it may have."""
    return field(default=default, metadata={"text": text, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Base of all strategies. Raises ``UsageError`` for an option outside its range."""

    needs_base: ClassVar[bool] = False  # it makes no sense without a common ancestor
    takes_base: ClassVar[bool] = False  # it does something else where there is one
    ordered: ClassVar[bool] = False  # the order of the tips matters; else they come sorted, so that it cannot
    whole: ClassVar[bool] = False  # it sees each parameter whole, in its shape
    exact: ClassVar[bool] = True  # the same bits on every machine; false where a matrix library has a hand in it
    one_sided: ClassVar[bool] = False  # what only one of two tips changed is taken from it as it is
    statistics: ClassVar[bool] = False  # it needs a file of statistics for each tip
    idempotent: ClassVar[bool] = True  # of equal tips it makes the same again, so nothing has to be read
    looks: ClassVar[bool] = True  # it measures what is in the tensors, and not only how many there are
    shares: ClassVar[bool] = False  # weights are shares: of two tips one that holds three experts has three quarters
    least: ClassVar[int] = 1  # tips
    most: ClassVar[int | None] = None
    version: ClassVar[int] = 1  # of the formula: stored merges are recomputed by it, for ever

    def __post_init__(self) -> None:
        for item in fields(self):
            values = getattr(self, item.name)
            for value in values if isinstance(values, tuple) else (values,):
                _check(spelled(item.name), value, item.metadata)

    def choice(self, count: int) -> int | None:
        """The place among ``count`` tips of the one whose tensor is the result as it is, -1 for the base; None if the
        result has to be computed."""
        return None

    def survey(self, model: Iterable[Sides]) -> Measures:
        """What is measured over all parameters together that this strategy merges."""
        return {}

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """What is measured of one parameter; ``model`` is what ``survey`` found. Raises ``ThetaError`` if there is no
        answer."""
        return {}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        """The merged elements of one tile."""
        raise NotImplementedError

    def reordered(self, order: Sequence[int]) -> Strategy:
        """The same for tips in another order: options that name a value for each tip follow."""
        each = {item.name: getattr(self, item.name) for item in fields(self)}
        moved = {
            name: tuple(values[index] for index in order)
            for name, values in each.items()
            if isinstance(values, tuple) and len(values) == len(order)
        }
        return replace(self, **moved) if moved else self


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A weighted sum: ``(sum(tips[i] * tip i) + base * base) / divisor``."""

    tips: tuple[float, ...]
    base: float = 0.0
    divisor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Strategy):
    """Base of strategies whose result is a weighted sum of the tips and the base."""

    def coefficients(self, sides: Sides) -> Coefficients:
        """The weights of the sum."""
        raise NotImplementedError

    def measure(self, sides: Sides, model: Measures) -> Measures:
        found = self.coefficients(sides)
        return {"tips": found.tips, "base": (found.base,), "divisor": (found.divisor,)}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        (base,), (divisor,) = measures["base"], measures["divisor"]
        arrays, weights = (*tile.tips, tile.base), (*measures["tips"], base)
        return weighted(arrays, weights, divisor) if base else weighted(tile.tips, measures["tips"], divisor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking(Strategy):
    """Base of strategies that drop parts of each task vector. What is left is added up or, if ``signed``, merged where
    it goes the way most of it goes; ``measure`` puts what ``whole_of`` says under ``divisor``."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False
    signed: ClassVar[bool] = False  # whether a sign is elected for each element

    lambda_: float = option(1.0, "what the merged task vector is multiplied by")
    normalize: bool = option(default=False, text="divide by the sum of the weights")

    def whole_of(self, weights: Sequence[float]) -> float:
        """What a weighted sum is divided by. Raises ``ThetaError`` if the weights sum to 0."""
        return divisor(weights, normalize=self.normalize and not self.signed)

    def applied(self, tile: Tile, deltas: Sequence[Array], measures: Measures) -> Array:
        """The base with what is left of the task vectors."""
        if self.signed:
            moved = merged(tile.xp, deltas, tile.weights, normalize=self.normalize)
        else:
            moved = weighted(deltas, tile.weights, *measures["divisor"])
        return weighted((tile.base, moved), (1.0, self.lambda_))


def spread(values: tuple[float, ...], count: int, name: str) -> tuple[float, ...]:
    """An option that may have one value, or one for each tip. Raises ``UsageError`` for another number of them."""
    if len(values) not in (1, count):
        raise UsageError(f"{name} has {len(values)} values for {count} models")
    return values * count if len(values) == 1 else values


def spelled(name: str) -> str:
    """An option's name as users write it: ``lambda`` for ``lambda_``."""
    return name.rstrip("_")


def names() -> list[str]:
    """All strategies that can be had: the built-in ones, then those of installed packages."""
    from importlib.metadata import entry_points  # 70 ms that no merge by a built-in strategy pays

    return [*BUILT_IN, *(point.name for point in entry_points(group=GROUP) if point.name not in BUILT_IN)]


@cache
def load(name: str) -> type[Strategy]:
    """The strategy of this name: a built-in, else one that an installed package provides as an entry point.

    Raises ``UsageError`` if there is none.
    """
    name = name.replace("-", "_")
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        built_in: type[Strategy] = getattr(import_module(f".{module}", __name__), attribute)
        return built_in
    from importlib.metadata import entry_points  # 70 ms that only a plug-in has to pay

    for point in entry_points(group=GROUP, name=name):
        try:
            plug_in = point.load()
        except (ImportError, AttributeError) as error:
            raise ThetaError(f"the plug-in for the merge strategy {name[:40]!r} is broken: {error}") from None
        if isinstance(plug_in, type) and issubclass(plug_in, Strategy):
            return plug_in
        raise ThetaError(f"the plug-in for the merge strategy {name[:40]!r} is no Strategy")
    raise UsageError(f"there is no merge strategy {name[:40]!r}: 'git theta merge --list' names all")


def make(name: str, options: Mapping[str, object]) -> Strategy:
    """A strategy with options, which may be texts as a command line has them.

    Raises ``UsageError`` for a strategy or an option that does not exist, or a value that makes no sense.
    """
    strategy = load(name)
    known = {spelled(item.name): item for item in fields(strategy)}
    values = {}
    for word, value in options.items():
        item = known.get(word.replace("-", "_"))
        if item is None:
            has = ", ".join(known) or "none"
            raise UsageError(f"{name} has no option {word[:40]!r}: it has {has}")
        values[item.name] = _parse(word, value, item.default)
    return strategy(**values)


def _parse(name: str, value: object, default: object) -> object:
    """A value as the type that the default has."""
    try:
        if isinstance(default, tuple):
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(map(float, parts if isinstance(parts, Iterable) else (parts,)))
        if isinstance(default, bool):
            return value if isinstance(value, bool) else _TRUTHS[str(value).lower()]
        if isinstance(default, int):  # 10.0 is as good as 10, and 2**53 + 1 no less than that
            text = str(value)
            return int(text) if text.lstrip("-").isdigit() else _whole(float(text))
        return type(default)(value)  # type: ignore[call-arg]
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{name} cannot be {str(value)[:40]!r}") from None


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError
    return int(number)


_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    low, high, choices = limits.get("low"), limits.get("high"), limits.get("choices")
    if choices and value not in choices:
        raise UsageError(f"{name} cannot be {str(value)[:40]!r}: it is one of {', '.join(choices)}")
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        raise UsageError(f"{name} cannot be {value}")
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"at least {low:g}" if high is None else f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
        raise UsageError(f"{name} cannot be {value:g}: it is {span}")
