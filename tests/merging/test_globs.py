"""Globs that match nothing, and what is suggested in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import save

from git_theta_btm.filters.clean import clean
from git_theta_btm.merging.drafts import Draft, DraftRule
from git_theta_btm.merging.globs import nearest, warnings
from git_theta_btm.merging.recipe import Rule
from git_theta_btm.source import BytesSource
from git_theta_btm.store import DiskStore, Forgetful

NAMES = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"]


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("*.embd.*", "*.embed_tokens.*"),
        ("*.embed_token.*", "*embed_token*"),
        ("*.embeddings.*", "*.embed_tokens.*"),
        ("*.layernorm.*", "*.norm.*"),
        ("*.Norm.*", "*.norm.*"),
        ("norm", "*norm*"),
        ("*.lm_head.*", "*lm_head*"),
        ("model.layers.*.mpl.*", "model.layers.*.mlp.*"),
        ("model.nrm.weight", "model.norm.weight"),
        ("modell.nrm.weight", "model.norm.weight"),
        ("*.experts.*", ""),
        ("*", ""),
        ("[", ""),
        ("", ""),
    ],
)
def test_what_was_meant(glob: str, meant: str) -> None:
    assert nearest(glob, NAMES) == meant


def test_nothing_is_like_anything_where_nothing_is() -> None:
    assert nearest("*.embd.*", []) == ""


def test_each_glob_has_its_line_once(tmp_path: Path) -> None:
    import numpy as np

    data = save({name: np.zeros(2, "f4") for name in NAMES})
    manifest = clean(BytesSource(data), DiskStore(str(tmp_path)), Forgetful())
    rules = tuple(DraftRule(Rule(globs)) for globs in (("*.norm.*", "*.layernorm.*"), ("*.embd.*",), ("*.embd.*",)))
    draft = Draft(rules=rules, exclude=("", "rotary*", "lm_head*"), notes=("mk.yaml: dtype has no effect",))
    assert warnings(draft, [manifest, manifest]) == (
        "mk.yaml: dtype has no effect",
        "rule '*.layernorm.*' matches no parameter; did you mean '*.norm.*'?",
        "rule '*.embd.*' matches no parameter; did you mean '*.embed_tokens.*'?",
        "exclude 'rotary*' matches no parameter",
    )
    assert warnings(Draft(), [manifest]) == ()
