"""The command `clipadapt export`."""

from clipadapt.cli.keys import find_run_directory, plain_settings
from clipadapt.config.overrides import Words
from clipadapt.console import print_out
from clipadapt.errors import UserError
from clipadapt.exports.formats import DEFAULTS, FORMATS, check_packages, find_format, read_options


def export(words: Words) -> None:
    """Run `clipadapt export run=DIR format=onnx out=PATH [key=value …]`: write what was learned for other tools."""
    found = plain_settings(words, ("run", "format", "out", *DEFAULTS), "clipadapt export run=DIR format=onnx out=PATH")
    if not found.get("format"):
        raise UserError(f"say which format: format= is one of {', '.join(FORMATS)}")
    if not found.get("out"):
        raise UserError("say where to: out=PATH, a folder that isn't there yet")
    find_format(found["format"])
    options = {key: value for key, value in found.items() if key in DEFAULTS}
    read_options(found["format"], options)
    check_packages(found["format"])
    directory = find_run_directory(found, "export")
    from clipadapt import api  # imports PyTorch

    folder = words.options.get("--config-dir")
    print_out(str(api.export(directory, found["format"], found["out"], config_dir=folder, **options)))
