"""The page in a real browser: every control does what it says, nothing is fetched, nothing is complained of."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Run

from oodray.report.maps import Maps
from oodray.report.page import document
from oodray.report.page.document import write_report
from oodray.results.stored_image import StoredImage

selenium = pytest.importorskip("selenium", reason="no browser: pip install selenium")

pytestmark = [pytest.mark.slow]

Browser = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--disable-gpu", "--no-first-run", "--force-device-scale-factor=1"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root cannot have
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.implicitly_wait(5)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def report(clean: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(clean.folder, path, resamples=0)
    return path


class Session:
    """A page in the browser."""

    def __init__(self, browser: Browser, path: Path, width: int = 1280, height: int = 900) -> None:
        self.browser = browser
        browser.set_window_size(width, height)
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get("about:blank")
        browser.get(path.as_uri())

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", selector))

    def run(self, script: str) -> Any:
        return self.browser.execute_script(f"return {script}")

    def choose(self, selector: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(selector)).select_by_value(value)

    def slide(self, selector: str, value: int) -> None:
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.browser.execute_script(script, self.find(selector), value)

    def until(self, holds: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 10).until(lambda _: holds())

    def press(self, key: str) -> None:
        self.browser.switch_to.active_element.send_keys(key)

    def names(self) -> list[str]:
        """The images of the gallery that are shown, in order."""
        script = "[...document.querySelectorAll('#gallery li:not([hidden]) .name')].map((name) => name.textContent)"
        return list(self.run(script))

    def canvas(self) -> str:
        return str(self.run("document.getElementById('canvas').toDataURL()"))

    def opened(self) -> None:
        self.until(lambda: self.run("document.getElementById('loading').hidden"))

    def complaints(self) -> list[str]:
        return [str(entry["message"]) for entry in self.browser.get_log("browser")]

    def requests(self) -> set[str]:
        """Kinds of addresses that were asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return {address if address.startswith("file:") else address.partition(":")[0] for address in asked}


def test_every_control_is_used(browser: Browser, report: Path) -> None:
    page = Session(browser, report)
    facts = json.loads(page.run("document.getElementById('facts').textContent"))["images"]
    by = {image["image_id"]: image for image in facts}
    assert len(page.names()) == 10

    for key in ("ood_fraction", "image_score", "false", "missed"):
        page.choose("#sort", key)
        values = [by[name][key] for name in page.names()]
        assert values == sorted(values, reverse=True)
        page.choose("#order", "up")
        assert [by[name][key] for name in page.names()] == sorted(values)
    page.choose("#sort", "score:energy")
    values = [by[name]["scores"]["energy"] for name in page.names()]
    assert values == sorted(values, reverse=True)
    page.choose("#sort", "image_id")
    assert page.names() == sorted(by)

    page.choose("#area", "0.01:0.1")
    assert set(page.names()) == {name for name, image in by.items() if 0.01 < image["ood_fraction"] <= 0.1}
    page.choose("#area", "")
    page.choose("#errors", "missed")
    assert set(page.names()) == {name for name, image in by.items() if image["missed"]}
    page.choose("#errors", "")
    page.choose("#size", "128x96")
    assert set(page.names()) == {name for name, image in by.items() if (image["width"], image["height"]) == (128, 96)}
    page.choose("#size", "")
    page.find("#search").send_keys("07")
    assert page.names() == [name for name in sorted(by) if "07" in name]
    assert page.find("#count").text == "1 of 10"
    page.find("#search").send_keys("nothing")
    assert page.find("#nothing").is_displayed()
    page.find("#search").clear()
    page.slide("#search", "")  # type: ignore[arg-type]

    curve = "[...document.querySelectorAll('#pr [id$=\"--curve-0\"]')].map((line) => line.style.display)"
    page.find('[data-curve="0"]').click()
    assert set(page.run(curve)) == {"none"}
    page.find('[data-curve="0"]').click()
    assert set(page.run(curve)) == {""}
    for section in ("curves", "histograms"):
        page.find(f'[data-log="#{section}"]').click()
        assert page.find(f"#{section} .chart [data-form=logarithmic]").is_displayed()
        assert not page.find(f"#{section} .chart [data-form=linear]").is_displayed()

    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.run(ground)
    page.find("#theme").click()
    assert page.run(ground) != before

    page.find(".region").click()
    page.opened()
    assert page.find("#layers [aria-pressed=true]").text == "Errors"
    page.find("#close").click()
    assert not page.run("document.getElementById('view').open")

    assert page.complaints() == []
    assert page.requests() <= {report.as_uri(), "data", "about"}


def test_the_large_view(browser: Browser, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Session(browser, report)
    names = page.names()
    page.find("#gallery button").click()
    page.opened()
    assert page.find("#view-name").text == names[0]
    drawn = {}
    for button in ("Photo", "Mask", "Errors", "Clusters", "Score", "Label"):
        page.browser.find_element("xpath", f"//div[@id='layers']/button[text()='{button}']").click()
        drawn[button] = page.canvas()
    assert len(set(drawn.values())) == 6, "each layer is another picture"

    page.press("5")
    page.slide("#threshold", 0)
    everything = page.find("#above").text
    page.slide("#threshold", 1000)
    assert page.find("#above").text.startswith("0.0 % of the image")
    assert everything != page.find("#above").text
    before = page.find("#threshold-value").text
    page.run("document.getElementById('layers').children[4].focus()")
    page.press("[")
    assert page.find("#threshold-value").text != before
    opaque = page.canvas()
    page.slide("#opacity", 0)
    assert page.canvas() != opaque

    page.run("document.getElementById('layers').children[0].focus()")
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.find("#view-name").text == names[1])
    page.opened()
    page.press(Keys.ARROW_LEFT)
    page.until(lambda: page.find("#view-name").text == names[0])
    page.opened()
    page.find("#next").click()
    page.opened()
    page.find("#previous").click()
    page.opened()
    assert "#image=" in page.browser.current_url
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.run("document.getElementById('view').open"))
    assert page.run("document.activeElement.closest('li').querySelector('.name').textContent") == names[0]
    assert page.complaints() == []


def test_what_the_score_layer_says_is_what_the_run_says(browser: Browser, report: Path) -> None:
    """At the run's own T the score `ratio` gives the mask, and so its precision and recall."""
    page = Session(browser, report)
    facts = json.loads(page.run("document.getElementById('facts').textContent"))["images"]
    image = max(facts, key=lambda one: one["found"])
    page.browser.get(f"{report.as_uri()}#image={image['image_id'].replace('/', '%2F')}")
    page.browser.refresh()
    page.opened()
    assert page.find("#view-name").text == image["image_id"]
    page.browser.find_element("xpath", "//div[@id='layers']/button[text()='Score']").click()
    precision = image["found"] / (image["found"] + image["false"])
    recall = image["found"] / (image["found"] + image["missed"])
    said = page.find("#above").text
    assert f"{100 * image['ood_fraction']:.1f} % of the image" in said
    shown = [float(number) for number in re.findall(r"(?:precision|recall) ([\d.]+) %", said)]
    assert shown == pytest.approx([100 * precision, 100 * recall], abs=0.051)


def test_classes_have_names(browser: Browser, clean: Run, tmp_path: Path) -> None:
    def maps(image: StoredImage) -> Maps:
        classes = np.zeros((image.height, image.width), np.int16)
        classes[: image.height // 2] = 1
        classes[-image.height // 4 :] = 7
        score = np.linspace(-3, 5, classes.size).reshape(classes.shape)
        return Maps({"energy": score}, classes=classes, class_names=("road", "sky <b>"))

    write_report(clean.folder, tmp_path / "report.html", resamples=0, maps=maps)
    page = Session(browser, tmp_path / "report.html")
    page.find("#gallery button").click()
    page.opened()
    page.browser.find_element("xpath", "//div[@id='layers']/button[text()='Classes']").click()
    texts = [item.text for item in page.all("#view-legend li")]
    assert [text.partition(",")[0] for text in texts] == ["1: sky <b>", "0: road", "7: class 7"]
    page.browser.find_element("xpath", "//div[@id='layers']/button[text()='Score']").click()
    page.choose("#score", "energy")
    page.slide("#threshold", 0)
    assert page.find("#above").text.startswith("100.0 % of the image")
    page.slide("#threshold", 1000)
    assert page.find("#threshold-value").text == "5.000"
    assert page.complaints() == []


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, report: Path, width: int) -> None:
    page = Session(browser, report)
    # A window of Chromium is at least 500 wide; what it shows is not.
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.run("innerWidth") == width
        assert page.run("document.documentElement.scrollWidth") <= width
        page.find("#gallery button").click()
        page.opened()
        assert page.run("document.getElementById('view').scrollWidth") <= width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_pictures_beside_the_page_are_found(
    browser: Browser, clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "MOST_INSIDE", 20_000)
    write_report(clean.folder, tmp_path / "a page.html", resamples=0)
    page = Session(browser, tmp_path / "a page.html")
    page.until(
        lambda: page.run("[...document.images].slice(0, 10).every((one) => one.complete && one.naturalWidth > 0)")
    )
    page.find("#gallery button").click()
    page.opened()
    assert len(page.all("#layers button")) == 6
    assert page.complaints() == []


@pytest.mark.soak
def test_sixty_images_open_in_two_seconds(browser: Browser, data: Path, tmp_path: Path) -> None:
    """A run with the embedded network: what it finds does not matter here, its size does."""
    import time

    import oodray

    root = data / "RoadAnomaly_jpg"
    if not root.is_dir():
        pytest.skip(f"no RoadAnomaly at {root}")
    oodray.run(
        dataset="road-anomaly",
        root=root,
        model="internimage-n-demo",
        executor="local",
        out=tmp_path / "out",
        progress=False,
    )
    path = tmp_path / "report.html"
    from oodray.results.folder import ResultsFolder

    write_report(ResultsFolder(tmp_path / "out"), path, resamples=0)
    assert path.stat().st_size < 25_000_000
    since = time.monotonic()
    page = Session(browser, path)
    assert len(page.names()) == 48
    assert time.monotonic() - since < 2
