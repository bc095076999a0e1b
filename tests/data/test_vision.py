"""torchvision's data sets, from small copies in their true layout, and fetched from a server of the test's own."""

import bz2
import gzip
import hashlib
import json
import pickle
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import utils

from clipadapt.data.broken import check
from clipadapt.data.catalogue import CATALOGUE
from clipadapt.data.few_shot import make_task
from clipadapt.data.vision import torchvision
from clipadapt.errors import UserError


def photo(path, red=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)


def mat(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, values)


def idx(values):
    """An array of bytes or, with two dimensions, of 32-bit numbers as MNIST's and QMNIST's files have it."""
    kind, of = (12, ">i4") if values.dtype.itemsize > 1 else (8, "u1")
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.astype(of).tobytes()


def greys(count, side):
    return np.arange(count, dtype=np.uint8)[:, None, None].repeat(side, 1).repeat(side, 2)


def folder_of_classes(root, *classes, extension="jpg"):
    for label, name in enumerate(classes):
        for number in range(2):
            photo(root / name / f"{number}.{extension}", 100 * label)


def caltech101(root):
    for name in ("BACKGROUND_Google", "sea_horse", "ant"):
        for number in (1, 2):
            photo(
                root / "caltech101" / "101_ObjectCategories" / name / f"image_{number:04d}.jpg", 100 * (name != "ant")
            )


def caltech256(root):
    for label, name in enumerate(("001.ak47", "252.car-side-101")):
        for number in (1, 2):
            photo(
                root / "caltech256" / "256_ObjectCategories" / name / f"{label + 1:03d}_{number:04d}.jpg", 100 * label
            )


def cifar(root, name, key, classes):
    batches = [entry[0] for entry in (getattr(datasets, name).train_list + getattr(datasets, name).test_list)]
    for batch in batches:
        labels = [0, 1, 0, 1]
        data = np.stack([np.repeat([100 * label, 0, 0], 1024) for label in labels]).astype(np.uint8)
        labels_key = "labels" if name == "CIFAR10" else "fine_labels"
        write(root / getattr(datasets, name).base_folder / batch, pickle.dumps({"data": data, labels_key: labels}))
    meta = getattr(datasets, name).meta["filename"]
    write(root / getattr(datasets, name).base_folder / meta, pickle.dumps({key: classes}))


def country211(root):
    for split in ("train", "valid", "test"):
        folder_of_classes(root / "country211" / split, "AD", "ZW")


def dtd(root):
    folder_of_classes(root / "dtd" / "dtd" / "images", "banded", "woven")
    for split in ("train", "val", "test"):
        write(
            root / "dtd" / "dtd" / "labels" / f"{split}1.txt", "banded/0.jpg\nwoven/0.jpg\nbanded/1.jpg\nwoven/1.jpg\n"
        )


def eurosat(root):
    classes = (
        "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
    )
    folder_of_classes(root / "eurosat" / "2750", *classes.split())


def aircraft(root):
    data = root / "fgvc-aircraft-2013b" / "data"
    write(data / "variants.txt", "707-320\nA380\n")
    for split in ("train", "val", "test"):
        write(data / f"images_variant_{split}.txt", "0000001 707-320\n0000002 A380\n")
    photo(data / "images" / "0000001.jpg", 0)
    photo(data / "images" / "0000002.jpg", 100)


def flowers(root):
    for number in range(1, 7):
        photo(root / "flowers-102" / "jpg" / f"image_{number:05d}.jpg", 100 * (number % 2))
    mat(root / "flowers-102" / "imagelabels.mat", labels=[2, 1, 2, 1, 2, 1])
    mat(root / "flowers-102" / "setid.mat", trnid=[1, 2], valid=[3, 4], tstid=[5, 6])


def food(root):
    folder_of_classes(root / "food-101" / "images", "apple_pie", "waffles")
    for split in ("train", "test"):
        listed = {name: [f"{name}/0", f"{name}/1"] for name in ("apple_pie", "waffles")}
        write(root / "food-101" / "meta" / f"{split}.json", json.dumps(listed))


def signs(root):
    folder_of_classes(root / "gtsrb" / "GTSRB" / "Training", "00000", "00001", extension="ppm")
    photo(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00000.ppm", 100)
    write(root / "gtsrb" / "GT-final_test.csv", "Filename;ClassId\n00000.ppm;1\n")


def imagenette(root):
    for split in ("train", "val"):
        folder_of_classes(root / "imagenette2" / split, "n01440764", "n02102040", extension="jpeg")


def mnist(root, name="MNIST"):
    for split in ("train", "t10k"):
        write(root / name / "raw" / f"{split}-images-idx3-ubyte", idx(greys(10, 28)))
        write(root / name / "raw" / f"{split}-labels-idx1-ubyte", idx(np.arange(10, dtype=np.uint8)))


def qmnist(root):
    labels = np.zeros((10, 8), np.int32)
    labels[:, 0] = range(10)
    for split in ("train", "test"):
        write(root / "QMNIST" / "raw" / f"qmnist-{split}-images-idx3-ubyte", idx(greys(10, 28)))
        write(root / "QMNIST" / "raw" / f"qmnist-{split}-labels-idx2-int", idx(labels))


def pets(root):
    folder = root / "oxford-iiit-pet"
    for split in ("trainval", "test"):
        write(folder / "annotations" / f"{split}.txt", "great_pyrenees_1 2 2 1\nAbyssinian_1 1 1 1\n")
    photo(folder / "images" / "great_pyrenees_1.jpg", 100)
    photo(folder / "images" / "Abyssinian_1.jpg", 0)


def places(root):
    write(root / "categories_places365.txt", "/a/airfield 0\n/f/field/cultivated 1\n")
    for split, list_name in (("data_256_standard", "train_standard"), ("val_256", "val")):
        write(root / f"places365_{list_name}.txt", "/x/2.jpg 1\n/x/1.jpg 0\n")
        photo(root / split / "x" / "1.jpg", 0)
        photo(root / split / "x" / "2.jpg", 100)


def sst(root):
    for split in ("train", "valid", "test"):
        folder_of_classes(root / "rendered-sst2" / split, "negative", "positive", extension="png")


def semeion(root):
    rows = [[float(label > 5)] * 256 + [float(label == other) for other in range(10)] for label in range(10)]
    write(root / "semeion.data", "\n".join(" ".join(map(str, row)) for row in rows))


def stl(root):
    for split in ("train", "test"):
        pixels = np.zeros((2, 3, 96, 96), np.uint8)
        pixels[1, 0] = 100
        write(root / "stl10_binary" / f"{split}_X.bin", pixels.tobytes())
        write(root / "stl10_binary" / f"{split}_y.bin", bytes([1, 2]))
    write(root / "stl10_binary" / "unlabeled_X.bin", b"")
    write(root / "stl10_binary" / "class_names.txt", "airplane\nbird\n")


def cars(root):
    folder = root / "stanford_cars"
    kind = np.dtype([("fname", object), ("class", object)])
    rows = np.array([("2.jpg", 2), ("1.jpg", 1)], dtype=kind)
    mat(folder / "devkit" / "cars_train_annos.mat", annotations=rows)
    mat(folder / "cars_test_annos_withlabels.mat", annotations=rows)
    mat(folder / "devkit" / "cars_meta.mat", class_names=np.array(["Acura RL Sedan 2012", "Ram C-V 2011"], object))
    for split in ("cars_train", "cars_test"):
        photo(folder / split / "1.jpg", 0)
        photo(folder / split / "2.jpg", 100)


def sun(root):
    write(root / "SUN397" / "ClassName.txt", "/a/abbey\n/a/apartment_building/outdoor\n")
    for number in range(3):
        photo(root / "SUN397" / "a" / "abbey" / f"sun_{number}.jpg", 0)
        photo(root / "SUN397" / "a" / "apartment_building" / "outdoor" / f"sun_{number}.jpg", 100)


def svhn(root):
    pixels = np.zeros((32, 32, 3, 10), np.uint8)
    pixels[:, :, 0] = np.arange(10)
    for split in ("train", "test"):
        mat(root / f"{split}_32x32.mat", X=pixels, y=np.array([[10], *([number] for number in range(1, 10))]))


def usps(root):
    lines = [
        " ".join([str(label + 1), *(f"{place}:{label / 5 - 1}" for place in range(1, 257))]) for label in range(10)
    ]
    for name in ("usps.bz2", "usps.t.bz2"):
        write(root / name, bz2.compress(("\n".join(lines) + "\n").encode()))


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
COPIES = {
    "Caltech101": (caltech101, ["ant", "sea horse"]),
    "Caltech256": (caltech256, ["ak47", "car side"]),
    "CIFAR10": (partial(cifar, name="CIFAR10", key="label_names", classes=["cat", "dog"]), ["cat", "dog"]),
    "CIFAR100": (
        partial(cifar, name="CIFAR100", key="fine_label_names", classes=["aquarium_fish", "baby"]),
        ["aquarium fish", "baby"],
    ),
    "Country211": (country211, None),
    "DTD": (dtd, ["banded", "woven"]),
    "EuroSAT": (eurosat, ["Annual Crop Land", "Forest", *[None] * 6, "River", "Sea or Lake"]),
    "FashionMNIST": (partial(mnist, name="FashionMNIST"), ["T-shirt/top", *[None] * 8, "Ankle boot"]),
    "FGVCAircraft": (aircraft, ["707-320", "A380"]),
    "Flowers102": (flowers, ["pink primrose", "hard-leaved pocket orchid", *[None] * 100]),
    "Food101": (food, ["apple pie", "waffles"]),
    "GTSRB": (signs, None),
    "Imagenette": (imagenette, ["tench", "English springer"]),
    "KMNIST": (partial(mnist, name="KMNIST"), ["o", "ki", *[None] * 8]),
    "MNIST": (mnist, DIGITS),
    "OxfordIIITPet": (pets, ["Abyssinian", "Great Pyrenees"]),
    "Places365": (places, ["airfield", "cultivated field"]),
    "QMNIST": (qmnist, DIGITS),
    "RenderedSST2": (sst, ["negative", "positive"]),
    "SEMEION": (semeion, DIGITS),
    "STL10": (stl, ["airplane", "bird"]),
    "StanfordCars": (cars, ["2012 Acura RL Sedan", "2011 Ram C-V"]),
    "SUN397": (sun, ["abbey", "outdoor apartment building"]),
    "SVHN": (svhn, DIGITS),
    "USPS": (usps, DIGITS),
}


@pytest.fixture
def unchecked(monkeypatch):
    """Copies smaller than the checksums are of."""
    monkeypatch.setattr(utils, "check_md5", lambda *given, **options: True)


def read(root, name, **options):
    return torchvision(name, download=False, cache_dir=str(root), **options)


def test_all_data_sets_are_tested_and_there():
    assert {*COPIES} == {*CATALOGUE} <= {*datasets.__all__}


@pytest.mark.parametrize("name", sorted(COPIES))
@pytest.mark.parametrize("below", ["", "torchvision-"])
def test_each_data_set_from_its_own_layout(tmp_path, unchecked, name, below):
    lay, names = COPIES[name]
    lay(tmp_path / f"{below}{name}" if below else tmp_path)
    source = read(tmp_path, name, class_names=None if names else ["one", "two"])
    assert len(source.class_names) == len(names or "12")
    assert all(said in (None, own) for said, own in zip(names or ["one", "two"], source.class_names, strict=True))
    known = CATALOGUE[name]
    assert source.name == name and source.templates == [known.template]
    assert (source.validation is not None) == (len(known.splits) == 3 and known.splits[1] is not None)
    splits = [source.train, *filter(None, [source.validation]), *source.tests.values()]
    for split in splits:
        assert len(split) > 0
        redness = [image.convert("RGB").getpixel((4, 4))[0] for image in split.images]
        assert np.all(np.diff([red for _, red in sorted(zip(split.labels, redness, strict=True))]) >= -3)
        assert max(redness) > min(redness) or len({*split.labels}) == 1
        assert {*split.labels} <= {*range(len(source.class_names))}
        assert type(split.labels[0]) is int


def test_files_are_listed_in_the_order_of_their_paths(tmp_path, unchecked):
    sun(tmp_path)
    paths = read(tmp_path, "SUN397").train.images.items
    assert paths == sorted(paths) and len(paths) == 6


def test_splits_without_a_test_set_leave_the_rest(tmp_path, unchecked):
    sun(tmp_path)
    task = make_task(read(tmp_path, "SUN397", templates=["{}!"]), shots=1, seed=1)
    check(task)
    assert len(task.tests["test"]) == 2 and task.templates == ["{}!"]


def test_files_that_are_missing_are_named_when_the_task_is_checked(tmp_path, unchecked):
    pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "images" / "Abyssinian_1.jpg").unlink()
    with (
        pytest.warns(UserWarning, match="fewer than 2"),
        pytest.raises(UserError, match=r"no image.*Abyssinian_1\.jpg"),
    ):
        check(make_task(read(tmp_path, "OxfordIIITPet"), shots=2, seed=1))


def test_images_travel_between_processes_one_by_one(tmp_path, unchecked):
    COPIES["CIFAR10"][0](tmp_path)
    images = read(tmp_path, "CIFAR10").train.images
    few = pickle.dumps(images.select([1]))
    assert len(few) < 5000 < len(pickle.dumps(images))
    again = pickle.loads(few)
    assert again[0].getpixel((0, 0)) == (100, 0, 0) and again[0].size == (32, 32)
    assert again.content(again.items[0]) == images.content(images.items[3]) != images.content(images.items[0])


def test_names_that_are_not_there_or_not_right(tmp_path, unchecked):
    with pytest.raises(UserError, match=r"no image-classification data set 'CIFAR-10' .*did you mean 'CIFAR100?'"):
        read(tmp_path, "CIFAR-10")
    with pytest.raises(UserError, match="no image-classification data set 'CocoDetection'"):
        read(tmp_path, "CocoDetection")
    with pytest.raises(
        UserError, match=r"the classes of GTSRB have no names but codes: give them as data\.class_names"
    ):
        read(tmp_path, "GTSRB")
    signs(tmp_path)
    mnist(tmp_path)
    for name, count in (("GTSRB", 2), ("MNIST", 10)):
        with pytest.raises(UserError, match=rf"data\.class_names has 3 names, and '{name}' {count} classes: give"):
            read(tmp_path, name, class_names=["a", "b", "c"])


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"DTD is neither in .*DTD nor in .*: data\.download=true fetches it"):
        read(tmp_path, "DTD")
    assert [*tmp_path.iterdir()] == []


def test_a_damaged_copy_is_neither_used_nor_removed(tmp_path, unchecked):
    mnist(tmp_path / "torchvision-MNIST")
    images = tmp_path / "torchvision-MNIST" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(UserError, match=r"MNIST in .* is damaged \(.*\): remove that folder, and it is fetched again"):
        torchvision("MNIST", cache_dir=str(tmp_path))
    assert images.stat().st_size == 100


def test_a_copy_of_torchvisions_that_is_damaged_is_not_used(tmp_path, unchecked):
    svhn(tmp_path)
    (tmp_path / "train_32x32.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"SVHN is neither in .* nor in .*, or not whole"):
        read(tmp_path, "SVHN")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of MNIST's files as they are published, packed; the folder that it serves."""
    mnist(tmp_path / "made")
    folder = tmp_path / "served"
    resources = []
    for path in sorted((tmp_path / "made" / "MNIST" / "raw").iterdir()):
        content = gzip.compress(path.read_bytes())
        write(folder / f"{path.name}.gz", content)
        resources.append((f"{path.name}.gz", hashlib.md5(content).hexdigest()))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *given):
            asked.append(self.path)

    asked: list[str] = []
    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{serving.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield folder, asked
    serving.shutdown()
    serving.server_close()


def kept(folder: Path):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_data_set_is_fetched_once_and_that_is_said(tmp_path, server, capsys):
    asked = server[1]
    source = torchvision("MNIST", cache_dir=str(tmp_path / "cache"))
    assert (len(source.train), len(source.tests["test"])) == (10, 10)
    said = capsys.readouterr().err
    assert f"fetching MNIST to {tmp_path}/cache/torchvision-MNIST, once" in said and "100%" in said
    assert kept(tmp_path / "cache") == ["torchvision-MNIST"]
    asked.clear()
    assert torchvision("MNIST", cache_dir=str(tmp_path / "cache")).train.labels == source.train.labels
    assert asked == [] and "fetching" not in capsys.readouterr().err


def test_nothing_is_left_of_a_data_set_that_cannot_be_fetched_whole(tmp_path, server):
    (server[0] / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        UserError, match=r"MNIST could not be fetched \(.*404.*\); a copy that you have can lie in .*MNIST"
    ):
        torchvision("MNIST", cache_dir=str(tmp_path / "cache"))
    assert kept(tmp_path / "cache") == []


def test_another_content_than_the_published_is_refused(tmp_path, server):
    write(server[0] / "t10k-images-idx3-ubyte.gz", gzip.compress(b"something else"))
    with pytest.raises(UserError, match=r"MNIST could not be fetched \(.*not found or corrupted"):
        torchvision("MNIST", cache_dir=str(tmp_path / "cache"))
    assert kept(tmp_path / "cache") == []


def test_without_network(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(
        UserError, match=r"^MNIST could not be fetched \(.*refused.*\); a copy that you have can lie in "
    ):
        torchvision("MNIST", cache_dir=str(tmp_path))


def test_what_is_not_to_be_had_any_more(tmp_path):
    with pytest.raises(UserError, match=r"StanfordCars could not be fetched .*broken"):
        torchvision("StanfordCars", cache_dir=str(tmp_path))
