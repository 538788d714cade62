"""Waiting for a cluster that grows to have room; how many workers a run gets is decided in `pool`."""

from __future__ import annotations

from collections.abc import Callable

from oodray.cluster.session import cluster_address, connected
from oodray.config import RunConfig
from oodray.errors import ConfigError


def wait_for_room(config: RunConfig, on_wait: Callable[[str], None]) -> None:
    """Wait up to `config.wait` seconds until a cluster could start the fewest workers; `on_wait` hears of it.

    The request makes Ray's autoscaler add machines. It is withdrawn when this call returns or this process ends.

    Raises:
        ConfigError: the cluster has no room in time, or it is not known what to wait for.
    """
    if not config.wait or cluster_address(config.ray_address) is None:
        return
    if config.gpus_per_worker is None:
        raise ConfigError("--wait needs --gpus-per-worker: GPUs that are not there yet cannot be counted")
    workers = config.fewest_workers or config.workers or 1
    gpus = config.gpus_per_worker
    each = {"GPU": gpus, "CPU": 1.0} if gpus else {"CPU": float(config.threads)}
    wanted = f"{workers} workers with {', '.join(f'{amount:g} {kind}' for kind, amount in each.items())} each"
    with connected(config.ray_address):
        from ray.util.placement_group import placement_group, remove_placement_group

        on_wait(f"waiting up to {config.wait:g} s for room for {wanted}")
        # One CPU more, for decoding and writing.
        demand = placement_group([*[each] * workers, {"CPU": 1.0}], strategy="PACK")
        try:
            if not demand.wait(config.wait):
                raise ConfigError(
                    f"the cluster has no room for {wanted} after {config.wait:g} s: `ray status` shows what its "
                    "machines do and whether more are coming. Wait longer with --wait, or lower --workers"
                )
        finally:
            remove_placement_group(demand)
