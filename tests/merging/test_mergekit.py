"""mergekit's YAML as our recipes: the same method, the same numbers for the same parameters."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from git_theta_btm.errors import UsageError
from git_theta_btm.merges import make
from git_theta_btm.merging.drafts import Draft, resolve
from git_theta_btm.merging.mergekit import _METHODS
from git_theta_btm.merging.reading import parse
from git_theta_btm.merging.recipe import Gradient, Recipe

SLERP = """
slices:
  - sources:
      - {model: psmathur/orca_mini_v3_13b, layer_range: [0, 40]}
      - {model: garage-bAInd/Platypus2-13B, layer_range: [0, 40]}
merge_method: slerp
base_model: psmathur/orca_mini_v3_13b
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: float16
"""

TIES = """
models:
  - model: orca
    parameters: {density: [1, 0.7, 0.1], weight: 1.0}
  - model: platypus
    parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}
  - model: wizard
    parameters:
      density: 0.33
      weight: [{filter: mlp, value: 0.5}, {value: 0}]
  - model: llama
merge_method: ties
base_model: llama
parameters: {normalize: true, int8_mask: true}
"""


def minimal(method: str, parameters: str = "{}", own: str = "{weight: 1}") -> str:
    """Two models and a base, or as many as the method takes."""
    base = _METHODS[method].base
    models = {"end": "[a, base]", "model": "[a]" if method == "passthrough" else "[a, b]"}.get(base, "[a, b]")
    listed = ", ".join(f"{{model: {name}, parameters: {own}}}" for name in models.strip("[]").split(", "))
    line = "" if base in ("model", "optional") else "base_model: base"
    return f"merge_method: {method}\nmodels: [{listed}]\nparameters: {parameters}\n{line}"


def recipe(text: str) -> Recipe:
    draft = parse(text)
    return resolve(draft, draft.experts)


@pytest.mark.parametrize("method", _METHODS)
def test_each_method_is_a_strategy_with_options_that_it_has(method: str) -> None:
    draft = parse(minimal(method, "{t: 0.3}"))
    made = make(draft.strategy or "", draft.options)
    assert len(draft.experts) >= made.least
    assert made.most is None or len(draft.experts) <= made.most
    assert not made.needs_base or draft.base == "base"
    assert resolve(draft, draft.experts).choose("x", len(draft.experts)).strategy == made


def test_slerp_as_mergekits_documentation_has_it() -> None:
    draft = parse(SLERP, "m.yml")
    assert (draft.strategy, draft.base) == ("slerp", None)
    assert draft.experts == ("psmathur/orca_mini_v3_13b", "garage-bAInd/Platypus2-13B")
    found = resolve(draft, draft.experts)
    for name, depth, t in [
        ("model.layers.0.self_attn.q", 0.0, 0.0),
        ("model.layers.9.self_attn.q", 1.0, 1.0),
        ("model.layers.3.mlp.up", 0.25, 0.5),
        ("model.layers.9.mlp.up", 1.0, 0.0),
        ("model.layers.9.mlp.self_attn", 1.0, 1.0),  # the first filter that holds
        ("lm_head.weight", 0.0, 0.5),
    ]:
        assert found.choose(name, 2, depth).strategy == make("slerp", {"t": t})
    assert draft.notes == (
        "m.yml: dtype has no effect: all is computed in float64",
        "m.yml: layer_range has no effect: whole models are merged",
    )


def test_ties_as_mergekits_documentation_has_it() -> None:
    draft = parse(TIES)
    assert (draft.strategy, draft.experts, draft.base) == ("ties", ("orca", "platypus", "wizard"), "llama")
    assert draft.options == {"lambda": 1.0, "normalize": True, "density": (Gradient((1.0, 0.7, 0.1)), 0.5, 0.33)}
    assert draft.weights == (1.0, Gradient((0.0, 0.3, 0.7, 1.0)), 0.0)
    assert [item.rule.match for item in draft.rules] == [("*mlp*",)]
    assert draft.rules[0].weights == (1.0, Gradient((0.0, 0.3, 0.7, 1.0)), 0.5)
    assert draft.notes == ()


@pytest.mark.parametrize(
    ("method", "parameters", "strategy", "options"),
    [
        ("ties", "{}", "ties", {"density": (1.0, 1.0), "normalize": True}),
        ("ties", "{density: 0.2}", "ties", {"density": (0.2, 0.2)}),
        ("task_arithmetic", "{lambda: 0.4}", "task_arithmetic", {"lambda": 0.4, "normalize": False}),
        ("dare_linear", "{}", "dare_linear", {"rescale": "l1", "normalize": False, "density": (1.0, 1.0)}),
        ("dare_ties", "{rescale: false}", "dare_ties", {"rescale": "none"}),
        ("della", "{epsilon: 0.1}", "della", {"epsilon": (0.1, 0.1), "normalize": True, "rescale": "l1"}),
        ("breadcrumbs", "{gamma: 0.05}", "breadcrumbs", {"gamma": (0.05, 0.05), "density": (1.0, 1.0)}),
        ("model_stock", "{}", "model_stock", {}),
        ("model_stock", "{filter_wise: true}", "model_stock_rows", {}),
        ("nuslerp", "{}", "nuslerp", {"deltas": False}),
        ("nuslerp", "{nuslerp_flatten: false}", "nuslerp_rows", {"along": "rows", "deltas": False}),
        ("nuslerp", "{nuslerp_flatten: false, nuslerp_row_wise: true}", "nuslerp_rows", {"along": "columns"}),
        ("passthrough", "{scale: 0.5}", "passthrough", {"scale": 0.5}),
        ("ramplus_tl", "{r: 0.2}", "ram_plus", {"r": 0.2, "alpha": 0.2}),
        ("linear", "{normalize: false}", "linear", {"normalize": False}),
    ],
)
def test_options_and_mergekits_defaults(
    method: str, parameters: str, strategy: str, options: Mapping[str, object]
) -> None:
    draft = parse(minimal(method, parameters))
    assert draft.strategy == strategy
    assert {name: draft.options[name] for name in options} == options


def test_with_a_base_it_is_changes_that_are_turned() -> None:
    draft = parse(minimal("multislerp") + "base_model: seed")
    assert (draft.options["deltas"], draft.base) == (True, "seed")


def test_the_base_is_an_expert_only_where_mergekit_has_it_as_one() -> None:
    models = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]\nbase_model: b\n"
    assert parse(models + "merge_method: linear").experts == ("a", "b")
    assert parse(models + "merge_method: linear").base is None
    assert parse(models + "merge_method: task_arithmetic").experts == ("a",)
    assert parse(models + "merge_method: nearswap\nparameters: {t: 0.1}").experts == ("b", "a")


def test_parameters_of_a_model_are_before_those_of_its_slice_and_of_all() -> None:
    text = """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: a, parameters: {weight: 1}}
      - {model: b}
      - {model: c, parameters: {weight: [{filter: mlp, value: 9}]}}
    parameters: {weight: 2, lambda: 0.5}
parameters: {weight: 3, lambda: 0.7, normalize: true}
"""
    found = recipe(text)
    assert found.weights == (1.0, 2.0, 2.0)
    assert found.choose("x.mlp", 3).weights == (1.0, 2.0, 9.0)
    assert found.options == {"lambda": 0.5, "normalize": True}


def test_filters_are_texts_and_not_globs() -> None:
    found = recipe(minimal("nearswap", "{t: [{filter: 'w[0]*', value: 1}, {filter: '*', value: 2}]}"))
    assert found.choose("a.w[0]*.b", 2).strategy == make("nearswap", {"t": 1})
    assert found.choose("a.w0.b", 2).strategy == make("nearswap", {"t": 2})


def test_filters_of_several_parameters_do_not_get_in_each_others_way() -> None:
    own = "{weight: [{filter: mlp, value: 2}, {value: 1}], density: [{filter: up, value: 0.5}]}"
    found = recipe(minimal("ties", "{density: 0.9}", own))
    choice = found.choose("mlp.up", 2)
    assert choice.weights == (2.0, 2.0)
    assert choice.strategy == make("ties", {"density": (0.5, 0.5)})
    assert found.choose("mlp.down", 2).strategy == make("ties", {"density": (0.9, 0.9)})


def test_what_has_no_effect_is_noted() -> None:
    text = minimal("slerp", "{t: 0.5, density: 0.2}") + "\ntokenizer_source: union\nout_dtype: bfloat16"
    assert parse(text, "m").notes == (
        "m: out_dtype has no effect: parameters keep the first model's type",
        "m: tokenizer_source has no effect: the first model's stays; --vocabulary aligns tables",
        "m: weight has no effect",
        "m: density has no effect",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("merge_method: evolve\nmodels: []", "merge_method: 'evolve' has no counterpart: there are linear, slerp"),
        ("merge_method:\nmodels: []", "'' has no counterpart"),
        (minimal("linear") + "modules: {a: 1}", "modules: is not a key here"),
        ("merge_method: linear", "either models or slices"),
        ("merge_method: linear\nslices: [{sources: []}, {sources: []}]", "slices: stack layers"),
        (
            "{merge_method: linear, slices: [{sources: [{model: a, layer_range: [4, 8]}]}]}",
            r"slices\[0\].sources: have some layers only",
        ),
        ("{merge_method: karcher, models: [{parameters: {}}]}", "model number 1 has no name"),
        ("{merge_method: karcher, models: [{model: {path: a}}]}", "has to be a text, not a mapping"),
        ("{merge_method: karcher, models: [{model: a}, {model: a}]}", "a model is there twice"),
        ("{merge_method: ties, models: [{model: a}]}", "has no base_model, which this method needs"),
        ("{merge_method: sce, models: [{model: a}], base_model: a}", "has no model but the base_model"),
        (
            "{merge_method: slerp, models: [{model: a}, {model: b}], base_model: c}",
            "has 2 models besides the base_model",
        ),
        (minimal("linear", own="{}"), "no weight for 'a'"),
        (minimal("slerp"), "no t for 'the merge'"),
        (minimal("ties", "{rescale: true}"), "rescale has no counterpart in ties"),
        (minimal("ties", "{normalize: 3}"), "normalize has to be true or false"),
        (minimal("ties", "{normalize: [{filter: mlp, value: 1}]}"), "normalize has to be true or false"),
        (minimal("ties", "{density: [{filter: mlp}]}"), r"parameters.density\[0\]: has no value"),
        (minimal("ties", "{density: [{filter: mlp, value: []}]}"), "is empty"),
        (minimal("ties", "{density: [1, {value: 1}]}"), "has to be a mapping"),
        (minimal("ties", "{density: word}"), "density: has to be a number"),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: [{filter: x, value: 1}, {value: 1}]}},"
            " {model: b, parameters: {weight: [{filter: y, value: 1}, {value: 1}]}}]}",
            "the filters of weight differ between models",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^m.yml: .*{words}") as error:
        parse(text, "m.yml")
    assert "\n" not in str(error.value)


def test_it_lies_over_a_configuration_like_any_other() -> None:
    draft = parse(minimal("ties")).over(Draft(strategy="average", missing="ours"))
    assert (draft.strategy, draft.missing) == ("ties", "ours")
