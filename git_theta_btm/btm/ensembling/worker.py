"""One of the processes that evaluate an ensemble together: ``torchrun ... worker ROOT REQUEST ANSWER``."""

from __future__ import annotations

import json
import sys

from ...errors import ThetaError
from ...repository import Repository
from .ensembles import loads
from .mixing import Job, over
from .ranks import together


def main(root: str, request: str, answer: str) -> None:
    """Evaluate what the request says; the first process writes the answer. Raises ``ThetaError``."""
    with open(request, encoding="utf-8") as file:
        asked = json.load(file)
    job = Job(tuple(asked["domains"]), asked["split"], asked["device"])
    with together() as ranks:
        rows = over(Repository(root), loads(json.dumps(asked["ensemble"])), job, ranks)
    if ranks.first:
        with open(answer, "w", encoding="utf-8") as file:
            found = [(row.domain, row.score, row.shares) for row in rows]
            json.dump([{"domain": d, "loss": s.loss, "tokens": s.tokens, "shares": w} for d, s, w in found], file)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ThetaError as error:
        sys.exit(f"theta: {error}")
