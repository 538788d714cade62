"""Datasets that were made to do harm, or look like it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import oodray
from oodray.datasets import images
from oodray.datasets.images import read_bytes
from oodray.datasets.layout import Layout
from oodray.datasets.layouts import get_layout
from oodray.errors import DatasetError, ImageError

FOLDER: Layout = get_layout("folder")
PACKAGE = Path(oodray.__file__).parent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").touch()
    return root


class TestLinksThatLeadOutside:
    def outside(self, tmp_path: Path) -> Path:
        (tmp_path / "private").mkdir()
        (tmp_path / "private/secret.png").touch()
        return tmp_path / "private"

    def test_to_a_file(self, root: Path, tmp_path: Path) -> None:
        (root / "b.png").symlink_to(self.outside(tmp_path) / "secret.png")
        with pytest.raises(DatasetError, match=r"b\.png leads outside .* to .*secret\.png; pass --allow-outside-root"):
            FOLDER.find(root)
        assert len(FOLDER.find(root, allow_outside=True)) == 2

    def test_to_a_folder(self, root: Path, tmp_path: Path) -> None:
        (root / "more").symlink_to(self.outside(tmp_path))
        with pytest.raises(DatasetError, match=r"more/secret\.png leads outside"):
            FOLDER.find(root)

    def test_of_labels(self, root: Path, tmp_path: Path) -> None:
        (root / "images").mkdir()
        (root / "images/secret.jpg").touch()
        (root / "labels").symlink_to(self.outside(tmp_path))
        with pytest.raises(DatasetError, match=r"labels/secret\.png leads outside"):
            FOLDER.find(root)

    def test_that_stay_inside_are_taken(self, root: Path) -> None:
        (root / "b.png").symlink_to("a.png")
        assert len(FOLDER.find(root)) == 2

    def test_the_root_itself_may_be_a_link(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(root)
        assert len(FOLDER.find(tmp_path / "link")) == 1


class TestFilesThatAreNone:
    def test_a_pipe_does_not_keep_anyone_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(ImageError, match=r"a\.png: it is no regular file"):
            read_bytes(str(tmp_path / "a.png"))

    def test_a_device_without_end_is_not_read(self) -> None:
        with pytest.raises(ImageError, match="no regular file"):
            read_bytes("/dev/zero")

    def test_a_folder_and_a_broken_link(self, tmp_path: Path) -> None:
        (tmp_path / "link.png").symlink_to("nowhere.png")
        for path in (tmp_path, tmp_path / "link.png"):
            with pytest.raises(ImageError, match="cannot read"):
                read_bytes(str(path))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch(mode=0)
        with pytest.raises(ImageError, match="Permission denied"):
            read_bytes(str(tmp_path / "a.png"))

    def test_a_file_too_large_to_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_BYTES", 9)
        (tmp_path / "a.png").write_bytes(b"0123456789")
        with pytest.raises(ImageError, match="it has 10 bytes, more than 9"):
            read_bytes(str(tmp_path / "a.png"))


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


FORBIDDEN = {"eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "__import__"}
READERS_OF_PICKLES = {"pickle.load", "pickle.loads", "joblib.load", "pandas.read_pickle", "pd.read_pickle"}


def test_no_data_is_ever_run() -> None:
    found = list(calls())
    assert len(found) > 1000
    for path, call, name in found:
        where = f"{path}:{call.lineno}: {name}"
        assert name not in FORBIDDEN | READERS_OF_PICKLES, where
        # The demo is drawn by a process of its own, with arguments that no data decides.
        assert not name.startswith("subprocess.") or path.parent.name == "demo", where
        options = {option.arg: option.value for option in call.keywords}
        if name.endswith("torch.load") or name == "torch.load":
            assert ast.unparse(options["weights_only"]) == "True", where
        if name in ("np.load", "numpy.load"):
            assert ast.unparse(options.get("allow_pickle", ast.Constant(value=False))) == "False", where
