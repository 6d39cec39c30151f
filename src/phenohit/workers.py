"""Who does the work: threads or processes of this machine, or a cluster, by one setting."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

import joblib

from phenohit.config import WorkersConfig
from phenohit.errors import ConfigError

__all__ = ["Workers", "lost_worker"]

log = logging.getLogger("phenohit")


def lost_worker(error: Exception) -> bool:
    """Whether it is the worker that failed, and not the work."""
    names = {kind.__name__ for kind in type(error).__mro__}  # of libraries that need not be installed
    return bool(names & {"BrokenExecutor", "RayActorError", "WorkerCrashedError", "KilledWorker", "NodeDiedError"})


class Workers:
    """Processes here, or those of a cluster; started when first needed, and kept for the next piece of work.

    Parameters
    ----------
    how : WorkersConfig
    jobs : int
        Cores of this machine to use.
    """

    def __init__(self, how: WorkersConfig, jobs: int) -> None:
        self.how, self.jobs, self.parallel = how, jobs, None

    def do(self, work: Iterable[Any]) -> Iterable[Any]:
        """Do delayed calls; results come as they are ready, or all at the end."""
        if self.parallel is None:
            here = {"processes": "loky", "threads": "threading"}
            if self.how.kind in here:
                backend = here[self.how.kind]
                parallel = joblib.Parallel(self.jobs, backend=backend, batch_size=1, return_as="generator_unordered")
            else:
                parallel = joblib.Parallel(self._join(), backend=self.how.kind, batch_size=1)
            parallel.__enter__()
            self.parallel = parallel
        return self.parallel(work)  # pyright: ignore[reportReturnType]

    def close(self) -> None:
        """Let the workers go; the next work starts new ones."""
        parallel, self.parallel = self.parallel, None
        if parallel is not None:
            try:
                parallel.__exit__(None, None, None)
            except Exception as error:  # of workers that are lost already
                log.debug("closing workers: %s", error)

    def _join(self) -> int:
        """Join the cluster, or start one here; return how many processes it runs."""
        address = self.how.address or None
        try:
            if self.how.kind == "ray":
                import ray  # pyright: ignore[reportMissingImports]
                from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]

                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
                if not ray.is_initialized():
                    here = {} if address else {"num_cpus": self.jobs, "include_dashboard": False}
                    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
                register_ray()
                return max(int(ray.cluster_resources().get("CPU", 1)), 1)
            from dask.distributed import Client  # pyright: ignore[reportMissingImports]

            return max(sum(Client(address).nthreads().values()), 1)
        except ImportError as error:
            raise ConfigError(
                f"workers.kind is '{self.how.kind}', which is not installed here ({error}): install it on all."
            ) from error
