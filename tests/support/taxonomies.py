"""A small taxonomy in the files of the real one, and categories from it."""

from __future__ import annotations

import gzip
from pathlib import Path

from commerce.categories.taxonomy_import import TaxonomyImport
from ops.services import CliServices

ATTRIBUTES = """---
base_attributes:
- id: 1
  name: Color
  description: Defines the primary color, such as blue
  friendly_id: color
  handle: color
  sorting: custom
  values:
  - color__red
  - color__blue
- id: 2
  name: Bag features
  description: Describes a bag
  friendly_id: bag/features
  handle: bag-features
  values:
  - bag/features__ant
  - bag/features__ant+
  - bag/features__2_5_mm
  - bag/features__polish_zloty_pln
extended_attributes:
- name: Handle color
  handle: handle-color
  description: Defines the color of the handle
  friendly_id: handle_color
  values_from: color
"""
BAGS = """---
- id: lb
  name: Bags
  children:
  - lb-1
  - lb-2
  attributes:
  - color
- id: lb-1
  name: Backpacks
  children:
  - lb-1-9
  attributes:
  - color
  - bag/features
- id: lb-1-9
  name: School Backpacks
  children: []
  attributes:
  - bag/features
  - handle_color
- id: lb-2
  name: Totes
  children: []
  attributes:
  - color
"""
GIFTS = "---\n- id: gc\n  name: Gift Cards\n  children: []\n  attributes: []\n"
_GID = "gid://shopify/Taxonomy"
NAMES = {
    "attributes.en.txt": f"# Attributes\n\n{_GID}Attribute/1 : Color\n{_GID}Attribute/2 : Bag features\n",
    "attributes.zh-CN.txt": f"# Attributes\n\n{_GID}Attribute/1 : 颜色\n{_GID}Attribute/2 : 箱包特征\n",
    "attribute_values.en.txt": f"""# Values

{_GID}Value/11 : Red [Color]
{_GID}Value/12 : Blue [Color]
{_GID}Value/13 : ANT [Bag features]
{_GID}Value/14 : ANT+ [Bag features]
{_GID}Value/15  : 2.5 mm [Bag features]
{_GID}Value/16  : Polish Złoty (PLN) [Bag features]
""",
    "attribute_values.zh-CN.txt": f"""# Values

{_GID}Value/11 : 红色 [颜色]
{_GID}Value/12 : 蓝色 [颜色]
{_GID}Value/14 : ANT+ [箱包特征]
""",
    "categories.en.txt": f"""# Categories

{_GID}Category/gc : Gift Cards
{_GID}Category/lb : Bags
{_GID}Category/lb-1 : Bags > Backpacks
{_GID}Category/lb-1-9 : Bags > Backpacks > School Backpacks
{_GID}Category/lb-2 : Bags > Totes
""",
    "categories.zh-CN.txt": f"{_GID}Category/lb : 箱包\n{_GID}Category/lb-1 : 箱包 > 双肩包\n",
}


def write_taxonomy(folder: Path, *, packed: bool = False, **changes: str) -> Path:
    """Write the files, with other contents for those that `changes` names by stem, and return the folder."""
    (folder / "categories").mkdir(parents=True)
    files = {
        "attributes.yml": ATTRIBUTES,
        "categories/lb_bags.yml": BAGS,
        "categories/gc_gifts.yml": GIFTS,
        **NAMES,
        **changes,
    }
    for name, text in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return folder


async def import_small_taxonomy(shop: CliServices, folder: Path) -> None:
    """Import the small taxonomy, without a record of who did it."""
    await TaxonomyImport(shop.db, shop.clock).import_folder(write_taxonomy(folder), "test", "a small tree")
