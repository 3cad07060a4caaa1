"""The saver: what a trainer has written becomes a commit, in steps of which any can be the last.

A checkpoint is written by the trainer, marked as whole, committed, and marked as committed. A run that is killed before
the first mark goes on from the last commit; after it, the next run commits what was marked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from shutil import rmtree
from typing import Any

from ..experts import Checkpoint
from ..places import ADAPTER, MODEL, TRAINING
from .committing import Content, Line
from .records import message, records
from .requests import Request
from .restoring import files, write_durable

_MARK = "btm.marker"
_FOLDER = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a whole checkpoint: the commit of the one before it (empty: there is none), its own if it has
    one, and what its commit says."""

    before: str
    checkpoint: Checkpoint
    trailers: Mapping[str, str]
    commit: str = ""


class Saver:
    """Commits the checkpoints of one run."""

    def __init__(self, line: Line, request: Request, folder: str) -> None:
        self._line, self._request, self.folder = line, request, folder
        self.last = ""  # the commit of the last checkpoint

    def save(self, folder: str, checkpoint: Checkpoint, trailers: Mapping[str, str]) -> str:
        """Commit a checkpoint folder that is whole; returns the commit."""
        mark = Mark(self.last, checkpoint, dict(trailers))
        self._mark(folder, mark)
        return self._commit(folder, mark)

    def _mark(self, folder: str, mark: Mark) -> None:
        write_durable(os.path.join(folder, _MARK), json.dumps(asdict(mark)).encode())

    def _commit(self, folder: str, mark: Mark) -> str:
        found = files(folder, training=self._request.optimizer)
        folders = (ADAPTER if self._request.part.lora else MODEL, TRAINING)
        found = {path: file for path, file in found.items() if path.startswith(tuple(f"{name}/" for name in folders))}
        title = f"{mark.checkpoint.domain or 'seed'}: step {mark.checkpoint.step}"
        self.last = self._line.add(Content(found, folders), message(title, mark.checkpoint, mark.trailers))
        self._mark(folder, replace(mark, commit=self.last))
        for other in self._folders():
            if other != folder:
                rmtree(other, ignore_errors=True)
        return self.last

    def _folders(self) -> list[str]:
        """The folders of checkpoints, the latest first."""
        found = [(int(match[1]), name) for name in os.listdir(self.folder) if (match := _FOLDER.fullmatch(name))]
        return [os.path.join(self.folder, name) for _, name in sorted(found, reverse=True)]

    def recover(self, tip: str) -> str | None:
        """Commit what an earlier run could not, and return the folder of the branch's last checkpoint, if it is here.

        ``tip`` is where the branch is, empty if it is not there yet.
        """
        known = list(records(self._line.git, tip)) if tip else []
        self.last = known[0].commit if known else ""
        before = known[1].commit if len(known) > 1 else ""
        for folder in self._folders():
            mark = _read(os.path.join(folder, _MARK))
            if mark is None:
                continue
            killed = bool(known) and (mark.before, mark.checkpoint) == (before, known[0].checkpoint)
            if mark.commit == self.last != "" or (killed and not mark.commit):
                return folder
            if mark.before == self.last and not mark.commit:
                self._commit(folder, mark)
                return folder
        return None

    def clear(self) -> None:
        """Take away what is committed."""
        for folder in self._folders():
            rmtree(folder, ignore_errors=True)


def _read(path: str) -> Mark | None:
    try:
        with open(path, "rb") as file:
            fields: dict[str, Any] = json.loads(file.read())
        return Mark(fields["before"], Checkpoint(**fields["checkpoint"]), fields["trailers"], fields["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
