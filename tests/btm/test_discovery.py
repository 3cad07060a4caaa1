"""Clusters: of one size, true to what the texts are about, and the same when they are read again."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.btm.data.discovery import Clusters, assign, discover, restore, save, weights
from git_theta_btm.errors import ThetaError, UsageError

pytest.importorskip("sklearn")

WORDS = {
    "law": ["court", "judge", "statute", "appeal", "verdict", "lawyer", "contract", "clause", "party", "liability"],
    "code": ["function", "class", "return", "import", "variable", "loop", "module", "string", "integer", "argument"],
    "food": ["flour", "butter", "oven", "sugar", "recipe", "onion", "salt", "pepper", "boil", "knife"],
}


def make(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    kinds = [list(WORDS)[number % 3] for number in range(count)]
    texts = [" ".join([*random.choice(WORDS[kind], 12), *random.choice(["the", "and", "of"], 6)]) for kind in kinds]
    return texts, kinds


@pytest.fixture(scope="module")
def found() -> tuple[Clusters, list[int], list[str], list[str]]:
    texts, kinds = make(120)
    clusters, labels = discover(texts, 3)
    return clusters, labels, texts, kinds


Found = tuple[Clusters, list[int], list[str], list[str]]


def test_clusters_are_what_the_texts_are_about(found: Found) -> None:
    _, labels, _, kinds = found
    pairs = Counter(zip(labels, kinds, strict=True))
    assert len(pairs) == 3  # each cluster has one kind
    assert set(pairs.values()) == {40}


@pytest.mark.parametrize(("count", "clusters"), [(120, 8), (121, 4), (33, 2), (9, 9)])
def test_sizes_differ_by_one_at_most(count: int, clusters: int) -> None:
    _, labels = discover(make(count)[0], clusters)
    sizes = Counter(labels)
    assert len(sizes) == clusters
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_weights_are_a_softmax_of_distances(found: Found) -> None:
    clusters, labels, texts, _ = found
    squares = clusters.squares(texts[0])
    for temperature in (0.1, 1.0, 1e-6):
        given = weights(texts[0], clusters, temperature)
        powers = [float(np.exp(-(square - squares.min()) / temperature)) for square in squares]
        assert given == pytest.approx([power / sum(powers) for power in powers], rel=1e-9)
        assert sum(given) == pytest.approx(1)
        assert given.index(max(given)) == labels[0]
    assert weights("", clusters) == pytest.approx(weights("words it never saw", clusters))
    with pytest.raises(UsageError):
        weights("text", clusters, 0)


def test_most_new_texts_are_near_their_own(found: Found) -> None:
    clusters, labels, _, kinds = found
    of = dict(zip(kinds, labels, strict=True))
    texts, others = make(60, seed=1)
    nearest = [int(np.argmax(weights(content, clusters))) for content in texts]
    assert nearest == [of[kind] for kind in others]


def test_a_text_is_where_scikit_learn_puts_it(found: Found) -> None:
    """Our own few lines, which ensembles use without the library, against the library."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    clusters, _, texts, _ = found
    tfidf = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=0.5)
    matrix = tfidf.fit_transform(texts)
    svd = TruncatedSVD(len(clusters.projection), random_state=0).fit(matrix)
    for content in texts[:10]:
        point = svd.transform(tfidf.transform([content]))[0]
        assert clusters.vector(content) == pytest.approx(point / np.linalg.norm(point), abs=1e-5)


def test_the_same_texts_give_the_same_files(found: Found, tmp_path: Path) -> None:
    clusters, labels, texts, _ = found
    again, others = discover(texts, 3)
    assert others == labels
    one = save(clusters, str(tmp_path / "one"), "cluster")
    two = save(again, str(tmp_path / "two"), "cluster")
    assert one == two == ["clusters/cluster.npz", "clusters/cluster.json"]
    for path in one:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_what_was_saved_weighs_the_same(found: Found, tmp_path: Path) -> None:
    clusters, _, texts, _ = found
    save(clusters, str(tmp_path), "cluster")
    back = restore(str(tmp_path), "cluster")
    assert [weights(content, back) for content in texts[:20]] == [weights(content, clusters) for content in texts[:20]]


def test_broken_files_are_told(found: Found, tmp_path: Path) -> None:
    with pytest.raises(ThetaError, match="no clusters 'cluster'"):
        restore(str(tmp_path), "cluster")
    for path in save(found[0], str(tmp_path), "cluster"):
        whole = (tmp_path / path).read_bytes()
        for broken in (b"", whole[:-100], whole[: len(whole) // 2], b"[]", b"{}", b'{"version": 9, "vocabulary": {}}'):
            (tmp_path / path).write_bytes(broken)
            with pytest.raises(ThetaError, match="cluster"):
                restore(str(tmp_path), "cluster")
        (tmp_path / path).write_bytes(whole)
    restore(str(tmp_path), "cluster")


@pytest.mark.parametrize(("texts", "count"), [(["a b"], 2), (["aa bb", "cc dd"], 1), (["aa bb"] * 3, 4)])
def test_too_few_documents(texts: list[str], count: int) -> None:
    with pytest.raises(UsageError):
        discover(texts, count)


def test_documents_without_words() -> None:
    with pytest.raises(ThetaError):
        discover(["1", "2", "3"], 2)


@given(st.lists(st.lists(st.integers(0, 50), min_size=2, max_size=2), min_size=2, max_size=8))
def test_two_clusters_are_divided_at_the_least_cost(rows: list[list[int]]) -> None:
    squares = np.array(rows, np.float64)
    labels = assign(squares)
    size = len(rows) // 2
    cost = squares[np.arange(len(rows)), labels].sum()
    options = [set(one) for k in {size, len(rows) - size} for one in itertools.combinations(range(len(rows)), k)]
    best = min(sum(row[number in option] for number, row in enumerate(rows)) for option in options)
    assert sorted(Counter(labels.tolist()).values()) == [size, len(rows) - size]
    assert cost == best or len(rows) % 2  # with an odd one, which cluster is larger is decided before


def test_the_command_line(repo: Repo, tmp_path: Path) -> None:
    texts, _ = make(90)
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": content}) + "\n" for content in texts))
    repo.git("btm", "init")
    repo.commit("init")
    repo.git("btm", "domains", "discover", "-k", "3", str(source))
    answer = json.loads(repo.git("btm", "domains", "ls", "--json"))
    assert [row["domain"] for row in answer["domains"]] == [f"cluster{n}" for n in range(3)]
    assert repo.git("log", "-1", "--format=%s") == "btm: 3 domains discovered"
    assert repo.status() == ""
    assert len(restore(str(repo.path), "cluster").centroids) == 3
    again = repo.run("btm", "domains", "discover", "-k", "3", str(source), check=False)
    assert again.returncode == 129
    assert b"there is text of cluster0 already" in again.stderr
