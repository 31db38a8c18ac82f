"""Commands that are imported when they are used."""

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click


class LazyCommands(MutableMapping[str, click.Command]):
    """The commands of a group, so that `unpool info` does not import what `unpool train` needs.

    Args:
        package: of the modules.
        modules: by name of the command; the module has it under this name, or with an underscore
            behind it.

    >>> LazyCommands("unpool.cli", {"info": "info"})["info"].name
    'info'
    """

    def __init__(self, package: str, modules: dict[str, str]) -> None:
        self._package, self._modules = package, modules

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"{self._package}.{self._modules[name]}")
        return getattr(module, name, None) or getattr(module, f"{name}_")

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError("the commands of a lazy group are fixed")

    def __delitem__(self, name: str) -> None:
        raise TypeError("the commands of a lazy group are fixed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)
