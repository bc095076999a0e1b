"""The page of the demo, made with Gradio; it loads nothing from elsewhere and tells nobody."""

import os
import threading
from collections.abc import Callable
from typing import Any

from clipadapt.demo.answers import Demo
from clipadapt.errors import UserError

LARGEST_FILE = "32mb"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Variables that Gradio and its libraries read when they are imported: nothing is sent anywhere."""
FONTS = ["system-ui", "sans-serif"]
KEPT = 3600, 3600
"""Seconds between looks for files that were dropped, and how old those become that are deleted."""
FORMATS = "image"


def check_library() -> None:
    """Check that Gradio is installed; raises UserError."""
    os.environ.update(QUIET)
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("clipadapt demo needs the library gradio: pip install 'clipadapt[demo]'") from None


def make_page(demo: Demo) -> Any:
    """Return the page of a demo, as Gradio's Blocks."""
    check_library()
    import gradio

    names = demo.runs[0].predictor.class_names
    many = len(demo.runs) > 1
    with gradio.Blocks(title="clipadapt", analytics_enabled=False, delete_cache=KEPT) as page:
        gradio.Markdown(f"# clipadapt\n{describe(demo)}")
        files = gradio.File(label="Images", file_count="multiple", file_types=[FORMATS], height=150)
        with gradio.Row():
            looks = gradio.Checkbox(label=f"Where the model{'s' * many} look{'s' * (not many)}", min_width=200)
            near = gradio.Checkbox(label="Nearest images learned from", min_width=200)
        with gradio.Accordion("Other classes", open=False):
            others = gradio.Textbox(
                label="Class names, one a line; none for those of the run", lines=4, placeholder="\n".join(names[:3])
            )
        button = gradio.Button("Answer", variant="primary")
        answers = gradio.HTML()
        given = [files, others, looks, near]
        for event in (files.change, looks.input, near.input, button.click):
            event(demo.answer, given, answers, api_visibility="private", concurrency_limit=1, concurrency_id="model")
    return page


def page_theme() -> Any:
    """Return Gradio's plain theme with the reader's own fonts."""
    import gradio

    return gradio.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"])


def describe(demo: Demo) -> str:
    """Return a line on the runs that answer."""
    names = demo.runs[0].predictor.class_names
    backbones = dict.fromkeys(run.predictor.model.clip.source["name"] for run in demo.runs)
    runs = f"{len(demo.runs)} runs" if len(demo.runs) > 1 else demo.runs[0].title
    answer = "answer" if len(demo.runs) > 1 else "answers"
    return f"Drop images: {runs} with {' and '.join(backbones)} {answer}, {len(names):,} classes."


def launch(demo: Demo, host: str, port: int, started: Callable[[], object]) -> None:
    """Show a demo until SIGTERM or Ctrl-C.

    Args:
        demo: the demo.
        host: the address.
        port: the port.
        started: called when the page is there.
    """
    page = make_page(demo)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        max_file_size=LARGEST_FILE,
        theme=page_theme(),
    )
    started()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:  # a signal has asked it to end
        page.close(verbose=False)
