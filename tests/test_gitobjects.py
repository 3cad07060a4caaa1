from __future__ import annotations

import pytest
from conftest import Repo
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.migration.gitobjects import (
    FILES,
    TREE,
    PackWriter,
    TreeEntry,
    dump_tree,
    headers,
    load_tree,
    with_headers,
)

NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: b"\0" not in name and b"/" not in name)
OIDS = st.binary(min_size=20, max_size=20).map(bytes.hex)
ENTRIES = st.builds(TreeEntry, st.sampled_from([TREE, *FILES, b"120000", b"160000"]), NAMES, OIDS)
TAG = b"object %s\ntype commit\ntag v1\ntagger T <t@t> 1 +0000\n\n"


@given(st.lists(ENTRIES, max_size=6, unique_by=lambda entry: entry.name))
@settings(deadline=None, max_examples=100)
def test_a_tree_is_read_as_it_was_written(entries: list[TreeEntry]) -> None:
    data = dump_tree(entries)
    assert set(load_tree(data, 20)) == set(entries)
    assert dump_tree(load_tree(data, 20)) == data


@given(st.binary(max_size=80))
@settings(deadline=None, max_examples=200)
def test_a_tree_that_is_none(data: bytes) -> None:
    try:
        load_tree(data, 20)
    except ThetaError as error:
        assert "git fsck" in str(error)


def test_git_has_the_same_order(repo: Repo) -> None:
    for name in ("a", "a-b", "a.b/x", "a0", "ab", "b/x", "b.c"):
        repo.write(f"{name}", b"1")
    repo.git("add", ".")
    data = repo.run("cat-file", "tree", repo.git("write-tree")).stdout
    assert dump_tree(reversed(load_tree(data, 20))) == data


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_pack_of_everything(repo: Repo, form: str) -> None:
    repo.git("init", "--quiet", f"--object-format={form}", "fresh")
    git = Git(str(repo.path / "fresh"))
    pack = PackWriter(git)
    contents = [b"x" * size for size in (0, 1, 15, 16, 17, 2047, 2048, 2049, 300_000)]
    blobs = [pack.add("blob", content) for content in contents]
    assert pack.add("blob", contents[0]) == blobs[0]
    tree = pack.add("tree", dump_tree([TreeEntry(FILES[0], b"file", blobs[1])]))
    who = b"A <a@a> 1700000000 +0000\n"
    commit = pack.add("commit", b"tree %s\nauthor %scommitter %s\nhi\n" % (tree.encode(), who, who))
    tag = pack.add("tag", TAG % commit.encode() + b"about\n")
    pack.flush()
    pack.flush()
    assert [git.blob(oid) for oid in blobs] == contents
    git.run("update-ref", "refs/tags/v1", tag)
    git.run("fsck", "--strict", "--no-dangling")
    assert git.text("rev-parse", "v1:file") == blobs[1]


def test_headers() -> None:
    signature = b"gpgsig -----BEGIN\n \n more\n -----END\n"
    data = b"tree 1\nparent 2\nparent 3\n" + signature + b"mergetag object 4\n type\n\nmessage\n\nmore\n"
    rows = list(headers(data))
    assert [key for key, _ in rows] == [b"tree", b"parent", b"parent", b"gpgsig", b"mergetag"]
    assert rows[3][1] == b"-----BEGIN\n \n more\n -----END"
    assert with_headers(data, rows) == data.replace(signature, b"")


@pytest.mark.parametrize("message", [b"", b"about\n", b"about\n\nmore"])
def test_a_tag_without_its_signature(message: bytes) -> None:
    data = TAG % (b"0" * 40) + message
    assert with_headers(data, headers(data)) == data
    armour = b"-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"
    end = b"" if message.endswith(b"\n") or not message else b"\n"
    assert with_headers(data + end + armour, headers(data)) == data + end


def test_a_commit_without_a_message() -> None:
    data = b"tree 1\nauthor A\n"
    assert with_headers(data, headers(data)) == data
