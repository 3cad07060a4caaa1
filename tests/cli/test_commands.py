"""Every command as a user runs it: a process of its own, in a real repository."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm import __version__
from git_theta_btm.cli import COMMANDS

NAME = "dir/größe 1.safetensors"
STATE = {"h.0.w": np.arange(40_000, dtype="<f4"), "h.0.b": np.ones(3, "<f4")}
READING = ["track", "ls-files", "status", "fsck", "doctor", "env"]

Theta = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def theta(tmp_path: Path) -> Theta:
    """Run ``git theta`` somewhere, and check what holds for every run."""

    def run(*arguments: str, cwd: Path | Repo = tmp_path, code: int = 0, **environment: str) -> Any:
        directory = cwd.path if isinstance(cwd, Repo) else cwd
        done = subprocess.run(
            ["git", "theta", *arguments],
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        if "--color=always" not in arguments:
            assert "\x1b" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """What the first test of this file built, for the others to copy: each filter call takes a tenth of a second."""
    return {}


@pytest.fixture
def model(repo: Repo, theta: Theta, made: dict[str, Path], tmp_path: Path) -> Repo:
    """A repository with one commit of one model."""
    if "model" not in made:
        theta("install", "--local", cwd=repo)
        repo.write(NAME, STATE)
        repo.commit()
        made["model"] = repo.path
    return Repo(Path(shutil.copytree(made["model"], tmp_path / "copy")))


def stub(repo: Repo) -> None:
    (repo.path / NAME).unlink()
    repo.run("checkout", "--", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})


# -- all commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(theta: Theta, command: str) -> None:
    text = theta(command, "-h").stdout
    assert text == theta("help", command).stdout
    assert f"git theta {command}" in text.partition("Example:")[2]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_overview_names_every_command(theta: Theta) -> None:
    text = theta("-h").stdout
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert "..." not in text.partition("Commands:")[2]
    assert theta().stdout == theta("help").stdout == text


def test_an_argument_that_is_missing_is_one_line(theta: Theta) -> None:
    first = theta("migrate", code=129).stderr.splitlines()[0]
    assert first.endswith("Choose from: import, export, undo, forget")


def test_version(theta: Theta) -> None:
    assert theta("--version").stdout == f"git-theta-btm {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["frob"], ["help", "frob"], ["status", "--frob"], ["untrack"], ["completion", "csh"], ["--frob"]]
)
def test_usage_errors_are_two_lines(theta: Theta, arguments: list[str]) -> None:
    done = theta(*arguments, code=129)
    first, second = done.stderr.splitlines()
    assert first.startswith("theta: ")
    assert second.startswith("usage: git theta")
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["track", "ls-files", "status", "pull", "fsck", "doctor"])
def test_outside_a_repository(theta: Theta, command: str) -> None:
    done = theta(command, code=128)
    assert done.stderr == "theta: not a git repository (or any of the parent directories): .git\n"
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["track", "track *.pt", "status", "pull"])
def test_commands_that_need_a_worktree_say_so_in_a_bare_repository(theta: Theta, tmp_path: Path, command: str) -> None:
    subprocess.run(["git", "init", "--quiet", "--bare", "bare"], cwd=tmp_path, check=True)
    done = theta(*command.split(), cwd=tmp_path / "bare", code=128)
    assert done.stderr == "theta: there is no worktree here: this is a bare repository, or the inside of .git\n"


@pytest.mark.parametrize("command", READING)
def test_json_has_a_version_and_nothing_beside_it(theta: Theta, model: Repo, command: str) -> None:
    done = theta(command, "--json", cwd=model)
    assert json.loads(done.stdout)["version"] == 1
    assert done.stdout.isascii()
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["ls-files", "status"])
@pytest.mark.parametrize("place", ["subdirectory", "linked worktree"])
def test_from_other_places(theta: Theta, model: Repo, tmp_path: Path, command: str, place: str) -> None:
    if place == "subdirectory":
        shown = theta(command, cwd=model.path / "dir").stdout
        assert "größe 1.safetensors" in shown and "dir/" not in shown
        assert "../.gitattributes" in theta("track", cwd=model.path / "dir").stdout
    else:
        model.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked tree"))
        assert theta(command, cwd=tmp_path / "linked tree").stdout == theta(command, cwd=model).stdout


def test_tracing_shows_where_an_error_comes_from(theta: Theta, tmp_path: Path) -> None:
    done = subprocess.run(
        ["git", "theta", "status"],
        cwd=tmp_path,
        env={**os.environ, "GIT_TRACE_THETA": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" in done.stderr
    theta("status", GIT_TRACE_THETA="false", code=128)


def test_a_stub_that_was_edited_is_one_line_with_what_helps(theta: Theta, repo: Repo) -> None:
    repo.write("m.safetensors", {"w": np.ones(3, "f4")})
    repo.commit()
    broken = repo.blob("m.safetensors").replace(b"param w", b"param x")
    repo.write("m.safetensors", broken)
    said = theta("status", cwd=repo).stdout  # git sees another size, and does not ask the filter
    assert "broken    m.safetensors  broken manifest: " in said and "'git checkout -- PATH'" in said
    repo.git("checkout", "--", "m.safetensors")
    theta("dematerialize", cwd=repo)
    repo.write("m.safetensors", broken)
    done = theta("status", cwd=repo, code=128)
    expected = "theta: m.safetensors: broken manifest: its lines do not agree with its digest, or are not in canonical "
    expected += "form; 'git checkout -- m.safetensors' brings back what is staged\n"
    assert done.stderr == expected
    assert expected in repo.run("add", "m.safetensors", check=False).stderr.decode()
    repo.git("checkout", "--", "m.safetensors")
    assert theta("status", cwd=repo).stdout.startswith("clean")


def test_a_manifest_of_a_later_version(theta: Theta, repo: Repo) -> None:
    repo.write("m.safetensors", {"w": np.ones(3, "f4")})
    repo.git("add", "m.safetensors")
    later = repo.blob("m.safetensors").replace(b"manifest 1:", b"manifest 2:")
    oid = repo.run("hash-object", "-w", "--stdin", stdin=later).stdout.decode().strip()
    repo.git("update-index", "--cacheinfo", f"100644,{oid},m.safetensors")
    repo.git("commit", "--quiet", "-m", "by a later program")
    (repo.path / "m.safetensors").unlink()
    assert b"needs a newer git-theta-btm" in repo.run("checkout", "--", "m.safetensors").stderr
    repo.git("add", "--renormalize", "m.safetensors")
    assert repo.status() == "" and repo.blob("m.safetensors") == later
    stub, broken = theta("status", cwd=repo).stdout.splitlines()
    assert stub.startswith("stub") and broken.startswith("broken") and "needs a newer git-theta-btm" in broken
    (listed,) = json.loads(theta("ls-files", "--json", cwd=repo).stdout)["files"]
    assert listed["state"] == "broken"
    assert "needs a newer" in theta("show", "m.safetensors", cwd=repo, code=128).stderr
    repo.write("m.safetensors", later + b"more\n")
    assert b"needs a newer git-theta-btm" in repo.run("add", "m.safetensors", check=False).stderr
    assert repo.blob("m.safetensors") == later


def test_a_reader_that_goes_away_is_no_error(model: Repo) -> None:
    script = "git theta track --json | sleep 0; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", script], cwd=model.path, capture_output=True, text=True, check=False)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["ls_files", "status"])
def test_a_reading_command_loads_little(module: str) -> None:
    script = f"import sys, git_theta_btm.cli.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    slow = {"numpy", "torch", "git", "rich", "zstandard", "xxhash", "sqlite3", "importlib.metadata", "zipfile"}
    assert slow.isdisjoint(loaded)


# -- install ---------------------------------------------------------------------------------------------------------


def test_install_and_uninstall(theta: Theta, tmp_path: Path, home: Path) -> None:
    assert theta("install").stderr == "git-theta is installed (global)\n"
    assert theta("install").stderr == "git-theta was installed already (global)\n"
    assert "git-theta-filter" in (home / ".gitconfig").read_text()
    assert theta("uninstall").stderr == "git-theta is no longer installed (global)\n"
    assert theta("uninstall").stderr == "git-theta was not installed (global)\n"
    assert not (home / ".gitconfig").exists()


@pytest.mark.parametrize("scope", ["local", "worktree"])
def test_scopes(theta: Theta, repo: Repo, home: Path, scope: str) -> None:
    repo.git("config", "--unset", "filter.theta.clean")
    theta("install", f"--{scope}", "--skip-smudge", "--force", cwd=repo)
    assert repo.git("config", "--local", "filter.theta.smudge").endswith("smudge --skip -- %f")
    assert not (home / ".gitconfig").exists()


def test_a_foreign_filter_is_one_line(theta: Theta) -> None:
    subprocess.run(["git", "config", "--global", "filter.theta.clean", "cat"], check=True)
    done = theta("install", code=128)
    assert done.stderr == "theta: filter.theta.clean is set to 'cat', which is not ours: --force replaces it\n"
    theta("install", "--force")


def test_a_clone_is_filled_at_once(theta: Theta, model: Repo, tmp_path: Path) -> None:
    theta("install")
    command, stubs = ["git", "clone", "--quiet", model.path, "clone"], {**os.environ, "GIT_THETA_SKIP_SMUDGE": "1"}
    subprocess.run(command, cwd=tmp_path, env=stubs, check=True, capture_output=True)
    assert theta("status", cwd=tmp_path / "clone").stdout.split()[0] == "stub"
    assert theta("pull", cwd=tmp_path / "clone").stderr.startswith("1 file restored")
    assert theta("status", cwd=tmp_path / "clone").stdout.startswith("clean")


# -- track -----------------------------------------------------------------------------------------------------------


def test_track_lists_says_and_undoes(theta: Theta, model: Repo) -> None:
    before = (model.path / ".gitattributes").read_bytes()
    assert theta("track", "*.a b", cwd=model).stderr == "now commit it: git add .gitattributes\n"
    assert theta("track", "*.a b", cwd=model).stderr == "tracked already\n"
    assert "*.a b" in theta("track", cwd=model).stdout
    assert {"pattern": "*.a b", "file": ".gitattributes"} in json.loads(theta("track", "--json", cwd=model).stdout)[
        "patterns"
    ]
    theta("untrack", "*.a b", cwd=model)
    assert (model.path / ".gitattributes").read_bytes() == before


def test_track_takes_names_literally_if_asked(theta: Theta, model: Repo) -> None:
    theta("track", "--filename", "a[1].model", cwd=model)
    assert model.git("check-attr", "filter", "a[1].model", "a1.model").split("\n") == [
        "a[1].model: filter: theta",
        "a1.model: filter: unspecified",
    ]


def test_track_says_how_committed_files_get_in(theta: Theta, model: Repo) -> None:
    model.write("my old.model", b"weights")
    model.commit()
    done = theta("track", "*.model", cwd=model)
    assert done.stderr.splitlines()[-1] == "git add --renormalize -- 'my old.model'"
    model.git("add", "--renormalize", "--", "my old.model")
    assert model.manifest("my old.model").format == "opaque"


def test_track_before_install(theta: Theta, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", "new"], cwd=tmp_path, check=True)
    assert "git theta install" in theta("track", "*.pt", cwd=tmp_path / "new").stderr


# -- ls-files and status ---------------------------------------------------------------------------------------------


def test_ls_files(theta: Theta, model: Repo) -> None:
    digest = model.manifest(NAME).digest
    size = (model.path / NAME).stat().st_size
    line = f"{digest[:10]}  *  safetensors  2 parameters  {size / 1024:.1f} KiB  {NAME}\n"
    assert theta("ls-files", cwd=model).stdout == line
    assert theta("ls-files", "HEAD", cwd=model).stdout == line
    assert theta("ls-files", "HEAD", "dir", cwd=model).stdout == line
    assert theta("ls-files", "--long", "dir", cwd=model).stdout.startswith(digest)
    stub(model)
    assert theta("ls-files", cwd=model).stdout == line.replace("*", "-")
    assert json.loads(theta("ls-files", "--json", cwd=model).stdout)["files"] == [
        {
            "path": NAME,
            "state": "stub",
            "digest": digest,
            "format": "safetensors",
            "parameters": 2,
            "size": size,
        }
    ]


def test_ls_files_of_what_is_no_manifest_yet(theta: Theta, model: Repo) -> None:
    model.write("x\x1b[31m.model", b"weights")
    model.commit()
    theta("track", "*.model", cwd=model)
    lines = theta("ls-files", cwd=model).stdout.splitlines()
    assert lines[1].split()[1] == "!"
    assert lines[1].endswith('"x\\033[31m.model"')


def test_ls_files_in_a_bare_repository(theta: Theta, model: Repo, tmp_path: Path) -> None:
    model.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    assert theta("ls-files", cwd=tmp_path / "bare").stdout.split()[1] == "-"
    assert theta("ls-files", "HEAD", "dir", cwd=tmp_path / "bare").stdout.split()[1] == "-"


def test_ls_files_of_a_revision_that_is_none(theta: Theta, model: Repo) -> None:
    assert theta("ls-files", "nope", cwd=model, code=128).stderr == "theta: there is no revision and no file 'nope'\n"


def states(theta: Theta, repo: Repo) -> Any:
    (found,) = json.loads(theta("status", "--json", cwd=repo).stdout)["files"]
    return found


def test_status_counts_parameters(theta: Theta, model: Repo) -> None:
    assert theta("status", cwd=model).stdout == f"clean  {NAME}  2 parameters\n"
    model.write(NAME, STATE | {"h.0.w": STATE["h.0.w"] + 1})
    model.git("add", ".")
    model.write(NAME, STATE | {"h.0.w": STATE["h.0.w"] + 1, "new": STATE["h.0.b"]})
    assert theta("status", cwd=model).stdout.splitlines() == [
        f"staged    {NAME}  1 changed of 2 parameters",
        f"modified  {NAME}  1 added of 2 parameters",
    ]
    found = states(theta, model)
    assert [(change["name"], change["kind"]) for change in found["staged"]] == [("h.0.w", "changed")]
    assert found["modified"][0]["old"] is None
    assert found["modified"][0]["new"]["type"] == "F32[3]"


def test_status_of_a_new_and_of_a_deleted_file(theta: Theta, model: Repo) -> None:
    model.git("rm", "--quiet", "--cached", NAME)
    assert theta("status", cwd=model).stdout.startswith(f"staged  {NAME}  2 removed")
    model.git("add", ".")
    (model.path / NAME).unlink()
    assert states(theta, model)["states"] == ["deleted"]


def test_status_of_stubs_and_missing_objects(theta: Theta, model: Repo) -> None:
    stub(model)
    assert states(theta, model)["states"] == ["stub"]
    Path(model.store.path(next(model.manifest(NAME).needs()).digest)).unlink()
    assert states(theta, model)["states"] == ["stub", "missing"]
    assert "1 object not here" in theta("status", cwd=model).stdout


def test_status_of_a_conflict(theta: Theta, model: Repo) -> None:
    model.git("checkout", "--quiet", "-b", "side")
    model.write(NAME, STATE | {"h.0.w": STATE["h.0.w"][:1]})
    model.commit()
    model.git("checkout", "--quiet", "main")
    model.write(NAME, STATE | {"h.0.b": STATE["h.0.b"] + 1})
    model.commit()
    assert model.run("merge", "side", check=False).returncode == 1
    assert states(theta, model)["states"] == ["conflict"]
    assert model.sha(NAME) == model.write("copy", model.run("cat-file", "--filters", f"HEAD:{NAME}").stdout)


@pytest.mark.parametrize(
    ("when", "config", "environment", "coloured"),
    [
        ("--color=always", "false", {}, True),
        ("--color=never", "always", {}, False),
        ("--color=auto", "always", {}, True),
        ("--color=auto", "always", {"NO_COLOR": "1"}, False),
        ("--color=auto", "auto", {}, False),
    ],
)
def test_colour(model: Repo, when: str, config: str, environment: dict[str, str], *, coloured: bool) -> None:
    model.git("config", "color.theta", config)
    model.git("config", "color.theta.clean", "blue")
    done = model.run("theta", "status", when, env=environment)
    assert (b"\x1b[34mclean" in done.stdout) == (b"\x1b" in done.stdout) == coloured


def test_what_has_no_colour_has_no_codes(model: Repo) -> None:
    assert b"\x1b" not in model.run("theta", "status", "--color=always").stdout


def test_colour_on_a_terminal(model: Repo) -> None:
    reader, writer = pty.openpty()
    model.git("config", "color.theta.clean", "blue")
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run(["git", "theta", "status"], cwd=model.path, stdout=writer, env=environment, check=True)
    assert b"\x1b[34mclean" in os.read(reader, 1000)


# -- pull, fsck, doctor, env -----------------------------------------------------------------------------------------


def test_pull(theta: Theta, model: Repo) -> None:
    before = model.sha(NAME)
    stub(model)
    assert theta("pull", "größe 1.safetensors", cwd=model.path / "dir").stderr.startswith("1 file restored")
    assert model.sha(NAME) == before
    assert model.status() == ""
    assert theta("pull", cwd=model).stderr == "0 files restored, 0 B\n"
    assert "did not match" in theta("pull", "nothing", cwd=model, code=128).stderr


def test_pull_without_all_objects(theta: Theta, model: Repo) -> None:
    stub(model)
    gone = next(model.manifest(NAME).needs()).digest
    Path(model.store.path(gone)).unlink()
    done = theta("pull", cwd=model, code=1)
    assert NAME in done.stderr and gone in done.stderr


def test_fsck(theta: Theta, model: Repo) -> None:
    done = theta("fsck", cwd=model)
    assert (done.stdout, done.stderr) == ("", "1 manifest and 2 objects checked\n")
    blob = max(model.manifest(NAME).needs(), key=lambda blob: blob.size)
    path = Path(model.store.path(blob.digest))
    path.chmod(0o644)
    path.write_bytes(bytes(blob.size))
    done = theta("fsck", cwd=model, code=1)
    where = f"{model.git('rev-parse', '--short', 'HEAD')}:{NAME}"
    assert done.stdout.startswith(f"{where}: h.0.w: {blob.digest}: corrupt: its SHA-256 is ")
    assert "git theta fsck --fix; where the file" in done.stderr
    assert "1 moved" in theta("fsck", "--fix", cwd=model, code=1).stderr
    model.git("add", "--renormalize", NAME)
    theta("fsck", cwd=model)


def test_fsck_where_a_remote_may_have_what_is_missing(theta: Theta, model: Repo) -> None:
    Path(model.store.path(next(model.manifest(NAME).needs()).digest)).unlink()
    assert "git theta fetch" not in theta("fsck", cwd=model, code=1).stderr
    model.git("remote", "add", "origin", ".")
    assert "1 problem; fetch what a remote has: git theta fetch --all; " in theta("fsck", cwd=model, code=1).stderr


def test_doctor(theta: Theta, model: Repo) -> None:
    assert theta("doctor", cwd=model).stderr == "nothing is wrong\n"
    stub(model)
    done = theta("doctor", cwd=model, code=1)
    assert done.stdout.startswith(f"stub {NAME}: ")
    assert "(or --fix)" in done.stdout
    (found,) = json.loads(theta("doctor", "--json", cwd=model, code=1).stdout)["findings"]
    assert (found["code"], found["path"], found["fixable"]) == ("stub", NAME, True)
    assert theta("doctor", "--fix", cwd=model).stderr == "1 finding repaired\nnothing is wrong\n"
    assert model.status() == ""


def test_env(theta: Theta, model: Repo) -> None:
    found = json.loads(theta("env", "--json", cwd=model).stdout)
    assert found["versions"]["git-theta-btm"] == __version__
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["filter"] == "installed"
    assert found["objects"] == len(model.objects()) and found["objects_size"] == sum(model.objects().values())
    assert {"pattern": "*.safetensors", "file": ".gitattributes"} in found["patterns"]
    keys = {item["key"]: item["origin"] for item in found["settings"]}
    assert keys["filter.theta.clean"] == "file:.git/config"
    text = theta("env", cwd=model).stdout
    assert f"git-theta-btm {__version__}\n" in text and "filters installed\n" in text


def test_env_outside_a_repository(theta: Theta) -> None:
    assert "filters missing\n" in theta("env").stdout
    assert json.loads(theta("env", "--json").stdout)["store"] is None
