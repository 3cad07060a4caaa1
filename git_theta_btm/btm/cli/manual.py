"""The manual page of ``git btm``: ``python -m git_theta_btm.btm.cli.manual > man/git-btm.1``."""

from __future__ import annotations

import sys

from ...cli.manual import Manual
from . import NAME, btm

_DESCRIPTION = """
Branch-Train-Merge (Li et al., arXiv:2208.03306) trains a seed model, branches it into one expert for each domain,
trains the experts without communication, and uses them together: as an ensemble weighted by the domain posterior, or
averaged into one model. Here every step leaves an ordinary Git object: git log, checkout, diff and merge are the
interface.

The settings are in btm.toml, which git btm init makes. An expert is a branch, a saved checkpoint a commit that ends
with Btm-Domain, Btm-Seed, Btm-Step, Btm-Tokens and Btm-Loss, and a merge a merge. Models, adapters, the state of
trainings and text are tracked by git theta, so each commit takes the room of what it changes.
"""

_SECTIONS = {
    "EXIT STATUS": (
        ("0", "It worked."),
        ("1", "The answer is no: an expert was not trained, or a perplexity is not below what --below says."),
        ("125", "With --below: a commit that cannot be evaluated, which git bisect run skips."),
        ("128", "It failed; one line on standard error says why, and what to do."),
        ("129", "The command line makes no sense."),
    ),
    "ENVIRONMENT": (("GIT_TRACE_THETA", "If true, an error ends with the trace of its cause."),),
    "FILES": (
        ("btm.toml", "The settings: model, domains, text, training, launcher. Comments in it survive changes."),
        ("data/DOMAIN/{train,valid,test}.jsonl", "Text, one document a line."),
        ("model/", "A Hugging Face folder. A git theta manifest stands for its weights."),
        ("adapter/", "A PEFT folder, if an expert was trained as one."),
        ("training/", "The optimizer, schedule and random state of a training: apart, and droppable."),
        ("priors/, ensembles/, clusters/", "Small files that weigh experts."),
        ("refs/btm/evals", "Results, by the digests of model and text; git btm eval --share sends them on."),
        ("refs/btm/runs", "Commits of a training that wait, since what is not committed was in their way."),
        ("$GIT_COMMON_DIR/btm", "Tokens, worktrees and logs: derived, never committed."),
    ),
}

_MANUAL = Manual(
    NAME, btm, "Branch-Train-Merge: experts on branches, trained apart, ensembled or merged", _DESCRIPTION, _SECTIONS,
    "git-theta(1), git-worktree(1), git-bisect(1)",
)  # fmt: skip

if __name__ == "__main__":
    sys.stdout.write(_MANUAL.page())
