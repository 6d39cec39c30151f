"""Who does the work: threads or processes of this machine, or a cluster, by one setting."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import joblib

from phenohit.config import WorkersConfig
from phenohit.errors import ConfigError, RunError

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
        self.client: Any = None  # of Dask

    def do(self, work: Iterable[Any]) -> Iterable[Any]:
        """Do delayed calls; results come as they are ready, or (Ray) all at the end."""
        if self.how.kind == "dask":
            return self._by_dask(work)
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

    def finish(self, work: Iterable[Any]) -> Iterator[Any]:
        """Do delayed calls that leave files and skip what is there: begun again once where a worker is lost.

        Raises
        ------
        RunError
            If a worker is lost again.
        """
        calls, n = list(work), 0
        try:
            for result in self.do(calls):
                n += 1
                yield result
            return
        except Exception as error:
            self.close()
            if not lost_worker(error):
                raise
            log.warning("a worker was lost (%s); what it had not finished is done again", _said(error))
        try:
            for i, result in enumerate(self.do(calls)):
                if i >= n:  # of the others the caller was told
                    yield result
        except Exception as error:
            self.close()
            if not lost_worker(error):
                raise
            raise RunError(
                f"Workers were lost twice ({_said(error)}). What is finished is kept: run again, and only the rest is "
                "done. If memory ran out, set fewer jobs."
            ) from error

    def close(self) -> None:
        """Let the workers go; the next work starts new ones."""
        parallel, self.parallel = self.parallel, None
        if parallel is not None:
            try:
                parallel.__exit__(None, None, None)
            except Exception as error:  # of workers that are lost already
                log.debug("closing workers: %s", error)
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def _join(self) -> int:
        """Join the Ray cluster, or start one here; return how many processes it runs."""
        address = self.how.address or None
        try:
            import ray  # pyright: ignore[reportMissingImports]
            from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _absent(self.how, error) from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        if not ray.is_initialized():
            here = {} if address else {"num_cpus": self.jobs, "include_dashboard": False}
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
        register_ray()
        return max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def _by_dask(self, work: Iterable[Any]) -> Iterator[Any]:
        """Hand the calls to Dask itself: joblib 1.6 and Dask 2026.8 do not fit together."""
        try:
            from dask.distributed import Client, as_completed  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _absent(self.how, error) from error
        if self.client is None:
            address = self.how.address or None
            here = {} if address else {"n_workers": self.jobs, "threads_per_worker": 1, "dashboard_address": None}
            self.client = Client(address, **here)
        calls = [self.client.submit(function, *given, pure=False, **named) for function, given, named in work]
        for call in as_completed(calls):
            yield call.result()


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _absent(how: WorkersConfig, error: ImportError) -> ConfigError:
    return ConfigError(f"workers.kind is '{how.kind}', which is not installed here ({error}): install it on all.")
