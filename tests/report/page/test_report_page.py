from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from places import on_disk
from runs import Run
from small_run import SmallRun, marked_label

from oodray.analysis.images import ImageFacts
from oodray.datasets.manifest import ListedImage
from oodray.metrics.scales import Float32
from oodray.records import extended
from oodray.report.advice import misfit
from oodray.report.page import document
from oodray.report.page.account import command_of, shell_lines
from oodray.report.page.document import write_report
from oodray.report.page.pictures import PHOTO_BYTES, PHOTO_SIDE, photo, score_picture, shown_size
from oodray.report.page.regions import PER_IMAGE, wrong_regions
from oodray.report.page.selection import drawn_images
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.results.reading import read_rows
from oodray.results.rows import ResultRow, ScoreTally

CONFIG = {"dataset": "road-anomaly", "root": "photos", "k": 3, "tau": 1.5, "ood_ratio": 0.25, "scores": ["ratio"]}


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, Any] = {}
        self._script: str | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id", "") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        elif self._script:
            self.scripts[self._script] = json.loads(data)

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def page(clean: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "report.html"
    written = write_report(clean.folder, path, resamples=20)
    assert (written.page, written.pictures, written.drawn, written.images) == (path, None, 10, 10)
    return Page(path)


def small_page(run: SmallRun, **content: Any) -> Page:
    run.write(**({"config": CONFIG, "model": "a-network"} | content))
    write_report(run.folder, run.path / "report.html", resamples=0)
    return Page(run.path / "report.html")


def test_the_page_needs_nothing_else(page: Page) -> None:
    addresses = [
        str(attributes[name])
        for _, attributes in page.elements
        for name in ("src", "href", "xlink:href")
        if attributes.get(name)
    ]
    assert {re.split(r"[:#]", address)[0] for address in addresses} <= {"data", ""}
    assert "@import" not in page.source
    assert not re.findall(r"url\((?!#)", page.source)


def test_ids_are_there_once(page: Page) -> None:
    ids = page.ids()
    assert len(ids) == len(set(ids))
    anchors = {str(link["href"])[1:] for link in page.of("a")}
    assert anchors <= set(ids)
    used = set(re.findall(r"url\(#([^)]+)\)", page.source)) | set(re.findall(r'xlink:href="#([^"]+)"', page.source))
    assert used <= set(ids)


def test_every_picture_is_told_in_words(page: Page) -> None:
    assert all(image.get("alt") for image in page.of("img"))
    charts = [svg for svg in page.of("svg") if svg.get("role") == "img"]
    assert len(charts) >= 10
    assert all(svg["aria-label"] for svg in charts)


def test_numbers_are_those_of_the_run(page: Page, clean: Run) -> None:
    from oodray.api.run import open_run

    for score, ap in open_run(clean.folder.path).metrics[["score", "ap"]].itertuples(index=False):
        assert f"{100 * ap:.2f}" in page.text, score
    assert "Charts" not in page.text
    assert "5 % of an average image" not in page.text


def test_images_and_their_maps(page: Page, clean: Run) -> None:
    from oodray.api.run import open_run

    rows = open_run(clean.folder.path).images
    facts = page.scripts["facts"]["images"]
    assert [image["image_id"] for image in facts] == rows["image_id"].tolist()
    assert [image["ood_fraction"] for image in facts] == rows["ood_fraction"].tolist()
    for image in facts:
        view = page.scripts[f"image-{image['index']}"]
        assert (view["width"], view["height"]) == (image["width"], image["height"])
        known = view["clusters"]["known"]
        covered = sum(cluster["share"] for cluster in known if cluster["ood"])
        assert covered == pytest.approx(image["ood_fraction"])
        assert all(0 <= share <= 1 for cluster in known for share in cluster["at"])
        assert view["label"] is not None


def test_names_and_errors_are_text(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><b>&'\""
    run = SmallRun(tmp_path)
    run.add(hostile, label=marked_label())
    run.fail("bad", f"cannot: {hostile}")
    page = small_page(run)
    assert "<script>alert" not in page.source
    assert page.scripts["facts"]["images"][0]["image_id"] == hostile
    assert f"cannot: {hostile}" in page.text
    assert "<b>&" not in page.source


HOSTILE = "m\"><script>alert(1)</script><img src=x onerror='alert(2)'> $x$ -- &"


@pytest.mark.parametrize("labelled", [True, False])
def test_the_name_of_a_score_is_text(labelled: bool, clean: Run, tmp_path: Path) -> None:
    """It may be that of a folder, or from somebody else's run.json: it stands in ids, charts, tables and lists."""
    shutil.copytree(str(clean.folder.path), tmp_path / "run", symlinks=True)
    folder = ResultsFolder(tmp_path / "run")
    scale = Float32()
    rows = []
    for row in read_rows(clean.folder.parts(), ["unit", "image_id"]).to_pylist():
        listed = ListedImage(**row, dataset="ade-ood", image_uri="gone", label_uri=None)
        keys = scale.keys(np.arange(8, dtype=np.float32))
        labels = np.array([0, 1] * 4 if labelled else [255] * 8, np.uint8)
        tally = ScoreTally.of(HOSTILE, scale.name, keys, labels)
        rows.append(
            extended(ResultRow, listed, status="ok", height=2, width=4, image_score=1.0, clusters=[], tallies=[tally])
        )
    for part in folder.parts():
        on_disk(part).unlink()
    for result in rows:
        write_part(folder, result.unit, [result])
    run = folder.read_run()
    config = {"dataset": HOSTILE, "root": HOSTILE, "scores": [HOSTILE]}
    folder.write_run(
        run
        | {"config": config, "scores": [HOSTILE], "model": HOSTILE, "imported": {"folder": HOSTILE}, "oodray": HOSTILE}
    )
    write_report(folder, tmp_path / "report.html", resamples=0)
    page = Page(tmp_path / "report.html")
    assert HOSTILE in page.text
    assert "<script>alert" not in page.source
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert [script.get("id") for script in page.of("script")].count(None) == 1
    assert all(re.fullmatch(r"[\w.-]+", name) for name in page.ids())


@pytest.mark.parametrize("inside", [True, False])
def test_no_script_runs_but_the_own_one(
    inside: bool, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not inside:
        monkeypatch.setattr(document, "MOST_INSIDE", 1)
        run = SmallRun(tmp_path)
        run.add("a")
        page = small_page(run)
    [policy] = [str(meta["content"]) for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    [script] = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'" + ("" if inside else " 'self' file:")
    assert rules["default-src"] == "'none'"


def test_without_labels_there_is_a_page(tmp_path: Path) -> None:
    run = SmallRun(tmp_path)
    for index in range(3):
        run.add(str(index))
    page = small_page(run)
    ids = set(page.ids())
    assert {"gallery", "settings", "histograms"} <= ids
    assert not {"curves", "mistakes", "errors-filter"} & ids
    assert "Without labels nothing can be measured" in page.text
    assert "How much of all images would be called OoD" in page.text


def test_an_image_file_that_is_gone_leaves_the_rest(tmp_path: Path) -> None:
    run = SmallRun(tmp_path)
    row = run.add("gone")
    run.add("here")
    Path(row.image_uri).unlink()
    page = small_page(run)
    view = page.scripts["image-0"]
    assert view["photo"] is None
    assert "cannot be shown without its image file" in view["note"]
    assert view["clusters"]["known"]
    assert "the image file is not there any more" in page.text


def test_many_pictures_lie_beside_the_page(clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MOST_INSIDE", 20_000)
    written = write_report(clean.folder, tmp_path / "my report.html", resamples=0)
    assert written.pictures == tmp_path / "my report-files"
    page = Page(tmp_path / "my report.html")
    thumbnails = [str(image["src"]) for image in page.of("img") if not str(image["src"]).startswith("data:")]
    assert len(thumbnails) == 10
    for address in thumbnails:
        assert (tmp_path / address.replace("%20", " ")).is_file()
    assert not [name for name in page.scripts if name.startswith("image-")]
    script = (tmp_path / "my report-files" / "000" / "000003.js").read_text()
    index, view = re.fullmatch(r"oodrayImage\((\d+), (.*)\);\n", script, re.DOTALL).groups()  # type: ignore[union-attr]
    assert index == "3"
    assert json.loads(view)["photo"].startswith("data:image/webp")


def test_imported_scores_have_a_page_without_masks(tmp_path: Path) -> None:
    run = SmallRun(tmp_path)
    run.add("a")
    page = small_page(run, model=None, imported={"folder": "maps", "resize": None})
    assert "imported scores" in page.text
    assert "oodray import-scores maps" in page.text.replace(" \\\n   ", "")
    assert "settings" not in page.ids()


def test_a_photo_keeps_within_its_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
    data = photo(noise)
    assert len(data) < 3 * PHOTO_BYTES  # noise is the worst there is
    smooth = np.asarray(Image.fromarray(noise).resize((16, 12)).resize((1600, 1200)))
    assert len(photo(smooth)) <= PHOTO_BYTES
    assert shown_size(1200, 1600, PHOTO_SIDE) == (960, 720)


def test_a_score_picture_knows_its_scale() -> None:
    import base64
    import io

    scores = np.linspace(-3, 5, 256).reshape(16, 16)
    stored = score_picture(scores)
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(stored["picture"].partition(",")[2]))), np.float64)
    read = stored["low"] + levels / 255 * (stored["high"] - stored["low"])
    assert np.abs(read - scores).max() <= 8 / 255 / 2 + 1e-9
    assert score_picture(np.ones((2, 2)))["low"] == 1


def test_the_largest_mistakes_are_found() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    label, mask = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    for index in range(PER_IMAGE + 2):
        mask[2 : 4 + index, 10 * index : 10 * index + 5] = 255
    label[40:50, 10:30] = 1
    label[50:, :] = 255
    mask[52:, :] = 255  # ignored pixels are no mistakes
    found = wrong_regions("a", image, mask, label)
    assert [(region.kind, region.pixels) for region in found] == [
        ("false alarm", 30),
        ("false alarm", 25),
        ("false alarm", 20),
        ("miss", 200),
    ]


def test_of_many_images_those_that_one_looks_for_are_drawn() -> None:
    def facts(name: str, **numbers: Any) -> ImageFacts:
        plain: dict[str, Any] = {"image_score": 0.5, "ood_fraction": 0.2}
        return ImageFacts(unit=0, image_id=name, dataset="d", status="ok", **(plain | numbers))

    images = [facts(f"plain-{index}") for index in range(20)]
    images += [facts("false", false=9), facts("missed", missed=9), facts("score", image_score=0.9)]
    images += [facts("area", ood_fraction=0.9), facts("nothing", ood_fraction=0.0)]
    chosen = {image.image_id for image in drawn_images(images, 5)}
    assert chosen == {"false", "missed", "score", "area", "nothing"}
    assert len(drawn_images(images, 100)) == 25


def test_an_image_score_of_0_is_the_least(clean: Run) -> None:
    def facts(name: str, image_score: float | None, **scores: float) -> ImageFacts:
        return ImageFacts(unit=0, image_id=name, dataset="d", status="ok", image_score=image_score, scores=scores)

    images = [facts(str(index), 0.0, energy=100.0 + index) for index in range(5)] + [facts("high", 0.4, energy=1.0)]
    assert "high" in {image.image_id for image in drawn_images(images, 1)}
    assert [image.image_id for image in drawn_images([facts("a", None, msp=0.1), facts("b", None, msp=0.2)], 1)] == [
        "b"
    ]


def test_the_command_makes_the_same_settings(clean: Run) -> None:
    from oodray.config import SETTINGS

    run = clean.folder.read_run()
    words = command_of(run, "out")
    given = dict(zip(words[2::2], words[3::2], strict=True))
    for name in ("dataset", "root", "model", "tau"):
        assert given[SETTINGS[name].option] == str(run["config"][name])
    assert "--seed" not in given
    assert shell_lines(["a", "--b", "c d", "--e"]) == "a \\\n    --b 'c d' \\\n    --e"


def test_the_command_names_all_networks_and_their_weights() -> None:
    config: dict[str, object] = {
        "dataset": "demo",
        "model": "a",
        "members": ["b", "c"],
        "checkpoint": None,
        "workers": 8,
    }
    config |= {"member_checkpoints": ["b.pth", None], "fewest_workers": 2}
    words = command_of({"config": config}, "out")
    given = [(option, value) for option, value in pairwise(words) if option in ("--model", "--checkpoint", "--workers")]
    assert given == [
        *(("--model", name) for name in "abc"),
        *(("--checkpoint", name) for name in ("none", "b.pth", "none")),
        ("--workers", "2:8"),
    ]


def test_the_command_of_an_import_names_its_score() -> None:
    imported = {"folder": "maps", "resize": None, "negate": True, "blur": False}
    config = {"dataset": "folder", "scores": ["my method"], "label_codes": "2=ood"}
    words = command_of({"config": config, "imported": imported}, "out")
    assert words[words.index("--name") + 1] == "my method"
    assert words[words.index("--label-codes") + 1] == "2=ood"
    assert "--negate" in words


def test_a_network_that_does_not_fit_is_told() -> None:
    assert misfit(0.5) is None
    assert misfit(None) is None
    said = misfit(0.51)
    assert said is not None
    assert "oodray calibrate" in said
