"""The commands that show a finished run to programs and people: `serve`, `demo` and `explain`."""

import sys

from rich.text import Text

from clipadapt.cli.keys import find_run_directory, plain_settings
from clipadapt.config.overrides import Words
from clipadapt.console import make_console, print_error, print_out
from clipadapt.errors import UserError
from clipadapt.paths import checked_path, shorten
from clipadapt.stopping import forget_request

SIZES = ("max_images", "max_request_mb", "max_pixels", "max_queue", "max_batch", "max_wait_ms")
HOST, PORT, DEMO_PORT, LAST_PORT = "127.0.0.1", "8000", "7860", 65_535
MOST, MOST_IMAGES = 10**9, 64


def serve(words: Words) -> None:
    """Run `clipadapt serve run=DIR [host=127.0.0.1] [port=8000] …`: answer images over HTTP."""
    found = plain_settings(words, ("run", "host", "port", "pretrained", *SIZES), "clipadapt serve run=DIR")
    directory = find_run_directory(found, "serve")
    host, port = found.get("host", HOST), read_whole("port", found.get("port", PORT), 0, LAST_PORT)
    sizes = {key: read_whole(key, found[key], int(key != "max_wait_ms")) for key in SIZES if key in found}
    from clipadapt import api, serving  # imports PyTorch
    from clipadapt.serving.server import check_libraries

    limits = serving.Limits(**sizes)
    check_libraries()
    with serving.open_port(host, port) as opened:
        predictor = api.load(directory, None, words.options.get("--config-dir"), found.get("pretrained"))
        warn_of_others(host)
        place = address(host, opened.getsockname()[1])
        serving.serve(predictor, opened, limits, lambda: tell(f"{predictor!r} answers at {place}"))
    forget_request()
    tell("Stopped; the requests that were taken are answered.")


def demo(words: Words) -> None:
    """Run `clipadapt demo run=DIR [run=OTHER] [host=127.0.0.1] [port=7860]`: a page that answers images."""
    runs = [word for word in words.settings if word.startswith("run=")]
    rest = Words(words.options, [word for word in words.settings if word not in runs[1:]])
    found = plain_settings(rest, ("run", "host", "port", "export"), "clipadapt demo run=DIR")
    directories = [find_run_directory({"run": word.removeprefix("run=")}, "demo") for word in runs or ["run="]]
    host, port = found.get("host", HOST), read_whole("port", found.get("port", DEMO_PORT), 0, LAST_PORT)
    from clipadapt import demo as page  # imports PyTorch
    from clipadapt.demo.page import check_library, launch
    from clipadapt.demo.space import export_space
    from clipadapt.serving import open_port

    check_library()
    folder = words.options.get("--config-dir")
    if "export" in found:
        place = export_space(page.load_runs(directories, folder), checked_path(found["export"], "export"))
        tell(f"Written to {place}: a Space of the Hugging Face hub runs what is in it")
        return
    with open_port(host, port) as opened:  # told before anything is loaded; Gradio opens it again
        port = opened.getsockname()[1]
    shown = page.Demo(page.load_runs(directories, folder))
    warn_of_others(host)
    launch(shown, host, port, lambda: tell(f"The demo is at {address(host, port)}; Ctrl-C ends it"))
    forget_request()
    tell("Stopped.")


def explain(words: Words) -> None:
    """Run `clipadapt explain run=DIR [images=PATH] [count=8] [out=FOLDER]`: what a run looks at and has learned."""
    found = plain_settings(words, ("run", "images", "count", "out"), "clipadapt explain run=DIR")
    directory = find_run_directory(found, "explain")
    count = read_whole("count", found.get("count", "8"), 1, MOST_IMAGES)
    from clipadapt.runs.explained import explain_run  # imports PyTorch

    console, out = make_console(), checked_path(found["out"], "out") if "out" in found else None
    folder = explain_run(directory, console, found.get("images"), count, out, words.options.get("--config-dir"))
    console.print(Text(f"Written to {folder}"), soft_wrap=True)


def address(host: str, port: int) -> str:
    """Return the address of a server in a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def warn_of_others(host: str) -> None:
    """Note that an address is reached by other machines, if it is."""
    from clipadapt.serving.server import is_loopback

    if not is_loopback(host):
        print_error(f"note: whoever reaches {host} can send images here, without a password")


def tell(text: str) -> None:
    """Print a line at once, also where output goes to a file or a pipe."""
    print_out(text)
    sys.stdout.flush()


def read_whole(key: str, text: str, least: int, most: int = MOST) -> int:
    """Return the whole number of a key.

    Raises:
        UserError: it is none, or out of range.
    """
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) else -1
    if not least <= number <= most:
        raise UserError(f"{key}={shorten(text)} does not fit: it must be a whole number from {least} to {most:,}")
    return number
