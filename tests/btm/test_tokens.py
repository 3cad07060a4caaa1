"""Streams of tokens: what they are made of, from wherever the text is; made once, by however many at a time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.btm.data.tokens import Stream, load
from git_theta_btm.btm.settings import Text
from git_theta_btm.errors import ThetaError
from git_theta_btm.repository import Repository

TEXTS = ["one", "", "zwei ä", "\U0001f600\n"] * 200
BYTES = Text()
PATH = "data/legal/train.jsonl"


@pytest.fixture
def texts(repo: Repo) -> Repo:
    repo.git("theta", "track", "data/**/*.jsonl")
    repo.write(PATH, "".join(json.dumps({"text": row}) + "\n" for row in TEXTS).encode())
    return repo


def train(repo: Repo, revision: str | None = None, text: Text = BYTES) -> Stream:
    return load(Repository(str(repo.path)), "legal", "train", text, revision)


def test_bytes_and_an_end_for_each(texts: Repo) -> None:
    found = train(texts)
    expected = [token for row in TEXTS for token in [*row.encode(), 256]]
    assert found.tokens.tolist() == expected
    assert found.tokens.dtype == np.uint16
    assert isinstance(found.tokens, np.memmap)
    assert found.blocks(128) == len(expected) // 128
    with pytest.raises(ValueError, match="read-only"):
        found.tokens[0] = 1


def test_it_is_read_from_worktree_store_and_commit(texts: Repo) -> None:
    worktree = train(texts)
    commit = texts.commit("text")
    assert train(texts, commit).digest == worktree.digest
    texts.git("theta", "dematerialize")
    assert (texts.path / PATH).read_bytes().startswith(b"git-theta-btm manifest")
    assert train(texts).digest == worktree.digest
    (texts.path / PATH).write_text('{"text": "new"}\n')
    assert train(texts).tokens.tolist() == [*b"new", 256]
    assert train(texts, "HEAD").digest == worktree.digest
    for path in (texts.path / ".git/btm/tokens").iterdir():
        path.unlink()
    assert train(texts, "HEAD").tokens.tolist() == worktree.tokens.tolist()


def test_a_file_that_is_not_tracked_is_read_too(repo: Repo) -> None:
    repo.write("data/legal/train.jsonl", b'{"text": "a"}\n\n{"text": "b"}')
    repo.commit("text")
    assert train(repo, "HEAD").tokens.tolist() == [97, 256, 98, 256]


def test_it_is_made_once(texts: Repo) -> None:
    train(texts)
    (cached,) = (texts.path / ".git/btm/tokens").iterdir()
    before = cached.stat()
    train(texts)
    assert cached.stat().st_ino == before.st_ino
    assert len(list(cached.parent.iterdir())) == 1


def test_many_at_once_agree(texts: Repo) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: train(texts), range(16)))
    assert all(np.array_equal(item.tokens, found[0].tokens) for item in found)
    assert [path.suffix for path in (texts.path / ".git/btm/tokens").iterdir()] == [".u2"]


def test_an_empty_file_is_an_empty_stream(repo: Repo) -> None:
    repo.write(PATH, b"\n")
    found = train(repo)
    assert (found.tokens.size, found.blocks(2)) == (0, 0)


@pytest.mark.parametrize("revision", [None, "HEAD", "no-such"])
def test_what_is_not_there(texts: Repo, revision: str | None) -> None:
    repository = Repository(str(texts.path))
    for domain, split in (("legal", "valid"), ("medical", "train")):
        with pytest.raises(ThetaError, match=f"there is no data/{domain}/{split}.jsonl"):
            load(repository, domain, split, Text(), revision)


@pytest.mark.parametrize("line", ["{", '{"body": "a"}', '{"text": null}', "3"])
def test_a_line_that_is_no_document(repo: Repo, line: str) -> None:
    repo.write(PATH, f'{{"text": "a"}}\n{line}\n'.encode())
    with pytest.raises(ThetaError, match=f"{PATH}:2: "):
        train(repo)
    assert not list((repo.path / ".git/btm/tokens").iterdir())


@pytest.fixture
def folder(texts: Repo) -> Path:
    """A folder with a small tokenizer of Hugging Face's."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    model = tokenizers.models.WordLevel({"[UNK]": 0, "<end>": 1, "one": 2, "zwei": 3}, unk_token="[UNK]")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = texts.path / "words"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", eos_token="<end>", bos_token="<end>"
    ).save_pretrained(path)
    return path


def test_a_tokenizer_of_hugging_face(texts: Repo, folder: Path) -> None:
    found = train(texts, text=Text("words"))
    assert found.tokens.tolist() == [2, 1, 1, 3, 0, 1, 0, 1] * 200
    assert train(texts, text=Text(str(folder))).digest == found.digest  # its files name it, and not its place
    assert found.digest != train(texts).digest
    (folder / "model.safetensors").write_bytes(b"no part of it")
    assert train(texts, text=Text("words")).digest == found.digest
    changed = (folder / "tokenizer.json").read_text().replace('"zwei": 3', '"drei": 3')
    (folder / "tokenizer.json").write_text(changed)
    assert train(texts, text=Text("words")).tokens.tolist() == [2, 1, 1, 0, 0, 1, 0, 1] * 200


def test_a_tokenizer_without_an_end(texts: Repo, folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ThetaError, match="no token for the end of a text"):
        train(texts, text=Text("words"))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": 3}', "nonsense"])
def test_a_broken_tokenizer(texts: Repo, folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ThetaError, match="is no tokenizer"):
        train(texts, text=Text("words"))


def test_a_folder_without_a_tokenizer(texts: Repo) -> None:
    (texts.path / "empty").mkdir()
    with pytest.raises(ThetaError, match="empty has no tokenizer.json"):
        train(texts, text=Text("empty"))
