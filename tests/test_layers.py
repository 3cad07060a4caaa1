"""Values flow down: a module imports from its own row of the table or from a row above it, never from below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import git_theta_btm

ROOT = Path(git_theta_btm.__file__).parent
PACKAGE = ROOT.name

# Each row may use itself and those above. A pattern ending in ``*`` stands for every module of a folder.
ROWS: list[tuple[str, str]] = [
    (
        "values",
        "errors tensor source floats arrays parallel manifest layout changes pack chunks planes residual"
        " adapters.naming maths.*",
    ),
    ("ports", "store"),
    ("protocols", "formats updates merges readers.*"),
    (
        "codecs",
        "formats.* updates.* merges.* encoded rewrite remaking states adapters.edits merging.recipe merging.resolve",
    ),
    (
        "operations",
        "blobs filters.clean filters.smudge filters.identify filters.encode filters.places filters.verify"
        " adapters.applying",
    ),
    ("adapters", "git gitdir catalogue filters.caller adapters.files"),
    (
        "shell",
        "filters.session filters.launcher repository status api summary adapters.adding"
        " saving setup.* care.* remotes.* checkout.* migration.* zarr.* merging.*",
    ),
    ("workflow", "btm.*"),
    ("command line", "cli cli.* btm.cli btm.cli.*"),
]
# Packages that hold nothing but a docstring; the first one the version too, and public names that are loaded on demand.
FREE = {
    "",
    "filters",
    "readers",
    "adapters",
    "setup",
    "care",
    "remotes",
    "checkout",
    "migration",
    "zarr",
    "maths",
    "merging",
}
FREE |= {"btm", "btm.data", "btm.training", "btm.launching", "btm.evaluating", "btm.ensembling"}
PLUGINS = ("formats", "updates", "merges")
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "runpy",
    "code",
    "pty",
}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.execve", "os.spawnv",
    "os.posix_spawn", "torch.load", "numpy.load", "np.load", "yaml.load", "importlib.util.spec_from_file_location",
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package, by its name within the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imported(name: str) -> Iterator[str]:
    """Full names of all modules that a module imports, at its top or anywhere in it."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parts = [PACKAGE, *filter(None, package.split("."))]
                start = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                full = f"{start}.{alias.name}"
                yield full if full.removeprefix(f"{PACKAGE}.") in MODULES else start


def inner(name: str) -> set[str]:
    """The package's own modules that a module imports."""
    return {
        "" if target == PACKAGE else target.removeprefix(f"{PACKAGE}.")
        for target in imported(name)
        if target == PACKAGE or target.startswith(f"{PACKAGE}.")
    }


def row(name: str) -> int:
    for number, (_, patterns) in reversed(list(enumerate(ROWS))):  # a part of a package may stand below the rest
        for pattern in patterns.split():
            folder = pattern.removesuffix(".*")
            if name == pattern or (pattern.endswith(".*") and name.startswith(f"{folder}.")):
                return number
    raise AssertionError(f"{name} stands in no row of the table: which one is it?")


def test_every_module_has_its_row() -> None:
    assert not [name for name in MODULES if name not in FREE and row(name) is None]


@pytest.mark.parametrize("name", sorted(MODULES.keys() - FREE))
def test_a_module_imports_nothing_from_below(name: str) -> None:
    below = {target for target in inner(name) - FREE if row(target) > row(name)}
    assert not below


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith(tuple(f"{folder}." for folder in PLUGINS))]
)
def test_plugins_know_nothing_of_each_other(name: str) -> None:
    folder = name.partition(".")[0]
    assert not {target for target in inner(name) if target.startswith(f"{folder}.")}


@pytest.mark.parametrize("name", sorted(FREE & MODULES.keys() - {""}))
def test_packages_that_hold_nothing(name: str) -> None:
    assert not list(imported(name))


def test_one_module_runs_git_and_one_runs_trainings() -> None:
    users = {name for name in MODULES if "subprocess" in set(imported(name))}
    assert users == {"git", "btm.launching.processes"}


def called(node: ast.AST) -> str:
    """``os.system`` for a call of that name."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{called(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_unpickled_or_executed(name: str) -> None:
    assert not {target.partition(".")[0] for target in imported(name)} & FORBIDDEN_MODULES
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Call):
            assert called(node.func) not in FORBIDDEN_CALLS
            for keyword in node.keywords:
                assert keyword.arg != "shell"
                if keyword.arg == "allow_pickle":
                    assert isinstance(keyword.value, ast.Constant)
                    assert keyword.value.value is False


def test_the_rules_see_what_they_forbid() -> None:
    """A rule that never fires is no rule: this test file itself breaks several."""
    assert row("formats.safetensors") > row("formats") > row("store") > row("manifest")
    assert "formats" in inner("formats.safetensors")
    assert {"errors", "manifest"} <= inner("store")
    assert called(ast.parse("os.system('x')", mode="eval").body.func) == "os.system"  # type: ignore[attr-defined]
