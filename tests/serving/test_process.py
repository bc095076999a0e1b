"""A server as a process of its own: many clients at once, signals that end it, and a start after a kill."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import clipadapt
from tests.serving.test_serving import png, run  # noqa: F401

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
for name in ("fastapi", "python_multipart", "uvicorn"):
    pytest.importorskip(name)


class Server:
    """A server's process, and its address."""

    def __init__(self, directory, port=0, *words):
        command = [sys.executable, "-m", "clipadapt", "serve", f"run={directory}", f"port={port}", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)$", line.strip())
        assert found, self.process.stderr.read()
        self.port = int(found[1])

    def post(self, *images, options=""):
        boundary = b"----clipadapt"
        head = b'--%s\r\nContent-Disposition: form-data; name="i"; filename="%d.png"\r\n\r\n'
        body = b"".join(head % (boundary, k) + image + b"\r\n" for k, image in enumerate(images))
        sent = {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}
        address = f"http://127.0.0.1:{self.port}/predict{options}"
        request = urllib.request.Request(address, body + b"--" + boundary + b"--\r\n", sent)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        said, complained = self.process.communicate(timeout=60)
        return self.process.returncode, said, complained


@pytest.fixture
def server(run):  # noqa: F811
    found = Server(run)
    yield found
    found.process.kill()
    found.process.communicate()


def test_many_clients_get_the_answers_to_their_own_images(server, run):  # noqa: F811
    images = [png((k * 6, 255 - k * 6, 40)) for k in range(40)]
    predictor = clipadapt.load(run, device="cpu")
    expected = predictor.predict_proba(images)
    assert server.post(*images[:8])[1]["predictions"][3]["probabilities"] == dict(
        zip(predictor.class_names, predictor.predict_proba(images[:8])[3].tolist(), strict=True)
    )
    with ThreadPoolExecutor(8) as clients:
        found = [*clients.map(server.post, images)]
    rows = [[one["predictions"][0]["probabilities"][name] for name in predictor.class_names] for _, one in found]
    assert (torch.tensor(rows) - expected).abs().max() < 1e-5  # batches of other sizes round differently
    assert server.end()[0] == 0


def test_a_busy_server_refuses_and_goes_on(run):  # noqa: F811
    server = Server(run, 0, "max_queue=4", "max_images=4", "max_batch=1")
    images = [png("red", (300, 300))] * 4
    with ThreadPoolExecutor(8) as clients:
        statuses = {status for status, _ in clients.map(lambda _: server.post(*images), range(32))}
    assert statuses == {200, 503}
    assert server.post(images[0])[0] == 200 and server.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_was_taken_be_answered(server, number):
    found = []
    images = [png((k, 0, 0), (400, 400)) for k in range(60)]
    client = threading.Thread(target=lambda: found.append(server.post(*images)))
    client.start()
    time.sleep(0.3)  # the request is being read or answered
    code, said, complained = server.end(number)
    client.join()
    assert (code, complained) == (0, "") and "Stopped; the requests that were taken are answered." in said
    assert found[0][0] == 200 and len(found[0][1]["predictions"]) == 60


def test_killed_and_started_again_on_the_same_port(server, run):  # noqa: F811
    assert server.post(png("red"))[0] == 200
    server.end(signal.SIGKILL)
    again = Server(run, server.port)
    assert again.post(png("red"))[0] == 200
    assert again.end()[0] == 0


def test_a_second_server_on_the_port_is_told(server, run):  # noqa: F811
    command = [sys.executable, "-m", "clipadapt", "serve", f"run={run}", f"port={server.port}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith(f"clipadapt: port {server.port} of 127.0.0.1 is in use")
    assert done.stderr.count("\n") == 1
