"""Random streams that belong to a task's name, so that no other task can change its numbers."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["task_stream"]


def task_stream(seed: int, task: str, purpose: str) -> np.random.Generator:
    """Return the random stream of one task.

    Parameters
    ----------
    seed : int >= 0
    task : str
        Name of the task. The order and number of the other tasks have no influence.
    purpose : str
        What is drawn, e.g. ``"bootstrap"``: each purpose has its own stream.
    """
    digest = hashlib.blake2b(f"{purpose}\0{task}".encode(), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])
