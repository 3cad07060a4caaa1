"""mergekit: its YAML, read as one of our recipes. Models are revisions, filters globs, lists of numbers gradients.

mergekit's defaults are spelled out where ours are the papers'. What would merge something else than what mergekit does
is refused; what has no effect on the parameters is noted. References: mergekit 0.1.5, ``docs/merge_methods.md`` and the
formulas of each method, which our strategies state with their differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .documents import Value
from .drafts import Draft, DraftRule
from .recipe import Gradient, Rule, Scalar

KEY = "merge_method"

_NOTES = {
    "dtype": "all is computed in float64",
    "out_dtype": "parameters keep the first model's type",
    "tokenizer": "the first model's stays; --vocabulary aligns tables",
    "tokenizer_source": "the first model's stays; --vocabulary aligns tables",
    "chat_template": "the first model's files stay",
    "name": "a merge is named by its commit",
}
_SILENT = {"int8_mask"}  # how mergekit stores masks: no number depends on it
_ALONE = "*"  # what mergekit takes for no filter

Default: TypeAlias = float | bool | None  # None for what has to be given
Condition: TypeAlias = tuple[str, Scalar | bool]  # a text that names have in them, or none, and the value for them


@dataclass(frozen=True, slots=True)
class _Method:
    """A strategy of ours; the options that it shares with mergekit's method, and those with a value for each model.

    ``base`` is what the base model is to it: nothing but a model, what deltas are taken from, that if there is one, or
    one of the two ends of a line.
    """

    strategy: str
    shared: Mapping[str, Default] = field(default_factory=dict)
    each: Mapping[str, float] = field(default_factory=dict)
    weighted: bool = True
    base: str = "required"


_DENSE = {"density": 1.0}
_SUM = {"lambda": 1.0, "normalize": False}
_MEAN = {"lambda": 1.0, "normalize": True}
_PLAIN, _SCALED = {"rescale": False}, {"rescale": True}
_CRUMBS = {"density": 1.0, "gamma": 0.01}
_DELLA = {"density": 1.0, "epsilon": 0.15}
_METHODS = {
    "linear": _Method("linear", {"normalize": True}, base="model"),
    "slerp": _Method("slerp", {"t": None}, weighted=False, base="end"),
    "nuslerp": _Method("nuslerp", {"nuslerp_flatten": True, "nuslerp_row_wise": False}, base="optional"),
    "multislerp": _Method("multislerp", {"normalize_weights": True, "eps": 1e-8}, base="optional"),
    "karcher": _Method("karcher", {"max_iter": 10.0, "tol": 1e-5}, weighted=False, base="model"),
    "task_arithmetic": _Method("task_arithmetic", _SUM),
    "ties": _Method("ties", {**_MEAN, **_PLAIN}, _DENSE),
    "dare_ties": _Method("dare_ties", {**_SUM, **_SCALED}, _DENSE),
    "dare_linear": _Method("dare_linear", {**_SUM, **_SCALED}, _DENSE),
    "della": _Method("della", {**_MEAN, **_SCALED}, _DELLA),
    "della_linear": _Method("della_linear", {**_SUM, **_SCALED}, _DELLA),
    "breadcrumbs": _Method("breadcrumbs", {**_SUM, **_PLAIN}, _CRUMBS),
    "breadcrumbs_ties": _Method("breadcrumbs_ties", {**_SUM, **_PLAIN}, _CRUMBS),
    "sce": _Method("sce", {"select_topk": 1.0}, weighted=False),
    "ram": _Method("ram", {"epsilon": 1e-5}, weighted=False),
    "ramplus_tl": _Method("ram_plus", {"epsilon": 1e-5, "r": 0.1, "alpha": 0.2}, weighted=False),
    "model_stock": _Method("model_stock", {"filter_wise": False}, weighted=False),
    "nearswap": _Method("nearswap", {"t": None}, weighted=False, base="end"),
    "arcee_fusion": _Method("arcee_fusion", weighted=False, base="end"),
    "passthrough": _Method("passthrough", {"scale": 1.0}, weighted=False, base="model"),
}


@dataclass(frozen=True, slots=True)
class _Model:
    """A model with its parameters, and those of all models, the ones that come first having their way."""

    name: str
    own: tuple[Mapping[str, Value], ...] = ()
    shared: tuple[Mapping[str, Value], ...] = ()

    def conditions(self, parameter: str) -> list[Condition]:
        """What is said of a parameter, as far as something without a filter. The first that holds has its way."""
        found: list[Condition] = []
        for level in self.own + self.shared:
            for condition in _conditions(level[parameter]) if parameter in level else ():
                found.append(condition)
                if not condition[0]:
                    return found
        return found


def convert(document: Value) -> Draft:
    """The draft that a configuration of mergekit stands for. Raises ``UsageError`` for what has no counterpart."""
    known = (KEY, "models", "slices", "base_model", "parameters", *_NOTES)
    fields = document.fields(*known)
    word = fields[KEY].text() if KEY in fields else ""
    method = _METHODS.get(word)
    if method is None:
        raise fields.get(KEY, document).error(f"{word[:40]!r} has no counterpart: there are {', '.join(_METHODS)}")
    base = fields["base_model"].text() if "base_model" in fields else None
    models = _experts(document, method, _models(document, fields), base)
    rules: list[DraftRule] = []
    strategy, options = _options(document, method, models, rules)
    if method.base == "optional":
        options["deltas"] = base is not None
    weights = _vector(document, "weight", models, rules) if method.weighted else ()
    return Draft(
        strategy=strategy,
        options=options,
        weights=weights,
        rules=tuple(rules),
        experts=tuple(model.name for model in models),
        base=base if method.base in ("required", "optional") else None,
        notes=tuple(_notes(document, fields, method, models)),
    )


# -- models ----------------------------------------------------------------------------------------------------------


def _models(document: Value, fields: Mapping[str, Value]) -> list[_Model]:
    """All that are listed."""
    levels = _levels(fields)
    if ("models" in fields) == ("slices" in fields):
        raise document.error("has to have either models or slices")
    if "models" in fields:
        items = [item.fields("model", "parameters") for item in fields["models"].items()]
    else:
        slices = fields["slices"].items()
        if len(slices) != 1:
            raise fields["slices"].error("stack layers, which has no counterpart: only whole models are merged")
        inner = slices[0].fields("sources", "parameters")
        levels = _levels(inner) + levels
        items = _sources(inner.get("sources", slices[0]))
    for place, item in enumerate(items):
        if "model" not in item:
            raise document.error(f"model number {place + 1} has no name")
    return [_Model(item["model"].text(), _levels(item), levels) for item in items]


def _sources(value: Value) -> list[dict[str, Value]]:
    """The models of one slice, if it has them from the first layer to the same last one."""
    sources = [item.fields("model", "layer_range", "parameters") for item in value.items()]
    ranges = {tuple(n.number() for n in item["layer_range"].items()) for item in sources if "layer_range" in item}
    if len(ranges) > 1 or any(len(span) != 2 or span[0] != 0 for span in ranges):
        raise value.error("have some layers only, which has no counterpart: only whole models are merged")
    return sources


def _levels(fields: Mapping[str, Value]) -> tuple[Mapping[str, Value], ...]:
    return (fields["parameters"].entries(),) if "parameters" in fields else ()


def _experts(document: Value, method: _Method, models: list[_Model], base: str | None) -> list[_Model]:
    """The models that are merged, in their order; whether the base is one of them is the method's to say."""
    if len({model.name for model in models}) < len(models):
        raise document.error("a model is there twice")
    if method.base in ("required", "end") and base is None:
        raise document.error("has no base_model, which this method needs")
    if method.base == "model":
        return models
    others = [model for model in models if model.name != base]
    if not others:
        raise document.error("has no model but the base_model")
    if method.base == "end":
        if len(others) != 1:
            raise document.error(f"has {len(others)} models besides the base_model: this method takes one")
        return [_Model(base or ""), *others]
    return others


# -- parameters ------------------------------------------------------------------------------------------------------


def _options(
    document: Value, method: _Method, models: Sequence[_Model], rules: list[DraftRule]
) -> tuple[str, dict[str, object]]:
    """The strategy and its options; what is different for some parameters becomes rules."""
    options: dict[str, object] = {}
    together = models[-1] if len(models) == 1 else _Model("the merge", (), models[-1].shared)
    for name, default in method.shared.items():
        *filtered, (_, value) = _complete(document, name, together, default)
        if isinstance(default, bool) and (filtered or value not in (False, True)):
            raise document.error(f"{name} has to be true or false")
        options[name] = bool(value) if isinstance(default, bool) else value
        rules += [DraftRule(Rule((_glob(text),), None, {name: other})) for text, other in reversed(filtered)]
    for name, default in method.each.items():
        options[name] = _vector(document, name, models, rules, default)
    return _special(document, method.strategy, options), options


def _vector(
    document: Value, name: str, models: Sequence[_Model], rules: list[DraftRule], default: float | None = None
) -> tuple[Scalar, ...]:
    """One value for each model. Filters have to be the same, and in the same order, for all models that have any."""
    chains = [_complete(document, name, model, default) for model in models]
    filters = {tuple(text for text, _ in chain[:-1]) for chain in chains if len(chain) > 1}
    if len(filters) > 1:
        raise document.error(f"the filters of {name} differ between models, which has no counterpart")
    for place, text in reversed(list(enumerate(next(iter(filters), ())))):
        values = tuple(chain[place if len(chain) > 1 else -1][1] for chain in chains)
        match = (_glob(text),)
        rules.append(
            DraftRule(Rule(match), values) if name == "weight" else DraftRule(Rule(match, None, {name: values}))
        )
    return tuple(chain[-1][1] for chain in chains)


def _complete(document: Value, name: str, model: _Model, default: Default) -> list[Condition]:
    """All that is said of a parameter, ending with what holds for the rest."""
    found = model.conditions(name)
    if found and not found[-1][0]:
        return found
    if default is None:
        raise document.error(f"no {name} for {model.name[:80]!r}")
    return [*found, ("", default)]


def _conditions(value: Value) -> Iterator[Condition]:
    if not value.is_a(list):
        yield "", value.truth() if value.is_a(bool) else value.number()
    elif any(item.is_a(dict) for item in value.items()):
        for item in value.items():
            fields = item.fields("filter", "value")
            if "value" not in fields:
                raise item.error("has no value")
            text = fields["filter"].text() if "filter" in fields else _ALONE
            yield "" if text == _ALONE else text, _scalar(fields["value"])
    else:
        yield "", _scalar(value)


def _scalar(value: Value) -> Scalar:
    """A number, or a list of them: a gradient."""
    if not value.is_a(list):
        return value.number()
    if not value.raw:
        raise value.error("is empty")
    return Gradient(tuple(item.number() for item in value.items()))


def _glob(text: str) -> str:
    """The glob for names that have a text in them."""
    return "*" + "".join(f"[{char}]" if char in "*?[" else char for char in text) + "*"


def _special(document: Value, strategy: str, options: dict[str, object]) -> str:
    """The strategy for options that are strategies with us; those that are words with us become them."""
    if "rescale" in options:
        rescale = options.pop("rescale")
        if strategy.startswith(("dare", "della")):
            options["rescale"] = "l1" if rescale else "none"
        elif rescale:
            raise document.error(f"rescale has no counterpart in {strategy}")
    if options.pop("filter_wise", False):
        return "model_stock_rows"
    columns = options.pop("nuslerp_row_wise", False)
    if not options.pop("nuslerp_flatten", True):
        options["along"] = "columns" if columns else "rows"
        return "nuslerp_rows"
    return strategy


def _notes(document: Value, fields: Mapping[str, Value], method: _Method, models: Sequence[_Model]) -> Iterator[str]:
    yield from (f"{document.origin}: {key} has no effect: {note}" for key, note in _NOTES.items() if key in fields)
    if "slices" in fields:
        yield f"{document.origin}: layer_range has no effect: whole models are merged"
    own = {*method.each, *_SILENT, *(("weight",) if method.weighted else ())}
    known = {*own, *method.shared}
    given = {name: known if len(models) == 1 else own for model in models for level in model.own for name in level}
    given |= {name: known for model in models for level in model.shared for name in level}
    yield from (f"{document.origin}: {name} has no effect" for name, useful in given.items() if name not in useful)
