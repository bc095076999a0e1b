"""The page of the demo in a browser: images are dropped and answered, on a wide and a narrow screen, offline."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import psutil
import pytest

from tests.demo.test_demo import files, run  # noqa: F401

pytestmark = pytest.mark.slow
pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
ROOT, CHROMIUM = Path(__file__).resolve().parents[2], Path("/usr/bin/chromium")
OPTIONS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
OPTIONS += " --disable-component-update --disable-sync"


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as made:
        found = made.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS.split())
        yield found
        found.close()


@pytest.fixture(scope="module")
def demo(run):  # noqa: F811
    command = [sys.executable, "-m", "clipadapt", "demo", f"run={run}", f"run={run}", "port=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        found = re.search(r"The demo is at (http://127\.0\.0\.1:\d+);", process.stdout.readline())
        assert found, process.stderr.read()
        yield process, found[1]
        process.kill()


@pytest.mark.parametrize("width", [1280, 390])
def test_images_are_answered(browser, demo, files, width, tmp_path):  # noqa: F811
    process, address = demo
    page, asked, faults = browser.new_page(viewport={"width": width, "height": 900}), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("input[type=file]", state="attached")
    page.get_by_label("Where the models look").check()
    page.set_input_files("input[type=file]", files)
    page.wait_for_selector(".ca-error")
    assert page.locator(".ca-run").count() == 2 and page.locator(".ca-bar").count() == 10
    assert page.locator(".ca-looks").count() == 2
    assert "can't be read" in page.inner_text(".ca-error")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Nearest images learned from").check()
    page.wait_for_selector(".ca-near figure")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    hosts = {urlparse(url).hostname for url in asked if url.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"} and not faults
    others = [one for one in psutil.Process(process.pid).net_connections() if one.raddr]
    assert all(one.raddr.ip == "127.0.0.1" for one in others)
    page.close()


def test_a_signal_ends_it(demo):
    process, _ = demo
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "Stopped.\n") and "Traceback" not in complained
