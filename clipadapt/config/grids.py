"""Lists of values on the command line, and settings that are composed once and resolved for each shots and seed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from clipadapt.config.composing import composer, parse, partly_composed, to_container, unreadable
from clipadapt.errors import SettingsError

GRID_KEYS = {"methods": "method", "data": "data", "shots": "shots", "seed": "seed"}
"""Keys of the lists that span a grid, and the key of a run's settings for each list's values."""


MAX_VALUES = 10_000
"""Values of a list; a range on the command line may have more than fit memory."""


@dataclass(frozen=True)
class Composition:
    """Composed settings whose references, such as `${seed}`, aren't resolved yet.

    Attributes:
        composed: the settings.
        config_dir: the user's own folder of YAML and modules.
    """

    composed: DictConfig
    config_dir: str | Path | None

    def resolve(self, **values: Any) -> dict[str, Any]:
        """Return the settings as plain values, with these `values` in place of those composed."""
        config = self.composed.copy()
        for key, value in values.items():
            OmegaConf.update(config, key, value, force_add=True)
        return to_container(config, self.config_dir)


def compose_unresolved(overrides: Sequence[str], config_dir: str | Path | None) -> tuple[Composition, list[str]]:
    """Compose settings as far as possible; also return the problems of the overrides that were left out."""
    composed, problems = partly_composed(overrides, config_dir)
    return Composition(composed, config_dir), problems


def read_lists(
    settings: Sequence[str], config_dir: str | Path | None = None, keys: Iterable[str] = GRID_KEYS
) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the lists with these `keys` among the settings of a command line, and the other settings.

    Raises:
        SettingsError: a list that can't be parsed.
    """
    lists, known = {}, {*keys}
    with composer(config_dir):
        for text in settings:
            if text.partition("=")[0] in known:
                try:
                    override = parse(text)
                except OverrideParseException as error:
                    raise SettingsError(unreadable(text, error)) from None
                lists[override.key_or_group] = [*read_values(override)]
    return lists, [text for text in settings if text.partition("=")[0] not in known]


def read_values(override: Override) -> Iterator[Any]:
    """Yield the values listed in brackets or with commas; a single value is a list of one.

    Raises:
        SettingsError: there are too many values.
    """
    if override.is_discrete_sweep():
        values = [*islice(override.sweep_iterator(), MAX_VALUES + 1)]
        if len(values) > MAX_VALUES:
            raise SettingsError(f"{override.key_or_group} has more than {MAX_VALUES:,} values: list fewer")
        yield from (value.text if isinstance(value, QuotedString) else value for value in values)
    else:
        value = override.value()
        yield from value if isinstance(value, list) else [value]
