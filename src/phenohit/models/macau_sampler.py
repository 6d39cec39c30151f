"""Gibbs sampler of Macau: one sweep over latents, hyperparameters, link matrices and noise.

Model (Simm et al. 2015, arXiv 1509.04610; Simm 2018, Online Methods): y_ij ~ N(u_i'v_j, 1 / alpha_j) for measured
entries, u_i ~ N(mu_u + B'x_i, Lambda_u^-1) with B ~ N(0, (lambda Lambda_u)^-1), and the same for assays with or
without features. For binary labels y is hidden, and known by its sign alone (probit; alpha is then 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenohit.models.macau_conditionals import draw_gamma, draw_link, draw_normal_wishart, inverse_factor, link_rate
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_state import Mode, Noise, Values
from phenohit.models.macau_wide import draw_wide_link

__all__ = ["Sampler", "draw_hidden"]

_LINK_NU, _LINK_MEAN = 1e-3, 1.0  # gamma prior of the link precision


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of one side: a to b, their entries first to last, and the plan of their draw.

    Of assays with hidden values or a noise to draw also which entries are binary, how many, and of which assay.
    """

    a: int
    b: int
    first: int
    last: int
    plan: Any
    binary: Any
    n_binary: int
    assay: Any


class Sampler:
    """A chain: its state after some sweeps, and how to do another.

    Parameters
    ----------
    values : Values
    modes : pair of Mode
        Compounds and assays.
    noise : Noise
    device : Cpu
        Where the rows are; to be entered (``with device:``) around the sweeps.
    seed : tuple of int
        Of the chain. What a sweep draws depends on the seed, the sweep's number and the block of rows alone.
    fixed_link : bool
        Keep the link precision as given.
    """

    def __init__(
        self,
        values: Values,
        modes: tuple[Mode, Mode],
        noise: Noise,
        device: Any,
        *,
        seed: tuple[int, ...] = (0,),
        fixed_link: bool = False,
    ) -> None:
        self.values, self.modes, self.noise, self.device = values, modes, noise, device
        self.seed, self.fixed_link, self.sweep_number = seed, fixed_link, 0
        y = values.y - values.offset[np.repeat(np.arange(len(values.offset)), np.diff(values.orders[1].start))]
        self.hidden = bool(values.binary.any())
        if self.hidden:
            y[np.repeat(values.binary, np.diff(values.orders[1].start))] = 0  # the first latents see nothing of them
        self.place, self.offset = device.index(values.place), device.put(values.offset)
        self.label = device.put(values.y)
        self.y = [device.zeros(len(y)), device.put(y)]
        self.y[0][self.place] = self.y[1]
        for mode in modes:
            mode.latent = device.put(mode.latent)
            if mode.side is not None:
                with Cpu(device.jobs) as here:
                    rows = [(a, min(a + 2048, mode.side.N)) for a in range(0, mode.side.N, 2048)]  # short sums
                    mode.side.prepare(partial(here.each, blocks=rows))
                mode.side.move(device)
        self.blocks = [self._blocks(mode) for mode in (0, 1)]

    def _blocks(self, number: int) -> list[Block]:
        order, K = self.values.orders[number], len(self.modes[number].mean)
        n = np.diff(order.start).astype(float)
        n = n[(n > 0) & (n < K)]
        # Rows with few measurements are conditioned on them rather than on latents, where that is less work in all.
        whiten = len(self.modes[1 - number].latent) * K**2
        few = whiten + (n**2 * K + n**3 / 3 + 4 * n * K).sum() < (n * K**2 + K**3 / 3 + 2 * K**2).sum()
        found = []
        for a, b in order.blocks(self.device.rows, self.device.entries):
            first, last = int(order.start[a]), int(order.start[b])
            start = order.start[a : b + 1] - first
            plan = self.device.plan(start, order.at[first:last], K, by_measurement=bool(few))
            owner = np.repeat(np.arange(b - a), np.diff(start)) if number == 1 and self.needs_values else _NONE
            binary = self.values.binary[a + owner] if len(owner) else np.zeros(0, bool)
            of_binary = self.device.index(a + owner[binary])
            binary = self.device.index(binary), int(binary.sum())
            found.append(Block(a, b, first, last, plan, *binary, of_binary))
        return found

    @property
    def needs_values(self) -> bool:
        """Whether a sweep ends with a draw of hidden values or of the noise."""
        return self.hidden or self.noise.adaptive

    def sweep(self) -> None:
        """Draw everything once, each given all else."""
        for mode in (0, 1):
            self._draw_mode(mode)
        if self.needs_values:
            self._draw_values()
        self.sweep_number += 1

    def _key(self, *numbers: int) -> tuple[int, ...]:
        """Return what random numbers depend on: the chain, the sweep and the given numbers alone."""
        return (*self.seed, self.sweep_number, *numbers)

    def variances(self) -> NDArray[np.float64]:
        """Return the noise variance of every assay, (T,)."""
        return np.where(self.values.binary, 1.0, 1.0 / self.noise.precision)

    def _draw_mode(self, number: int) -> None:
        """Draw the latents of one side, then what they are drawn from."""
        mode = self.modes[number]
        drawn = _Latents(self, number)
        K = len(mode.mean)
        total, scatter = np.zeros(K), np.zeros((K, K))
        right = None if mode.side is None else np.zeros((mode.side.F, K))
        noise = None if right is None or mode.side is None or not mode.side.wide else np.zeros_like(right)
        for part_total, part_scatter, part_right, part_noise in self.device.each(drawn.block, self.blocks[number]):
            total += part_total
            scatter += part_scatter
            if right is not None:
                right += part_right
            if noise is not None:
                noise += part_noise
        n, mu = len(mode.latent), mode.mean
        cross = np.outer(mu, total)  # sums were of u minus its prior mean; rows are u minus what the link says
        scatter += cross + cross.T + n * np.outer(mu, mu)
        rng = np.random.default_rng(self._key(number, 1 << 31))
        mode.mean, mode.precision = draw_normal_wishart(
            n, total + n * mu, scatter, rng, link=mode.link, link_precision=mode.link_precision
        )
        if mode.side is not None and right is not None:
            right -= np.outer(mode.side.total, mode.mean)
            if noise is None:
                factor = inverse_factor(mode.precision)
                mode.link = draw_link(mode.side.turn, mode.side.size, right, mode.link_precision, factor, rng)
            else:
                rows = [(block.a, block.b) for block in self.blocks[number]]
                known = mode.link, right, noise, mode.link_precision, mode.precision
                mode.link = draw_wide_link(mode.side, *known, rng, self.device, rows)
            if not self.fixed_link:
                shape = (_LINK_NU + mode.link.size) / 2
                rate = (_LINK_NU / _LINK_MEAN + link_rate(mode.link, mode.precision)) / 2
                mode.link_precision = draw_gamma(shape, rate, rng)

    def _draw_values(self) -> None:
        """Draw hidden values of binary entries, and the noise precision."""
        device = self.device
        U, V = self.modes[0].latent, self.modes[1].latent

        def of(block: Block) -> tuple[float, int]:
            part = slice(block.first, block.last)
            found = device.products(block.plan, V[block.a : block.b], U)
            binary, y = block.binary, self.y[1][part]
            if block.n_binary:
                offset = self.offset[block.assay]
                u = device.uniforms(self._key(2, block.a), block.n_binary)
                drawn = draw_hidden(found[binary] + offset, self.label[part][binary], u, device)
                y[binary] = device.narrow(drawn - offset)
            rest = (y - found)[~binary]
            return float(device.host(rest @ rest)), len(rest)

        squares, n = 0.0, 0
        for part, count in device.each(of, self.blocks[1]):
            squares, n = squares + part, n + count
        if self.hidden:
            self.y[0][self.place] = self.y[1]
        if self.noise.adaptive and n:
            shape, rate = 0.5 + n / 2, 0.5 * self.noise.variance + squares / 2
            rng = np.random.default_rng(self._key(3))
            self.noise.precision = draw_gamma(shape, rate, rng, self.noise.most)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that later sweeps depend on, besides data, settings and seed."""
        arrays: dict[str, NDArray[Any]] = {"noise": np.array([self.noise.precision])}
        if self.hidden:
            arrays["hidden"] = self.device.kept(self.y[1])
        for i, mode in enumerate(self.modes):
            arrays |= {f"mode {i} latent": self.device.kept(mode.latent), f"mode {i} mean": mode.mean}
            arrays |= {
                f"mode {i} precision": mode.precision,
                f"mode {i} link precision": np.array([mode.link_precision]),
            }
            if mode.link is not None:
                arrays[f"mode {i} link"] = mode.link
        return arrays

    def restore(self, arrays: dict[str, NDArray[Any]], sweep_number: int) -> None:
        """Go back to a state, after so many sweeps.

        Raises
        ------
        KeyError, ValueError
            If an array is absent or of another shape; the chain is then as it was.
        """
        now = self.state()
        for name, array in now.items():
            if arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise ValueError(f"'{name}' has another shape")
        for i, mode in enumerate(self.modes):
            mode.latent, mode.mean = self.device.put(arrays[f"mode {i} latent"]), arrays[f"mode {i} mean"]
            mode.precision, mode.link_precision = (
                arrays[f"mode {i} precision"],
                float(arrays[f"mode {i} link precision"][0]),
            )
            if mode.link is not None:
                mode.link = arrays[f"mode {i} link"]
        self.noise.precision = float(arrays["noise"][0])
        if self.hidden:
            self.y[1] = self.device.put(arrays["hidden"])
            self.y[0][self.place] = self.y[1]
        self.sweep_number = sweep_number


_NONE = np.zeros(0, np.intp)


def draw_hidden(mean: Any, label: Any, u: Any, device: Any) -> Any:
    """Draw from N(mean, 1) above 0 where the label is 1, below where it is 0, by uniform numbers u.

    By the distribution function in float64 on the side of the tail, so that it is exact far out too.
    """
    side = 2.0 * (label > 0) - 1.0
    along = side * mean * (u * 0 + 1)  # float64
    return side * (along - device.ndtri((1 - u) * device.ndtr(along)))


class _Latents:
    """The draw of the latents of one side, in blocks of rows."""

    def __init__(self, chain: Sampler, number: int) -> None:
        self.chain, self.number, device = chain, number, chain.device
        self.mode, other = chain.modes[number], chain.modes[1 - number]
        self.V = other.latent
        factor = inverse_factor(self.mode.precision)
        self.factor, self.mean = device.put(factor), device.put(self.mode.mean)
        few = any(len(block.plan.few) for block in chain.blocks[number])
        self.S = self.V @ device.put(factor.T) if few else self.V
        self.link = None if self.mode.link is None else device.put(self.mode.link)
        variance = device.put(chain.variances())
        ones = device.put(np.ones(max(len(self.mode.latent), len(other.latent))))
        self.own, self.other = (ones, variance) if number == 0 else (variance, ones)

    def block(self, block: Block) -> tuple[NDArray[np.float64], NDArray[np.float64], Any, Any]:
        """Draw its rows; return sum and scatter of u minus its prior mean, X'U, and X'E for a wide X."""
        mode, device, plan, K = self.mode, self.chain.device, block.plan, len(self.mode.mean)
        a, b = block.a, block.b
        y, own = self.chain.y[self.number][block.first : block.last], self.own[a:b]
        M = device.zeros(b - a, K) + self.mean
        if mode.side is not None and self.link is not None:
            M += mode.side.times(a, b, self.link)
        Z = device.normals(self.chain._key(self.number, a), b - a, K)
        if len(plan.few):
            e = device.normals(self.chain._key(self.number, a, 1), block.last - block.first)
            device.condition(plan, Z, M, y, e, own, self.other, self.V, self.S)
        U = M + Z @ self.factor
        device.draw(plan, U, Z, M, y, own, self.other, self.V, mode.precision)
        mode.latent[a:b] = U
        D = U - M
        right = None if mode.side is None else device.host(mode.side.against(a, b, U))
        noise = None
        if mode.side is not None and mode.side.wide:
            E = device.normals(self.chain._key(self.number, a, 2), b - a, K)
            noise = device.host(mode.side.against(a, b, E))
        return device.host(D.sum(0)), device.host(D.T @ D), right, noise
