"""Recipes: which rule has its way, and what a gradient is at each depth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.errors import UsageError
from git_theta_btm.merges.average import Average
from git_theta_btm.merges.ties import Ties
from git_theta_btm.merging.recipe import EXCLUDED, Gradient, Recipe, Rule, depths

NUMBERS = st.floats(-1e6, 1e6)


def test_a_gradient_is_linear_between_its_values() -> None:
    gradient = Gradient((0.0, 1.0, 0.5))
    assert [gradient.at(depth) for depth in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 1, 0.75, 0.5]


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.floats(0, 1))
def test_a_gradient_stays_within_its_values_and_has_them_at_its_ends(values: list[float], depth: float) -> None:
    gradient = Gradient(tuple(values))
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= gradient.at(depth) <= max(values) + slack
    assert gradient.at(0) == values[0]
    assert gradient.at(1) == pytest.approx(values[-1])


def test_a_gradient_of_one_value_is_that_value_everywhere() -> None:
    assert {Gradient((0.3,)).at(depth) for depth in (0, 0.4, 1)} == {0.3}


def test_a_gradient_needs_values() -> None:
    with pytest.raises(UsageError, match="without values"):
        Gradient(())


def test_depths_go_from_the_first_layer_to_the_last() -> None:
    names = ["embed.weight", *(f"model.layers.{layer}.mlp.weight" for layer in (0, 1, 2, 4)), "head"]
    assert depths(names) == {
        "model.layers.0.mlp.weight": 0,
        "model.layers.1.mlp.weight": 0.25,
        "model.layers.2.mlp.weight": 0.5,
        "model.layers.4.mlp.weight": 1,
    }


def test_depths_are_counted_for_each_stack_by_itself() -> None:
    found = depths(["encoder.0.a", "encoder.8.experts.3.w", "decoder.0.a", "decoder.2.a", "decoder/1/a", "only.0.a"])
    assert found["encoder.8.experts.3.w"] == 1
    assert found["decoder.2.a"] == 1
    assert found["decoder/1/a"] == 0.5
    assert found["only.0.a"] == 1
    assert found["encoder.0.a"] == found["decoder.0.a"] == 0


def test_a_number_within_a_word_is_no_layer() -> None:
    assert depths(["conv1.weight", "fc2x.0y.bias"]) == {}


def test_digits_without_end_are_a_layer_too() -> None:
    assert depths(["layers." + "9" * 5000, "layers.0"]) == {"layers." + "9" * 5000: 1, "layers.0": 0}


def test_without_rules_everything_counts_the_same() -> None:
    choice = Recipe().choose("any.weight", 3)
    assert (choice.name, choice.strategy, choice.weights) == ("average", Average(), (1.0, 1.0, 1.0))


def test_of_several_rules_the_last_that_says_something_has_its_way() -> None:
    recipe = Recipe(
        strategy="ties",
        options={"density": 0.3, "lambda": 0.9},
        weights=(1.0, 2.0),
        rules=(
            Rule(("*.mlp.*",), None, {"density": 0.5}, (5.0, 6.0)),
            Rule(("*.mlp.up",), "ties", {"lambda": 2.0}),
            Rule(("*.attn.*", "*.norm"), "average"),
        ),
    )
    assert recipe.choose("0.mlp.up", 2).strategy == Ties(density=(0.5,), lambda_=2.0)
    assert recipe.choose("0.mlp.up", 2).weights == (5.0, 6.0)
    assert recipe.choose("0.mlp.down", 2).strategy == Ties(density=(0.5,), lambda_=0.9)
    assert recipe.choose("0.norm", 2).strategy == Average()
    assert recipe.choose("0.norm", 2).weights == (1.0, 2.0)
    assert recipe.choose("head", 2).strategy == Ties(density=(0.3,), lambda_=0.9)


def test_another_strategy_starts_with_its_own_defaults() -> None:
    rules = (Rule(("a",), "average"), Rule(("a",), "ties", {"lambda": 0.5}))
    recipe = Recipe("ties", {"density": 0.9}, rules=rules)
    assert recipe.choose("a", 2).strategy == Ties(lambda_=0.5)


def test_gradients_are_taken_at_the_parameters_depth() -> None:
    recipe = Recipe("ties", {"lambda": Gradient((0.0, 1.0))}, weights=(Gradient((1.0, 3.0)), 1.0))
    choice = recipe.choose("layers.1.w", 2, depth=0.5)
    assert choice.strategy == Ties(lambda_=0.5)
    assert choice.weights == (2.0, 1.0)


def test_as_many_weights_as_models() -> None:
    with pytest.raises(UsageError, match="2 weights for 3 models"):
        Recipe(weights=(1.0, 2.0)).choose("a", 3)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe("tise"), "no merge strategy 'tise'"),
        (Recipe("ties", {"densty": 0.2}), "no option 'densty'"),
        (Recipe("ties", {"density": 1.5}), "0 to 1"),
        (Recipe("ties", {"normalize": "maybe"}), "cannot be 'maybe'"),
    ],
)
def test_what_makes_no_sense_is_an_error(recipe: Recipe, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe.choose("a", 2)


def test_what_is_a_runs_own_is_excluded() -> None:
    names = ["optimizer.state.0.exp_avg", "model.w", "scheduler.last_epoch", "a.optimizer_state.b", "encoder.w"]
    assert [Recipe().excluded(name) for name in names] == [True, False, True, True, False]
    assert not Recipe(exclude=()).excluded("optimizer.state")
    assert Recipe().exclude == EXCLUDED


def test_a_tip_of_several_experts_counts_as_many_unless_weights_are_given() -> None:
    assert Recipe().weighing([2.0, 1.0]).choose("a", 2).weights == (2.0, 1.0)
    assert Recipe().weighing([3.0, 3.0]) == Recipe()
    assert Recipe(weights=(1.0, 1.0)).weighing([2.0, 1.0]).weights == (1.0, 1.0)
