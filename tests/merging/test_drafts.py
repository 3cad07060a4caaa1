"""Drafts: which place has its way, and what weights by name become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from git_theta_btm.errors import UsageError
from git_theta_btm.merges.ties import Ties
from git_theta_btm.merging.drafts import Draft, DraftRule, Prior, check_globs, layered, resolve
from git_theta_btm.merging.recipe import EXCLUDED, Gradient, Recipe, Rule, Scalar

NAMES = ("legal", "medical", "code")


def test_nothing_said_is_the_recipe_of_all_defaults() -> None:
    assert resolve(Draft(), NAMES) == Recipe()


def test_the_higher_place_has_its_way() -> None:
    low = Draft(strategy="ties", options={"density": 0.1, "lambda": 2}, missing="any", base="seed", exclude=("a*",))
    high = Draft(options={"density": 0.5}, missing="ours", vocabulary="ours", exclude=("b*",))
    recipe = resolve(layered([low, high]), NAMES)
    assert (recipe.strategy, recipe.options) == ("ties", {"density": 0.5, "lambda": 2})
    assert (recipe.missing, recipe.vocabulary) == ("ours", "ours")
    assert recipe.exclude == (*EXCLUDED, "a*", "b*")
    assert layered([low, high]).base == "seed"


def test_options_end_with_the_strategy_that_they_were_for() -> None:
    low = Draft(strategy="ties", options={"density": 0.1})
    assert resolve(Draft(strategy="average").over(low), NAMES).options == {}
    assert resolve(Draft(strategy="ties").over(low), NAMES).options == {"density": 0.1}
    assert resolve(Draft(strategy="ties").over(Draft(options={"density": 0.1})), NAMES).options == {"density": 0.1}


def test_defaults_are_for_their_strategy_wherever_it_is_chosen() -> None:
    low = Draft(strategy="average", defaults={"ties": {"density": "0.1", "lambda": "2"}, "sce": {"select_topk": "0.3"}})
    high = Draft(defaults={"ties": {"lambda": "3"}}, rules=(DraftRule(Rule(("*.w",), "ties", {"scope": "model"})),))
    recipe = resolve(high.over(low), NAMES)
    assert recipe.options == {}
    assert recipe.choose("a.w", 3).strategy == Ties(density=(0.1,), lambda_=3.0, scope="model")
    chosen = resolve(layered([low, high, Draft(strategy="ties", options={"lambda": "4"})]), NAMES)
    assert chosen.choose("a.b", 3).strategy == Ties(density=(0.1,), lambda_=4.0)
    assert chosen.choose("a.w", 3).strategy == Ties(density=(0.1,), lambda_=4.0, scope="model")


def test_an_empty_exclusion_takes_back_all_before_it() -> None:
    assert resolve(Draft(exclude=("",)), NAMES).exclude == ()
    assert resolve(layered([Draft(exclude=("a",)), Draft(exclude=("", "b", "b"))]), NAMES).exclude == ("b",)


def test_weights_by_name_are_put_in_the_experts_order() -> None:
    weights: dict[str, Scalar] = {"code": 0.1, "legal": Gradient((0.2, 0.6)), "medical": 0.5}
    rules = (DraftRule(Rule(("*",)), {"legal": 1.0, "medical": 2.0, "code": 3.0}),)
    recipe = resolve(Draft(weights=weights, rules=rules), NAMES)
    assert recipe.weights == (Gradient((0.2, 0.6)), 0.5, 0.1)
    assert recipe.rules[0].weights == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"legal": 1.0, "medical": 1.0, "coed": 1.0}, "'coed' is not merged: there are legal, medical, code"),
        ({"legal": 1.0, "medical": 1.0}, "none for 'code'"),
        ((1.0, 2.0), "2 for 3 models"),
    ],
)
def test_weights_have_to_be_those_of_the_experts(weights: object, words: str) -> None:
    with pytest.raises(UsageError, match=f"^weights: {words}"):
        resolve(Draft(weights=weights), NAMES)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"^a rule's weights: {words}"):
        resolve(Draft(rules=(DraftRule(Rule(("*",)), weights),)), NAMES)  # type: ignore[arg-type]


def test_uniform_takes_back_the_weights_of_a_lower_place() -> None:
    assert resolve(Draft(weights=()).over(Draft(weights=(1.0, 2.0, 3.0))), NAMES).weights == ()


def test_a_prior_is_sharpened_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"code": 0.1, "legal": 0.7, "medical": 0.2}))
    prior = Prior(str(path))
    assert resolve(Draft(weights=prior), NAMES).weights == (0.7, 0.2, 0.1)
    assert resolve(Draft(weights=prior, top_k=2), NAMES).weights == pytest.approx((7 / 9, 2 / 9, 0))
    assert resolve(Draft(weights=prior, sharpen=0), NAMES).weights == pytest.approx((1 / 3,) * 3)
    assert resolve(Draft(weights=(3.0, 0.0, 1.0), sharpen=2), NAMES).weights == pytest.approx((0.9, 0, 0.1))
    assert resolve(Draft(rules=(DraftRule(Rule(("*",)), prior),)), NAMES).rules[0].weights == (0.7, 0.2, 0.1)


def test_weights_with_a_gradient_cannot_be_sharpened() -> None:
    with pytest.raises(UsageError, match="gradient"):
        resolve(Draft(weights=(Gradient((0.0, 1.0)), 1.0, 1.0), top_k=1), NAMES)


def test_a_glob_that_matches_nothing_is_an_error() -> None:
    draft = Draft(rules=(DraftRule(Rule(("*.mlp.*",))),), exclude=("", "*.position_ids"))
    check_globs(draft, ["a.mlp.w", "a.position_ids"])
    with pytest.raises(UsageError, match=r"no parameter matches '\*\.position_ids'"):
        check_globs(draft, ["a.mlp.w"])
    with pytest.raises(UsageError, match=r"'\*\.mlp\.\*'"):
        check_globs(draft, ["a.position_ids"])
