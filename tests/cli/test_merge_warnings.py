"""What was said about a merge to no effect is told, through every door that has a command line."""

from __future__ import annotations

import json
from pathlib import Path

from branches import theta, trio, trio_template
from conftest import Repo

__all__ = ["trio", "trio_template"]

RULES = ["--rule", "*.h.0.* ours", "--rule", "h.1.* ours"]
WARNED = "warning: rule '*.h.0.*' matches no parameter; did you mean '*h.0*'?"


def test_before_and_with_the_merge(trio: Repo) -> None:
    shown = theta(trio, "merge", "legal", "medical", *RULES, "--dry-run")
    assert shown.stderr.splitlines() == [WARNED]
    found = theta(trio, "merge", "legal", "medical", *RULES, "--dry-run", "--json")
    assert json.loads(found.stdout)["warnings"] == [WARNED.removeprefix("warning: ")]
    assert found.stderr == ""
    made = theta(trio, "merge", "legal", "medical", *RULES)
    assert [line for line in made.stderr.splitlines() if "warning" in line] == [WARNED]
    trio.git("reset", "--quiet", "--hard", "main~0^1")
    done = trio.run("merge", "--no-edit", "--no-ff", "-s", "theta", "-X", "rule=*.h.0.* ours", "legal", "medical")
    assert WARNED in done.stderr.decode().splitlines()


def test_notes_of_a_recipe_of_mergekits(trio: Repo, tmp_path: Path) -> None:
    recipe = tmp_path / "linear.yaml"
    recipe.write_text(
        "merge_method: linear\ndtype: bfloat16\nmodels:\n"
        "  - {model: legal, parameters: {weight: 1}}\n  - {model: medical, parameters: {weight: 2}}\n"
    )
    note = f"warning: {recipe}: dtype has no effect: all is computed in float64"
    assert theta(trio, "merge", "--recipe", str(recipe), "--dry-run").stderr.splitlines() == [note]
    assert note in theta(trio, "merge", "--recipe", str(recipe)).stderr.splitlines()
