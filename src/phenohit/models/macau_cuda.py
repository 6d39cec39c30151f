"""What Macau's sampler asks of a GPU: the same as of a processor, in batches of torch operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phenohit.models.fit import generator

__all__ = ["Cuda"]

_STEP = 8  # rows are padded to a multiple of this many measurements
_ROOM = 1 << 28  # numbers in the largest batch: 1 GiB


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows with about as many measurements each.

    Attributes
    ----------
    rows : int64 (R,)
    entry : int64 (R, P)
        Their measurements; where a row has fewer, any.
    real : bool (R, P)
        Where it has that measurement.
    """

    rows: Tensor
    entry: Tensor
    real: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """The measurements of a block of rows, and the batches in which they are drawn; see `macau_cpu.Plan`."""

    at: Tensor
    owner: Tensor
    few: list[Batch]
    many: list[Batch]


class Cuda:
    """Torch on one device; blocks are as large as the memory allows. Methods are those of `macau_cpu.Cpu`.

    Parameters
    ----------
    device : str
        ``"cuda"``; the tests use ``"cpu"``.
    jobs : int
        Processor cores for what is done once, before the first sweep.
    """

    rows, entries = 1 << 20, 1 << 25
    ndtr, ndtri = staticmethod(torch.special.ndtr), staticmethod(torch.special.ndtri)

    def __init__(self, device: str = "cuda", jobs: int = 1) -> None:
        self.device, self.jobs = torch.device(device), jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def each(self, of: Callable[[Any], Any], blocks: list[Any]) -> Iterator[Any]:
        """Do every block, one after another."""
        return map(of, blocks)

    def place(self, X: Any) -> Tensor:
        """Bring features to the device, block by block."""
        out = torch.empty(X.shape, device=self.device)
        for a in range(0, len(X), 65_536):
            out[a : a + 65_536] = torch.as_tensor(np.ascontiguousarray(X[a : a + 65_536]))
        return out

    def sparse(self, X: Any) -> Tensor:
        """Bring a sparse matrix to the device."""
        rows = X.tocsr()
        start, at = (torch.as_tensor(part.astype(np.int64), device=self.device) for part in (rows.indptr, rows.indices))
        values = torch.as_tensor(rows.data.astype(np.float32), device=self.device)
        with warnings.catch_warnings():  # that such tensors are new: nothing a user could mend
            warnings.simplefilter("ignore")
            return torch.sparse_csr_tensor(start, at, values, size=rows.shape, check_invariants=False)

    def put(self, array: NDArray[Any]) -> Tensor:
        """Bring numbers to the device as float32."""
        return torch.as_tensor(np.asarray(array, dtype=np.float32), device=self.device)

    def index(self, array: NDArray[Any]) -> Tensor:
        """Bring positions or a mask to the device."""
        return torch.as_tensor(np.asarray(array), device=self.device)

    def host(self, array: Tensor) -> NDArray[np.float64]:
        """Bring sums back, as float64."""
        return array.double().cpu().numpy()

    def kept(self, array: Tensor) -> NDArray[np.float32]:
        """Bring rows back as they are."""
        return array.cpu().numpy()

    def narrow(self, array: Tensor) -> Tensor:
        """Round to float32."""
        return array.float()

    def zeros(self, *shape: int) -> Tensor:
        """Return float32 zeros."""
        return torch.zeros(shape, device=self.device)

    def normals(self, key: tuple[int, ...], *shape: int) -> Tensor:
        """Return standard normal numbers that depend on the key alone."""
        return torch.randn(shape, device=self.device, generator=generator(self.device, *key))

    def uniforms(self, key: tuple[int, ...], n: int) -> Tensor:
        """Return uniform numbers that depend on the key alone."""
        return torch.rand(n, device=self.device, dtype=torch.float64, generator=generator(self.device, *key))

    def plan(self, start: NDArray[np.int64], at: NDArray[np.int32], K: int, *, by_measurement: bool) -> Plan:
        """Sort the rows of a block into batches; see `macau_cpu.Cpu.plan`."""
        n = np.diff(start)
        few = (n > 0) & (n < K) & by_measurement
        owner = np.repeat(np.arange(len(n)), n)
        parts = [self._batches(start, np.flatnonzero(mask), K) for mask in (few, (n > 0) & ~few)]
        return Plan(self.index(at.astype(np.int64)), self.index(owner), parts[0], parts[1])

    def _batches(self, start: NDArray[np.int64], rows: NDArray[np.int64], K: int) -> list[Batch]:
        n = np.diff(start)[rows]
        wide = -(-n // _STEP) * _STEP
        order = np.argsort(wide, kind="stable")
        found, i = [], 0
        while i < len(order):
            # Rows of one width while they are short; longer ones share a batch with those up to a quarter longer.
            least = wide[order[i]]
            j = int(np.searchsorted(wide[order], least if least < K else least * 1.25, side="right"))
            P = int(wide[order[j - 1]])
            j = min(j, i + max(_ROOM // (P * max(K, P if least < K else K)), 1))
            P = int(wide[order[j - 1]])
            chosen = rows[order[i:j]]
            place = np.arange(P)[None, :]
            real = place < np.diff(start)[chosen][:, None]
            entry = np.where(real, start[chosen][:, None] + place, start[chosen][:, None])
            found.append(Batch(self.index(chosen), self.index(entry), self.index(real)))
            i = j
        return found

    def condition(
        self, plan: Plan, Z: Tensor, M: Tensor, y: Tensor, e: Tensor, own: Tensor, other: Tensor, V: Tensor, S: Tensor
    ) -> None:
        """Condition rows with few measurements by Matheron's rule, in place; see `macau_cpu.Cpu.condition`."""
        if not plan.few:
            return
        Z, e = Z.reshape(-1, *M.shape), e.reshape(-1, len(y))
        noise = own[plan.owner] * other[plan.at]
        t = y - e * noise.sqrt()
        for batch in plan.few:
            at = plan.at[batch.entry]
            near = S[at] * batch.real[..., None]
            known = torch.einsum("rpk,rk->rp", V[at], M[batch.rows])
            system = near @ near.mT
            system.diagonal(dim1=1, dim2=2).add_(torch.where(batch.real, noise[batch.entry], 1.0))
            factor = torch.linalg.cholesky_ex(system).L
            for z, values in zip(Z, t, strict=True):
                left = values[batch.entry] - known - torch.einsum("rpk,rk->rp", near, z[batch.rows])
                weight = torch.cholesky_solve((left * batch.real)[..., None], factor)
                z[batch.rows] += (near.mT @ weight)[..., 0]

    def draw(
        self,
        plan: Plan,
        U: Tensor,
        Z: Tensor,
        M: Tensor,
        y: Tensor,
        own: Tensor,
        other: Tensor,
        V: Tensor,
        precision: NDArray[np.float64],
    ) -> None:
        """Draw rows with many measurements by their precision, in float64; see `macau_cpu.Cpu.draw`."""
        if not plan.many:
            return
        prior = torch.as_tensor(precision, device=self.device)
        root = (own[plan.owner] * other[plan.at]).rsqrt()
        value = y * root
        for batch in plan.many:
            near = V[plan.at[batch.entry]] * (root[batch.entry] * batch.real)[..., None]
            A = prior + (near.mT @ near).double()
            b = M[batch.rows].double() @ prior
            b += torch.einsum("rpk,rp->rk", near, value[batch.entry]).double()
            L = torch.linalg.cholesky_ex(A).L
            x = torch.linalg.solve_triangular(L, b[..., None], upper=False)
            x += Z[batch.rows].double()[..., None]
            U[batch.rows] = torch.linalg.solve_triangular(L.mT, x, upper=True)[..., 0].float()

    def products(self, plan: Plan, U: Tensor, V: Tensor) -> Tensor:
        """Return the product of every measurement's two latent vectors, (E,)."""
        found = torch.empty(len(plan.at), device=self.device)
        step = max(_ROOM // max(U.shape[1], 1), 1)
        for a in range(0, len(found), step):
            part = slice(a, a + step)
            found[part] = (U[plan.owner[part]] * V[plan.at[part]]).sum(1)
        return found
