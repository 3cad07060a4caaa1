"""Merge predicts what its strategy makes of whole tensors, from the parameters alone, and refuses all others."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest

from git_theta_btm.encoded import Decoded, Header, encode_span, table
from git_theta_btm.errors import CorruptObject, ObjectError
from git_theta_btm.floats import TILE, narrow, widen
from git_theta_btm.maths.chance import key
from git_theta_btm.merges import BUILT_IN, Measures, Sides, Strategy, Tile, load, make
from git_theta_btm.planes import TYPES, Values
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import Span
from git_theta_btm.updates.merge import parameters, predict

WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1}
COUNT = TILE + 4321  # more than a tile
WEIGHTS = (0.5, 1.0, 0.3)
KEYS = tuple(key("w", str(place)) for place in range(3))


def repeatable(name: str) -> bool:
    strategy = load(name)
    pointwise = strategy.exact and not strategy.whole and not strategy.statistics
    return pointwise and strategy.combine is not Strategy.combine


STRATEGIES = [name for name in BUILT_IN if repeatable(name)]
OPTIONS: dict[str, list[dict[str, object]]] = {
    "ties": [{"density": "0.3,0.5,1", "lambda": 0.7, "elect": "frequency"}, {"normalize": False, "scope": "model"}],
    "dare_linear": [{"rescale": "l1", "seed": 5}, {"rescale": "none", "normalize": True}],
    "dare_ties": [{"density": 0.1, "rescale": "l1"}],
    "breadcrumbs": [{"gamma": "0.1,0,0.3", "normalize": True}],
    "breadcrumbs_ties": [{"normalize": True, "lambda": -1}],
    "sce": [{"select_topk": 0.2}],
    "consensus": [{"k": 3, "tall_lambda": 0.2}],
    "linear": [{"normalize": False}],
}
CASES = [(name, options) for name in STRATEGIES for options in [{}, *OPTIONS.get(name, [])]]


def tensors(dtype: str, count: int, size: int = COUNT) -> list[Values]:
    """Patterns of a base, last, and of tips near it."""
    random = np.random.default_rng(7)
    base = random.normal(0, 1, size)
    tips = [base + random.normal(0, 0.1, size) for _ in range(count)]
    return [narrow(each, dtype) for each in (*tips, base)]


def tips_of(strategy: Strategy) -> int:
    return min(3, strategy.most or 3)


def combined(strategy: Strategy, patterns: list[Values], dtype: str) -> tuple[Measures, Values]:
    """What is measured, and the merge of one tile of all elements."""
    *tips, base = (widen(each, dtype) for each in patterns)
    weights = WEIGHTS[: len(tips)]
    tile = Tile(tuple(tips), weights, base, 0, KEYS[: len(tips)])
    sides = Sides("w", base.shape, weights, lambda: [tile], has_base=True)
    with np.errstate(all="ignore"):
        measures = strategy.measure(sides, strategy.survey([sides]))
        return measures, narrow(strategy.combine(tile, measures), dtype)


def told(name: str, strategy: Strategy, measures: Measures, dtype: str = "F32") -> dict[str, Any]:
    """The parameters as a reader gets them."""
    count = tips_of(strategy)
    found = {
        **parameters(name, strategy, measures),
        "dtype": dtype,
        "has_base": True,
        "keys": [each.hex() for each in KEYS[:count]],
        "weights": [weight.hex() for weight in WEIGHTS[:count]],
    }
    again: dict[str, Any] = json.loads(json.dumps(found))
    return again


def sources(patterns: list[Values]) -> list[BytesSource]:
    return [BytesSource(each.tobytes()) for each in patterns]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_what_the_strategy_makes_of_them(name: str, options: dict[str, object], dtype: str) -> None:
    strategy = make(name, options)
    patterns = tensors(dtype, tips_of(strategy))
    measures, expected = combined(strategy, patterns, dtype)
    found = predict(Span(0, expected.nbytes, WIDTH[dtype]), sources(patterns), told(name, strategy, measures, dtype))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_part_is_a_part_of_the_whole(name: str) -> None:
    strategy = make(name, {})
    patterns = tensors("F32", tips_of(strategy))
    measures, expected = combined(strategy, patterns, "F32")
    for start, count in ((0, 1), (77, 1000), (TILE - 3, 7), (COUNT - 1, 1)):
        found = predict(Span(4 * start, 4 * count, 4), sources(patterns), told(name, strategy, measures))
        assert np.array_equal(found, expected[start : start + count])


@pytest.mark.parametrize("dtype", WIDTH)
def test_ties_by_hand(dtype: str) -> None:
    patterns = tensors(dtype, 3, 1000)
    strategy = make("ties", {"density": 0.3, "lambda": 0.5})
    measures, _ = combined(strategy, patterns, dtype)
    *tips, base = (widen(each, dtype) for each in patterns)
    expected = []
    lows = [sorted(abs(tip - base), reverse=True)[int(0.3 * 1000) - 1] for tip in tips]
    for row in zip(*tips, base, strict=True):
        deltas = [tip - row[-1] if abs(tip - row[-1]) >= low else 0.0 for tip, low in zip(row, lows, strict=False)]
        terms = [delta * weight for delta, weight in zip(deltas, WEIGHTS, strict=True)]
        sign = -1 if terms[0] + terms[1] + terms[2] < 0 else 1
        agree = [(term, weight) for term, weight in zip(terms, WEIGHTS, strict=True) if term * sign > 0]
        mean = sum(term for term, _ in agree) / sum(weight for _, weight in agree) if agree else 0.0
        expected.append(row[-1] + 0.5 * mean)
    span = Span(0, patterns[0].nbytes, WIDTH[dtype])
    found = predict(span, sources(patterns), told("ties", strategy, measures, dtype))
    assert np.array_equal(found, narrow(np.array(expected), dtype))


@pytest.mark.parametrize("name", STRATEGIES)
def test_through_an_object_and_back(name: str) -> None:
    """A prediction that is right costs nothing but its parameters and four bytes for each chunk."""
    strategy = make(name, {})
    patterns = tensors("F32", tips_of(strategy), 10_000)
    measures, expected = combined(strategy, patterns, "F32")
    header = Header("merge", 4, expected.nbytes, told(name, strategy, measures), chunk=1 << 14)
    payloads = [
        encode_span(expected.tobytes()[span.offset :][: span.size], span, header, sources(patterns))
        for span in header.spans()
    ]
    data = header.dumps() + b"".join(payloads) + table([len(payload) for payload in payloads])
    assert len(data) < 1200
    assert Decoded(BytesSource(data), sources(patterns)).read(0, expected.nbytes) == expected.tobytes()


# -- parameters that nobody wrote ------------------------------------------------------------------------------------

NUMBERS = ["0x1p+0"]
HOSTILE: dict[str, dict[str, Any]] = {
    "an unknown strategy": {"strategy": "avrage"},
    "a module": {"strategy": "os"},
    "no text for a strategy": {"strategy": ["ties"]},
    "another version": {"version": 2},
    "a version in words": {"version": "1"},
    "options that are none": {"options": None},
    "options in a list": {"options": ["density"]},
    "options in a text": {"options": "density"},
    "an option too many": {"options": {"spin": 1}},
    "an option out of its range": {"options": {"density": ["0x1p+1"]}},
    "an infinite option": {"options": {"lambda": "inf"}},
    "a huge option": {"options": {"density": ["0x1p+99999"]}},
    "an option that is nested": {"options": {"density": [[["0x1p-1"]]]}},
    "a word that is none": {"options": {"scope": "world"}},
    "no measures": {"measures": {}},
    "measures that are none": {"measures": None},
    "measures in a list": {"measures": [NUMBERS]},
    "measures in a text": {"measures": "thresholds"},
    "measures that are numbers": {"measures": {"thresholds": [0.0, 0.0, 0.0]}},
    "too few measures": {"measures": {"thresholds": NUMBERS}},
    "too few weights": {"weights": NUMBERS},
    "no weights": {"weights": []},
    "weights that are numbers": {"weights": [1, 1, 1]},
    "too few keys": {"keys": ["00" * 16]},
    "short keys": {"keys": ["00"] * 3},
    "keys that are none": {"keys": ["zz" * 16] * 3},
    "another element type": {"dtype": "BF16"},
    "an element type that cannot be computed with": {"dtype": "I32"},
    "an element type that is none": {"dtype": ["F32"]},
    "a base too few": {"has_base": False},
}
ARGUMENTS = told("ties", make("ties", {}), {"thresholds": (0.1, 0.1, 0.1)})


def read(arguments: dict[str, Any], count: int) -> bytes:
    """The first elements of an object with these parameters. Chunks without payload are what the update predicts."""
    data = Header("merge", 4, 64, arguments).dumps() + table([0])
    return Decoded(BytesSource(data), [BytesSource(bytes(64))] * count).read(0, 64)


def test_the_arguments_that_are_changed_are_good() -> None:
    assert read(ARGUMENTS, 4) == bytes(64)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_parameters(name: str) -> None:
    change = dict(HOSTILE[name])
    if isinstance(change.get("options"), dict):
        change["options"] = {**ARGUMENTS["options"], **change["options"]}
    with pytest.raises(ObjectError):
        read({**ARGUMENTS, **change}, 4)


@pytest.mark.parametrize("missing", ARGUMENTS)
def test_a_missing_parameter(missing: str) -> None:
    with pytest.raises(CorruptObject):
        read({name: value for name, value in ARGUMENTS.items() if name != missing}, 4)


def test_an_option_that_is_left_out() -> None:
    """A default may change; what was stored may not."""
    for gone in ARGUMENTS["options"]:
        options = {name: value for name, value in ARGUMENTS["options"].items() if name != gone}
        with pytest.raises(CorruptObject):
            read({**ARGUMENTS, "options": options}, 4)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if not repeatable(name)])
def test_a_strategy_that_cannot_be_repeated(name: str) -> None:
    """It takes what there is, sees more than a tile, needs statistics, or has a matrix library's last bits."""
    arguments = {**ARGUMENTS, **parameters(name, load(name)(), {}), "keys": ["00" * 16] * 2, "weights": NUMBERS * 2}
    with pytest.raises(ObjectError):
        read(arguments, 3)


def test_no_way_to_go() -> None:
    arguments = {**ARGUMENTS, **parameters("nearswap", make("nearswap", {}), {})}
    arguments |= {"has_base": False, "keys": ["00" * 16], "weights": NUMBERS}
    with pytest.raises(CorruptObject):
        read(arguments, 1)


def test_bases_that_are_too_short() -> None:
    short = partial(Decoded, BytesSource(Header("merge", 4, 64, ARGUMENTS).dumps() + table([0])))
    with pytest.raises(CorruptObject):
        short([BytesSource(bytes(64)), BytesSource(bytes(60)), *[BytesSource(bytes(64))] * 2]).read(0, 64)


def test_what_is_not_a_number_stays_none() -> None:
    strategy = make("dare_ties", {"density": 1})
    patterns = tensors("F32", 3, 100)
    patterns[1] = patterns[1].copy()
    patterns[1][17] = np.array(np.nan, "<f4").view(TYPES[4])
    measures, expected = combined(strategy, patterns, "F32")
    found = predict(Span(0, 400, 4), sources(patterns), told("dare_ties", strategy, measures))
    assert np.array_equal(found, expected)
    assert np.isnan(found.view("<f4")).nonzero()[0].tolist() == [17]
