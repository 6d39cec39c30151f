"""Distances of queries to class prototypes, for many episodes among the same embedded rows at once."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Distance", "class_logits"]

Distance: TypeAlias = Literal["euclidean", "squared", "cosine", "mahalanobis"]

_TINY = 1e-12  # squared distance below which a distance counts as 0 and has no gradient


def class_logits(
    Z: Tensor, support: Tensor, y: Tensor, query: Tensor, distance: Distance, scale: Tensor | float = 1.0
) -> Tensor:
    """Return the negative distance of every query to the prototypes of both classes.

    Parameters
    ----------
    Z : float32 tensor, shape (R, D)
        Embeddings.
    support, query : int64 tensors, shapes (E, M) and (E, Q)
        Rows of `Z`; the supports of an episode are different rows, with at least one of each class.
    y : bool tensor, shape (E, M)
        True where active.
    distance : {"euclidean", "squared", "cosine", "mahalanobis"}
        Prototypes are class means (Snell et al. 2017). With cosine, logits are similarities times `scale`. Mahalanobis
        is squared, with a covariance per class, shrunken (Bateni et al. 2020, equation 2): ``Q_k = l_k S_k +
        (1 - l_k) S + I``, ``l_k = n_k / (n_k + 1)``, S that of the whole support.
    scale : float tensor without axes, or float
        Of cosine only.

    Returns
    -------
    float tensor, shape (E, Q, 2)
        Inactive, active.

    Notes
    -----
    Means are products with a membership matrix (2 E, R), distances come from one product of all rows with all
    prototypes: no row is copied for every episode that it is in. E, R and D bound the memory: 2 E R numbers.
    """
    if distance == "mahalanobis":
        return -_mahalanobis(Z, support, y, query).float()
    n, member = len(support), _membership(support, y, len(Z))
    if distance == "cosine":
        prototypes = functional.normalize(member @ Z, dim=1)
        every = functional.normalize(Z, dim=1) @ prototypes.T * scale
    else:
        Z = Z - Z.detach().mean(dim=0)  # no distance changes, and less is cancelled
        prototypes = member @ Z
        squared = (Z**2).sum(1)[:, None] - 2 * (Z @ prototypes.T) + (prototypes**2).sum(1)
        every = -squared if distance == "squared" else -squared.clamp_min(_TINY).sqrt()
    columns = torch.arange(n, device=Z.device)[:, None, None] + torch.tensor([0, n], device=Z.device)
    return every[query[:, :, None], columns]


def _membership(support: Tensor, y: Tensor, n_rows: int) -> Tensor:
    """Return (2 E, R): 1/n where a row is one of the n support rows of that class; inactive classes first."""
    n = len(support)
    share = 1 / torch.where(y, y.sum(1, keepdim=True), (~y).sum(1, keepdim=True)).float()
    member = torch.zeros((2 * n, n_rows), device=support.device)
    member[torch.arange(n, device=support.device)[:, None] + n * y, support] = share
    return member


def _mahalanobis(Z: Tensor, support: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Return squared distances (E, Q, 2), float64.

    Both covariances are ``X' W X`` of the support's rows X (M, D) with an M x M matrix W, so by Woodbury's identity
    ``(I + X'WX)^-1 = I - X' W (I + XX'W)^-1 X``: systems of M unknowns instead of D, made of inner products.
    """
    X, V = Z[support].double(), Z[query].double()
    centre = X.detach().mean(1, keepdim=True)
    X, V = X - centre, V - centre
    M = X.shape[1]
    of_class = torch.stack([~y, y], 1).double()  # (E, 2, M)
    n = of_class.sum(2)[:, :, None, None]
    mean = of_class / n[..., 0]
    within = torch.diag_embed(of_class) - of_class[..., None] * of_class[:, :, None, :] / n
    eye = torch.eye(M, dtype=torch.float64, device=Z.device)
    shrunk = n / (n + 1)
    W = shrunk / (n - 1).clamp_min(1) * within + (1 - shrunk) / max(M - 1, 1) * (eye - 1 / M)
    gram = X @ X.transpose(1, 2)  # (E, M, M)
    cross = X @ V.transpose(1, 2)  # (E, M, Q)
    to_mean = gram @ mean.transpose(1, 2)  # (E, M, 2): rows with prototypes
    along = cross[:, None] - to_mean.transpose(1, 2)[..., None]  # (E, 2, M, Q): rows with differences
    plain = (
        (V**2).sum(2)[:, None, :] - 2 * (mean @ cross) + (mean.transpose(1, 2) * to_mean).sum(1)[:, :, None]
    )  # (E, 2, Q)
    solved = torch.linalg.solve(eye + gram[:, None] @ W, along)
    return (plain - (along * (W @ solved)).sum(2)).transpose(1, 2)
