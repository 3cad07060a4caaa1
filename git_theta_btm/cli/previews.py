"""How a merge that is not made yet is shown."""

from __future__ import annotations

import dataclasses
from collections import Counter

from ..manifest import spell
from ..merging.heads import Merge
from ..merging.previewing import File, Preview
from .console import data, dump, number, printable, say, shown


def show(found: Preview, plan: Merge, *, as_json: bool) -> int:
    """Print what a merge would do: 0 if it would be made, 1 if there are conflicts."""
    heads = [(head.name, head.commit) for head in plan.experts]
    if as_json:
        experts = [{"name": name, "commit": commit} for name, commit in heads]
        dump(clean=found.clean, experts=experts, base=plan.base, **dataclasses.asdict(found))
        return int(not found.clean)
    for line in found.warnings:
        say(f"warning: {line}")
    data(f"merges into {printable(plan.ours.name)}: {', '.join(printable(name) for name, _ in heads)}")
    for line in found.trailers:
        data(f"  {printable(line)}")
    for file in found.files:
        data(f"{shown(file.path)}: {_verdict(file)}")
    for path in found.conflicts:
        data(f"{shown(path)}: git finds a conflict in it")
    if not found.files:
        data("no model is changed by this merge")
    return int(not found.clean)


def _verdict(file: File) -> str:
    if file.problem:
        return f"cannot be merged: {printable(file.problem).removeprefix(f'{spell(file.path)}: ')}"
    if file.taken:
        return f"taken from {printable(file.taken)} as it is: nobody else changed it"
    counts = Counter(
        "equal" if item.how == "equal" else f"{item.how} {'by' if item.how == 'computed' else 'from'} {item.by}"
        for item in file.parameters
    )
    parts = ", ".join(f"{count} {printable(what)}" for what, count in counts.most_common())
    return f"{number(len(file.parameters), 'parameter')}: {parts}" if parts else "no parameters, the same everywhere"
