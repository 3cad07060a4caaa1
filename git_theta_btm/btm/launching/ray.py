"""Ray: each job as a task of a cluster; ``launch.options`` go to ``ray.init``, ``address`` names a cluster that runs.

Without an address a cluster of this machine is started and stopped. The directory of the repository has to be one that
all nodes see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...errors import ThetaError
from ..settings import Launch
from .jobs import Job
from .torchrun import spread

_FAILED = 1


def launch(jobs: Sequence[Job], options: Launch) -> list[int]:
    """Run jobs as tasks that each want ``options.processes`` CPUs. Raises ``ThetaError`` if Ray is not installed."""
    try:
        import ray
    except ImportError:
        raise ThetaError("Ray is not installed: 'pip install ray', or another --launcher") from None
    given: dict[str, Any] = dict(options.options)
    cpus, gpus = given.pop("num_cpus_per_job", options.processes), given.pop("num_gpus_per_job", 0)
    if "address" not in given:
        given.setdefault("num_cpus", max(1, options.jobs) * options.processes)
    ray.init(**{"include_dashboard": False, "log_to_driver": False, **given})
    try:
        task = ray.remote(_task).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        spread_out = [spread(job, options.processes) if options.processes > 1 else job for job in jobs]
        return [_code(ray, reference) for reference in [task.remote(asdict(job)) for job in spread_out]]
    finally:
        ray.shutdown()


def _task(fields: dict[str, Any]) -> int:
    from git_theta_btm.btm.launching.processes import run_job

    return run_job(Job(**fields))


def _code(ray: Any, reference: Any) -> int:
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError:
        return _FAILED
