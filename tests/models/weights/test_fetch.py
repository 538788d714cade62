from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import FileServer, serving

from oodray.errors import DownloadError, ModelError
from oodray.models.weights.fetch import fetch
from oodray.models.weights.zoo import EMBEDDED, ZooModel, get_model

CONTENT = bytes(range(256)) * 400


def ignore(_done: int, _total: int | None) -> None:
    """Reports nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving(CONTENT) as state:
        monkeypatch.setenv("HF_ENDPOINT", state.address)
        yield state


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZooModel:
    """A published network whose file is the server's."""
    monkeypatch.setenv("OODRAY_CACHE", str(tmp_path / "cache"))
    return replace(get_model("internimage-t-ade20k"), sha256=hashlib.sha256(CONTENT).hexdigest())


def test_downloads_to_where_a_run_looks(model: ZooModel, server: FileServer, tmp_path: Path) -> None:
    path = fetch(model, None, ignore)
    assert path == model.checkpoint == tmp_path / "cache" / "models" / "upernet_internimage_t_512_160k_ade20k.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(model, None, ignore) == path
    assert len(server.ranges) == 1


def test_a_download_that_fails_says_what_else_can_be_done(model: ZooModel, server: FileServer) -> None:
    server.script = [lambda handler: handler.refuse(404)]
    with pytest.raises(DownloadError) as caught:
        fetch(model, None, ignore)
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        f"{model.url} cannot be downloaded: the server answered 404 Not Found\n"
        f"On a machine without network, bring {model.url} (118 MB) there, "
        "then: oodray models fetch internimage-t-ade20k --from FILE"
    )


def test_a_cache_that_cannot_be_written_to_is_named_with_the_remedy(
    model: ZooModel, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OODRAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot write .*\nOODRAY_CACHE=DIR names another folder") as refused:
        fetch(model, None, report=lambda *_: None)
    assert "without network" not in str(refused.value)


class TestFrom:
    def test_a_file_at_hand_is_copied(self, model: ZooModel, server: FileServer, tmp_path: Path) -> None:
        (tmp_path / "mine.pth").write_bytes(CONTENT)
        path = fetch(model, tmp_path / "mine.pth", ignore)
        assert path.read_bytes() == (tmp_path / "mine.pth").read_bytes() == CONTENT
        assert [found.name for found in path.parent.iterdir()] == [path.name]
        assert server.ranges == []

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"PK\x03\x04" + bytes(100), "it is truncated"),
            (b"<html>", "it is a web page"),
            (b"other", f"its sha256 is {hashlib.sha256(b'other').hexdigest()}"),
        ],
        ids=["truncated", "html", "other"],
    )
    def test_another_file_is_refused(self, model: ZooModel, tmp_path: Path, content: bytes, message: str) -> None:
        source = tmp_path / "mine.pth"
        source.write_bytes(content)
        with pytest.raises(ModelError, match=message) as caught:
            fetch(model, source, ignore)
        assert f"`oodray models verify {source} --model internimage-t-ade20k`" in str(caught.value)
        assert not model.checkpoint.exists()

    @pytest.mark.parametrize("name", ["nothing.pth", "."])
    def test_what_cannot_be_read(self, model: ZooModel, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match="cannot read"):
            fetch(model, tmp_path / name, ignore)


class TestPresent:
    @pytest.mark.parametrize("source", [None, Path("/nowhere/mine.pth")])
    def test_a_file_of_another_content_is_left_alone(
        self, model: ZooModel, server: FileServer, source: Path | None
    ) -> None:
        model.checkpoint.parent.mkdir(parents=True)
        model.checkpoint.write_bytes(b"fine-tuned")
        with pytest.raises(ModelError, match="is there already, and is not the file published as"):
            fetch(model, source, ignore)
        assert model.checkpoint.read_bytes() == b"fine-tuned"
        assert server.ranges == []

    def test_our_own_come_with_oodray(self, model: ZooModel, server: FileServer) -> None:
        embedded = get_model(EMBEDDED)
        assert fetch(embedded, None, ignore) == embedded.checkpoint
        assert server.ranges == []
