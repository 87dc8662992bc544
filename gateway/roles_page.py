"""The table of roles and operations in docs/api.md.

`python -m gateway.roles_page docs/api.md` writes it from the declared operations; a test compares the two.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from gateway.auth import ROLES
from gateway.operations import Operation

BEGIN, END = "<!-- roles: begin -->\n", "<!-- roles: end -->\n"
_PREFIX = "/v1/admin"


def format_roles(operations: Iterable[Operation]) -> str:
    """Return the table: the least roles of each operation, by role and subject. `operator` has all."""
    groups: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for operation in operations:
        if operation.path.startswith(_PREFIX):
            roles = (operation.access, *operation.also_for)
            subject = operation.tag.removeprefix("staff: ")
            groups[roles, subject].append(f"`{operation.method} {operation.path.removeprefix(_PREFIX)}`")
    place = {role: number for number, role in enumerate(ROLES)}
    keys = sorted(groups, key=lambda key: ([place[role] for role in key[0]], key[1]))  # type: ignore[index]
    rows = [f"| `{'`, `'.join(roles)}` | {name} | {', '.join(groups[roles, name])} |\n" for roles, name in keys]
    return "".join(["| least role | subject | operations under `/v1/admin` |\n", "|---|---|---|\n", *rows])


def replace_table(page: str, table: str) -> str:
    """Return the page with this table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    from gateway.app import ADMIN

    file = Path(sys.argv[1])
    file.write_text(replace_table(file.read_text(encoding="utf-8"), format_roles(ADMIN)), encoding="utf-8")
