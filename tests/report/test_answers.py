"""Predictions of kinds of task whose answers are no classes."""

import json

from rich.console import Console

from clipadapt.report.predictions import answers_csv, answers_json, answers_table

IMAGES, ANSWERS, BAD = ["a.png", "b,c.png"], ["a cat, asleep"], {"a.png": "it is cut"}


def test_answers_stand_beside_their_images():
    console = Console(width=60)
    with console.capture() as shown:
        console.print(answers_table(IMAGES, ["[/x]", 2]))
    assert all(text in shown.get() for text in ("a.png", "[/x]", "b,c.png", "2"))
    assert answers_csv(IMAGES, ["[/x]", 2]) == 'image,answer\na.png,[/x]\n"b,c.png",2\n'
    assert [entry["answer"] for entry in json.loads(answers_json(IMAGES, ["[/x]", 2]))] == ["[/x]", 2]


def test_an_image_that_cannot_be_read_has_its_error_in_place_of_an_answer():
    console = Console(width=60)
    with console.capture() as shown:
        console.print(answers_table(IMAGES, ANSWERS, BAD))
    assert "it is cut" in shown.get() and "a cat, asleep" in shown.get()
    assert answers_csv(IMAGES, ANSWERS, BAD) == 'image,answer,error\na.png,,it is cut\n"b,c.png","a cat, asleep",\n'
    first, second = json.loads(answers_json(IMAGES, ANSWERS, BAD))
    assert first == {"image": "a.png", "error": "it is cut"} and second["answer"] == "a cat, asleep"
