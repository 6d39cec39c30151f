"""The feature network of the few-shot methods: one of them, or as many as there are episodes, side by side.

Weights are plain tensors: ``(b, a)`` for one network, ``(E, b, a)`` for E networks of which none sees another. What is
random comes from a counter-based generator: a number is a hash of the network's own key and of its place. So E networks
draw at once what each would draw alone, on any device, and a checkpoint needs no generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phenohit.errors import ConfigError, FileError
from phenohit.fewshot.episodes import Episodes

__all__ = [
    "Layers",
    "begin",
    "bits",
    "drop",
    "embed",
    "episode_keys",
    "find_device",
    "key_of",
    "label_tensor",
    "local_rows",
    "mix",
    "network",
    "restored",
    "soft",
]

Layers: TypeAlias = list[tuple[Tensor, Tensor]]  # weights (b, a) and biases (b,), or (E, b, a) and (E, b)

_ROWS = 8192  # rows embedded at a time
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed number
_STRAIGHT, _BEND = 8.0, 4.0  # log odds that are left as they are, and how far beyond others may go


def mix(z: Tensor) -> Tensor:
    """Hash int64 numbers to int64 numbers (the finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -4658895280553007687  # & makes the shift a logical one
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def bits(keys: Tensor, n: int) -> Tensor:
    """Return `n` random 16-bit numbers of every key: int64 (E,) -> int16 (E, n)."""
    counter = torch.arange(1, (n + 3) // 4 + 1, dtype=torch.int64, device=keys.device) * _GOLDEN
    return mix(keys[:, None] + counter).view(torch.int16)[:, :n]


def key_of(*numbers: object) -> int:
    """Return an int64 that depends on nothing but what is given."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def episode_keys(episodes: Episodes, purpose: str, seed: int) -> NDArray[np.int64]:
    """Return one key per episode, int64 (E,).

    Notes
    -----
    Made of seed, task, support size and the rows of the support, not of the episode's number: that number changes
    where some episodes are taken out of many.
    """
    key = np.full(len(episodes), key_of(purpose, seed, episodes.task, episodes.size), np.int64)
    chain = torch.from_numpy(key)
    for column in torch.from_numpy(np.ascontiguousarray(episodes.support.T, dtype=np.int64)):
        chain = mix(chain * 3 + column)
    return chain.numpy()


def begin(sizes: Sequence[int], keys: Tensor) -> Layers:
    """Return first weights of E networks, uniform as in He et al. 2015; biases are 0.

    Parameters
    ----------
    sizes : sequence of int
        Features, units of every hidden layer, outputs.
    keys : int64 tensor, shape (E,)

    Returns
    -------
    list of (float32 tensor (E, b, a), float32 tensor (E, b))
    """
    layers = []
    for depth, (a, b) in enumerate(pairwise(sizes)):
        bound = (6 / max(a, 1)) ** 0.5
        drawn = bits(mix(keys + (depth + 1)), a * b).view(-1, b, a)
        layers.append(((drawn.float() + 0.5) * (bound / 32768), torch.zeros(len(keys), b, device=keys.device)))
    return layers


def drop(x: Tensor, rate: float, keys: Tensor | None) -> Tensor:
    """Set a share of the values of x (E, ...) to 0, each network's by its own key; the mean stays. No keys: nothing."""
    if rate <= 0 or keys is None:
        return x
    limit = round(rate * 65536) - 32768
    kept = (bits(keys, x[0].numel()) >= limit).view(x.shape)
    return x * kept * (65536 / (32768 - limit))


def network(
    x: Tensor,
    layers: Layers,
    rates: tuple[float, float] = (0.0, 0.0),
    keys: Tensor | None = None,
    *,
    linear_end: bool = True,
) -> Tensor:
    """Return the outputs of one network, (B, F) -> (B, K), or of E of them, (E, B, F) -> (E, B, K).

    Parameters
    ----------
    x : float32 tensor
    layers : list of pairs of tensors
    rates : pair of float
        Shares of inputs and of hidden units left out.
    keys : int64 tensor, shape (E,) or (1,), optional
        What decides which are left out. None: none.
    linear_end : bool
        Whether the last layer is without ReLU and dropout.
    """
    stacked = x.ndim == 3

    def dropped(x: Tensor, rate: float, layer: int) -> Tensor:
        if rate <= 0 or keys is None:
            return x
        own = mix(mix(keys) + layer)
        return drop(x, rate, own) if stacked else drop(x[None], rate, own)[0]

    x = dropped(x, rates[0], 0)
    for layer, (weight, bias) in enumerate(layers, start=1):
        if stacked:
            # Weights on the left: their gradient comes out in their own layout, and is not copied.
            x = torch.baddbmm(bias[:, :, None], weight, x.transpose(1, 2)).transpose(1, 2)
        else:
            x = torch.nn.functional.linear(x, weight, bias)
        if layer < len(layers) or not linear_end:
            x = dropped(torch.relu(x), rates[1], layer)
    return x


@torch.no_grad()
def embed(X: Any, rows: NDArray[np.intp], layers: Layers, device: torch.device, *, linear_end: bool = True) -> Tensor:
    """Return the outputs of one network for the given rows of a matrix, float32 (R, K), without dropout."""
    width = layers[-1][0].shape[0] if layers else X.shape[1]
    out = torch.empty((len(rows), width), device=device)
    for start in range(0, len(rows), _ROWS):
        block = torch.as_tensor(X[rows[start : start + _ROWS]], device=device)
        out[start : start + _ROWS] = network(block, layers, linear_end=linear_end)
    return out


def local_rows(*parts: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Return the distinct rows of some arrays, ascending, and the arrays with positions among these in their place."""
    rows, place = np.unique(np.concatenate([p.ravel() for p in parts]), return_inverse=True)
    ends = np.cumsum([p.size for p in parts])[:-1]
    return rows, [q.reshape(p.shape) for p, q in zip(parts, np.split(place.ravel(), ends), strict=True)]


def label_tensor(y: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Return labels as float32 on the device."""
    return torch.as_tensor(y, device=device).float()


def soft(logit: Tensor) -> NDArray[np.float32]:
    """Return probabilities of log odds, none of them 0 or 1.

    Notes
    -----
    A float32 has no numbers left between 1 and a probability of log odds above 17: many would become exactly 1, and
    ranks were lost. Log odds beyond 8 are bent, in their order, to stay below 12.
    """
    size = logit.abs()
    beyond = (size - _STRAIGHT).clamp_min(0)
    bent = torch.where(beyond > 0, _STRAIGHT + _BEND * beyond / (beyond + _BEND), size)
    return torch.sigmoid(torch.sign(logit) * bent).cpu().numpy().astype(np.float32)


def find_device(name: str) -> torch.device:
    """Return the device of a setting: auto is cuda where there is one.

    Raises
    ------
    ConfigError
        If cuda is asked for and absent.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("setting 'device' is 'cuda', but no CUDA device is found. Use device: auto or device: cpu.")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def restored(
    arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], path: object
) -> Iterator[Tensor]:
    """Yield the weights of a file by name, in the order of `shapes`.

    Raises
    ------
    FileError
        If one is absent, of another shape or not finite.
    """
    for name, shape in shapes.items():
        found = arrays.get(name)
        if found is None or found.dtype != np.float32 or found.shape != shape or not np.isfinite(found).all():
            raise FileError(
                f"'{path}' is damaged: its array '{name}' is not {' x '.join(map(str, shape))} finite float32 numbers. "
                "Pretrain again."
            )
        yield torch.from_numpy(found)
