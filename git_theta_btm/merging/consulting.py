"""Consulting: asking a person what becomes of each parameter, one line in and one line out. Answers become rules."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Protocol

from ..errors import MergeConflict, UsageError
from ..manifest import Entry, Manifest, spell
from .distances import comparable, distance
from .drafts import DraftRule
from .filing import Question
from .inputs import Models
from .reading import rule
from .recipe import Rule
from .resolve import BASE, Step, plan

_ANSWERS = {"o": "ours", "t": "theirs", "b": "base", "a": "average", "c": "configured"}
_HELP = """\
o  ours: the first model's parameter      t  theirs: the second of two models'
b  base: the common ancestor's            a  average
c  as it is configured (Enter)            C  the same for all that are left
q  quit, and change nothing               ?  this help
A glob after o, t, b, a or c answers for this one and all that match it: a *.bias"""


class Quit(MergeConflict):
    """The person does not want to go on."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to ask: ``ask`` prompts and returns a line, None at the end of all lines; ``tell`` says one."""

    ask: Callable[[str], str | None]
    tell: Callable[[str], None]


class Look(Protocol):
    """What opens the models of a question, their objects all here."""

    def __call__(self, question: Question) -> Models: ...


def consult(asked: Sequence[tuple[Question, Sequence[str]]], look: Look, person: Person) -> list[str]:
    """Rules, in words, for all parameters that models do not agree on; each question comes with its models' names.

    Raises ``Quit`` for a person who quits, or whose lines end.
    """
    dialogue = _Dialogue(person, list(dict.fromkeys(name for question, _ in asked for name in _open(question))))
    for question, names in asked:
        models: Models | None = None
        for name in _open(question):
            if dialogue.pending(name):
                models = models or look(question)
                lines = list(_described(question, models, name, names))
                dialogue.put(question, name, (_step(question, name), lines))
    return dialogue.rules


class _Dialogue:
    def __init__(self, person: Person, names: Sequence[str]) -> None:
        self._person, self._names, self._over = person, names, False
        self._answered: list[str] = []  # globs
        self.rules: list[str] = []

    def pending(self, name: str) -> bool:
        return not self._over and not any(fnmatchcase(name, glob) for glob in self._answered)

    def put(self, question: Question, name: str, seen: tuple[Step | str, Sequence[str]]) -> None:
        """Ask until the answer can be carried out."""
        state, lines = seen
        for line in lines:
            self._person.tell(line)
        if isinstance(state, str):
            self._person.tell(f"  {state}")
        while True:
            answer = self._person.ask("  [o,t,b,a,c,C,q,?] ")
            if answer is None:
                raise Quit("no more answers: nothing was changed")
            if self._take(question, name, state, answer.split()):
                return

    def _take(self, question: Question, name: str, state: Step | str, words: Sequence[str]) -> bool:
        """Whether the words are an answer that can be carried out."""
        key: str = words[0] if words else "c"
        glob = " ".join(words[1:]) or _literal(name)
        if key == "q":
            raise Quit("nothing was changed")
        if key == "C":
            self._over = not isinstance(state, str)
            if not self._over:
                self._person.tell("  it cannot be merged as it is configured")
            return self._over
        if key not in _ANSWERS or not fnmatchcase(name, glob):
            self._person.tell(_HELP if key not in _ANSWERS else f"  {glob} does not match {spell(name)}")
            return False
        text = f"{shlex.quote(glob)} {_ANSWERS[key]}"
        after: Step | str = state if key == "c" else _step(question, name, rule(text))
        if key == "t" and len(question.tips) != 2:
            after = "theirs is the second of two models"
        if isinstance(after, str):
            self._person.tell(f"  {after}")
            return False
        if key != "c":
            self.rules += [f"{shlex.quote(item)} {_ANSWERS[key]}" for item in self._apart(glob)]
        self._answered.append(glob)
        return True

    def _apart(self, glob: str) -> list[str]:
        """The glob, or if it matches what was answered before, those that are left: the last of two rules would win."""
        matching = [name for name in self._names if fnmatchcase(name, glob)]
        left = [name for name in matching if self.pending(name)]
        return [glob] if len(left) == len(matching) else list(map(_literal, left))


def _literal(name: str) -> str:
    """A glob that matches one name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


# -- what there is to ask ----------------------------------------------------------------------------------------------


def _open(question: Question) -> Iterator[str]:
    """The parameters of the first model that are not the same everywhere."""
    digests = [{entry.name: entry.digest for entry in tip.entries} for tip in question.tips]
    for name in digests[0]:
        if len({tip.get(name) for tip in digests}) > 1 and not question.recipe.excluded(name):
            yield name


def _step(question: Question, name: str, more: DraftRule | None = None) -> Step | str:
    """What becomes of one parameter; why it cannot be merged."""
    rules = (*question.recipe.rules, *([Rule(more.rule.match, more.rule.strategy)] if more else []))
    tips = [_only(tip, name) for tip in question.tips]
    base = _only(question.base, name) if question.base else None
    try:
        return plan(tips, base, replace(question.recipe, rules=rules), question.rows)[0]
    except (MergeConflict, UsageError) as error:
        return str(error)


def _only(manifest: Manifest, name: str) -> Manifest:
    return replace(manifest, entries=tuple(entry for entry in manifest.entries if entry.name == name))


# -- what is shown -----------------------------------------------------------------------------------------------------


def _described(question: Question, models: Models, name: str, names: Sequence[str]) -> Iterator[str]:
    places = [*range(len(question.tips)), *([BASE] if question.base else [])]
    entries = {place: entry for place in places if (entry := models.at(place).entries.get(name))}
    yield f"{spell(question.path)}: {spell(name)} {entries[0].tensor}"
    start = BASE if BASE in entries else 0
    for place, label in enumerate(names):
        if place not in entries:
            yield f"  {label}: has no such parameter"
        elif place != start:
            apart = _apart(models, name, (start, place), entries)
            yield f"  {label}: {apart} {'from the base' if start == BASE else f'from {names[0]}'}"


def _apart(models: Models, name: str, pair: tuple[int, int], entries: dict[int, Entry]) -> str:
    """How far a parameter is from another one's."""
    one, other = entries[pair[0]], entries[pair[1]]
    if one.digest == other.digest:
        return "the same, no distance"
    if not comparable(one.tensor, other.tensor):
        return f"{other.tensor}, another"
    left, right = (models.source(place, name) for place in pair)
    return f"{distance(left, right, one.tensor):.2%}"
