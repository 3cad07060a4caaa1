"""What becomes of each parameter, from manifests alone."""

from __future__ import annotations

from itertools import permutations

import pytest

from git_theta_btm.errors import MergeConflict, UsageError
from git_theta_btm.manifest import Blob, Digest, Entry, Manifest
from git_theta_btm.merging.recipe import Recipe, Rule
from git_theta_btm.merging.resolve import BASE, Rows, Step, plan
from git_theta_btm.tensor import Tensor

LAYOUT = Blob(Digest.of(b"layout"), 6)


def model(**tensors: str) -> Manifest:
    """``w="F32[2]:a"``: a tensor of that type whose bytes are those of ``a``."""
    entries = []
    for name, text in sorted(tensors.items()):
        kind, _, content = text.rpartition("=")
        entries.append(Entry(name, Tensor.parse(kind), Digest.of(content.encode())))
    return Manifest("safetensors", 100, LAYOUT, tuple(entries))


def step(
    tips: list[Manifest], base: Manifest | None, recipe: Recipe | None = None, rows: dict[int, Rows] | None = None
) -> Step:
    found = plan(tips, base, recipe or Recipe(), rows)
    assert len(found) == 1
    return found[0]


F = "F32[2]="
APPLY = Recipe("apply")


def test_what_all_agree_on_is_never_read() -> None:
    assert step([model(w=F + "a")] * 3, None) == Step("w", take=0)


def test_an_expert_that_left_a_parameter_alone_counts_in_an_average() -> None:
    found = step([model(w=F + "a"), model(w=F + "b")], model(w=F + "a"))
    assert found.choice
    assert sorted(found.tips) == [0, 1]


def test_a_change_is_taken_as_it_is_where_only_one_side_changed() -> None:
    old, new = model(w=F + "a"), model(w=F + "b")
    assert step([old, new], old, APPLY) == Step("w", take=1)
    assert step([new, old], old, APPLY) == Step("w", take=0)
    assert step([new, new], old, APPLY) == Step("w", take=0)
    both = step([new, model(w=F + "c")], old, APPLY)
    assert both.choice
    assert both.choice.name == "apply"


def test_tips_come_in_an_order_of_their_own() -> None:
    tips = [model(w=F + name) for name in "abc"]
    orders = set()
    for order in permutations(range(3)):
        found = step([tips[index] for index in order], None, Recipe(weights=tuple(float(index) for index in order)))
        assert found.choice
        orders.add((tuple(order[index] for index in found.tips), found.choice.weights))
    assert len(orders) == 1
    ((names, weights),) = orders
    assert weights == tuple(map(float, names))


def test_shapes_that_differ() -> None:
    tips = [model(w="F32[4,2]=a"), model(w="F32[5,2]=b")]
    with pytest.raises(MergeConflict, match=r"w has the shapes \[4, 2\] and \[5, 2\]: --tokenizer"):
        step(tips, None)
    with pytest.raises(MergeConflict, match=r"w has the shapes \[4, 2\] and \[4, 3\]$"):
        step([tips[0], model(w="F32[4,3]=c")], None)
    assert step(tips, None, rows={1: Rows(5, (0, 1, 2, 4))}).choice
    with pytest.raises(MergeConflict, match="shapes"):
        step(tips, None, rows={1: Rows(6, (0, 1, 2, 4))})


def test_element_types_may_differ() -> None:
    assert step([model(w="BF16[2]=a"), model(w="F32[2]=b")], None).choice


def test_orders_in_memory_may_not() -> None:
    with pytest.raises(MergeConflict, match="different orders in memory"):
        step([model(w="F32[2,3]=a"), model(w="F32[2,3:1,2]=b")], None)


@pytest.mark.parametrize("kind", ["I64[2]", "BOOL[2]", "U8[2]", "Q4_0[32]", "F8_E8M0[2]"])
def test_what_is_no_number_with_a_fraction(kind: str) -> None:
    old, new, other = (model(w=f"{kind}={name}") for name in "abc")
    assert step([old, old], None) == Step("w", take=0)
    assert step([old, new], old) == Step("w", take=1)
    with pytest.raises(MergeConflict, match="w is .* and not the same everywhere"):
        step([new, other], old)
    assert step([new, other], old, Recipe(rules=(Rule(("w",), "ours"),))) == Step("w", take=0)


def test_parameters_that_some_have_not() -> None:
    full, part = model(a=F + "a", b=F + "b"), model(a=F + "c")
    with pytest.raises(MergeConflict, match="b is not in all models"):
        plan([full, part], None, Recipe())
    with pytest.raises(MergeConflict, match="b is not in the first model"):
        plan([part, full], None, Recipe())
    ours = plan([full, part], None, Recipe(missing="ours"))
    assert [(item.name, item.take) for item in ours] == [("a", None), ("b", 0)]
    assert [item.name for item in plan([part, full], None, Recipe(missing="ours"))] == ["a"]
    third = model(a=F + "d", b=F + "e")
    found = plan([full, part, third], None, Recipe(missing="any", weights=(1.0, 2.0, 3.0)))
    assert found[1].choice
    assert sorted(found[1].tips) == [0, 2]
    assert sorted(found[1].choice.weights) == [1.0, 3.0]


def test_the_state_of_an_optimizer_is_the_first_ones() -> None:
    tips = [model(**{"optimizer.state.0.exp_avg": F + name}) for name in "ab"]
    assert step(tips, None) == Step("optimizer.state.0.exp_avg", take=0)
    assert step(tips, None, Recipe(exclude=())).choice


def test_sides_that_are_taken() -> None:
    tips, base = [model(w=F + "a"), model(w=F + "b")], model(w=F + "c")
    assert step(tips, base, Recipe("ours")) == Step("w", take=0)
    assert step(tips, base, Recipe("theirs")) == Step("w", take=1)
    assert step(tips, base, Recipe("base")) == Step("w", take=BASE)
    with pytest.raises(MergeConflict, match="w is not in the base"):
        step(tips, None, Recipe("base"))
    with pytest.raises(MergeConflict, match=r"w is F32\[3\] in one model and F32\[2\] in the first"):
        step([tips[0], model(w="F32[3]=b")], base, Recipe("theirs"))


def test_a_strategy_without_the_base_that_it_needs() -> None:
    with pytest.raises(MergeConflict, match="w has no base, which apply needs"):
        step([model(w=F + "a"), model(w=F + "b")], None, APPLY)


def test_how_many_models() -> None:
    with pytest.raises(UsageError, match="apply cannot merge 3 models"):
        step([model(w=F + name) for name in "abc"], model(w=F + "d"), APPLY)
    with pytest.raises(UsageError, match="2 weights for 3 models"):
        step([model(w=F + name) for name in "abc"], None, Recipe(weights=(1.0, 2.0)))


def test_all_problems_are_told_at_once() -> None:
    tips = [model(**{f"w{index}": f"F32[{size}]={size}" for index in range(5)}) for size in (2, 3)]
    with pytest.raises(MergeConflict, match=r"w0 .*; w1 .*; w2 .* \(and 2 more\)"):
        plan(tips, None, Recipe())


def test_rules_choose_by_name() -> None:
    tips = [model(a=F + name, b=F + name + "b") for name in "xy"]
    rules = (Rule(("b",), "theirs"), Rule(("a",), weights=(1.0, 3.0)))
    first, second = plan(tips, None, Recipe(rules=rules))
    assert second == Step("b", take=1)
    assert first.choice
    assert sorted(first.choice.weights) == [1.0, 3.0]


def test_a_base_of_another_shape_is_nothing_to_those_that_need_none() -> None:
    tips, base = [model(w="F32[4]=a"), model(w="F32[4]=b")], model(w="F32[3]=c")
    assert step(tips, base).choice
    with pytest.raises(MergeConflict, match="shapes"):
        step(tips, base, Recipe("ties"))


def test_theirs_is_one_of_two() -> None:
    with pytest.raises(UsageError, match="theirs cannot merge 3 models"):
        step([model(w=F + name) for name in "abc"], None, Recipe("theirs"))
