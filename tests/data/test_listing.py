"""Which files are images, and that what is left out is told."""

import pytest
from PIL import Image

from clipadapt.data.formats import image_suffixes
from clipadapt.data.given_images import answer_readable, find_images
from clipadapt.data.images import open_image
from clipadapt.data.sources import folder, unlabelled
from clipadapt.errors import DataError, UserError


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L" if path.suffix == ".pgm" else "RGB", (4, 4), 200)
    image.save(path, {".jfif": "JPEG", ".JPE": "JPEG", ".pgm": "PPM"}.get(path.suffix))
    return path


@pytest.mark.parametrize("end", ["jfif", "JPE", "mpo", "ppm", "pgm", "tga", "ico", "pcx", "jp2", "avif"])
def test_what_pillow_reads_is_an_image(tmp_path, end):
    if f".{end.lower()}" not in image_suffixes():
        pytest.skip(f"Pillow was built without {end}")
    made = [picture(tmp_path / name / f"0.{end}") for name in ("cat", "dog")]
    source = folder(str(tmp_path))
    assert [*source.train.images.items] == [*map(str, made)] == find_images(str(tmp_path))
    assert source.train.images[0].mode == "RGB"


def test_formats_that_need_other_programs_are_no_images():
    assert not {".eps", ".pdf", ".mpg", ".h5", ".txt"} & image_suffixes()


def test_what_is_left_out_is_counted(tmp_path):
    for name in ("cat/0.png", "dog/0.png", "loose.png", "cat/._0.png", "cat/.ipynb_checkpoints/0.png"):
        picture(tmp_path / name)
    for name in ("cat/0.HEIC", "dog/1.heic", "dog/notes.txt", "dog/.DS_Store", "dog/Thumbs.db", "dog/README"):
        (tmp_path / name).write_text("")
    with pytest.warns(UserWarning) as caught:
        assert len(folder(str(tmp_path)).train) == 2
    (text,) = [str(each.message) for each in caught]
    for part in ("2 .heic", "1 .txt", "1 hidden file,", "the folder .ipynb_checkpoints", "1 without an ending"):
        assert part in text
    assert "1 image files beside" in text and "pip install pillow-heif" in text and "ds_store" not in text.lower()


def test_a_class_of_nothing_but_files_that_are_not_read(tmp_path):
    picture(tmp_path / "cat" / "0.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "0.heic").write_text("")
    with pytest.raises(UserError, match=r"no images: dog \(read are bmp, .*; not read are 1 \.heic \(pip install"):
        folder(str(tmp_path))


def test_images_without_labels_are_counted_too(tmp_path):
    picture(tmp_path / "0.png")
    (tmp_path / "1.heif").write_text("")
    with pytest.warns(UserWarning, match=r"not read in '.*': 1 \.heif \(pip install pillow-heif, and they are read\)"):
        unlabelled(str(tmp_path), ["cat", "dog"])


def test_patterns_below_names_with_brackets(tmp_path):
    made = [str(picture(tmp_path / "my [2023] photos" / f"{number}.png")) for number in (2, 10)]
    (tmp_path / "my [2023] photos" / "a.txt").write_text("")
    assert find_images(f"{tmp_path}/my [2023] photos/*.png") == made
    assert find_images(f"{tmp_path}/my [2023] photos/[12]*.png") == made
    assert find_images(f"{tmp_path}/*/2.png") == made[:1]
    with pytest.warns(UserWarning, match="not read in .*: 1 .txt"):
        assert find_images(f"{tmp_path}/**/*") == made
    with pytest.raises(UserError, match=r"there are no images at .*\[2024\]"):
        find_images(f"{tmp_path}/my [2024] photos/*.png")


def test_a_file_is_read_whatever_its_name(tmp_path):
    picture(tmp_path / "0.png").rename(tmp_path / "photo")
    assert find_images(str(tmp_path / "photo")) == [str(tmp_path / "photo")]
    assert open_image(tmp_path / "photo").size == (4, 4)


def test_every_image_that_can_be_read_is_answered(tmp_path):
    paths = [str(picture(tmp_path / f"{number}.png")) for number in range(4)]
    noise = bytearray((tmp_path / "1.png").read_bytes())
    noise[45:50] = b"xxxxx"  # inside, so that the header and the last bytes are fine
    (tmp_path / "1.png").write_bytes(noise)
    (tmp_path / "2.png").write_text("no image")
    starts, answer = [], lambda files: [open_image(file).size for file in files]
    answers, errors = answer_readable(paths, answer, starts.append)
    assert answers == [(4, 4)] * 2 and [*errors] == paths[1:3] and starts == [3, 2]
    with pytest.raises(DataError, match=r"(?s)2 images can't be used.*there is nothing to predict"):
        answer_readable(paths[1:3], answer, starts.append)
