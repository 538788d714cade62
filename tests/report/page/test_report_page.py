from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import Run
from small_run import SmallRun, marked_label

from oodray.analysis.images import ImageFacts
from oodray.report.advice import misfit
from oodray.report.page import document
from oodray.report.page.account import command_of, shell_lines
from oodray.report.page.document import write_report
from oodray.report.page.pictures import PHOTO_BYTES, PHOTO_SIDE, photo, score_picture, shown_size
from oodray.report.page.regions import PER_IMAGE, wrong_regions
from oodray.report.page.selection import drawn_images

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


def test_the_command_makes_the_same_settings(clean: Run) -> None:
    from oodray.config import SETTINGS

    run = clean.folder.read_run()
    words = command_of(run, "out")
    given = dict(zip(words[2::2], words[3::2], strict=True))
    for name in ("dataset", "root", "model", "tau"):
        assert given[SETTINGS[name].option] == str(run["config"][name])
    assert "--seed" not in given
    assert shell_lines(["a", "--b", "c d", "--e"]) == "a \\\n    --b 'c d' \\\n    --e"


def test_a_network_that_does_not_fit_is_told() -> None:
    assert misfit(0.5) is None
    assert misfit(None) is None
    said = misfit(0.51)
    assert said is not None
    assert "oodray calibrate" in said
