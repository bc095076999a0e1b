"""`clipadapt serve`: batches, limits, and what requests are answered, without a network."""

import asyncio
import base64
import io
import socket
import time

import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt import serving
from clipadapt.cli import main
from clipadapt.errors import UserError
from clipadapt.serving.batching import Batcher
from clipadapt.serving.limits import RefusedRequest
from clipadapt.serving.metrics import Histogram, Metrics
from clipadapt.serving.server import check_predictor, is_loopback
from tests.shown import shown_run

LIMITS = serving.Limits(max_images=3, max_request_mb=1, max_pixels=10_000, max_queue=4)


@pytest.fixture(scope="module")
def run():
    return shown_run()


def png(colour, size=(40, 30)):
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def client(run):
    for name in ("fastapi", "python_multipart", "httpx"):
        pytest.importorskip(name)
    from starlette.testclient import TestClient

    from clipadapt.serving.application import make_application

    with TestClient(make_application(clipadapt.load(run, device="cpu"), LIMITS)) as client:
        yield client


def test_answers_are_the_predictors(client, run):
    images, predictor = [png("red"), png("blue")], clipadapt.load(run, device="cpu")
    expected = predictor.predict_proba(images)
    sent = client.post("/predict", files=[("image", ("red.png", images[0])), ("other", ("blue.png", images[1]))])
    as_json = client.post("/predict", json={"images": [base64.b64encode(one).decode() for one in images]})
    for response, names in ((sent, ["red.png", "blue.png"]), (as_json, ["image 1", "image 2"])):
        found = response.json()["predictions"]
        assert response.status_code == 200 and [one["image"] for one in found] == names
        for one, row in zip(found, expected.tolist(), strict=True):
            assert [one["probabilities"][name] for name in predictor.class_names] == row
    assert [one["class"] for one in found] == predictor.predict(images)


def test_options_are_those_of_predict(client, run):
    predictor, image = clipadapt.load(run, device="cpu"), png("grey")
    address = "/predict?top=2&reject=0.2&coverage=0.8&calibrate=true"
    (found,) = client.post(address, files={"image": ("grey.png", image)}).json()["predictions"]
    assert [found["class"]] == predictor.predict(image, reject=0.2)
    assert [found["set"]] == predictor.predict_set(image, coverage=0.8)
    best = predictor.predict_proba(image, calibrate=True)[0].sort(descending=True)
    assert [*found["probabilities"].values()] == best.values[:2].tolist()
    assert [*found["probabilities"]] == [predictor.class_names[k] for k in best.indices[:2]]
    for threshold, expected in (("0.999999", "other"), ("0.01", predictor.predict(image)[0])):
        sent = client.post(f"/predict?threshold={threshold}&unknown=other", files={"image": ("grey.png", image)})
        assert sent.json()["predictions"][0]["class"] == expected


FILE = {"files": {"image": ("red.png", png("red"))}}


@pytest.mark.parametrize(
    "address, body, status, message",
    [
        ("", {"files": {"image": ("bad.png", png("red")[:50])}}, 400, "the image 'bad.png' can't be read: "),
        ("", {"files": {"image": ("large.png", png("red", (200, 60)))}}, 400, "it has 12,000 pixels, and 10,000 are"),
        ("", {"files": [("image", ("red.png", png("red")))] * 4}, 413, "the request has more than 3 images"),
        ("", {"json": {"images": ["", "", "", ""]}}, 413, "the request has more than 3 images"),
        ("", {"files": {"image": ("a.png", bytes(1_100_000))}}, 413, "the request is larger than 1 MB"),
        ("", {"json": {"images": []}}, 400, "there are no images in the request"),
        ("", {"json": {"images": ["?"]}}, 400, "image 1 is no base64 of a file"),
        ("", {"json": {"images": [""]}}, 400, "the image 'image 1' can't be read: "),
        ("", {"json": ["a"]}, 400, "the JSON must be an object with the key images alone"),
        ("", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "the request is no JSON"),
        ("", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "the form can't be read"),
        (
            "",
            {"content": b"[" * 200_000, "headers": {"content-type": "application/json"}},
            400,
            "the request's JSON has too many brackets in one another",
        ),
        ("", {"data": {"image": "3"}}, 415, "isn't read: send files"),
        ("", {**FILE, "data": {"top": "3"}}, 400, "a field of the form is no file"),
        ("?tops=3", FILE, 400, "there is no option tops: did you mean 'top'?"),
        ("?top=0", FILE, 400, "top=0 does not fit: it must be a whole number (at least 1)"),
        ("?top=1&top=2", FILE, 400, "given twice"),
        ("?reject=0.01", FILE, 400, "reject=0.01 needs at least 99 validation images, and this run has 24"),
        ("?reject=most", FILE, 400, "reject=most does not fit"),
        ("?coverage=1", FILE, 400, "coverage=1 does not fit"),
        ("?threshold=2", FILE, 400, "threshold=2 does not fit: it must be a number above 0 and below 1"),
        ("?threshold=0.5&reject=0.2", FILE, 400, "reject and threshold both say"),
        ("?unknown=other", FILE, 400, "unknown names the answers that reject or threshold take away"),
        ("?calibrate=often", FILE, 400, "calibrate=often does not fit: it must be true or false"),
    ],
)
def test_requests_that_are_refused(client, address, body, status, message):
    response = client.post(f"/predict{address}", **body)
    assert (response.status_code, [*response.json()]) == (status, ["error"])
    assert message in response.json()["error"]


def test_a_request_that_is_too_large_is_kept_no_further_than_its_limit(client):
    taken = []

    def parts():
        for _ in range(100):
            taken.append(1)
            yield bytes(100_000)

    response = client.post("/predict", content=parts(), headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_what_else_it_tells(client):
    assert client.get("/health").json() == {"status": "ok", "queued": 0}
    assert "12 classes with tiny" in client.get("/").text
    lines = client.get("/metrics").text.splitlines()
    assert any(line.startswith('clipadapt_requests_total{status="400"} ') for line in lines)
    assert float(next(line for line in lines if line.startswith("clipadapt_images_total")).split()[1]) >= 5
    assert "http" not in client.get("/openapi.json").text and client.get("/docs").status_code == 404
    assert client.get("/predict").json() == {"error": "GET /predict: Method Not Allowed"}


def batches(limits, *requests, seconds=0.0):
    """The sizes of the batches that requests of so many images make, each of which is answered by its own images."""
    sizes = []

    def answer(images):
        time.sleep(seconds)
        sizes.append(len(images))
        return torch.stack([image * 2 for image in images])

    async def run():
        batcher = Batcher(answer, limits)
        task = asyncio.create_task(batcher.run())
        made = [torch.arange(count) + 100 * place for place, count in enumerate(requests)]
        found = await asyncio.gather(*(batcher.submit([*one]) for one in made))
        task.cancel()
        batcher.close()
        assert all(torch.equal(one, 2 * images) for one, images in zip(found, made, strict=True))

    asyncio.run(run())
    return sizes


def test_images_of_requests_go_through_the_model_together_and_in_order():
    assert batches(serving.Limits(max_batch=4, max_wait_ms=50), 1, 1, 1) == [3]
    assert batches(serving.Limits(max_batch=4, max_wait_ms=50), 3, 3) == [4, 2]
    assert batches(serving.Limits(max_batch=1, max_wait_ms=0), 2, 1) == [1, 1, 1]


def test_a_fault_of_a_batch_is_told_to_its_requests_and_the_next_one_is_answered():
    async def run():
        batcher = Batcher(lambda images: 1 / 0 if len(images) > 1 else torch.stack([*images]), serving.Limits())
        task = asyncio.create_task(batcher.run())
        with pytest.raises(ZeroDivisionError):
            await batcher.submit([torch.ones(1)] * 2)
        assert (await batcher.submit([torch.ones(1)])).tolist() == [[1.0]]
        task.cancel()
        batcher.close()

    asyncio.run(run())


def test_a_full_queue_is_refused():
    async def run():
        batcher = Batcher(lambda images: torch.stack([*images]), LIMITS)
        with batcher.reserve(3):
            with pytest.raises(RefusedRequest, match="the server is busy: 3 images wait, and 4 may") as refused:
                batcher.reserve(2).__enter__()
            assert refused.value.status == 503 and batcher.queued == 3
        assert batcher.queued == 0

    asyncio.run(run())


def test_metrics_are_in_the_format_of_prometheus():
    histogram = Histogram("size", "Images.", (1, 2))
    for value in (1, 2, 5):
        histogram.add(value)
    lines = [*histogram.lines()]
    assert lines[:2] == ["# HELP size Images.", "# TYPE size histogram"]
    assert lines[2:] == [
        'size_bucket{le="1"} 1',
        'size_bucket{le="2"} 2',
        'size_bucket{le="+Inf"} 3',
        "size_sum 8.000000",
        "size_count 3",
    ]
    metrics = Metrics()
    metrics.answered(200, 2, 0.1)
    text = metrics.text(queued=3)
    assert 'clipadapt_requests_total{status="200"} 1' in text and "clipadapt_queued_images 3\n" in text


def test_a_port_in_use_and_addresses_of_others():
    with serving.open_port("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use: end what uses it, or take another"):
            serving.open_port("127.0.0.1", port)
    with pytest.raises(UserError, match=r"host=192\.0\.2\.1 port=0 can't be used: Cannot assign requested address"):
        serving.open_port("192.0.2.1", 0)
    with pytest.raises(UserError, match=r"host=no\.such\.invalid is no address of this machine"):
        serving.open_port("no.such.invalid", 0)
    assert [is_loopback(one) for one in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "photos")] == [1, 1, 1, 0, 0]


def test_a_method_that_adapts_along_a_stream_is_refused(run):
    predictor = clipadapt.load(run, device="cpu")
    check_predictor(predictor)
    predictor.test_time = type("Stream", (), {"adapts_to": "stream"})()
    with pytest.raises(UserError, match="one client's images would change another's answers"):
        check_predictor(predictor)


def test_a_request_larger_than_the_queue_could_never_be_answered():
    with pytest.raises(UserError, match="max_images=9 is beyond max_queue=8"):
        serving.Limits(max_images=9, max_queue=8)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "say which run: clipadapt serve run="),
        (["run={}", "port=99999"], "port=99999 does not fit: it must be a whole number from 0 to 65,535"),
        (["run={}", "max_batch=0"], "max_batch=0 does not fit: it must be a whole number from 1 to"),
        (["run={}", "prot=1"], "there is no key prot: did you mean 'port'?"),
        (["run={}", "max_images=999"], "max_images=999 is beyond max_queue=256"),
    ],
)
def test_wrong_settings(run, capsys, words, message):
    assert main(["serve", *(word.format(run) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_and_a_port_in_use_are_told(run, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert main(["serve", f"run={run}"]) == 2
    assert "pip install 'clipadapt[serve]'" in capsys.readouterr().err
    monkeypatch.setattr("clipadapt.serving.server.check_libraries", lambda: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", f"run={run}", f"port={taken.getsockname()[1]}"]) == 2
    assert "is in use" in capsys.readouterr().err
