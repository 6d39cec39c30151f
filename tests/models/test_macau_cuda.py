"""The batches that a GPU draws in give what the processor's loops give, number for number; here on the processor."""

from __future__ import annotations

import numpy as np
import pytest

from phenohit.models.macau_conditionals import inverse_factor
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_cuda import Cuda


@pytest.mark.parametrize("by_measurement", [True, False])
def test_rows_are_the_same(by_measurement: bool) -> None:
    rng = np.random.default_rng(3)
    K, M = 9, 40
    n = np.array([0, 1, 3, 8, 9, 17, 30, 2, 0, 5])
    start = np.concatenate([[0], np.cumsum(n)])
    at = np.concatenate([rng.permutation(M)[:k] for k in n]).astype(np.int32)
    f32 = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    V, Mean, Z, y, e = f32(M, K), f32(10, K), f32(10, K), f32(len(at)), f32(len(at))
    own, other = rng.uniform(0.3, 2, 10).astype(np.float32), rng.uniform(0.3, 2, M).astype(np.float32)
    A = rng.standard_normal((K, 2 * K))
    precision = A @ A.T / K
    S = V @ inverse_factor(precision).T.astype(np.float32)
    found = []
    for device in (Cpu(), Cuda("cpu")):
        plan = device.plan(start, at, K, by_measurement=by_measurement)
        put = device.put
        z, U = put(Z.copy()), put(np.zeros_like(Z))
        device.condition(plan, z, put(Mean), put(y), put(e), put(own), put(other), put(V), put(S))
        device.draw(plan, U, put(Z), put(Mean), put(y), put(own), put(other), put(V), precision)
        found.append([device.host(z), device.host(U), device.host(device.products(plan, put(Mean), put(V)))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)
