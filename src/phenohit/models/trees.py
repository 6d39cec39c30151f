"""The trees of random forests as four flat arrays: small, checkable, and safe to read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from phenohit.errors import FileError

__all__ = ["Trees"]

_ROWS = 2048  # rows walked down one tree at a time: their features stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Trees:
    """Binary decision trees, one after the other, each depth first.

    Depth first means that the left child of a node is the next node, so that 12 bytes describe one.
    A row goes left where ``x[feature] <= value``.

    Attributes
    ----------
    right : int32 array
        Number of the right child, counted from the tree's own first node; 0 at a leaf.
    feature : int32 array
        Column asked at a node; 0 at a leaf.
    value : float32 array
        Threshold at a node; share of actives at a leaf.
    start : int64 array, one longer than there are trees
        First node of each tree.
    """

    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    value: NDArray[np.float32]
    start: NDArray[np.int64]

    FORM: ClassVar[dict[str, tuple[str, int]]] = {
        "right": ("int32", 1), "feature": ("int32", 1), "value": ("float32", 1), "start": ("int64", 1),
    }  # fmt: skip

    @classmethod
    def of(cls, estimators: Iterable[Any]) -> Trees:
        """Flatten fitted scikit-learn classification trees of two classes; decisions stay exactly the same."""
        parts = [_flatten(estimator.tree_, len(estimator.classes_)) for estimator in estimators]
        return cls._join(parts)

    @classmethod
    def join(cls, many: Sequence[Trees]) -> Trees:
        """Put several sets of trees one after the other."""
        return cls._join([(t.right, t.feature, t.value, np.diff(t.start)) for t in many])

    @classmethod
    def _join(cls, parts: Sequence[tuple[Any, Any, Any, Any]]) -> Trees:
        none = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        right, feature, value, sizes = (np.concatenate(column) for column in zip(none, *parts, strict=True))
        return cls(right, feature, value, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.start) - 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save."""
        return {"right": self.right, "feature": self.feature, "value": self.value, "start": self.start}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], n_features: int, path: object) -> Trees:
        """Rebuild from arrays of a file after checking that every walk ends inside its own tree.

        Raises
        ------
        FileError
            If a child, a feature or a value is out of range.
        """
        trees = cls(arrays["right"], arrays["feature"], arrays["value"], arrays["start"])
        problem = trees._problem(n_features)
        if problem:
            raise FileError(f"'{path}' is damaged: {problem}. Fit the model again.")
        return trees

    def _problem(self, n_features: int) -> str:
        n = len(self.right)
        start, sizes = self.start, np.diff(self.start)
        if len(self.feature) != n or len(self.value) != n:
            return "its node arrays differ in length"
        if len(start) == 0 or start[0] != 0 or start[-1] != n or (sizes < 1).any():
            return "its trees do not cover its nodes"
        size = np.repeat(sizes, sizes)
        here = np.arange(n) - np.repeat(start[:-1], sizes)
        leaf = self.right == 0
        # A right child beyond its parent's left child means that walks only go forward, hence end.
        if (~leaf & ((self.right <= here + 1) | (self.right >= size))).any():
            return "a node's child is not a later node of its tree"
        if ((self.feature < 0) | (self.feature >= max(n_features, 1))).any():
            return "a node asks for a feature that does not exist"
        if not np.isfinite(self.value).all() or ((self.value < 0) | (self.value > 1))[leaf].any():
            return "a threshold or leaf is not a possible number"
        return ""

    def mean(self, X: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
        """Return the mean leaf value of trees ``first`` to ``last - 1`` for every row of `X`, shape (N,)."""
        walkers = [self._walker(tree, X.shape[1]) for tree in range(first, last)]
        total = np.empty(len(X), dtype=np.float32)
        for begin in range(0, len(X), _ROWS):
            rows = np.ascontiguousarray(X[begin : begin + _ROWS], dtype=np.float32)
            sums = np.zeros(len(rows))
            for tree, walker in zip(range(first, last), walkers, strict=True):
                value = self.value[self.start[tree] : self.start[tree + 1]]
                sums += value[self.leaves(tree, rows) if walker is None else walker.apply(rows)]
            total[begin : begin + _ROWS] = sums / max(last - first, 1)
        return total

    def leaves(self, tree: int, X: NDArray[np.float32]) -> NDArray[np.intp]:
        """Walk every row down one tree in numpy, level by level; number of its leaf, shape (N,)."""
        part = slice(self.start[tree], self.start[tree + 1])
        right, feature, value = self.right[part], self.feature[part], self.value[part]
        node = np.zeros(len(X), dtype=np.intp)
        going = np.flatnonzero(right[node] != 0)
        while len(going):
            at = node[going]
            left = X[going, feature[at]] <= value[at]
            node[going] = np.where(left, at + 1, right[at])
            going = going[right[node[going]] != 0]
        return node

    def _walker(self, tree: int, n_features: int) -> Any:
        """Return a scikit-learn tree with the same nodes: it walks about four times faster than `leaves`.

        Its layout is scikit-learn's own affair: fields are filled by name, and None is returned
        (walk in numpy) where a version has another layout.
        """
        from sklearn.tree._tree import Tree

        part = slice(self.start[tree], self.start[tree + 1])
        right = self.right[part]
        try:
            walker = Tree(n_features, np.array([1], dtype=np.intp), 1)
            nodes = np.zeros(len(right), dtype=walker.__getstate__()["nodes"].dtype)
            leaf = right == 0
            nodes["left_child"] = np.where(leaf, -1, np.arange(1, len(right) + 1))
            nodes["right_child"] = np.where(leaf, -1, right)
            nodes["feature"] = np.where(leaf, -2, self.feature[part])
            nodes["threshold"] = self.value[part]
            values = np.zeros((len(right), 1, 1))
            walker.__setstate__({"max_depth": 1, "node_count": len(right), "nodes": nodes, "values": values})
        except (TypeError, ValueError, KeyError, AttributeError):
            return None
        return walker


def _flatten(tree: Any, n_classes: int) -> tuple[NDArray[Any], ...]:
    """Right child, feature, value of the nodes of one scikit-learn tree, and their number."""
    left, right = tree.children_left, tree.children_right
    leaf = left < 0
    if not np.array_equal(left[~leaf], np.flatnonzero(~leaf) + 1):
        raise RuntimeError("scikit-learn no longer numbers the nodes of a tree depth first")
    # Features are float32: x <= t holds exactly where x <= (t rounded down to float32) does.
    threshold = tree.threshold.astype(np.float32)
    threshold = np.where(threshold > tree.threshold, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    weight = tree.value[:, 0, :]
    active = weight[:, 1] / weight.sum(axis=1) if n_classes == 2 else np.zeros(len(left))
    return (
        np.where(leaf, 0, right).astype(np.int32),
        np.where(leaf, 0, tree.feature).astype(np.int32),
        np.where(leaf, active, threshold).astype(np.float32),
        np.array([len(left)], dtype=np.int64),
    )
