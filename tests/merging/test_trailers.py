"""Records of merges in messages: what was written is read, to the bit."""

from __future__ import annotations

import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.merges import BUILT_IN
from git_theta_btm.merges.ties import Ties
from git_theta_btm.merging.recipe import EXCLUDED, Gradient, Recipe, Rule
from git_theta_btm.merging.records import NONE, ByHand, Taken, together
from git_theta_btm.merging.trailers import Expert, Record, append, dumps, loads, record

LEGAL, MEDICAL, SEED = "1" * 40, "2" * 40, "a" * 64
EXPERTS = (Expert(LEGAL, "legal"), Expert(MEDICAL, "medical notes", 2.0))

RECIPE = Recipe(
    strategy="ties",
    options={"density": 0.2, "lambda": Gradient((0.1, 1.0))},
    weights=(0.1, Gradient((0.30000000000000004, 1.0))),
    rules=(
        Rule(("*.embed.weight", "lm head"), "average", {}, (1.0, 2.0)),
        Rule(("*.norm",), None, {"lambda": 0.5}),
    ),
    missing="any",
)

WRITTEN = f"""\
Theta-Merge: ties density=0.2 lambda=0.1:1.0 normalize=true scope=tensor elect=sum missing=any vocabulary=strict
Theta-Rule: '*.embed.weight' average weights=1.0,2.0
Theta-Rule: 'lm head' average weights=1.0,2.0
Theta-Rule: '*.norm' lambda=0.5
Theta-Expert: {LEGAL} 0.1 legal
Theta-Expert: {MEDICAL} 0.30000000000000004:1.0 'medical notes' mass=2.0
Theta-Base: {SEED}
Theta-Version: 1"""

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    [
        "a b",
        "it's",
        '"',
        "\n",
        "\u202eevil",
        "json:x",
        "#",
        "naïve ü",
        "a=b",
        "-",
        "\udcff",
        "\\",
        "$(x)",
        "a\tb",
        "\x85",
    ]
)
WEIGHTS = st.floats(allow_nan=False, allow_infinity=False) | st.builds(
    Gradient, st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=4).map(tuple)
)
COMMITS = st.sampled_from([LEGAL, MEDICAL, SEED])


def test_what_a_record_looks_like() -> None:
    assert "\n".join(dumps(record(RECIPE, EXPERTS, SEED))) == WRITTEN


def test_the_same_is_read_again_and_merges_the_same() -> None:
    made = record(RECIPE, EXPERTS, SEED)
    found = loads("Merge\n\n" + WRITTEN + "\n")
    assert found == made
    for name in ("a.embed.weight", "lm head", "a.norm", "a.b"):
        for depth in (0, 0.3, 1):
            assert found.recipe.choose(name, 2, depth) == RECIPE.choose(name, 2, depth)
    assert record(found.recipe, found.experts, found.base) == found


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_all_options_are_spelled_out(strategy: str) -> None:
    made = record(Recipe(strategy), EXPERTS)
    assert loads("t\n\n" + "\n".join(dumps(made))) == made
    strategy_itself = Recipe(strategy).choose("a", 2).strategy
    assert made.recipe.choose("a", 2).strategy == strategy_itself
    assert list(made.recipe.options) == [item.name.rstrip("_") for item in fields(strategy_itself)]


def test_masses_are_the_weights_where_none_are_given() -> None:
    assert record(Recipe(), EXPERTS).recipe.weights == (1.0, 2.0)
    assert record(Recipe(), EXPERTS[:1]).recipe.weights == (1.0,)
    assert record(Recipe(), EXPERTS).mass == 3.0


def test_options_that_go_on_from_an_earlier_rule_are_not_spelled_out() -> None:
    rules = (
        Rule(("*",), "ties", {"density": 0.3}),
        Rule(("*.w",), "ties", {"lambda": 0.5}),
        Rule(("*.w",), "ties"),
    )
    recipe = Recipe(rules=rules)
    again = loads("t\n\n" + "\n".join(dumps(record(recipe, EXPERTS))))
    assert again is not None
    assert again.recipe.choose("a.w", 2).strategy == Ties(density=(0.3,), lambda_=0.5)
    assert again.recipe.choose("a.b", 2).strategy == Ties(density=(0.3,))


def test_options_for_each_model() -> None:
    made = record(Recipe("ties", {"density": (0.1, 0.30000000000000004)}), EXPERTS)
    assert made.recipe.options["density"] == "0.1,0.30000000000000004"
    moving = (0.1, Gradient((0.5, 1.0)))
    again = loads("t\n\n" + "\n".join(dumps(record(Recipe("ties", {"density": moving}), EXPERTS))))
    assert again is not None and again.recipe.options["density"] == moving


def test_files_that_a_merge_needs() -> None:
    recipe = Recipe("fisher", tokenizer="my models/tokenizer.json", statistics="fisher.safetensors")
    made = record(recipe, EXPERTS)
    (line,) = [line for line in dumps(made) if line.startswith("Theta-Merge: ")]
    assert line.endswith(" vocabulary=strict statistics=fisher.safetensors 'tokenizer=my models/tokenizer.json'")
    assert loads("t\n\n" + "\n".join(dumps(made))) == made


def test_files_that_were_merged_in_another_way() -> None:
    files = {
        "b c.pt": replace(RECIPE, weights=(1.0, 1.0)),
        "a.pt": Recipe("average", weights=RECIPE.weights, exclude=("optimizer*",), tokenizer="t.json"),
    }
    made = together(
        {"0.pt": record(RECIPE, EXPERTS, SEED)} | {path: record(how, EXPERTS, SEED) for path, how in files.items()}
    )
    assert made.of("0.pt") == made.of("z.pt") == made.recipe
    lines = dumps(made)
    assert "Theta-File: a.pt average missing=error vocabulary=strict tokenizer=t.json" in lines
    assert "Theta-File-Exclude: a.pt 'optimizer*'" in lines
    assert "Theta-File-Rule: 'b c.pt' '*.embed.weight' average weights=1.0,2.0" in lines
    (line,) = [line for line in lines if line.startswith("Theta-File: 'b c.pt' ties ")]
    assert line.endswith(" weights=1.0,1.0")
    assert lines[-1] == "Theta-Version: 2"
    assert loads("Merge\n\n" + "\n".join(lines)) == made
    alike = together({path: record(RECIPE, EXPERTS, SEED) for path in ("x", "y")})
    assert dumps(alike) == WRITTEN.split("\n")


FILED = WRITTEN.replace("Version: 1", "Version: 2") + "\nTheta-File: a.pt average missing=error vocabulary=strict"


@pytest.mark.parametrize(
    "lines",
    [
        FILED.replace("Version: 2", "Version: 1"),
        WRITTEN.replace("Version: 1", "Version: 2"),
        FILED + "\nTheta-File: a.pt average missing=error vocabulary=strict",
        FILED + "\nTheta-File-Rule: b.pt '*' average",
        FILED + "\nTheta-File-Rule: a.pt",
        FILED + "\nTheta-File-Exclude: a.pt x\nTheta-File-Exclude: a.pt x",
        FILED + " weights=1.0",
        FILED.replace("average missing=error", "average missing=no"),
        FILED.replace("Theta-File: a.pt average missing=error vocabulary=strict", "Theta-File: a.pt"),
    ],
)
def test_a_broken_record_of_files(lines: str) -> None:
    assert loads("Merge\n\n" + FILED)
    with pytest.raises(ThetaError, match="commit's message"):
        loads("Merge\n\n" + lines)


def test_files_that_no_recipe_is_for() -> None:
    nothing = Record(Recipe(NONE, weights=(1.0, 1.0)), EXPERTS, SEED)
    whole = {"b c.pt": Taken(MEDICAL), "a.pt": ByHand("3" * 64)}
    parts = {path: replace(nothing, whole={path: item}) for path, item in whole.items()}
    alone = together(parts)
    assert dumps(alone) == [
        "Theta-Merge: none missing=error vocabulary=strict",
        f"Theta-Expert: {LEGAL} 1.0 legal",
        f"Theta-Expert: {MEDICAL} 1.0 'medical notes' mass=2.0",
        f"Theta-Base: {SEED}",
        f"Theta-File-Manual: a.pt {'3' * 64}",
        f"Theta-File-Taken: 'b c.pt' {MEDICAL}",
        "Theta-Version: 3",
    ]
    made = together(parts | {"y": record(RECIPE, EXPERTS, LEGAL), "z": record(RECIPE, EXPERTS)})
    assert (made.recipe, made.base, made.whole) == (record(RECIPE, EXPERTS).recipe, LEGAL, whole)
    assert made.base_of("y") == LEGAL and made.base_of("z") is None
    for found in (alone, made):
        assert loads("Merge\n\n" + "\n".join(dumps(found))) == found
    assert made.only("z") == record(RECIPE, EXPERTS)
    assert made.only("a.pt").whole == {"a.pt": whole["a.pt"]}


def test_how_many_experts_a_version_holds() -> None:
    nothing = Record(Recipe(NONE, weights=(1.0, 1.0)), EXPERTS, SEED)
    for items, expected in (
        ([Taken(MEDICAL)], 2.0),
        ([Taken(MEDICAL), Taken(MEDICAL)], 2.0),
        ([Taken(SEED)], 1.0),
        ([Taken(MEDICAL), Taken(LEGAL)], 3.0),
        ([ByHand("3" * 64)], 3.0),
    ):
        assert replace(nothing, whole={str(place): item for place, item in enumerate(items)}).mass == expected
    assert replace(record(RECIPE, EXPERTS), whole={"x": Taken(LEGAL)}).mass == 3.0


WHOLE = WRITTEN.replace("Version: 1", "Version: 3") + f"\nTheta-File-Taken: a.pt {LEGAL}"


@pytest.mark.parametrize(
    "lines",
    [
        WHOLE.replace("Version: 3", "Version: 2"),
        WRITTEN.replace("Version: 1", "Version: 3"),
        WHOLE + f"\nTheta-File-Taken: a.pt {LEGAL}",
        WHOLE + f"\nTheta-File-Manual: a.pt {'3' * 64}",
        WHOLE + "\nTheta-File: a.pt average missing=error vocabulary=strict",
        WHOLE + f"\nTheta-File-Manual: b.pt {LEGAL}",
        WHOLE + "\nTheta-File-Manual: b.pt",
        WHOLE + f" {LEGAL}",
        WHOLE.replace(f"a.pt {LEGAL}", "a.pt main"),
        WHOLE + "\nTheta-File: b.pt average missing=error vocabulary=strict base=main",
    ],
)
def test_a_broken_record_of_whole_files(lines: str) -> None:
    assert loads("Merge\n\n" + WHOLE)
    with pytest.raises(ThetaError, match="commit's message"):
        loads("Merge\n\n" + lines)


@pytest.mark.parametrize("below", ["JIRA-12\n", "# Conflicts:\n#\ta\nJIRA-12\n", "Theta-Rules apply.\n\nMore: 1\n"])
def test_text_below_a_record(below: str) -> None:
    message = f"Merge\n\n{WRITTEN}\n\n{below}"
    made = record(RECIPE, EXPERTS, SEED)
    assert loads(message) == loads(message.replace("Theta-Expert", "\nTheta-Expert", 1)) == made
    lines = dumps(record(Recipe(), EXPERTS))
    assert append(message, lines).count("Theta-Merge:") == 1
    assert loads(append(message, lines)) == record(Recipe(), EXPERTS)


def test_exclusions_of_version_1_are_not_written() -> None:
    assert EXCLUDED == (
        "optimizer*", "*optimizer_state*", "lr_scheduler*", "scheduler*", "scaler*", "rng_state*", "*.exp_avg*"
    )  # fmt: skip
    for exclude in ((), ("a b", "c"), EXCLUDED):  # nothing, several, and what no line stands for
        made = record(Recipe(exclude=exclude), EXPERTS)
        lines = dumps(made)
        assert any(line.startswith("Theta-Exclude: ") for line in lines) == (exclude != EXCLUDED)
        assert loads("t\n\n" + "\n".join(lines)) == made


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(COMMITS, TEXTS, st.floats(0.5, 1e9), WEIGHTS), min_size=1, max_size=4),
    st.lists(st.tuples(TEXTS, st.sampled_from([None, "average", "sce"]), WEIGHTS), max_size=3),
    st.none() | COMMITS,
)
def test_any_names_and_floats(
    tips: list[tuple[str, str, float, float | Gradient]],
    rules: list[tuple[str, str | None, float | Gradient]],
    base: str | None,
) -> None:
    experts = [Expert(commit, name, mass) for commit, name, mass, _ in tips]
    recipe = Recipe(
        weights=tuple(weight for *_, weight in tips),
        rules=tuple(Rule((glob,), strategy, {}, (weight,) * len(tips)) for glob, strategy, weight in rules),
        exclude=tuple(glob for glob, *_ in rules),
    )
    made = record(recipe, experts, base)
    lines = dumps(made)
    assert all(line.isprintable() for line in lines)
    assert loads(append("Title\n\nBody\n", lines)) == made


def test_other_trailers_and_comments_do_not_matter() -> None:
    made = record(RECIPE, EXPERTS, SEED)
    message = append("Merge\n\nBody\n\nSigned-off-by: A <a@b>\n\n# Conflicts:\n#\tx\n", dumps(made))
    assert loads(message) == made
    lines = message.split("\n")
    lines.insert(lines.index("Theta-Version: 1"), "Theta-Other: thing 'unquoted\nReviewed-by: 'B\nfree words")
    assert loads("\n".join(lines)) == made
    assert loads(message.replace("\n", "\r\n")) == made


def test_bytes_stay_what_they_are() -> None:
    message = "Zusammenführung\n".encode("latin-1") + b"\n\xff\xfe\n"
    lines = dumps(record(Recipe(), [replace(EXPERTS[0], name="für")]))
    found = append(message, lines)
    assert found == message + b"\n" + "\n".join(lines).encode() + b"\n"
    assert append(found, lines) == found


def test_an_earlier_record_is_replaced() -> None:
    first = append("Merge\n\nSigned-off-by: A <a@b>\n", dumps(record(RECIPE, EXPERTS, SEED)))
    lines = dumps(record(Recipe(), EXPERTS))
    assert append(first, lines) == "Merge\n\nSigned-off-by: A <a@b>\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "message", ["", "Merge\n", "Merge\n\nBody\n", WRITTEN + "\n\nBody\n", "Merge\n\nTheta-Other: 1\n"]
)
def test_no_record(message: str) -> None:
    assert loads(message) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Theta-Version: 1", "Theta-Version: 2"),
        ("Theta-Version: 1", "Theta-Other: 1"),
        ("Theta-Version: 1", "Theta-Version: 1\nTheta-Version: 1"),
        ("Theta-Merge: ties", "Theta-Merge: ties\nTheta-Merge: ties"),
        ("missing=any", ""),
        ("missing=any", "missing=some"),
        ("vocabulary=strict", "vocabulary=strict vocabulary=strict"),
        ("normalize=true", "normalize"),
        ("Theta-Rule: '*.norm'", "Theta-Rule: '*.norm"),
        ("Theta-Rule: '*.norm' lambda=0.5", "Theta-Rule: "),
        ("Theta-Rule: '*.norm' lambda=0.5", "Theta-Rule: json:3"),
        ("Theta-Rule: '*.norm' lambda=0.5", "Theta-Rule: 'json:['"),
        ("Theta-Rule: '*.norm' lambda=0.5", "Theta-Rule: json:" + "[" * 100_000),
        ("weights=1.0,2.0", "weights=1.0,x"),
        (f"{LEGAL} 0.1 legal", f"{LEGAL} 0.1"),
        (f"{LEGAL} 0.1 legal", f"{LEGAL[1:]} 0.1 legal"),
        (f"{LEGAL} 0.1 legal", f"{LEGAL} nan legal"),
        ("mass=2.0", "mass=-1"),
        ("mass=2.0", "mass=1:2"),
        ("mass=2.0", "weight=2"),
        (SEED, "HEAD"),
        (SEED, f"{SEED} {SEED}"),
    ],
)
def test_a_broken_record_is_an_error_of_one_line(old: str, new: str) -> None:
    assert old in WRITTEN
    with pytest.raises(ThetaError, match="commit's message") as error:
        loads("Merge\n\n" + WRITTEN.replace(old, new) + "\n")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_one_weight_for_each_expert() -> None:
    with pytest.raises(UsageError, match="1 weights for 2 models"):
        dumps(Record(Recipe(weights=(1.0,)), EXPERTS))


def test_only_what_can_be_made_is_recorded() -> None:
    with pytest.raises(UsageError, match="no option 'densty'"):
        record(Recipe("ties", {"densty": 1}), EXPERTS)
    with pytest.raises(UsageError, match="0 to 1"):
        record(Recipe("ties", {"density": Gradient((7.0, 1.0))}), EXPERTS)


def test_a_commit_keeps_it(tmp_path: Path) -> None:
    odd = replace(EXPERTS[0], name="  ü\u202e\t'x'\n#")
    made = record(replace(RECIPE, exclude=("a\u2028b ", "#c")), [odd, EXPERTS[1]], SEED)
    message = append("Merge\n\n# Conflicts:\n#\tmodel\n", dumps(made))
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    commit = ["git", "commit", "--quiet", "--allow-empty", "--cleanup=strip", "--signoff", "--file=-"]
    subprocess.run(commit, cwd=tmp_path, input=message.encode(), check=True)
    log = ["git", "log", "-1", "--format=%B%x00%(trailers:only,unfold)"]
    text, _, trailers = (
        subprocess.run(log, cwd=tmp_path, capture_output=True, check=True).stdout.decode().partition("\0")
    )
    assert loads(text) == made
    assert trailers.splitlines()[: len(dumps(made))] == dumps(made)
    assert "Signed-off-by: " in trailers
