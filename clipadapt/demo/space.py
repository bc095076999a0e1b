"""The demo as a folder that a Space of the Hugging Face hub runs: the page, what was learned, and what it needs."""

import json
from pathlib import Path

from clipadapt import __version__
from clipadapt.demo.shown_run import ShownRun
from clipadapt.files import whole_folder, write_atomically
from clipadapt.runs.reading import check_new_folder

APP = '''"""The page of clipadapt, with what is in the folders beside this file."""

from pathlib import Path

from clipadapt.demo import Demo, load_runs
from clipadapt.demo.page import make_page, page_theme

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/adaptation.safetensors"))
make_page(Demo(load_runs(FOLDERS))).launch(theme=page_theme(), ssr_mode=False)
'''
CARD = """---
title: {quoted}
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
---

# {title}

Drop images, and see what {title} answers. Made with `clipadapt demo export=…`.
"""


def export_space(runs: list[ShownRun], folder: Path) -> Path:
    """Write a demo as a folder for a Space; return it.

    Args:
        runs: the runs that answer.
        folder: that isn't there yet, or is empty.

    Raises:
        UserError: the folder isn't empty, or a run can't be packed.
    """
    import gradio

    title = " and ".join(dict.fromkeys(run.title for run in runs))
    card = CARD.format(quoted=json.dumps(title), title=title, gradio=gradio.__version__)
    needs = f"clipadapt[demo]=={__version__}\n"
    check_new_folder(folder)
    with whole_folder(folder) as part:
        for number, run in enumerate(runs, 1):
            run.predictor.save_pretrained(part / f"run{number}")
        for name, content in {"requirements.txt": needs, "README.md": card, "app.py": APP}.items():
            write_atomically(part / name, content)
    return folder
