"""Results, kept in git: what a model's loss over a text is does not change, so it is computed once, for everybody.

They are a tree under ``refs/btm/evals``: ``<two digits>/<model>/<data>-<block>.json``, one small JSON document for each
cell, named by the digests of the model and of the tokens. Branches do not show them. They travel by::

    git config --add remote.origin.fetch '+refs/btm/evals*:refs/btm/fetched/origin/evals*'
    git push origin refs/btm/evals

What was fetched is read at once, and joined with one's own, as a merge commit, by the next write. ``share`` does all.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from ...errors import ThetaError
from ...git import Git
from .perplexity import Score

REF = "refs/btm/evals"
FETCHED = "refs/btm/fetched"
_VERSION = 1
_LIMIT = 4096  # bytes of a document: others may have written it
_TRIES = 60
_PATH = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}/[0-9a-f]{64}-[0-9]{1,9}\.json")
# Results are nobody's work, and have to be kept where git does not know its user.
_NOBODY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "git btm"), ("EMAIL", "git-btm@localhost"))
}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What was evaluated: the digest of a model, that of a stream of tokens, and the tokens in a window."""

    model: str
    data: str
    block: int

    @property
    def path(self) -> str:
        """Where it stands in the tree."""
        return f"{self.model[:2]}/{self.model}/{self.data}-{self.block}.json"

    def dumps(self, score: Score) -> bytes:
        """The document of a score."""
        fields = {"version": _VERSION, "model": self.model, "data": self.data, "block": self.block}
        text = json.dumps({**fields, "loss": score.loss, "tokens": score.tokens, "perplexity": score.perplexity})
        return text.encode() + b"\n"

    def loads(self, data: bytes) -> Score | None:
        """The score in a document; None if it is none of this cell."""
        try:
            found = json.loads(data)
            named = Cell(found["model"], found["data"], found["block"])
            score = Score(float(found["loss"]), int(found["tokens"]))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return None
        sane = found.get("version") == _VERSION and score.tokens > 0 and not math.isnan(score.loss)
        return score if named == self and sane else None


class Results:
    """The results that a repository has. Any number of processes may write at once."""

    def __init__(self, git: Git) -> None:
        self._git = git

    def get(self, cells: Iterable[Cell]) -> dict[Cell, Score]:
        """Those that are there, one's own or fetched."""
        found: dict[Cell, Score] = {}
        tips = list(self._tips().values())
        with self._git.blobs() as blobs:
            for cell in cells:
                for tip in tips:
                    data = blobs.read(f"{tip}:{cell.path}", limit=_LIMIT)
                    score = cell.loads(data) if data else None
                    if score and cell not in found:
                        found[cell] = score
        return found

    def put(self, scores: Mapping[Cell, Score]) -> None:
        """Keep some, and join what was fetched. Raises ``ThetaError`` if others keep writing in between."""
        for _ in range(_TRIES):
            own, heads = self._tips().get(REF, ""), self._heads()
            tree = self._tree(heads, scores)
            commit = heads[0] if heads else ""
            if len(heads) != 1 or tree != self._git.text("rev-parse", f"{commit}^{{tree}}"):
                parents = [word for head in heads for word in ("-p", head)]
                commit = self._git.with_environment(**_NOBODY).text("commit-tree", tree, *parents, "-m", "results")
            expected = own or "0" * len(commit)
            if commit == own or not self._git.run("update-ref", REF, commit, expected, check=False).returncode:
                return
            time.sleep(random.uniform(0.005, 0.05))
        raise ThetaError(f"{REF} cannot be written: 'git update-ref -d {REF}' makes room for new results")

    def share(self, remote: str) -> None:
        """Fetch the results of a remote, join them, and push all. Raises ``ThetaError`` with git's words."""
        for attempt in range(3):
            fetch = f"+{REF}*:{FETCHED}/{remote}/{REF.rpartition('/')[2]}*"
            self._git.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", remote, fetch)
            self.put({})
            push = self._git.run("push", "--quiet", "--no-verify", remote, REF, check=attempt == 2)
            if not push.returncode:
                return

    def _tips(self) -> dict[str, str]:
        rows = self._git.text("for-each-ref", "--format=%(refname) %(objectname)", REF, FETCHED).split("\n")
        tips = dict(row.split(" ", 1) for row in rows if row)
        return dict(sorted(tips.items(), key=lambda item: (item[0] != REF, item[0])))

    def _heads(self) -> list[str]:
        """The tips that no other has joined already, one's own first."""
        tips = list(dict.fromkeys(self._tips().values()))
        if len(tips) < 2:
            return tips
        heads = set(self._git.text("merge-base", "--independent", *tips).split())
        return [tip for tip in tips if tip in heads]

    def _tree(self, heads: Sequence[str], scores: Mapping[Cell, Score]) -> str:
        """The tree of the first head with what only others have, and new scores."""
        with TemporaryDirectory() as directory:
            git = self._git.with_environment(GIT_INDEX_FILE=os.path.join(directory, "index"))
            git.run("read-tree", heads[0] if heads else "--empty")
            held = set(git.fields("ls-files", "-z"))
            rows: dict[str, str] = {}
            for tip in heads[1:]:
                rows |= {path: oid for path, oid in self._blobs(tip) if path not in held}
            rows |= self._written(directory, scores)
            lines = "".join(f"100644 {oid} 0\t{path}\0" for path, oid in rows.items())
            git.run("update-index", "-z", "--index-info", stdin=lines.encode())
            return git.text("write-tree")

    def _blobs(self, tip: str) -> Iterable[tuple[str, str]]:
        """The results in somebody else's tree; what else may be in it is left out."""
        for row in self._git.fields("ls-tree", "-r", "-z", "--full-tree", tip):
            meta, _, path = row.partition("\t")
            if meta.startswith("100644 blob ") and _PATH.fullmatch(path):
                yield path, meta.split()[2]

    def _written(self, directory: str, scores: Mapping[Cell, Score]) -> dict[str, str]:
        files = []
        for number, (cell, score) in enumerate(scores.items()):
            files.append(os.path.join(directory, str(number)))
            with open(files[-1], "wb") as file:
                file.write(cell.dumps(score))
        names = "\n".join(files).encode()
        oids = self._git.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).stdout.decode().split()
        return dict(zip((cell.path for cell in scores), oids, strict=True))
