"""Several drivers compute a share of a run each; merged, they are as the run of one driver."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import TESTS, Run

import oodray
from oodray.analysis import totals
from oodray.analysis.evaluation import evaluate_run
from oodray.datasets.manifest import read_manifest
from oodray.errors import ConfigError, ResultsError
from oodray.results import kept_totals
from oodray.results.folder import ResultsFolder
from oodray.results.merging import merge_shares, read_shares
from oodray.results.names import Wave
from oodray.results.reading import finished_units, read_rows

SHARES = 3

KILLED = """
import os, signal, sys
from runs import Run

def on_unit(done):
    os.kill(os.getpid(), signal.SIGKILL)

Run(sys.argv[1], sys.argv[2], shard=sys.argv[3]).go(on_unit)
"""

MERGE_KILLED = """
import os, signal, sys
from oodray.results import merging

take, left = merging._take, [2]
def killed(*args):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    take(*args)

merging._take = killed
out, *shares = map(merging.ResultsFolder, sys.argv[1:])
merging.merge_shares(merging.read_shares(shares), out)
"""


@pytest.fixture
def start(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes the share of a run that is not begun."""
    monkeypatch.chdir(TESTS)

    def share(number: int, of: int = SHARES, **options: Any) -> Run:
        return Run(tiny_dataset, tmp_path / f"share-{number}", shard=f"{number}/{of}", **options)

    return share


@pytest.fixture(scope="module")
def computed(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of all shares, finished; to be left as they are."""
    folder = tmp_path_factory.mktemp("shares")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(TESTS)
        for number in range(1, SHARES + 1):
            Run(tiny_dataset, folder / str(number), shard=f"{number}/{SHARES}").go()
    return [folder / str(number) for number in range(1, SHARES + 1)]


@pytest.fixture
def copies(computed: list[Path], tmp_path: Path) -> list[Path]:
    """The same, to spoil."""
    return [Path(shutil.copytree(path, tmp_path / f"copy-{path.name}")) for path in computed]


def assert_is_as(out: Path, clean: Run) -> None:
    merged = Run(Path(str(clean.plan.root)), out)
    assert merged.rows().equals(clean.rows())
    for name in ("metrics.json", "metrics.parquet", "manifest.parquet"):
        assert (out / name).read_bytes() == Path(str(clean.folder.path / name)).read_bytes()
    assert merged.folder.read_run()["identity"] == clean.folder.read_run()["identity"]
    assert list(out.rglob(".*")) == []


def test_each_share_has_its_units_and_their_numbers(computed: list[Path], clean: Run) -> None:
    manifests = [read_manifest(ResultsFolder(path).manifest) for path in computed]
    assert [manifest.num_rows for manifest in manifests] == [3, 3, 4]
    whole = read_manifest(clean.folder.manifest)
    assert [row for manifest in manifests for row in manifest.to_pylist()] == whole.to_pylist()
    for path, manifest in zip(computed, manifests, strict=True):
        assert read_rows(ResultsFolder(path).parts(), ["unit", "image_id"]).equals(
            manifest.select(["unit", "image_id"])
        )
        assert ResultsFolder(path).is_finished()


def test_merged_they_are_the_run_of_one_driver(computed: list[Path], clean: Run, tmp_path: Path) -> None:
    before = [path.read_bytes() for folder in computed for path in sorted(folder.rglob("*")) if path.is_file()]
    out = tmp_path / "out"
    merged = oodray.merge(reversed(computed), out=out, progress=False)
    assert len(merged.images) == 10
    assert_is_as(out, clean)
    assert ResultsFolder(out).waves() == [Wave(0, 2), Wave(3, 5), Wave(6, 9)]
    assert (out / "results" / Wave(0, 2).name).samefile(computed[0] / "results" / Wave(0, 2).name)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    oodray.merge(computed, out=out, progress=False)
    again = Run(Path(str(clean.plan.root)), out)
    again.go()
    assert again.heard == []
    assert {path: path.stat().st_mtime_ns for path in times if "results" in path.parts} == {
        path: time for path, time in times.items() if "results" in path.parts
    }
    assert before == [path.read_bytes() for folder in computed for path in sorted(folder.rglob("*")) if path.is_file()]


def test_counts_that_the_shares_keep_are_taken_along(
    copies: list[Path], clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_totals, "KEPT_FROM", 1)
    for copy in copies:
        evaluate_run(ResultsFolder(copy), on_ray=False)
    kept = {path.name for copy in copies for path in (copy / "totals").iterdir()}
    assert len(kept) == SHARES

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("rows are counted again")

    monkeypatch.setattr(totals, "total_here", refused)
    out = tmp_path / "out"
    oodray.merge(copies, out=out, progress=False)
    assert {path.name for path in (out / "totals").iterdir()} == kept
    assert (out / "metrics.json").read_bytes() == Path(str(clean.folder.metrics_json)).read_bytes()
    next((out / "totals").iterdir()).unlink()
    with pytest.raises(AssertionError, match="counted again"):
        evaluate_run(ResultsFolder(out), on_ray=False)


def test_a_share_and_a_merge_are_killed_and_every_image_is_there_once(
    start: Callable[..., Run],
    computed: list[Path],
    clean: Run,
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    share = start(2)
    where = [str(clean.plan.root), str(share.folder.path), "2/3"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *where], cwd=TESTS, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    there = len(finished_units(share.folder))
    assert 0 < there <= 3  # units that the driver has not heard of may be finished, too
    shares = [computed[0], Path(str(share.folder.path)), computed[2]]
    if there < 3:
        with pytest.raises(ResultsError, match=r"share 2/3 in .* is not finished: run its command again, then merge"):
            oodray.merge(shares, out=tmp_path / "out", progress=False)
    share.go()
    assert sum(done.ok for done in share.heard) == 3 - there
    out = tmp_path / "out"
    command = [sys.executable, "-c", MERGE_KILLED, str(out), *map(str, shares)]
    assert subprocess.run(command, cwd=TESTS, env=environment, check=False).returncode == -signal.SIGKILL
    assert len(finished_units(ResultsFolder(out))) == 3
    oodray.merge(shares, out=out, progress=False)
    assert_is_as(out, clean)


@pytest.mark.soak
def test_another_executor_computes_the_same_share(
    start: Callable[..., Run], computed: list[Path], clean: Run, tmp_path: Path, ray_session: None
) -> None:
    share = start(1, executor="ray")
    share.go()
    oodray.merge([Path(str(share.folder.path)), *computed[1:]], out=tmp_path / "out", progress=False)
    assert_is_as(tmp_path / "out", clean)


def test_a_share_is_continued_as_that_share_alone(start: Callable[..., Run], copies: list[Path], clean: Run) -> None:
    root = Path(str(clean.plan.root))
    same = Run(root, copies[0], shard="1/3")
    same.go()
    assert same.heard == []
    for other, said in (("2/3", "shard was '1/3', is '2/3'"), (None, "shard was '1/3', is None")):
        with pytest.raises(ResultsError, match=said):
            Run(root, copies[0], shard=other).go()


def test_a_merged_run_takes_images_that_are_added(
    tiny_root: Path, clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    late = [tiny_root / name for name in ("images/04.png", "annotations/04_mask.png")]
    for path in late:
        path.rename(tmp_path / path.name)
    shares = [tmp_path / "1", tmp_path / "2"]
    for number, path in enumerate(shares, start=1):
        Run(tiny_root, path, shard=f"{number}/2").go()
    oodray.merge(shares, out=tmp_path / "out", progress=False)
    for path in late:
        (tmp_path / path.name).rename(path)
    run = Run(tiny_root, tmp_path / "out")
    run.go(append=True)
    assert sum(done.ok for done in run.heard) == 1
    assert run.rows().drop_columns(["unit"]).sort_by("image_id").equals(clean.rows().drop_columns(["unit"]))
    assert run.folder.metrics_json.read_bytes() == clean.folder.metrics_json.read_bytes()


def without_one(folders: list[Path]) -> list[Path]:
    return [folders[0], folders[2]]


def one_twice(folders: list[Path]) -> list[Path]:
    shutil.copytree(folders[1], folders[1].parent / "twice")
    return [*folders, folders[1].parent / "twice"]


def of_another_number(folders: list[Path]) -> list[Path]:
    return [changed(folders[0], shard="1/4"), *folders[1:]]


def with_another_setting(folders: list[Path]) -> list[Path]:
    return [folders[0], changed(folders[1], tau=2.5), folders[2]]


def of_another_list(folders: list[Path]) -> list[Path]:
    return [folders[0], folders[1], changed(folders[2], manifest="0" * 16)]


def a_whole_run(folders: list[Path]) -> list[Path]:
    return [changed(folders[0], shard=None), *folders[1:]]


def in_other_units(folders: list[Path]) -> list[Path]:
    shutil.copy(folders[0] / "manifest.parquet", folders[1] / "manifest.parquet")
    return folders


def with_a_file_gone(folders: list[Path]) -> list[Path]:
    (folders[2] / "results" / Wave(6, 9).name).unlink()
    return folders


def changed(out: Path, **identity: Any) -> Path:
    folder = ResultsFolder(out)
    content = folder.read_run()
    folder.write_run(content | {"identity": content["identity"] | identity})
    return out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_one, "these shares are missing: 2/3"),
        (one_twice, "the share 2/3 is given twice"),
        (of_another_number, "they are of 4 and of 3 shares"),
        (with_another_setting, "are not of one run: tau was 1.5, is 2.5"),
        (of_another_list, "the dataset lists other images"),
        (a_whole_run, "holds no share of a run"),
        (in_other_units, "do not hold every image of their run once"),
        (with_a_file_gone, "lacks 4 of its units, the first is 6"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(
    copies: list[Path], tmp_path: Path, spoil: Callable[[list[Path]], list[Path]], said: str
) -> None:
    with pytest.raises(ResultsError, match=said):
        merge_shares(read_shares([ResultsFolder(path) for path in spoil(copies)]), ResultsFolder(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_run_or_a_share_is_no_place_to_merge_to(
    computed: list[Path], clean: Run, tmp_path: Path
) -> None:
    shares = read_shares([ResultsFolder(path) for path in computed])
    with pytest.raises(ResultsError, match="is one of the shares"):
        merge_shares(shares, ResultsFolder(computed[0]))
    other = Run(Path(str(clean.plan.root)), tmp_path / "other", k=4)
    other.go()
    with pytest.raises(ResultsError, match="k was 4, is 6"):
        merge_shares(shares, other.folder)
    same = Path(shutil.copytree(str(clean.folder.path), tmp_path / "same"))
    with pytest.raises(ResultsError, match="which is of no share"):
        merge_shares(shares, ResultsFolder(same))


def test_without_links_files_are_copied(
    computed: list[Path], clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    oodray.merge(computed, out=tmp_path / "out", progress=False)
    assert_is_as(tmp_path / "out", clean)
    assert not (tmp_path / "out/results" / Wave(0, 2).name).samefile(computed[0] / "results" / Wave(0, 2).name)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/4"])
def test_what_is_no_share_is_refused(start: Callable[..., Run], text: str, tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--shard must be I/N"):
        Run(tiny_dataset, tmp_path / "out", shard=text)


def test_more_shares_than_units_leave_some_without_images(start: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match="--shard 1/30 has no images"):
        start(1, 30).prepare()
