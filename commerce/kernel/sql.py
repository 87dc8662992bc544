"""SQL files: each `store.py` has a `queries.sql` beside it, in blocks that start with `-- name: word`.

What would make that file too long is in others beside it.
`{table}` in a block stands for the columns of a table that its rows are read from. `*` is not used: a migration that
adds a column would break the statement in running processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_TABLE = re.compile(r"\{(\w+)\}")


class Queries:
    """The blocks of a package as attributes, such as `queries.insert_order`.

    An unknown name raises `AttributeError`.
    """

    def __init__(self, blocks: dict[str, str]) -> None:
        self._blocks = blocks

    def __getattr__(self, name: str) -> str:
        try:
            return self._blocks[name]
        except KeyError:
            raise AttributeError(f"no block '-- name: {name}' in the SQL files") from None

    def all(self) -> dict[str, str]:
        """Return every block by its name."""
        return dict(self._blocks)


def load_queries(package: str, **columns: Iterable[str]) -> Queries:
    """Read the SQL files of a package, such as `commerce.orders`. `columns` has those of each `{table}`.

    Raises `ValueError` if a name occurs twice, `KeyError` if a `{table}` has no columns.
    """
    lists = {table: ", ".join(f"{table}.{name}" for name in names) for table, names in columns.items()}
    folder = resources.files(package)
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    text = "\n".join(folder.joinpath(file).read_text(encoding="utf-8") for file in files)
    text = _TABLE.sub(lambda match: lists[match[1]], text)
    parts = _NAME.split(text)[1:]
    names = parts[::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{package} has two blocks of one name")
    return Queries(dict(zip(names, (body.strip() for body in parts[1::2]), strict=True)))
