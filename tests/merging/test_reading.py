"""Recipes as users write them: in YAML, and in the words of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_btm.errors import UsageError
from git_theta_btm.merging.drafts import Draft, DraftRule, Prior, resolve
from git_theta_btm.merging.reading import from_pairs, load, option, parse, rule, scalar, weights
from git_theta_btm.merging.recipe import Gradient, Rule

WHOLE = """
strategy: dare-ties
options: {density: 0.2, lambda: {gradient: [0.2, 1.0, 0.2]}, normalize: true, rescale: l1}
base: seed
missing: any
vocabulary: ours
exclude: ["*.position_ids"]
experts:
  - {revision: legal, weight: 0.5}
  - {revision: origin/medical, weight: {gradient: [0, 1]}}
rules:
  - match: "*.embed_tokens.weight"
    strategy: average
    weights: [1, 2]
  - match: ["*.norm.*", "lm_head.*"]
    options: {select-topk: 1e-3}
    weights: {legal: 0.6, origin/medical: 0.4}
"""


def test_all_that_a_recipe_can_say() -> None:
    assert parse(WHOLE) == Draft(
        strategy="dare_ties",
        options={"density": 0.2, "lambda": Gradient((0.2, 1.0, 0.2)), "normalize": True, "rescale": "l1"},
        weights={"legal": 0.5, "origin/medical": Gradient((0.0, 1.0))},
        rules=(
            DraftRule(Rule(("*.embed_tokens.weight",), "average"), (1.0, 2.0)),
            DraftRule(
                Rule(("*.norm.*", "lm_head.*"), None, {"select_topk": "1e-3"}), {"legal": 0.6, "origin/medical": 0.4}
            ),
        ),
        exclude=("*.position_ids",),
        missing="any",
        vocabulary="ours",
        experts=("legal", "origin/medical"),
        base="seed",
    )


@pytest.mark.parametrize(
    ("text", "experts", "given"),
    [
        ("experts: [legal, medical]", ("legal", "medical"), None),
        ("experts: {legal: 0.5, medical: 2}", ("legal", "medical"), {"legal": 0.5, "medical": 2.0}),
        ("{experts: [legal, medical], weights: uniform}", ("legal", "medical"), ()),
        ("{experts: [legal, medical], weights: [1, 3]}", ("legal", "medical"), (1.0, 3.0)),
        ("weights: {legal: 0.5}", (), {"legal": 0.5}),
        ("strategy: ties\nweights:", (), None),
    ],
)
def test_experts_and_weights(text: str, experts: tuple[str, ...], given: object) -> None:
    draft = parse(text)
    assert (draft.experts, draft.weights) == (experts, given)


def test_a_prior_lies_beside_the_recipe() -> None:
    draft = parse("{weights: priors/legal.json, sharpen: 2, top_k: 3}", "models/merge.yml")
    assert (draft.weights, draft.sharpen, draft.top_k) == (Prior("models/priors/legal.json"), 2.0, 3)


def test_an_empty_list_takes_exclusions_back() -> None:
    assert resolve(parse("exclude: []"), ()).exclude == ()
    assert resolve(parse("exclude: a*"), ()).exclude[-1] == "a*"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strateggy: ties", "strateggy: is not a key here: there are strategy, options"),
        ("strategy: [ties]", "strategy: has to be a text, not a list"),
        ("strategy: ''", "strategy: is empty"),
        ("options: [density]", "options: has to be a mapping"),
        ("options: {density: 2024-01-01}", "options.density: has to be a number, a text"),
        ("options: {density: .nan}", "options.density: has to be a number"),
        ("options: {density: [1, {gradient: 2}]}", r"options.density\[1\]: has to be a number or {gradient"),
        ("missing: maybe", "missing: has to be one of error, ours, any"),
        ("vocabulary: [strict]", "vocabulary: has to be one of strict, ours"),
        ("exclude: [1]", r"exclude\[0\]: has to be a text"),
        ("experts: legal", "experts: has to be a list"),
        ("experts: [{weight: 1}]", r"experts\[0\]: has no revision"),
        ("experts: [{revision: a, mass: 1}]", r"experts\[0\].mass: is not a key here"),
        ("experts: [a, a]", r"experts\[1\]: is there twice"),
        ("experts: [{revision: a, weight: 1}, b]", "experts: some have a weight"),
        ("{experts: {a: 1}, weights: [1]}", "weights: experts have their weights already"),
        ("{experts: [a], weights: {b: 1}}", "weights: 'b' is not among the experts"),
        ("rules: {match: a}", "rules: has to be a list"),
        ("rules: [{strategy: ties}]", r"rules\[0\]: has no match"),
        ("rules: [{match: a, density: 0.2}]", r"rules\[0\].density: is not a key here"),
        ("rules: [{match: a, weights: [x]}]", r"rules\[0\].weights\[0\]: has to be a number"),
        ("top_k: 1.5", "top_k: has to be a whole number above 0"),
        ("top_k: 0", "top_k: has to be a whole number above 0"),
        ("sharpen: a lot", "sharpen: has to be a number"),
    ],
)
def test_an_error_names_the_file_and_the_key(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^merge.yml: {words}") as error:
        parse(text, "merge.yml")
    assert "\n" not in str(error.value)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "merge.yml"
    path.write_text("strategy: ties")
    assert load(str(path)).strategy == "ties"
    path.write_bytes(b"strategy: \xff")
    with pytest.raises(UsageError, match="no text in UTF-8"):
        load(str(path))
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match=str(missing)):
            load(str(missing))


def test_mergekits_recipes_are_known_by_their_key() -> None:
    draft = parse("{merge_method: karcher, models: [{model: a}, {model: b}]}")
    assert (draft.strategy, draft.experts) == ("karcher", ("a", "b"))


# -- words -----------------------------------------------------------------------------------------------------------


def test_words_in_their_order() -> None:
    pairs = [
        ("method", "dare-ties"),
        ("density", "0.2"),
        ("lambda", "0.2:1.0"),
        ("weights", "0.25,0.75"),
        ("rule", "'*.embed *' average weights=1,2"),
        ("rule", "*.norm lambda=0.5"),
        ("exclude", "a*"),
        ("exclude", ""),
        ("missing", "ours"),
        ("vocabulary", "ours"),
        ("sharpen", "inf"),
        ("top-k", "2"),
        ("base", "v1"),
        ("seed", "7"),
        ("sce.select-topk", "0.3"),
        ("density", "0.3"),
    ]
    assert from_pairs(pairs) == Draft(
        strategy="dare_ties",
        options={"density": "0.3", "lambda": Gradient((0.2, 1.0)), "seed": "7"},
        defaults={"sce": {"select_topk": "0.3"}},
        weights=(0.25, 0.75),
        sharpen=float("inf"),
        top_k=2,
        rules=(
            DraftRule(Rule(("*.embed *",), "average"), (1.0, 2.0)),
            DraftRule(Rule(("*.norm",), None, {"lambda": "0.5"})),
        ),
        exclude=("a*", ""),
        missing="ours",
        vocabulary="ours",
        base="v1",
    )


def test_words_are_over_the_recipe_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "merge.yml"
    path.write_text("{strategy: ties, options: {density: 0.1, lambda: 2}, weights: [1, 2], rules: [{match: a}]}")
    draft = from_pairs([("density", "0.3"), ("rule", "b average"), ("recipe", str(path))])
    assert (draft.strategy, draft.options) == ("ties", {"density": "0.3", "lambda": 2})
    assert [item.rule.match for item in draft.rules] == [("a",), ("b",)]
    assert draft.weights == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uniform", ()),
        ("0.5,0.5", (0.5, 0.5)),
        ("0.1:0.9,1", (Gradient((0.1, 0.9)), 1.0)),
        ("legal=0.5,origin/a=b=2", {"legal": 0.5, "origin/a=b": 2.0}),
        ("legal=0:1", {"legal": Gradient((0.0, 1.0))}),
        ("prior.json", Prior("prior.json")),
        ("a=b/prior.json", Prior("a=b/prior.json")),
    ],
)
def test_weights_in_words(text: str, expected: object) -> None:
    assert weights(text) == expected


def test_numbers_and_gradients_in_words() -> None:
    assert scalar("0.1") == 0.1
    assert scalar("0.5:") == Gradient((0.5,))
    assert scalar("1:2:3") == Gradient((1.0, 2.0, 3.0))
    assert [scalar(text) for text in ("", ":", "a", "nan", "1:inf", "1::2", "1:2:")] == [None] * 7
    assert option("model") == "model"
    assert option("0.2,0.3") == "0.2,0.3"
    assert option("0.2,0:1") == (0.2, Gradient((0.0, 1.0)))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("missing", "maybe", "missing cannot be 'maybe': it is one of error, ours, any"),
        ("vocabulary", "x", "one of strict, ours"),
        ("sharpen", "much", "sharpen cannot be 'much'"),
        ("top-k", "0", "top-k cannot be '0'"),
        ("top_k", "²", "top-k cannot be"),
        ("strategy", "", "strategy has no value"),
        ("weights", "", "weights has no value"),
        ("rule", "", "has to be 'GLOB STRATEGY key=value ...'"),
        ("rule", "'a", "has to be 'GLOB STRATEGY key=value ...'"),
        ("rule", "a ties density", "'density' in the rule for 'a' has to be key=value"),
        ("rule", "a ties =1", "has to be key=value"),
    ],
)
def test_words_that_make_no_sense(key: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_pairs([(key, value)])


def test_a_rule_may_say_weights_alone() -> None:
    assert rule("*.w weights=legal=1,medical=2") == DraftRule(Rule(("*.w",)), {"legal": 1.0, "medical": 2.0})
