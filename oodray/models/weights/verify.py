"""Whether a file holds the weights of a named network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from oodray.models.internimage.segmenter import empty_network, match_outputs
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.parameters import UNUSED_PREFIXES, check_fit
from oodray.models.weights.state_dicts import StateDict
from oodray.models.weights.wrong_files import file_sha256
from oodray.models.weights.zoo import ZooModel


@dataclass(frozen=True)
class Verdict:
    """What a file is, whose keys and shapes fit a network.

    Attributes:
        path: the file.
        model: the network.
        tensors: number of tensors that the network uses.
        parameters: number of values of the network, counters and running statistics not counted.
        dtypes: of the stored tensors, the most frequent first.
        outputs: number of classes that the head tells apart.
        auxiliary: tensors of an auxiliary head, which are not used.
        sha256: of the file.
    """

    path: Path
    model: ZooModel
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    outputs: int
    auxiliary: int
    sha256: str

    @property
    def published(self) -> bool:
        """Whether it is the published file, to the last bit."""
        return self.sha256 == self.model.sha256

    def lines(self) -> list[str]:
        """The verdict in words."""
        extra = f", and {self.auxiliary} of an auxiliary head, which are not used" if self.auxiliary else ""
        used = f", of which the first {self.model.classes} are used" if self.outputs > self.model.classes else ""
        same = (
            f"sha256 {self.sha256}, as published"
            if self.published
            else f"note: not the published file: its sha256 is {self.sha256} instead of {self.model.sha256}"
        )
        return [
            f"{self.path} fits {self.model.name}",
            f"{self.tensors} tensors of {' and '.join(self.dtypes)}{extra}",
            f"{self.parameters:,} parameters, {self.outputs} outputs{used}",
            same,
        ]


def verify(path: Path, model: ZooModel) -> Verdict:
    """Judge the structure of a file; its values are not looked at.

    Raises:
        ModelError: if it cannot be read or does not fit, naming the keys.
    """
    state = read_state_dict(path)
    network = empty_network(model.architecture)
    match_outputs(network, state, model.classes)
    check_fit(network, state, source=path)
    used = {key: value for key, value in state.items() if not key.startswith(UNUSED_PREFIXES)}
    return Verdict(
        path=path,
        model=model,
        tensors=len(used),
        parameters=sum(value.numel() for value in network.parameters()),
        dtypes=_dtypes(used),
        outputs=network.get_parameter("decode_head.conv_seg.weight").shape[0],
        auxiliary=len(state) - len(used),
        sha256=file_sha256(path),
    )


def _dtypes(state: StateDict) -> tuple[str, ...]:
    counts = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    return tuple(name for name, _ in counts.most_common())
