"""size, repack, show, export and import as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo

NAME = "dir/größe.safetensors"
STATE = {"h.0.w": np.arange(600_000, dtype="<f4").reshape(-1, 100), "h.0.b": np.ones(3, "<f4"), "odd#name": np.zeros(2)}


@pytest.fixture
def model(repo: Repo) -> Repo:
    repo.write(NAME, STATE)
    repo.commit()
    return repo


def theta(repo: Repo, *arguments: str, code: int = 0, cwd: str = ".") -> subprocess.CompletedProcess[bytes]:
    done = repo.run("theta", *arguments, check=False, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    return done


def parsed(repo: Repo, *arguments: str) -> Any:
    done = theta(repo, *arguments, "--json")
    assert done.stderr == b"" and done.stdout.isascii()
    fields = json.loads(done.stdout)
    assert fields.pop("version") == 1
    return fields


def test_size(model: Repo) -> None:
    fields = parsed(model, "size", "--by", "path")
    stored = sum(model.objects().values())
    assert fields["total"]["stored"] == stored
    assert fields["groups"][0]["name"] == NAME
    assert fields["groups"][0]["added"] == stored
    assert fields["total"]["ratio"] == pytest.approx(stored / (model.path / NAME).stat().st_size, abs=1e-6)
    line = theta(model, "size").stdout.decode()
    assert line.startswith("1 version  files 2.3 MiB  tensors 2.3 MiB  stored ") and line.endswith("  total\n")
    head = model.git("rev-parse", "HEAD")[:10]
    assert head in theta(model, "size", "--by", "commit", "HEAD").stdout.decode()


def test_names_are_spelled_for_people_alone(repo: Repo) -> None:
    name, path = "new\nline", os.fsdecode(b"dir/bad\xff\n.safetensors")
    repo.write(path, {name: np.ones(3, "<f4"), "b": np.zeros(2, "<f4")})
    repo.commit()
    assert [item["name"] for item in parsed(repo, "size", "--by", "parameter")["groups"]] == ["b", name]
    assert [item["name"] for item in parsed(repo, "size", "--by", "path")["groups"]] == [path]
    assert theta(repo, "size", "--by", "parameter").stdout.splitlines()[1].endswith(b'  "new\\nline"')
    first = theta(repo, "size", "--by", "path", cwd="dir").stdout.splitlines()[0]
    assert first.endswith(b'  "bad\\377\\n.safetensors"')


def test_size_of_nothing_known(model: Repo) -> None:
    assert b"theta: " in theta(model, "size", "frob", code=128).stderr
    assert b"--by" in theta(model, "size", "--by", "frob", code=129).stderr


def test_repack(model: Repo) -> None:
    model.write("copy.safetensors", {**STATE, "h.0.w": np.random.default_rng(0).permutation(STATE["h.0.w"])})
    model.write("near.safetensors", {"h.0.w": STATE["h.0.w"] * np.float32(1.00001)})
    model.commit()
    estimate = parsed(model, "repack", "--dry-run", "near.safetensors")
    assert [item["parameter"] for item in estimate["repacked"]] == ["h.0.w"]
    assert estimate["staged"] == [] and model.status() == ""
    done = theta(model, "repack", "--stage", "near.safetensors")
    assert b"h.0.w  near.safetensors" in done.stdout
    assert b"1 of 1 tensor became smaller" in done.stderr
    assert b"1 manifest staged" in done.stderr
    assert model.status() == "M  near.safetensors"


def test_show_lists_parameters_and_reads_no_object(model: Repo) -> None:
    lines = theta(model, "show", "größe.safetensors", cwd="dir").stdout.decode().splitlines()
    digests = {entry.name: entry.digest for entry in model.manifest(NAME).entries}
    assert [line.split()[:3] for line in lines] == [
        [digests["h.0.b"][:10], "h.0.b", "F32[3]"],
        [digests["h.0.w"][:10], "h.0.w", "F32[6000,100]"],
        [digests["odd#name"][:10], "odd#name", "F64[2]"],
    ]
    (model.theta / "objects").rename(model.theta / "gone")
    assert len(parsed(model, "show", f"HEAD:{NAME}")["parameters"]) == 3


def test_show_one_parameter(model: Repo) -> None:
    fields = parsed(model, "show", f"{NAME}#h.0.w")
    numbers = STATE["h.0.w"].astype("f8")
    assert fields["shape"] == [6000, 100]
    assert fields["digest"] == next(e.digest for e in model.manifest(NAME).entries if e.name == "h.0.w")
    assert [link["kind"] for link in fields["objects"]] == ["dense"]
    assert fields["statistics"] == {
        "count": 600_000,
        "nonfinite": 0,
        "zeros": 1,
        "minimum": 0,
        "maximum": 599_999,
        "mean": pytest.approx(numbers.mean()),
        "deviation": pytest.approx(numbers.std()),
    }
    rows = parsed(model, "show", f"HEAD:{NAME}#h.0.w", "--rows", "10:12")["statistics"]
    assert (rows["count"], rows["minimum"], rows["maximum"]) == (200, 1000, 1199)
    assert b"zeros      2\n" in theta(model, "show", f"{NAME}#odd#name").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["frob"], 128, "no file 'frob' in the index"),
        (["frob:x"], 128, "no revision 'frob'"),
        (["HEAD:x"], 128, "no file 'x' in HEAD"),
        ([f"{NAME}#frob"], 128, "no parameter frob"),
        ([f"{NAME}#h.0.w", "--rows", "1"], 129, "'1' are no rows"),
        ([f"{NAME}#h.0.w", "--rows", "8:2"], 129, "F32[6000,100] has no such rows"),
        ([f"{NAME}#h.0.w", "--rows", "6000:"], 129, "F32[6000,100] has no such rows"),
        ([NAME, "--rows", "1:2"], 129, "--rows needs a parameter"),
        ([".gitattributes"], 128, "not stored parameter by parameter"),
    ],
)
def test_show_says_what_is_wrong(model: Repo, arguments: list[str], code: int, words: str) -> None:
    assert words in theta(model, "show", *arguments, code=code).stderr.decode()


def test_a_path_behind_a_revision_is_read_from_the_root_as_git_does(model: Repo) -> None:
    digest = parsed(model, "show", NAME)["digest"]
    base = NAME.removeprefix("dir/")
    for word in (f"HEAD:{NAME}", f"HEAD:./{base}", f"HEAD:../{NAME}", f":{NAME}", f":./{base}", base, f"../{NAME}"):
        fields = json.loads(theta(model, "show", word, "--json", cwd="dir").stdout)
        assert fields["digest"] == digest, word
        if ":" in word:
            model.run("cat-file", "-e", word, cwd="dir")  # what git says of it
    assert f"no file '{base}' in HEAD" in theta(model, "show", f"HEAD:{base}", cwd="dir", code=128).stderr.decode()


def test_tensors_without_rows_or_bytes(model: Repo) -> None:
    model.write("odd.safetensors", {"none": np.zeros((0, 3), "f4"), "step": np.array(7)})
    model.git("add", "odd.safetensors")
    first, second = theta(model, "show", "odd.safetensors").stdout.decode().splitlines()
    assert first.split()[1:] == ["none", "F32[0,3]", "empty"] and "packed" in second
    assert parsed(model, "show", "odd.safetensors#none")["statistics"]["count"] == 0
    said = theta(model, "show", "odd.safetensors#step", "--rows", "0:1", code=129).stderr
    assert b"I64[] has no such rows" in said


def test_an_object_that_is_not_here_is_named_with_what_brings_it(model: Repo, tmp_path: Path) -> None:
    for oid in list(model.store):
        Path(model.store.path(oid)).unlink()
    commands = [("show", f"{NAME}#h.0.w")]
    if importlib.util.find_spec("tensorstore"):
        commands.append(("export", "--zarr", str(tmp_path / "z"), "--parameters", "h.0.w", NAME))
    for command in commands:
        said = theta(model, *command, code=128).stderr.decode()
        assert said.startswith("theta: parameter h.0.w: object ") and "'git theta fetch REMOTE REV'" in said


def test_export_and_import(model: Repo, tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    group = str(tmp_path / "m.zarr")
    assert b"3 parameters written" in theta(model, "export", "--zarr", group, f"HEAD:{NAME}").stderr
    index = json.loads((tmp_path / "m.zarr/theta.json").read_bytes())
    assert (index["revision"], index["path"], index["digest"]) == ("HEAD", NAME, model.manifest(NAME).digest)
    theta(model, "import", "--zarr", group, "back.safetensors")
    model.git("add", "back.safetensors")
    assert model.manifest("back.safetensors").entries == model.manifest(NAME).entries
    assert b"exists already" in theta(model, "import", "--zarr", group, "back.safetensors", code=128).stderr
    theta(model, "import", "--force", "--zarr", group, "back.safetensors")


def test_export_of_some_parameters(model: Repo, tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    group = tmp_path / "m.zarr"
    theta(model, "export", "--zarr", str(group), "--parameters", "h.*.b", "--parameters", "odd*", NAME)
    assert json.loads((group / "theta.json").read_bytes())["parameters"].keys() == {"h.0.b", "odd#name"}
    done = theta(model, "export", "--zarr", str(tmp_path / "x"), "--parameters", "frob", NAME, code=128)
    assert done.stderr == b"theta: no parameter matches frob\n"


def test_heavy_libraries_are_imported_by_those_alone_that_use_them() -> None:
    code = "import sys; from git_theta_btm.cli import theta, COMMANDS; import git_theta_btm.cli.size, "
    code += "git_theta_btm.cli.show, git_theta_btm.cli.exporting; print(*sys.modules)"
    import sys

    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"tensorstore", "numpy", "torch", "ml_dtypes"} & set(modules)
