"""Domains that nobody named: balanced clusters of documents, and how near a text is to each of them.

Clustered Branch-Train-Merge (S. Gururangan et al., arXiv:2303.14177): tf-idf, reduced by a singular value
decomposition, and k-means in which every cluster gets as many documents. What was learnt is a small file of arrays and
one of words, and is applied without the library that learnt it.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from ...arrays import array
from ...errors import FormatError, ThetaError, UsageError
from ...formats.npz import locate
from ...maths.chance import key, uniform
from ...source import FileSource
from .committing import replace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FOLDER = "clusters"  # clusters/<name>.npz and clusters/<name>.json, committed
TEMPERATURE = 0.1  # of the c-BTM repository
_WORD = re.compile(r"\w\w+")
_WORDS = 10_000  # of the vocabulary at most
_RANK = 32  # of the decomposition at most
_ROUNDS = 50  # of k-means at most; it ends when nothing moves
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Clusters:
    """What maps a text to its distances from clusters: a vocabulary with the weight of each word, a projection of
    words to few dimensions, and a centroid of each cluster there."""

    vocabulary: dict[str, int]
    idf: Array
    projection: Array  # dimensions, words
    centroids: Array  # clusters, dimensions

    def vector(self, text: str) -> Array:
        """Where a text is: a unit vector, or 0 for a text without a word that is known."""
        import numpy as np

        counts = Counter(word for word in _words(text) if word in self.vocabulary)
        columns = [self.vocabulary[word] for word in counts]
        values = np.log(np.array(list(counts.values()), np.float64)) + 1
        return _unit(self.projection[:, columns] @ _unit(values * self.idf[columns]))

    def squares(self, text: str) -> Array:
        """The square of the distance from each centroid."""
        found: Array = ((self.centroids - self.vector(text)) ** 2).sum(1)
        return found


def weights(text: str, clusters: Clusters, temperature: float = TEMPERATURE) -> list[float]:
    """The weight of each cluster's expert for a text, softmax(-distance**2 / temperature). Raises ``UsageError``."""
    import numpy as np

    if not temperature > 0:
        raise UsageError(f"the temperature is {temperature:g}: it is more than 0")
    powers = -clusters.squares(text) / temperature
    shares = np.exp(powers - powers.max())
    return list(map(float, shares / shares.sum()))


def discover(texts: Sequence[str], count: int, seed: int = 0) -> tuple[Clusters, list[int]]:
    """Clusters of texts, and the one that each text is in; their sizes differ by one at most.

    Needs scikit-learn. Raises ``UsageError`` for fewer texts than clusters.
    """
    if not 2 <= count <= len(texts):
        raise UsageError(f"{len(texts)} documents cannot be {count} clusters: there are at least 2, and none is empty")
    learnt = _learn(texts, seed)
    points = _points(learnt, texts)
    centroids, labels = _balanced(points, count, seed)
    return Clusters(learnt.vocabulary, learnt.idf, learnt.projection, centroids), labels


def _learn(texts: Sequence[str], seed: int) -> Clusters:
    import numpy as np
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    # A word in less than two documents, or in more than half of them, says nothing of a cluster.
    few = len(texts) < 20
    tfidf = TfidfVectorizer(
        analyzer=_words, sublinear_tf=True, max_features=_WORDS, min_df=1 if few else 2, max_df=1.0 if few else 0.5
    )
    try:
        matrix = tfidf.fit_transform(texts)
    except ValueError:  # its words for an empty vocabulary
        raise ThetaError("these documents have no words in common to tell them apart by") from None
    vocabulary = {word: int(number) for word, number in tfidf.vocabulary_.items()}
    rank = min(_RANK, len(vocabulary) - 1, len(texts) - 1)
    if rank < 1:
        raise ThetaError("these documents have too few words to tell them apart by")
    svd = TruncatedSVD(rank, random_state=seed).fit(matrix)
    idf = np.asarray(tfidf.idf_, np.float64)
    projection = np.asarray(svd.components_, np.float32).astype(np.float64)  # what is saved, so that it acts the same
    return Clusters(vocabulary, idf, projection, np.empty((0, rank)))


def _points(learnt: Clusters, texts: Sequence[str]) -> Array:
    import numpy as np

    return np.stack([learnt.vector(text) for text in texts])


def _balanced(points: Array, count: int, seed: int) -> tuple[Array, list[int]]:
    """k-means with clusters of one size: centroids, and the cluster of each point."""
    import numpy as np

    centroids = _spread(points, count, seed)
    labels = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        squares = ((points**2).sum(1)[:, None] - 2 * points @ centroids.T + (centroids**2).sum(1)).clip(0)
        fresh = assign(squares)
        if (fresh == labels).all():
            break
        labels = fresh
        centroids = np.stack([points[labels == cluster].mean(0) for cluster in range(count)])
    return centroids, labels.tolist()


def _spread(points: Array, count: int, seed: int) -> Array:
    """Points that are far from each other, as k-means++ draws them (Arthur and Vassilvitskii, SODA 2007)."""
    import numpy as np

    draws = uniform(key("clusters", str(seed)), 0, count)
    chosen = [int(draws[0] * len(points))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(1)
    for draw in draws[1:]:
        odds = nearest.cumsum()
        index = int(np.searchsorted(odds, draw * odds[-1], "right"))
        chosen.append(min(index, len(points) - 1))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
    centroids: Array = points[chosen]
    return centroids


def assign(squares: Array) -> NDArray[np.int64]:
    """A cluster for each point by its cost in each, so that sizes differ by one at most.

    Points choose in order of what they would lose by their second choice; then pairs of points change places as long as
    both together gain. Not the optimum, which takes time of the cube of the points, but no such pair is left.
    """
    import numpy as np

    points, clusters = squares.shape
    ranked = np.sort(squares, axis=1)
    order = np.argsort(ranked[:, 0] - ranked[:, 1], kind="stable")
    room = np.full(clusters, points // clusters)
    spare = points % clusters
    labels = np.empty(points, np.int64)
    for point in order:
        open_ones = np.flatnonzero(room > 0 if not spare else room >= 0)
        cluster = int(open_ones[squares[point, open_ones].argmin()])
        spare -= int(room[cluster] == 0)
        room[cluster] -= 1
        labels[point] = cluster
    return _exchanged(squares, labels)


def _exchanged(squares: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels after every exchange of two points that saves cost."""
    import numpy as np

    clusters = squares.shape[1]
    pairs = [(one, other) for one in range(clusters) for other in range(one)]
    moved = True
    while moved:
        moved = False
        for one, other in pairs:
            ours, theirs = np.flatnonzero(labels == one), np.flatnonzero(labels == other)
            gain = np.sort(squares[ours, one] - squares[ours, other])[::-1]
            gains = np.sort(squares[theirs, other] - squares[theirs, one])[::-1]
            size = min(len(gain), len(gains))
            saved = int((gain[:size] + gains[:size] > 1e-12).sum())  # sorted: the pairs that gain come first
            if saved:
                moved = True
                go = ours[np.argsort(squares[ours, other] - squares[ours, one], kind="stable")[:saved]]
                come = theirs[np.argsort(squares[theirs, one] - squares[theirs, other], kind="stable")[:saved]]
                labels[go], labels[come] = other, one
    return labels


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _unit(vector: Array) -> Array:
    import numpy as np

    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def save(clusters: Clusters, root: str, name: str) -> list[str]:
    """Write the two files of clusters, and return their paths from ``root``: the same clusters give the same bytes."""
    import numpy as np

    arrays = BytesIO()
    np.savez(arrays, idf=clusters.idf, projection=clusters.projection.astype(np.float32), centroids=clusters.centroids)
    words = json.dumps({"version": _VERSION, "vocabulary": clusters.vocabulary}, indent=0, sort_keys=True)
    paths = [f"{FOLDER}/{name}.npz", f"{FOLDER}/{name}.json"]
    for path, content in zip(paths, (arrays.getvalue(), words.encode() + b"\n"), strict=True):
        replace(os.path.join(root, path), [content])
    return paths


def restore(root: str, name: str) -> Clusters:
    """Clusters that were saved. Raises ``ThetaError`` if there are none, or they are broken."""
    path = os.path.join(root, FOLDER, name)
    try:
        with open(f"{path}.json", "rb") as file:
            document = json.load(file)
        arrays = _arrays(f"{path}.npz")
        vocabulary = {str(word): int(number) for word, number in document["vocabulary"].items()}
        known = document["version"] == _VERSION
        found = Clusters(vocabulary, arrays["idf"], arrays["projection"], arrays["centroids"])
    except FileNotFoundError:
        raise ThetaError(f"there are no clusters {name!r}: 'git btm domains discover' makes some") from None
    except (FormatError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ThetaError(f"{FOLDER}/{name} is broken: {error}") from None
    if not known:
        raise ThetaError(f"{FOLDER}/{name}.json needs another git-theta-btm")
    words, rank = len(vocabulary), found.projection.shape[:1]
    fitting = found.idf.shape == (words,) and found.projection.shape == (*rank, words)
    if not fitting or found.centroids.shape[1:] != rank or sorted(vocabulary.values()) != list(range(words)):
        raise ThetaError(f"{FOLDER}/{name} is broken: its words and its arrays do not agree")
    return found


def _arrays(path: str) -> dict[str, Array]:
    """The arrays of a file, read as those of any model are. Raises ``FormatError``."""
    import numpy as np

    with open(path, "rb", buffering=0) as file:
        source = FileSource(file.fileno())
        found = locate(source)
        return {
            item.name: np.asarray(array(source.read(item.offset, item.tensor.nbytes), item.tensor), np.float64)
            for item in found
        }
