"""How many workers a run gets, of which size, and whether the cluster has room for them."""

from __future__ import annotations

from dataclasses import dataclass

from oodray.cluster.nodes import Node
from oodray.cluster.session import cluster_address
from oodray.cluster.shares import fitting, gpu_shares, gpus_here, usable_cores
from oodray.config import RunConfig
from oodray.errors import ConfigError

BESIDE = 1
"""CPUs that a run needs beside its workers, for decoding and writing."""


@dataclass(frozen=True)
class Pool:
    """The workers of a run.

    Attributes:
        fewest: workers at the start.
        most: workers that there may be later, if the cluster grows.
        cpus: of each.
        gpus: of each.
        tasks: decoding ones at once, and finishing ones, at most; None for as many as Ray has CPUs for.
        whole: whether the workers decode and finish, too, as they take all cores that there are.
    """

    fewest: int
    most: int
    cpus: int
    gpus: float
    tasks: int | None = None
    whole: bool = False

    def __str__(self) -> str:
        count = f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        each = _counted(self.gpus, "GPU") if self.gpus else _counted(self.cpus, "CPU")
        return f"{count} worker{'s' if self.most > 1 else ''} of {each}"


def choose_pool(config: RunConfig, device: str, units: int, machines: list[Node]) -> Pool:
    """Decide the number of workers: as asked for, else one per GPU, or one on CPUs; never more than there are units.

    Raises:
        ConfigError: if the cluster cannot have them, so that Ray would wait for ever.
    """
    gpus = config.gpus_per_worker
    gpus = (1.0 if device == "cuda" else 0.0) if gpus is None else gpus
    cpus = 1 if gpus else config.threads
    most = config.workers or (max(1, sum(gpu_shares(machine.gpus, gpus) for machine in machines)) if gpus else 1)
    # Workers of a range beyond the fewest may come with machines that are not there yet.
    asked = config.fewest_workers or most
    _refuse_what_is_not_there(asked, cpus, gpus, machines)
    # A Ray of our own may have more CPUs than the machine has cores, and at the end those of the workers are free too:
    # each task on one of them would first start a process, which takes seconds. Ray warns of more than there are units.
    # Beside networks on CPUs, which take most of the time, decoding and finishing share the cores.
    cores = usable_cores() if gpus else max(1, usable_cores() // 2)
    here = cluster_address(config.ray_address) is None
    tasks = min(cores, units) if here else None
    there = usable_cores() if here else sum(machine.cpus for machine in machines)
    whole = not gpus and min(asked, units) * cpus >= there
    return Pool(min(asked, units), min(most, units), cpus, gpus, tasks, whole)


def local_cpus(config: RunConfig) -> int:
    """Logical CPUs that a Ray on this machine needs: those of the workers, and two for what goes on beside them.

    An upper estimate, because Ray starts before it is known whether the workers compute on CPUs or on GPUs, where each
    takes one CPU.
    """
    on_cpus = (config.workers or 1) * config.threads
    on_gpus = config.workers or gpu_shares(gpus_here(), config.gpus_per_worker or 1)
    return max(on_cpus, on_gpus) + 2


def _refuse_what_is_not_there(asked: int, cpus: int, gpus: float, machines: list[Node]) -> None:
    """A worker takes its GPUs and its CPUs from one machine; a share of a GPU lies on one GPU."""
    if gpus and sum(gpu_shares(machine.gpus, gpus) for machine in machines) < asked:
        there = f"{sum(machine.gpus for machine in machines):g}"
        there += f" on {len(machines)} machines" if len(machines) > 1 else ""
        raise ConfigError(
            f"{asked} workers with {gpus:g} GPUs each need {asked * gpus:g} GPUs, Ray has {there}: "
            "lower --workers or --gpus-per-worker (0 runs on the CPU)"
        )
    needed, offered = asked * cpus + BESIDE, sum(machine.cpus for machine in machines)
    places = [fitting(machine.cpus, cpus) for machine in machines]
    if gpus:
        places = [min(place, gpu_shares(machine.gpus, gpus)) for place, machine in zip(places, machines, strict=True)]
    if needed > offered or sum(places) < asked:
        beside = "beside its GPU" if gpus else "on one machine"
        raise ConfigError(
            f"{asked} workers, and decoding and writing beside them, need {needed} CPUs, {cpus} of each worker "
            f"{beside}, Ray has {offered:g} on {len(machines)}, enough for {sum(places)} workers: "
            f"lower --workers{'' if gpus else ' or --threads'}"
        )


def crowding(config: RunConfig, device: str) -> str | None:
    """A warning where more threads of workers are asked for than this machine has cores; None elsewhere."""
    workers, cores = config.workers or 1, usable_cores()
    here = config.executor == "ray" and cluster_address(config.ray_address) is None
    if not here or device != "cpu" or workers == 1 or workers * config.threads <= cores:
        return None
    return (
        f"{workers} workers of {config.threads} threads share {cores} cores, and each holds a network: "
        f"--workers {max(1, cores // config.threads)} is about as fast, and needs less memory"
    )


def describe(
    pool: Pool, units: int, machines: list[Node], *, batch_size: int, weights_bytes: int | None, of_its_own: bool
) -> str:
    """The run in one line, as it is about to be scheduled.

    Ray counts as many CPUs as it is told to. Of a Ray `of_its_own` the line names the cores of this machine instead.
    """
    cpus, gpus = sum(machine.cpus for machine in machines), sum(machine.gpus for machine in machines)
    if of_its_own:
        cluster = f"this machine with {_counted(usable_cores(), 'core')} and {_counted(gpus, 'GPU')}"
    else:
        cluster = f"{_counted(len(machines), 'node')} with {_counted(cpus, 'CPU')} and {_counted(gpus, 'GPU')}"
    memory = "" if weights_bytes is None else f", each at least {weights_bytes / 2**20:,.0f} MiB for its weights"
    return f"{cluster}; {pool}{memory}; batches of {batch_size}; {units} units of images left"


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if 0 < number <= 1 else 's'}"
