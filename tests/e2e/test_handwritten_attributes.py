"""``git merge -s theta`` where ``.gitattributes`` was not written by ``git theta track``."""

from __future__ import annotations

from pathlib import Path

import pytest
from branches import MODEL, branch, mean, merged, pack, same, theta, trained, trio, trio_template
from conftest import Repo

__all__ = ["trio", "trio_template"]

BOTH = mean([trained(1), trained(2)])


def attributes(repo: Repo, line: str) -> None:
    repo.write(".gitattributes", line.encode() + b"\n")
    repo.commit("attributes by hand")


def merge(repo: Repo, *names: str) -> tuple[int, str]:
    done = repo.run("merge", "--quiet", "--no-edit", "-s", "theta", *names, check=False)
    return done.returncode, done.stderr.decode()


def test_the_filter_alone_is_enough(trio: Repo, home: Path) -> None:
    attributes(trio, "*.safetensors filter=theta -text")
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/attributes").write_text("*.txt merge=union")  # stays what it is
    odd = "sub/odd [1] 'name'.safetensors"
    for number, name in enumerate(("legal", "medical"), 1):
        files = {MODEL: pack(trained(number)), odd: pack(trained(number)), "both.txt": f"{name}\n".encode()}
        branch(trio, f"{name}-too", files)
    assert merge(trio, "legal-too", "medical-too") == (0, "")
    assert same(merged(trio), BOTH) and same(merged(trio, odd), BOTH)
    assert (trio.path / "both.txt").read_text() == "legal\nmedical\n"
    assert trio.status() == ""
    theta(trio, "verify")


@pytest.mark.parametrize("line", ["*.safetensors filter=theta binary", "*.safetensors filter=theta merge=text"])
def test_another_driver_ends_in_one_line(trio: Repo, line: str) -> None:
    attributes(trio, line)
    before = trio.git("rev-parse", "HEAD"), trio.sha(MODEL)
    code, said = merge(trio, "legal", "medical")
    assert code == 2
    words = f"theta: {MODEL} would be merged as text: 'git theta track {MODEL}' has it merged as a model"
    assert [text for text in said.splitlines() if text.startswith("theta: ")] == [words]
    assert (trio.git("rev-parse", "HEAD"), trio.sha(MODEL), trio.status()) == (*before, "")
    assert theta(trio, "merge", "legal", "medical", "--dry-run", code=128).stderr.strip() == words
    theta(trio, "track", MODEL)
    assert merge(trio, "legal", "medical")[0] == 0
    assert same(merged(trio), BOTH)
