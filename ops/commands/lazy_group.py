"""A group of commands whose modules are imported when they are called: importing all takes a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from commerce.kernel.gc_tuning import paused_collector


class LazyCommands(Mapping[str, Any]):
    """Commands by name, each made when it is asked for.

    `places` are functions and groups, as `module:attribute`.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._commands: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._commands:
            self._commands[name] = self._make(name)
        return self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def _make(self, name: str) -> Any:
        module, _, attribute = self._places[name].partition(":")
        with paused_collector():
            loaded = getattr(import_module(module), attribute)
        alone = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        if isinstance(loaded, typer.Typer):
            alone.add_typer(loaded, name=name)
        else:
            alone.command(name)(loaded)
        return get_group(alone).commands[name]


def make_lazy_group(places: Callable[[], Mapping[str, str]]) -> type[TyperGroup]:
    """Return a class of groups, for `cls` of an application, with the commands of `places`."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attrs: Any) -> None:
            super().__init__(**attrs)
            self.commands = LazyCommands(places())  # type: ignore[assignment]  # nothing adds to it

        def list_commands(self, ctx: Any) -> list[str]:
            return list(self.commands)

    return LazyGroup
