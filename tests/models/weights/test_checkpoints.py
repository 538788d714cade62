from __future__ import annotations

import hashlib
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oodray.errors import ModelError
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.state_dicts import StateDict
from oodray.models.weights.wrong_files import file_sha256

STATE: StateDict = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.1, -2.5])}


LFS_POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:59808301f09cbd09796127a1d0ab7a294be4c961fd726c4716d931016e3ed7a0
size 511514591
"""


def _marked_utf8(index: bytes) -> bytes:
    """The index of a zip archive whose first name is said to be in UTF-8."""
    flags = int.from_bytes(index[8:10], "little") | 0x800
    return index[:8] + flags.to_bytes(2, "little") + index[10:]


def save(folder: Path, content: Any, **options: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path, **options)
    return path


class TestReading:
    @pytest.mark.parametrize(
        "wrap",
        [
            dict,
            OrderedDict,
            lambda state: {"state_dict": state},
            lambda state: {"state_dict": OrderedDict(state), "meta": {"epoch": 3, "CLASSES": ["road"]}},
            lambda state: {f"module.{key}": value for key, value in state.items()},
            lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        ],
        ids=["bare", "ordered", "nested", "with-meta", "module", "nested-module"],
    )
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
    def test_known_forms(self, tmp_path: Path, wrap: Callable[[StateDict], Any], zipped: bool) -> None:
        path = save(tmp_path, wrap(STATE), _use_new_zipfile_serialization=zipped)
        state = read_state_dict(path)
        assert list(state) == list(STATE)
        for key, value in STATE.items():
            assert torch.equal(state[key], value)

    def test_half_precision_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = save(tmp_path, {key: value.half() for key, value in STATE.items()})
        assert {value.dtype for value in read_state_dict(path).values()} == {torch.float16}

    def test_module_stays_where_not_every_key_has_it(self, tmp_path: Path) -> None:
        state = {"module.weight": torch.zeros(1), "weight": torch.ones(1)}
        assert read_state_dict(save(tmp_path, state)).keys() == state.keys()

    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
    def test_safetensors_whatever_the_file_is_called(self, tmp_path: Path, name: str) -> None:
        stored = {f"module.{key}": value.half() for key, value in STATE.items()}
        save_file(stored, tmp_path / name, metadata={"format": "pt"})
        state = read_state_dict(tmp_path / name)
        assert state.keys() == STATE.keys()
        for key, value in STATE.items():
            assert torch.equal(state[key], value.half())

    def test_module_is_removed_in_front_only(self, tmp_path: Path) -> None:
        path = save(tmp_path, {"module.neck.module.weight": torch.zeros(1)})
        assert list(read_state_dict(path)) == ["neck.module.weight"]


TRAIN = """
import sys
import torch
sys.modules["transformers"] = None  # of which mmengine would take an optimizer; its import takes seconds
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)

    def forward(self, inputs, mode="tensor"):
        found = self.bn(self.conv(inputs)).square().mean()
        return {"loss": found} if mode == "loss" else found


images = [{"inputs": torch.randn(3, 8, 8)} for _ in range(4)]
runner = Runner(
    Tiny(),
    work_dir=sys.argv[1],
    train_dataloader=dict(
        dataset=images, batch_size=2, num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False), collate_fn=dict(type="default_collate"),
    ),
    train_cfg=dict(by_epoch=False, max_iters=2),
    optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1)),
    param_scheduler=dict(type="PolyLR", by_epoch=False, begin=0, end=2),
    default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)),
    log_level="ERROR",
)
torch.save(runner.train().state_dict(), f"{sys.argv[1]}/weights.pth")
"""


@pytest.fixture(scope="module")
def written_by_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training by mmengine's Runner; `weights.pth` beside it is the network at its end."""
    folder = tmp_path_factory.mktemp("runner")
    # A process of its own: the Runner sets up logging, seeds and determinism for good.
    subprocess.run([sys.executable, "-c", TRAIN, str(folder)], check=True, capture_output=True)
    return folder / "iter_2.pth"


class TestRunnerFiles:
    def test_torch_alone_refuses_them(self, written_by_runner: Path) -> None:
        with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
            torch.load(written_by_runner, weights_only=True)
        named = set(torch.serialization.get_unsafe_globals_in_checkpoint(written_by_runner))
        assert {"builtins.getattr", "mmengine.logging.history_buffer.HistoryBuffer", "numpy.ndarray"} <= named

    def test_the_state_dict_is_read_and_nothing_else(self, written_by_runner: Path) -> None:
        state = read_state_dict(written_by_runner)
        expected = torch.load(written_by_runner.with_name("weights.pth"), weights_only=True)
        assert state.keys() == expected.keys()
        assert int(expected["bn.num_batches_tracked"]) == 2
        for key, value in expected.items():
            assert torch.equal(state[key], value)

    def test_what_they_name_is_not_even_imported(self, written_by_runner: Path, environment: dict[str, str]) -> None:
        script = """
import sys
from pathlib import Path
from oodray.models.weights.checkpoints import read_state_dict
read_state_dict(Path(sys.argv[1]))
print("mmengine" in sys.modules, getattr.__name__)
"""
        command = [sys.executable, "-c", script, str(written_by_runner)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        assert done.stdout == "False getattr\n"

    def test_torch_keeps_refusing_them_afterwards(self, written_by_runner: Path) -> None:
        read_state_dict(written_by_runner)
        with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
            torch.load(written_by_runner, weights_only=True)

    def test_files_written_with_the_other_numpy(self, written_by_runner: Path, tmp_path: Path) -> None:
        """The names of numpy 1 are as long as those of numpy 2 and a letter more."""
        path = tmp_path / "other.pth"
        ours, others = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
        if np.__version__.startswith("1."):
            ours, others = others, ours
        with zipfile.ZipFile(written_by_runner) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if name.endswith("data.pkl"):
                    assert ours in data
                    data = data.replace(ours, others)
                target.writestr(name, data)
        assert others in path.read_bytes()
        assert read_state_dict(path).keys() == read_state_dict(written_by_runner).keys()

    def test_getattr_in_place_of_a_tensor_is_refused(self, tmp_path: Path) -> None:
        class Named:
            def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, str]]:
                return getattr, ("text", "upper")

        with pytest.raises(ModelError, match="holds no state dict"):
            read_state_dict(save(tmp_path, {**STATE, "b": Named()}))

    def test_a_file_that_names_more_is_refused_by_that_name(self, tmp_path: Path) -> None:
        target = tmp_path / "harm"
        path = save(tmp_path, {"state_dict": STATE, "message_hub": {"a": Attack(target), "b": [Unknown()]}})
        with pytest.raises(ModelError, match=r"was refused: it names (posix|nt)\.mkdir, and code"):
            read_state_dict(path)
        assert not target.exists()
        path = save(tmp_path, {"state_dict": STATE, "meta": Unknown()})
        with pytest.raises(ModelError, match=r"was refused: it names test_checkpoints\.Unknown, and code"):
            read_state_dict(path)


class Unknown:
    """A class that no checkpoint has a reason to name."""


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


class TestRefusedFiles:
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
    @pytest.mark.parametrize("place", ["bare", "meta", "state_dict"])
    def test_code_is_not_executed(self, tmp_path: Path, place: str, zipped: bool) -> None:
        target = tmp_path / "harm"
        attack = Attack(target)
        content = {
            "bare": attack,
            "meta": {"state_dict": STATE, "meta": attack},
            "state_dict": {"state_dict": {**STATE, "b": attack}},
        }[place]
        path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match="code in it is not executed"):
            read_state_dict(path)
        assert not target.exists()
        # The attack does work on whoever loads the file without care.
        torch.load(path, weights_only=False)
        assert target.exists()

    def test_nor_where_the_environment_tells_torch_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        path = save(tmp_path, {"state_dict": STATE, "meta": Attack(tmp_path / "harm")})
        with pytest.raises(ModelError, match="code in it is not executed"):
            read_state_dict(path)
        assert not (tmp_path / "harm").exists()

    def test_a_plain_pickle_is_not_executed(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps(Attack(tmp_path / "harm")))
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_state_dict(path)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.3, 0.9, -1])
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
    def test_truncated(self, tmp_path: Path, kept: float, zipped: bool) -> None:
        path = save(tmp_path, {"a": torch.randn(500)}, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_state_dict(path)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "it is empty"),
            (b"<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
            (b"\xef\xbb\xbf\n  <HTML lang='en'>", "it is a web page"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
            (LFS_POINTER, "it is a Git LFS pointer.*git lfs pull"),
            (b"PK\x03\x04" + b"\x00" * 200, "it is truncated.*after 204 bytes"),
            (b"\x00" * 1000, "cannot be read as a checkpoint"),
            (b"{}", "cannot be read as a checkpoint|was refused"),
            (b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, "cannot be read as a checkpoint|was refused"),
        ],
        ids=["empty", "html", "html-with-mark", "xml", "lfs", "zip-magic", "zeros", "json", "png"],
    )
    def test_something_else(self, tmp_path: Path, data: bytes, message: str) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        with pytest.raises(ModelError, match=message) as caught:
            read_state_dict(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("old", "new"),
        [(b"PK\x01\x02", b"PK\x01\x03"), (b"archive/data.pkl", b"archive/data.\xff\xfel")],
        ids=["a-magic-number", "a-name-that-is-no-utf-8"],
    )
    def test_a_damaged_index(self, tmp_path: Path, old: bytes, new: bytes) -> None:
        path = save(tmp_path, {"a": torch.randn(500)})
        data = path.read_bytes().replace(b"weights/data.pkl", b"archive/data.pkl")
        index = data.index(b"PK\x01\x02")
        path.write_bytes(data[:index] + _marked_utf8(data[index:]).replace(old, new, 1))
        with pytest.raises(ModelError, match="truncated or damaged"):
            read_state_dict(path)

    @pytest.mark.parametrize("kept", [20, 0.5, -1])
    def test_truncated_safetensors(self, tmp_path: Path, kept: float) -> None:
        path = tmp_path / "weights.safetensors"
        save_file({"a": torch.randn(500)}, path)
        data = path.read_bytes()
        path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
        with pytest.raises(ModelError, match=r"weights\.safetensors.*truncated"):
            read_state_dict(path)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_compiled_network(self, tmp_path: Path) -> None:
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "weights.pth"))  # type: ignore[no-untyped-call]
        with pytest.raises(ModelError, match=r"is not a checkpoint: it is a network compiled by TorchScript"):
            read_state_dict(tmp_path / "weights.pth")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"nothing\.pth does not exist"):
            read_state_dict(tmp_path / "nothing.pth")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
            read_state_dict(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            torch.zeros(3),
            [torch.zeros(3)],
            "weights",
            None,
            {},
            {"state_dict": {}},
            {"state_dict": [1]},
            {"a": 1.0},
            {"a": torch.zeros(3, 3).to_sparse()},
            {"a": torch.zeros(3, device="meta")},
        ],
        ids=[
            "tensor",
            "list",
            "text",
            "none",
            "empty",
            "empty-inside",
            "list-inside",
            "number",
            "sparse",
            "meta",
        ],
    )
    def test_not_a_state_dict(self, tmp_path: Path, content: Any) -> None:
        with pytest.raises(ModelError, match="holds no state dict"):
            read_state_dict(save(tmp_path, content))


class TestDigest:
    def test_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(b"\x00\xff" * 100_000)
        assert file_sha256(path) == hashlib.sha256(b"\x00\xff" * 100_000).hexdigest()

    @pytest.mark.parametrize("name", ["nothing.pth", "."])
    def test_of_what_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match="cannot read the checkpoint"):
            file_sha256(tmp_path / name)


def test_a_zip_that_claims_further_disks_is_refused(tmp_path: Path) -> None:
    """Python's zipfile raises where it is asked whether that is one."""
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 2)
    (tmp_path / "a.pth").write_bytes(b"PK\3\4" + bytes(60) + locator + end)
    with pytest.raises(ModelError, match="ends after 106 bytes without a sound index"):
        read_state_dict(tmp_path / "a.pth")
