"""Data sets in CoOp's layout, each in miniature, read back through its YAML; what is said of what is wrong with one."""

import json
import warnings
from pathlib import Path
from typing import get_args

import pytest
import yaml
from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

import clipadapt
from clipadapt import config
from clipadapt.data.corruptions import CORRUPTIONS
from clipadapt.data.few_shot import sample
from clipadapt.data.imagenet_c import ARCHIVES
from clipadapt.data.imagenet_classes import SHIPPED
from clipadapt.data.labels import ambiguous_names
from clipadapt.data.tasks import unique_names
from clipadapt.errors import UserError
from tests import prepared
from tests.prepared import PETS, VARIANTS, WORDNET

RECORD = json.loads((Path(__file__).parents[1] / "golden" / "records" / "fewshot_indices.json").read_text())
PHOTO = "a photo of a {}."
SPLIT_FILES = {
    "caltech101": ("caltech-101/101_ObjectCategories", "caltech-101/split_zhou_Caltech101.json", PHOTO),
    "oxford_pets": ("oxford_pets/images", "oxford_pets/split_zhou_OxfordPets.json", "a photo of a {}, a type of pet."),
    "stanford_cars": ("stanford_cars", "stanford_cars/split_zhou_StanfordCars.json", PHOTO),
    "flowers102": (
        "oxford_flowers/jpg",
        "oxford_flowers/split_zhou_OxfordFlowers.json",
        "a photo of a {}, a type of flower.",
    ),
    "food101": ("food-101/images", "food-101/split_zhou_Food101.json", "a photo of {}, a type of food."),
    "sun397": ("sun397/SUN397", "sun397/split_zhou_SUN397.json", PHOTO),
    "dtd": ("dtd/images", "dtd/split_zhou_DescribableTextures.json", "{} texture."),
    "eurosat": ("eurosat/2750", "eurosat/split_zhou_EuroSAT.json", "a centered satellite photo of {}."),
    "ucf101": ("ucf101/UCF-101-midframes", "ucf101/split_zhou_UCF101.json", "a photo of a person doing {}."),
}
VARIANTS_OF_IMAGENET = {
    "imagenet_v2": ("imagenetv2/imagenetv2-matched-frequency-format-val", ["10", "9", "657", "0"]),
    "imagenet_sketch": ("imagenet-sketch/images", [*WORDNET]),
    "imagenet_a": ("imagenet-adversarial/imagenet-a", ["n01443537", "n04008634"]),
    "imagenet_r": ("imagenet-rendition/imagenet-r", ["n01443537", "n04008634"]),
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The folder of all data sets, named by the variable."""
    monkeypatch.setenv("CLIPADAPT_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def pets(home):
    """Oxford Pets, in miniature."""
    prepared.split_file(home, *SPLIT_FILES["oxford_pets"][:2])
    return home / "oxford_pets"


def source_of(name, **options):
    """What the YAML of a data set makes of it."""
    overrides = [f"data={name}", *(config.setting(f"data.{key}", value) for key, value in options.items())]
    node = config.compose(overrides)["data"]
    return config.build_source({"data": node, "allowed_targets": []})


def complaint(name, **options):
    with pytest.raises(UserError) as caught:
        source_of(name, **options)
    return str(caught.value)


def files(split):
    return [*split.images.items]


def test_all_names_are_tested():
    targets = ("clipadapt.data.prepared.", "clipadapt.data.imagenet.", "clipadapt.data.imagenet_c.")
    nodes = {name: yaml.safe_load(path.read_text()) for name, path in config.options("data").items()}
    found = {name for name, node in nodes.items() if node.get("_target_", "").startswith(targets)}
    assert found == {*SPLIT_FILES, *VARIANTS_OF_IMAGENET, "fgvc_aircraft", "imagenet", "imagenet_c"}
    assert len(found) == 16
    for name in found:
        assert nodes[name]["name"] == name
        if name not in {*VARIANTS_OF_IMAGENET, "imagenet_c"}:  # with nothing to learn from, views don't matter
            assert nodes[name]["defaults"][0] == {"override /task@_global_.task": "fresh_views"}, "as in the papers"
        assert nodes[name]["home"] == "${oc.env:CLIPADAPT_DATA,data}"


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_split_file(home, name):
    images, split, template = SPLIT_FILES[name]
    lists = prepared.split_file(home, images, split)
    source = source_of(name)
    assert (source.name, source.class_names, source.templates) == (name, PETS, [template])
    splits = {"train": source.train, "val": source.validation, "test": source.tests["test"]}
    for part, count in (("train", 20), ("val", 12), ("test", 8)):
        assert splits[part].labels == [label for _, label, _ in lists[part]] and len(splits[part]) == count
        assert files(splits[part]) == [f"{home / images}/{path}" for path, _, _ in lists[part]]
    task = clipadapt.load_task(name, shots=4, seed=2)
    assert task.views is None and len(task.support) == 16 and len(task.validation) == 12
    assert (task.support_indices, task.validation_indices) == sample(
        source.train.labels, source.validation.labels, 4, 2
    )


def test_aircraft(home):
    lists = prepared.aircraft(home)
    source = source_of("fgvc_aircraft")
    assert (source.name, source.class_names) == ("fgvc_aircraft", VARIANTS)
    assert source.templates == ["a photo of a {}, a type of aircraft."]
    splits = {"train": source.train, "val": source.validation, "test": source.tests["test"]}
    for part, count in (("train", 20), ("val", 12), ("test", 8)):
        assert len(splits[part]) == count
        for path, label, line in zip(files(splits[part]), splits[part].labels, lists[part], strict=True):
            number, variant = line.split(" ", 1)
            assert (path, VARIANTS[label]) == (f"{home}/fgvc_aircraft/images/{number}.jpg", variant)
    assert len(clipadapt.load_task("fgvc_aircraft", shots=5).support) == 20


@pytest.mark.parametrize("classnames", [True, False])
def test_imagenet(home, classnames):
    prepared.imagenet(home, classnames)
    source = source_of("imagenet")
    assert source.class_names == ["tench", "goldfish", "missile", "missile"] and source.templates == [PHOTO]
    assert source.train.labels == [0] * 9 + [1] * 9 + [2] * 9 + [3] * 9
    assert source.validation is None and source.tests["test"].labels == [0, 0, 1, 1, 2, 2, 3, 3]
    train = home / "imagenet" / "images" / "train"
    assert files(source.train)[:2] == [f"{train}/n01440764/n01440764_{number}.JPEG" for number in (0, 1)]
    task = clipadapt.load_task("imagenet", shots=4)
    assert len(task.validation) == 16 and not {*task.support_indices} & {*task.validation_indices}


def test_imagenets_own_names_are_preferred(home):
    prepared.imagenet(home)
    prepared.write_classnames(home / "imagenet", WORDNET | {"n01443537": "gold fish, a pet"})
    assert source_of("imagenet").class_names[1] == "gold fish, a pet"


def test_only_visible_images_of_imagenet_are_read(home):
    prepared.imagenet(home)
    folder = home / "imagenet" / "images" / "train"
    for name in (".DS_Store", "n01440764/.hidden.JPEG", "n01440764/notes.txt", "readme.txt"):
        (folder / name).write_text("")
    (folder / ".cache").mkdir()
    assert len(source_of("imagenet").train) == 36


@pytest.mark.parametrize("classnames", [True, False])
@pytest.mark.parametrize("name", VARIANTS_OF_IMAGENET)
def test_a_variant_of_imagenet(home, name, classnames):
    images, folders = VARIANTS_OF_IMAGENET[name]
    prepared.variant(home, images, folders)
    shipped = yaml.safe_load(SHIPPED.read_text())
    if classnames:
        prepared.write_classnames((home / images).parent, shipped)
    source = source_of(name)
    ordered = sorted(folders, key=int) if name == "imagenet_v2" else sorted(folders)
    assert source.class_names == [shipped.get(folder) or [*shipped.values()][int(folder)] for folder in ordered]
    assert (len(source.train), source.validation, source.templates) == (0, None, [PHOTO])
    assert source.tests["test"].labels == [label for label in range(len(folders)) for _ in range(2)]
    assert files(source.tests["test"])[::2] == [f"{home / images}/{folder}/0.jpg" for folder in ordered]
    task = clipadapt.load_task(name)
    assert not task.has_training_images and task.support_indices == [] and len(task.tests["test"]) == 2 * len(folders)


@pytest.mark.parametrize("unpacked", ["imagenet-c", "imagenet-c/weather"])
def test_imagenet_c(home, unpacked):
    prepared.imagenet_c(home, unpacked, "frost", 3)
    prepared.imagenet_c(home, unpacked, "snow", 3)
    source = source_of("imagenet_c", corruption="frost", severity=3)
    assert source.class_names == ["tench", "goldfish", "missile", "missile"] and source.templates == [PHOTO]
    assert (len(source.train), source.validation) == (0, None)
    assert source.tests["test"].labels == [0, 0, 1, 1, 2, 2, 3, 3]
    first = f"{home}/{unpacked}/frost/3/n01440764/ILSVRC2012_val_00000000.JPEG"
    assert files(source.tests["test"])[0] == first and source.allow_duplicate_names
    prepared.write_classnames(home / "imagenet-c", WORDNET | {"n01443537": "gold fish, a pet"})
    assert source_of("imagenet_c", corruption="frost", severity=3).class_names[1] == "gold fish, a pet"
    own = ["a", "b", "c", "d"]
    assert source_of("imagenet_c", corruption="snow", severity=3, class_names=own).class_names == own
    assert not clipadapt.load_task("imagenet_c", corruption="frost", severity=3).has_training_images


def test_what_of_imagenet_c_is_missing(home):
    where = "of https://zenodo.org/records/2235448 into it"
    assert complaint("imagenet_c") == f"'{home}/imagenet-c' has no gaussian_noise/5: unpack noise.tar {where}"
    prepared.imagenet_c(home, "imagenet-c", "spatter", 1)
    said = complaint("imagenet_c", corruption="spatter", severity=2)
    assert said == f"'{home}/imagenet-c' has no spatter/2: unpack extra.tar {where}"
    prepared.picture(home / "imagenet-c" / "spatter" / "1" / "n00000000" / "0.JPEG")
    said = complaint("imagenet_c", corruption="spatter", severity=1)
    assert "spatter/1' has folders that aren't WordNet ids of ImageNet's 1,000 classes: n00000000" in said
    assert complaint("imagenet_c", home=f"{home}/nowhere").startswith("there is no folder of data sets")


def test_imagenet_c_has_nineteen_corruptions():
    kinds = [kind for archive in ARCHIVES.values() for kind in get_args(archive)]
    assert len(kinds) == len({*kinds}) == 19 and {*CORRUPTIONS} < {*kinds}


@pytest.mark.parametrize(
    ("setting", "said"),
    [("corruption=fgo", "it must be one of gaussian_noise, shot_noise"), ("severity=6", "at least 1, at most 5")],
)
def test_imagenet_cs_keys_are_checked(setting, said):
    with pytest.raises(UserError, match=rf"data\.{setting} does not fit: .*{said}"):
        config.compose(["data=imagenet_c", "method=zero_shot", f"data.{setting}"])


def test_a_split_file_gives_coops_few_shots(home):
    def listed(part, labels):
        return [(f"{part}_{place}.jpg", label, f"class {label}") for place, label in enumerate(labels)]

    lists = {"train": listed("train", RECORD["train_labels"]), "val": listed("val", RECORD["val_labels"])}
    lists["test"] = lists["val"]
    for path, _, _ in [*lists["train"], *lists["val"]]:
        prepared.picture(home / "dtd" / "images" / path)
    (home / "dtd" / "split_zhou_DescribableTextures.json").write_text(json.dumps(lists))
    for drawn in RECORD["samples"]:
        task = clipadapt.load_task("dtd", shots=drawn["shots"], seed=drawn["seed"])
        assert task.support_indices == drawn["train_indices"]
        assert task.validation_indices == drawn["val_indices"]


def test_base_to_new(pets):
    task = clipadapt.load_task("oxford_pets", shots=2, classes="base")
    assert task.class_names == PETS[:2] and {*task.support.labels} == {0, 1}
    assert {name: split.class_names for name, split in task.tests.items()} == {"base": PETS[:2], "new": PETS[2:]}


def test_a_split_file_without_a_validation_list(pets):
    file = pets / "split_zhou_OxfordPets.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"val": []}))
    assert source_of("oxford_pets").validation is None
    assert len(clipadapt.load_task("oxford_pets", shots=2).validation) == 8


def test_the_home_may_be_named_in_the_settings(pets, monkeypatch):
    monkeypatch.delenv("CLIPADAPT_DATA")
    assert len(source_of("oxford_pets", home=str(pets.parent)).train) == 20
    monkeypatch.chdir(pets.parent)
    pets.parent.joinpath("data").mkdir()
    pets.rename("data/oxford_pets")
    assert len(source_of("oxford_pets").train) == 20


def test_class_names_of_ones_own(home, pets):
    names = ["abyssinian cat", "bulldog", "beagle", "birman cat"]
    assert source_of("oxford_pets", class_names=names).class_names == names
    assert "data.class_names has 3 names, and 'oxford_pets' 4 classes" in complaint(
        "oxford_pets", class_names=names[:3]
    )
    prepared.imagenet(home)
    assert source_of("imagenet", class_names=names).class_names == names
    assert "has classes of the same name: cat" in complaint("imagenet", class_names=["cat", "cat", "dog", "owl"])


def test_names_that_classes_share_are_told_apart():
    names = ["tench", "goldfish", "missile", "missile"]
    assert unique_names(names) == ["tench", "goldfish", "missile (2)", "missile (3)"]


def test_shipped_names_are_clips():
    shipped = yaml.safe_load(SHIPPED.read_text())
    assert tuple(shipped.values()) == IMAGENET_CLASSNAMES
    assert [*shipped] == sorted(shipped) and shipped["n01440764"] == "tench" and shipped["n15075141"] == "toilet paper"


def test_shipped_wordnet_ids_are_imagenets():
    folder = Path(pytest.importorskip("timm").__file__).parent / "data" / "_info"
    assert [*yaml.safe_load(SHIPPED.read_text())] == (folder / "imagenet_synsets.txt").read_text().split()


def test_shipped_templates_are_openais():
    eighty = config.compose(["data=imagenet", "+templates=imagenet_80"])["data"]["templates"]
    assert eighty == [template("{}") for template in OPENAI_IMAGENET_TEMPLATES] and len(eighty) == 80
    seven = config.compose(["data=imagenet", "+templates=imagenet_7"])["data"]["templates"]
    assert len({*seven}) == 7 and {*seven} <= {*eighty}


def test_a_missing_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for home, told in (("nowhere", tmp_path / "nowhere"), ("", "")):
        monkeypatch.setenv("CLIPADAPT_DATA", home)
        said = complaint("oxford_pets")
        assert said == (
            f"there is no folder of data sets '{told}': name yours by the variable CLIPADAPT_DATA, or as data.home=…"
        )


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("oxford_pets", "oxford_pets"),
        ("oxford_pets", "oxford_pets/images"),
        ("oxford_pets", "oxford_pets/split_zhou_OxfordPets.json"),
        ("fgvc_aircraft", "fgvc_aircraft"),
        ("fgvc_aircraft", "fgvc_aircraft/images"),
        ("fgvc_aircraft", "fgvc_aircraft/variants.txt"),
        ("fgvc_aircraft", "fgvc_aircraft/images_variant_val.txt"),
        ("imagenet", "imagenet"),
        ("imagenet", "imagenet/images/train"),
        ("imagenet", "imagenet/images/val"),
        ("imagenet_a", "imagenet-adversarial"),
        ("imagenet_a", "imagenet-adversarial/imagenet-a"),
    ],
)
def test_what_is_missing_is_named(home, pets, name, missing):
    prepared.aircraft(home)
    prepared.imagenet(home)
    prepared.variant(home, *VARIANTS_OF_IMAGENET["imagenet_a"])
    (home / missing).rename(home / "elsewhere")
    said = complaint(name)
    assert said.startswith(f"'{home}' has no {missing}: https://") and "DATASETS.md says how it is prepared" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no split file, {'train': [[path, label, class name], …], 'val': …, 'test': …}: Invalid JSON"),
        ("[]", "is no split file"),
        ('{"train": [["a.jpg", 0, "cat"]], "val": []}', "['test']: Field required"),
        ('{"train": [], "val": [], "test": [["a.jpg", 0, "cat"]]}', "['train']: List should have at least 1 item"),
        ('{"train": [["a.jpg", "x", "cat"]], "val": [], "test": [["a.jpg", 0, "cat"]]}', "['train'][0][1]: Input"),
        ('{"train": [["a.jpg", -1, "cat"]], "val": [], "test": [["a.jpg", 0, "cat"]]}', "['train'][0][1]: Input"),
        ('{"train": [["a.jpg", 0]], "val": [], "test": [["a.jpg", 0, "cat"]]}', "['train'][0][2]: Field required"),
        (
            '{"train": [["a.jpg", 0, "cat"]], "val": [], "test": [["b.jpg", 0, "dog"]]}',
            "has two names for label 0: 'cat' and 'dog'",
        ),
        (
            '{"train": [["a.jpg", 0, "cat"]], "val": [], "test": [["b.jpg", 2, "dog"]]}',
            "has labels up to 2, but only 2 of them: count them from 0",
        ),
    ],
)
def test_a_split_file_of_another_form(pets, content, said):
    (pets / "split_zhou_OxfordPets.json").write_text(content)
    message = complaint("oxford_pets")
    assert message.startswith(f"'{pets}/split_zhou_OxfordPets.json' ") and said in message and "\n" not in message


def test_listed_images_that_are_not_there(pets):
    (pets / "images" / "beagle" / "test_1.jpg").unlink()
    with pytest.raises(UserError, match=r"there is no image file '.*/oxford_pets/images/beagle/test_1\.jpg'"):
        clipadapt.load_task("oxford_pets", shots=1)


def test_text_that_cannot_be_read(home):
    prepared.aircraft(home)
    (home / "fgvc_aircraft" / "variants.txt").write_bytes(b"\xff\xfe")
    assert "variants.txt' can't be read: 'utf-8' codec" in complaint("fgvc_aircraft")


def test_a_variant_of_aircraft_that_is_not_known(home):
    prepared.aircraft(home)
    (home / "fgvc_aircraft" / "images_variant_train.txt").write_text("0000001 Spitfires\n")
    said = complaint("fgvc_aircraft")
    assert "images_variant_train.txt' has '0000001 Spitfires', and variants.txt no 'Spitfires': did you mean" in said


def test_folders_that_are_no_classes_of_imagenet(home):
    prepared.imagenet(home, classnames=False)
    prepared.picture(home / "imagenet" / "images" / "val" / "n01484850" / "0.JPEG")
    assert "val' has class folders that train lacks: n01484850" in complaint("imagenet")
    for number in range(7):
        prepared.picture(home / "imagenet" / "images" / "train" / f"n0000000{number}" / "0.JPEG")
    said = complaint("imagenet")
    assert said.endswith(
        "train' has folders that aren't WordNet ids of ImageNet's 1,000 classes: "
        "n00000000, n00000001, n00000002, n00000003, n00000004 and 2 more"
    )


def test_a_classnames_file_that_lacks_a_class(home):
    prepared.imagenet(home)
    (home / "imagenet" / "classnames.txt").write_text("n01440764 tench\n")
    said = complaint("imagenet")
    assert (
        "aren't WordNet ids of the classes in '" in said and "classnames.txt': n01443537, n03773504, n04008634" in said
    )
    (home / "imagenet" / "classnames.txt").write_text("n01440764\n")
    assert "has the line 'n01440764', which isn't a WordNet id and a name" in complaint("imagenet")


def test_a_val_folder_as_it_is_downloaded(home):
    prepared.imagenet(home)
    val = home / "imagenet" / "images" / "val"
    for folder in [*val.iterdir()]:
        folder.rename(home / folder.name)
    prepared.picture(val / "ILSVRC2012_val_00000001.JPEG")
    assert f"'{val}' has no class folders" in complaint("imagenet")


def test_class_folders_without_images(home):
    for wordnet_id in WORDNET:
        (home / "imagenet-sketch" / "images" / wordnet_id).mkdir(parents=True)
    assert complaint("imagenet_sketch").endswith("imagenet-sketch/images' have no images")


def test_a_run_is_told_of_classes_that_are_missing(home):
    prepared.imagenet(home)
    prepared.write_classnames(home / "imagenet", WORDNET | {"n01484850": "great white shark"})
    said = r"imagenet: of the classes in '.*/classnames\.txt' only 4 are there, and no images of great white shark "
    with pytest.warns(UserWarning, match=said):
        clipadapt.load_task("imagenet", shots=1)
    prepared.imagenet_c(home, "imagenet-c", "fog", 3)
    said = r"imagenet_c: of ImageNet's 1,000 classes only 4 are there, and no images of 996 classes: great white shark "
    with pytest.warns(UserWarning, match=said):
        clipadapt.load_task("imagenet_c", corruption="fog", severity=3)


def test_a_run_is_told_of_classes_without_test_images_once(home):
    prepared.imagenet(home)
    (home / "imagenet" / "images" / "val" / "n01443537").rename(home / "elsewhere")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clipadapt.load_task("imagenet", shots=1)
    told = [str(one.message) for one in caught if "nothing to see" not in str(one.message)]  # the files are flat
    assert told == ["imagenet: no images in 'test' of goldfish"]


def test_classes_that_are_the_same_words_to_clip(home):
    names = ["cat", "Cat", "dog", "owl"]
    prepared.split_file(home, *SPLIT_FILES["dtd"][:2], names)
    with pytest.warns(UserWarning, match="dtd: the classes 'cat', 'Cat' are the same words to CLIP"):
        source_of("dtd")
    assert not [*ambiguous_names(IMAGENET_CLASSNAMES)]
