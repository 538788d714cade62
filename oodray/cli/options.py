"""Options that several commands share; each has the name of the setting it gives, see `oodray.config.RunConfig`."""

from __future__ import annotations

from typing import Annotated

import typer

Dataset = Annotated[str | None, typer.Option(help="Name of the dataset, see `oodray datasets`.")]
Root = Annotated[str | None, typer.Option(help="The dataset's own folder.")]
AllowOutsideRoot = Annotated[
    bool | None,
    typer.Option("--allow-outside-root/--inside-root", help="Take files that links in --root lead to elsewhere."),
]
Model = Annotated[
    str | None,
    typer.Option(help="A model's name, an mmsegmentation config (.py), hf:ORG/NAME, or package.module:factory."),
]
Checkpoint = Annotated[str | None, typer.Option(help="Weights for --model.")]
FeatureStage = Annotated[
    int | None, typer.Option(help="Map of the network to cluster, counted from 0; by default that of stride 16.")
]
Features = Annotated[
    str | None, typer.Option(help="Cluster the features of another network: hf:ORG/NAME, or a folder.")
]
DType = Annotated[
    str | None, typer.Option("--dtype", help="Of the network's products: auto, float32, bfloat16, float16.")
]
K = Annotated[int | None, typer.Option("--k", help="Clusters per image.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the K-Means.")]
NormalizeFeatures = Annotated[
    bool | None, typer.Option("--normalize-features/--raw-features", help="L2-normalise before clustering.")
]
KmeansBackend = Annotated[str | None, typer.Option(help="auto, torch, cuml or sklearn.")]
NInit = Annotated[int | None, typer.Option(help="Restarts of the K-Means.")]
BatchSize = Annotated[int | None, typer.Option(help="Images of one size that the network sees at once.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of each worker.")]
Workers = Annotated[
    str | None, typer.Option(help="Workers with a network, 4, or 2:16 on a growing cluster; by default one per GPU.")
]
GpusPerWorker = Annotated[float | None, typer.Option(help="GPUs of each worker; 0 is the CPU.")]
Wait = Annotated[
    float | None, typer.Option(help="Seconds to wait for a cluster that grows to have room for the workers.")
]
RayAddress = Annotated[str | None, typer.Option(help="Ray cluster to join; RAY_ADDRESS does the same.")]


def worker_settings(workers: str | None) -> dict[str, int]:
    """The settings that `--workers` gives.

    Raises:
        ConfigError: if it is neither a number nor a range.

    >>> worker_settings("4"), worker_settings("2:16")
    ({'workers': 4}, {'fewest_workers': 2, 'workers': 16})
    """
    from oodray.errors import ConfigError

    if workers is None:
        return {}
    fewest, colon, most = workers.rpartition(":")
    try:
        return ({"fewest_workers": int(fewest)} if colon else {}) | {"workers": int(most)}
    except ValueError:
        raise ConfigError(f"--workers must be a number such as 4, or a range such as 2:16, not {workers!r}") from None
