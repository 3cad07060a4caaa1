"""What a plain installation has not is named, with the extra that brings it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import Repo

# Runs a program as if a package were not installed.
LACKING = """
import sys
from importlib.abc import MetaPathFinder
class Lacking(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Lacking())
"""


def without(package: str, program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LACKING + program, package]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_a_command_whose_package_is_not_installed(repo: Repo) -> None:
    program = (
        "from git_theta_btm.btm.cli import btm\n"
        "from git_theta_btm.cli import execute\n"
        "sys.exit(execute(btm, 'git btm', ['init']))"
    )
    done = without("tomlkit", program, repo.path)
    assert done.returncode == 128
    assert done.stderr == ("theta: this needs tomlkit, which is not installed: pip install 'git-theta-btm[btm]'\n")
    assert repo.status() == ""


def test_tasks_without_lm_eval(repo: Repo) -> None:
    """It is said before the model is loaded: this one is no model that could be."""
    repo.git("theta", "track", "model/*.safetensors")
    repo.write("model/model.safetensors", {"w": np.zeros(3, np.float32)})
    repo.write("model/config.json", b"{}")
    repo.write("btm.toml", b"version = 1\n")
    repo.commit("a model")
    program = (
        "from git_theta_btm.btm.cli import btm\n"
        "from git_theta_btm.cli import execute\n"
        "sys.exit(execute(btm, 'git btm', ['eval', 'HEAD', '--fewshot', 'task.yaml', '--below', '3']))"
    )
    done = without("lm_eval", program, repo.path)
    assert done.returncode == 128  # to git bisect neither a no nor a commit to skip
    assert done.stderr == ("theta: this needs lm_eval, which is not installed: pip install 'git-theta-btm[fewshot]'\n")


def test_a_device_without_torch(tmp_path: Path) -> None:
    program = (
        "from git_theta_btm.errors import ThetaError\n"
        "from git_theta_btm.merging.computing import Device\n"
        "import numpy as np\n"
        "try:\n"
        "    Device('cpu').arrays([np.zeros(1)])\n"
        "except ThetaError as error:\n"
        "    print(error)\n"
    )
    done = without("torch", program, tmp_path)
    assert done.stdout == "a device needs torch: pip install 'git-theta-btm[torch]'\n"
