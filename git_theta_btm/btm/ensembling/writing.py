"""Text from an ensemble of a repository: from a prompt, by the tokenizer that the experts were trained with."""

from __future__ import annotations

from ...repository import Repository
from ..data.tokenizers import tokenizer
from ..settings import load
from . import clustering
from .ensembles import Ensemble
from .generation import Drawing, Speaker
from .mixing import subjects
from .spelling import decoder


def write(repository: Repository, ensemble: Ensemble, prompt: str, count: int, drawing: Drawing) -> str:
    """At most ``count`` tokens of text that goes on from a prompt; for the type ``clustering`` its experts are weighed
    by the prompt. Raises ``ThetaError``."""
    root = repository.worktree()
    settings = load(root).text
    by = tokenizer(root, settings.tokenizer)
    start = [int(token) for token in by.encode([prompt])[0]]
    kept = ensemble.kept
    spell = decoder(root, settings.tokenizer)
    prior = clustering.weigher(root, kept, spell)(start) if kept.type == "clustering" else kept.weights
    posterior = "static" if kept.type == "simple-average" else kept.posterior
    speaker = Speaker(subjects(repository, kept), (prior, posterior), (settings.block, by.end), drawing)
    return spell(list(speaker.generate(start, count)))
