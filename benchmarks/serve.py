"""`clipadapt serve` under load against the bare predictor: requests a second, times of answers, and memory.

    python -m benchmarks.serve --requests 10000 --clients 1 8 32

The server is a process of its own on this machine, with the backbone `tiny` and the digits unless `--run` names another
run; clients are threads of one more process that keep their connections, and each request has one PNG. The bare
predictor gets the bytes of the same images in this process, one or 64 at a time, its classes encoded once as well.
"""

import argparse
import http.client
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
from PIL import Image

import clipadapt
from benchmarks.report import Columns, Row, report, seconds_text
from clipadapt.runs.predictor import Predictor

TYPE, BOUNDARY = "multipart/form-data; boundary=one", b"--one"
HEAD = b'\r\nContent-Disposition: form-data; name="image"; filename="digit.png"\r\n\r\n'
WARM = 50
"""Requests before those that count."""
LARGEST = 64
"""Images of a batch of the bare predictor."""

COLUMNS: Columns = {
    "side": lambda row: row["side"],
    "images/s": lambda row: f"{row['per_second']:,.0f}",
    "half within": lambda row: seconds_text(row["p50"]) if "p50" in row else "-",
    "99 % within": lambda row: seconds_text(row["p99"]) if "p99" in row else "-",
    "CPU per image": lambda row: seconds_text(row["cpu_seconds"]),
    "memory before, after": lambda row: f"{row['memory_before']:,.0f}, {row['memory_after']:,.0f} MB",
}


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def make_run(folder: Path) -> Path:
    """Return the directory of a short CoOp run on the digits."""
    task = clipadapt.load_task("digits", shots=1)
    settings = {"cpu": True, "workers": 0, "cache": None, "max_steps": 3}
    return Path(clipadapt.finetune(clipadapt.load_backbone(), task, "coop", [], **settings).save(folder / "run"))


@contextmanager
def server(run: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Start a server; yield its port and its process."""
    command = [sys.executable, "-m", "clipadapt", "serve", f"run={run}", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = re.search(r":(\d+)$", (process.stdout.readline() if process.stdout else "").strip())
            if found is None:
                raise SystemExit("the server did not start")
            yield int(found[1]), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.communicate()


def send(port: int, images: Sequence[bytes], requests: int) -> list[float]:
    """Send requests one after another over one connection; return the seconds of each."""
    connection, seconds = http.client.HTTPConnection("127.0.0.1", port), []
    for number in range(requests):
        body = BOUNDARY + HEAD + images[number % len(images)] + b"\r\n" + BOUNDARY + b"--\r\n"
        began = time.perf_counter()
        connection.request("POST", "/predict", body, {"Content-Type": TYPE})
        with connection.getresponse() as response:
            response.read()
        seconds.append(time.perf_counter() - began)
        if response.status != http.HTTPStatus.OK:
            raise SystemExit(f"a request was answered with {response.status}")
    connection.close()
    return seconds


def memory_and_cpu(process: psutil.Process) -> tuple[float, float]:
    """Return a process's resident memory in MB, and the seconds of its cores."""
    times = process.cpu_times()
    return process.memory_info().rss / 1e6, times.user + times.system


def load(port: int, process: psutil.Process, images: Sequence[bytes], requests: int, clients: int) -> Row:
    """Return what a server does with requests of several clients."""
    send(port, images, WARM)
    (memory, cpu), began = memory_and_cpu(process), time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        each = [*threads.map(lambda _: send(port, images, requests // clients), range(clients))]
    seconds, found = time.perf_counter() - began, sorted(one for some in each for one in some)
    after, cpu_after = memory_and_cpu(process)
    return {
        "side": f"served, {clients} client{'s' * (clients > 1)}",
        "requests": len(found),
        "per_second": len(found) / seconds,
        "p50": found[len(found) // 2],
        "p99": found[int(0.99 * len(found))],
        "cpu_seconds": (cpu_after - cpu) / len(found),
        "memory_before": memory,
        "memory_after": after,
    }


def bare(predictor: Predictor, images: Sequence[bytes], count: int, at_once: int) -> Row:
    """Return what the predictor does in this process with so many images at once."""
    text = predictor.class_embeddings()
    batch = [images[number % len(images)] for number in range(at_once)]
    predictor.answers_to([predictor.read(image) for image in batch], text)
    (memory, cpu), began = memory_and_cpu(psutil.Process()), time.perf_counter()
    rounds = max(1, count // at_once)
    for _ in range(rounds):
        predictor.answers_to([predictor.read(image) for image in batch], text)
    seconds, (after, cpu_after) = time.perf_counter() - began, memory_and_cpu(psutil.Process())
    return {
        "side": f"bare, {at_once} at once",
        "requests": rounds * at_once,
        "per_second": rounds * at_once / seconds,
        "cpu_seconds": (cpu_after - cpu) / (rounds * at_once),
        "memory_before": memory,
        "memory_after": after,
    }


def measure(chosen: argparse.Namespace, run: Path) -> Iterator[Row]:
    """Measure the bare predictor, then the server with each number of clients."""
    task = clipadapt.load_task("digits", shots=1)
    images = [png(task.tests["test"][index][0]) for index in range(100)]
    predictor = clipadapt.load(run)
    for at_once in (1, LARGEST):
        yield bare(predictor, images, chosen.requests, at_once)
    del predictor
    with server(run) as (port, process):
        for clients in chosen.clients:
            yield load(port, process, images, chosen.requests, clients)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="DIR", help="a finished run; none fits one on the digits")
    parser.add_argument("--requests", type=int, default=10_000, help="of each number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        report("A server under load", chosen, COLUMNS, measure(chosen, chosen.run or make_run(Path(folder))))


if __name__ == "__main__":
    main()
