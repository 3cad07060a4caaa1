"""Where the objects of a remote are: git-lfs has settings of its own for that, which come before the remote's URL.

What is pushed may go elsewhere than what is fetched comes from, and to several places. git names each of them to the
hook; git-lfs knows one, unless it is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..errors import ThetaError
from ..git import Git
from .quarantine import for_a_moment

_NAMELESS = "theta-url"  # what a remote is called, for one command, that is given as a URL
# What has a say in where objects are, beside .lfsconfig; git-lfs-config(5), git-config(1).
_WHERE = r"^(lfs\.(push)?url|remote\..*\.(url|lfsurl|lfspushurl)|url\..*\.(push)?insteadof)$"
_FOR_PUSH = r"^url\..*\.pushinsteadof$"
_LFSCONFIG = ".lfsconfig"


def is_named(git: Git, remote: str) -> bool:
    """Whether a remote is configured, and not given by its URL."""
    return remote in git.text("remote").split("\n")


def push_urls(git: Git, remote: str) -> list[str]:
    """Where git pushes to: the URLs of a remote, or the one that is given instead, as git rewrites them."""
    if is_named(git, remote):
        return git.text("remote", "get-url", "--push", "--all", "--", remote).split("\n")
    rows = git.fields("config", "-z", "--get-regexp", _FOR_PUSH, check=False)
    aliases = {
        prefix: key[len("url.") : -len(".pushinsteadof")] for key, _, prefix in (r.partition("\n") for r in rows)
    }
    prefix = max(filter(remote.startswith, aliases), key=len, default=None)
    if prefix is None:
        return [git.text("ls-remote", "--get-url", "--", remote)]
    return [aliases[prefix] + remote.removeprefix(prefix)]


def literally(git: Git, url: str) -> Git:
    """git, and git-lfs, that take a URL as it is: it has been rewritten, and that twice may lead elsewhere."""
    return for_a_moment(git, {f"url.{url}.{key}": url for key in ("insteadOf", "pushInsteadOf")})


def endpoint(git: Git, remote: str, url: str = "") -> str:
    """The URL of a remote's objects: of those that it has, or of those that a push to ``url`` brings there.

    Raises ``ThetaError`` if there is no git-lfs.
    """
    name = remote if is_named(git, remote) else _NAMELESS
    given = dict(_for_push(git, name)) if url else {}
    if url or name != remote:
        given[f"remote.{name}.url"] = url or remote
    options = [part for key, value in given.items() for part in ("-c", f"{key}={value}")]
    done = git.run(*options, "lfs", "env", check=False)
    if done.returncode:
        raise ThetaError("git-lfs, which exchanges models with remotes, is not installed: https://git-lfs.com")
    said = os.fsdecode(done.stdout)
    found = re.search(rf"^Endpoint \({re.escape(name)}\)=(.*?)(?: \(auth=\w+\))?$", said, re.MULTILINE)
    found = found or re.search(r"^Endpoint=(.*?)(?: \(auth=\w+\))?$", said, re.MULTILINE)
    return found[1] if found else ""


def _for_push(git: Git, name: str) -> Iterator[tuple[str, str]]:
    """git-lfs tells where objects come from; with these settings, where they go to: git-lfs-config(5)."""
    for key, other in (("lfs.pushurl", "lfs.url"), (f"remote.{name}.lfspushurl", f"remote.{name}.lfsurl")):
        value = git.configured(key) or (_committed(git, key) if key == "lfs.pushurl" else "")
        if value:
            yield other, value


def _committed(git: Git, key: str) -> str:
    """What the project's own settings of git-lfs say, in the first place that has any."""
    places = [("--blob", f":{_LFSCONFIG}"), ("--blob", f"HEAD:{_LFSCONFIG}")]
    if os.path.isfile(os.path.join(git.directory, _LFSCONFIG)):
        places = [("--file", _LFSCONFIG)]
    for place in places:
        done = git.run("config", *place, "--get", key, check=False)
        if not done.stderr:  # there is such a file, with the key or without
            return os.fsdecode(done.stdout).removesuffix("\n")
    return ""


def is_server(git: Git, remote: str) -> bool:
    """Whether objects plainly come over HTTP: git-lfs, which knows all the settings, takes 0.1 s to say so."""
    url = f"remote.{remote}.url"
    rows = [row.partition("\n") for row in git.fields("config", "-z", "--get-regexp", _WHERE, check=False)]
    urls = [value for key, _, value in rows if key == url] or [remote]
    other = any(not key.startswith("remote.") or not key.endswith(".url") for key, _, _ in rows)
    if other or len(urls) > 1 or not urls[0].startswith(("http://", "https://")):
        return False
    if os.path.lexists(os.path.join(git.directory, _LFSCONFIG)):
        return False
    found = git.run("cat-file", "--batch-check", stdin=f":{_LFSCONFIG}\nHEAD:{_LFSCONFIG}\n".encode()).stdout
    return found.count(b" missing\n") == 2
