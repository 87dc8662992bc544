"""Products made from a taxonomy for load tests, in Chinese and English.

Each says that it is generated.

A product follows from seed and number alone: the first thousand of a catalog of a million are those of a catalog of a
thousand. Categories and brands are chosen unevenly, as they are in a shop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any, NamedTuple

from commerce.catalog.model import ProductText
from commerce.categories.errors import BadTaxonomy
from commerce.categories.taxonomy import ENGLISH, Taxonomy

CHINESE = "zh-CN"
CURRENCY = "CNY"
MAX_PRODUCTS = 1_000_000
GENERATED_TEXTS = {
    ENGLISH: "A generated product for load tests: nobody sells it.",
    CHINESE: "压力测试生成的商品，并不出售。",
}
_LEFT_OUT = ("bu", "gc", "ma", "na", "pa", "se")
"""top categories without products of a shop: bundles, gift cards, mature, none, add-ons, services"""
_NO_CHOICES = ("__other", "__none")
_OPTION_ATTRIBUTES = ("color", "size", "shoe_size", "accessory_size")
_BRANDS, _CHINESE_BRANDS = 400, 0.4
_MAX_ATTRIBUTES, _MAX_OPTION_VALUES = 6, 4
_TITLE_VALUES = 2
_SYLLABLES = (
    *("al", "bor", "cen", "dra", "el", "fen", "gra", "hol", "ist", "jo", "ka", "lum", "mar"),
    *("nor", "ol", "per", "qui", "ro", "sel", "tor", "ul", "ven", "wyn", "xan", "yor", "zel"),
)
_CHINESE_PARTS = "安柏辰东飞光禾恒嘉景朗岚林明南宁启青然森盛时拓唯物晓欣雅逸悦云泽知卓"
_PRAISE = (
    ("for every day", "日常款"),
    ("gift box", "礼盒装"),
    ("new version", "新款"),
    ("light", "轻便"),
    ("with three years of warranty", "三年质保"),
    ("for beginners", "入门款"),
    ("professional", "专业级"),
    ("easy to clean", "易清洗"),
)
_SENTENCES = (
    ("Checked by hand before it leaves the factory.", "出厂前经过人工检验。"),
    ("Returns within seven days.", "支持七天无理由退货。"),
    ("Packed without plastic.", "无塑料包装。"),
    ("Made to be repaired: spare parts for ten years.", "易于维修，配件供应十年。"),
    ("Keep it dry and out of the sun.", "请置于阴凉干燥处。"),
)


class GeneratedVariant(NamedTuple):
    """A variant of a generated product; the price is in minor units."""

    sku: str
    name: str
    price: int
    option_values: dict[str, Any]


class GeneratedProduct(NamedTuple):
    """A generated product with texts by language and at least one variant."""

    product_id: str
    category_id: str
    brand: str | None
    attributes: dict[str, Any]
    options: list[str]
    texts: dict[str, ProductText]
    variants: list[GeneratedVariant]


class _Attribute(NamedTuple):
    """An attribute with choices; `is_list` says that a value is a list of them."""

    attribute_id: str
    names: Mapping[str, str]
    choices: Sequence[str]
    is_list: bool


class _Category(NamedTuple):
    """A category without children, and the middle of its prices in minor units."""

    category_id: str
    names: Mapping[str, str]
    attributes: Sequence[_Attribute]
    options: Sequence[_Attribute]
    middle_price: float


@dataclass(frozen=True)
class ProductGenerator:
    """Makes products of a taxonomy.

    Raises `BadTaxonomy` if it has no category with names in both languages."""

    taxonomy: Taxonomy
    seed: int
    _categories: list[_Category] = field(init=False)
    _brands: list[str] = field(init=False)

    def __post_init__(self) -> None:
        chooser = Random(f"{self.seed} catalog")  # noqa: S311  # not cryptographic
        categories = _list_categories(self.taxonomy, chooser)
        if not categories:
            raise BadTaxonomy(f"no category without children has names in {ENGLISH} and {CHINESE}", errors=[])
        chooser.shuffle(categories)
        object.__setattr__(self, "_categories", categories)
        object.__setattr__(self, "_brands", [_make_brand(chooser) for _ in range(_BRANDS)])

    def generate(self, count: int) -> Iterator[GeneratedProduct]:
        """Yield so many products."""
        for number in range(count):
            yield self.make(number)

    def make(self, number: int) -> GeneratedProduct:
        """Return the product of a number from 0."""
        chooser = Random(f"{self.seed} {number}")  # noqa: S311  # not cryptographic
        category = _choose_unevenly(chooser, self._categories)
        brand = _choose_unevenly(chooser, self._brands)
        product_id = f"generated-{self.seed}-{number:06d}"
        attributes = _choose_attributes(chooser, category)
        chosen_options = _choose_options(chooser, category)
        options = [option.attribute_id for option, _ in chosen_options]
        model = f"{chooser.choice('ABCDEFGHKLMNPRSTVWXZ')}{chooser.randrange(100, 1000)}"
        praise = chooser.choice(_PRAISE)
        texts = {
            language: self._write_text(chooser, language, category, brand, attributes, model, praise)
            for language in (ENGLISH, CHINESE)
        }
        return GeneratedProduct(
            product_id,
            category.category_id,
            brand,
            {attribute.attribute_id: values if attribute.is_list else values[0] for attribute, values in attributes},
            options,
            {language: texts[language] for language in (CHINESE, ENGLISH)},
            self._make_variants(chooser, product_id, category, chosen_options, texts[CHINESE].name),
        )

    def _write_text(
        self,
        chooser: Random,
        language: str,
        category: _Category,
        brand: str,
        attributes: Sequence[tuple[_Attribute, Sequence[str]]],
        model: str,
        praise: tuple[str, str],
    ) -> ProductText:
        """Write name and description from what the product has."""
        place = 0 if language == ENGLISH else 1
        names = {
            attribute.names.get(language, attribute.attribute_id): [self._name(value, language) for value in values]
            for attribute, values in attributes
        }
        stressed = [values[0] for values in list(names.values())[:_TITLE_VALUES] if len(values[0]) < 30]
        parts = [
            f"{brand} " if place and brand.isascii() else brand,
            *stressed,
            category.names[language],
            praise[place],
        ]
        facts = [
            f"- {name}: {', '.join(values)}" if place == 0 else f"- {name}：{'、'.join(values)}"
            for name, values in names.items()
        ]
        sentence = chooser.choice(_SENTENCES)[place]
        return ProductText(
            name=(" " if place == 0 else "").join(parts)[:190] + f" {model}",
            description="\n".join([GENERATED_TEXTS[language], "", *facts, "", sentence])[:5000],
        )

    def _make_variants(
        self,
        chooser: Random,
        product_id: str,
        category: _Category,
        options: Sequence[tuple[_Attribute, Sequence[str]]],
        name: str,
    ) -> list[GeneratedVariant]:
        """Make a variant of each combination of the options' values; some cost more."""
        price = min(max(category.middle_price * math.exp(chooser.gauss(0, 0.7)), 100), 10_000_000)
        variants = []
        for number, chosen in enumerate(product(*(values for _, values in options)), 1):
            surcharge = chooser.choice((1, 1, 1, 1.1, 1.25))
            values = {
                option.attribute_id: [value] if option.is_list else value
                for (option, _), value in zip(options, chosen, strict=True)
            }
            label = " ".join([name, *(self._name(value, CHINESE) for value in chosen)])[:200]
            variants.append(
                GeneratedVariant(f"{product_id}-{number}", label, round(price * surcharge / 100) * 100 - 10, values)
            )
        return variants

    def _name(self, choice_id: str, language: str) -> str:
        names = self.taxonomy.choice_names[choice_id]
        return names.get(language) or names.get(ENGLISH, choice_id)


def _list_categories(taxonomy: Taxonomy, chooser: Random) -> list[_Category]:
    """List the categories that products are put into, with what their products have."""
    parents = {category.parent_id for category in taxonomy.categories.values()}
    attributes = {}
    for key, attribute in taxonomy.attributes.items():
        owner = taxonomy.attributes[attribute.choices_of] if attribute.choices_of else attribute
        if attribute.kind in (None, "choice", "choices") and owner.choices:
            choices = tuple(choice for choice in owner.choices if not choice.endswith(_NO_CHOICES))
            attributes[key] = _Attribute(key, attribute.names, choices or (*owner.choices,), attribute.kind != "choice")
    categories = []
    for category_id, category in taxonomy.categories.items():
        is_ware = category_id not in parents and category_id.split("-")[0] not in _LEFT_OUT
        if not is_ware or category.status == "retired" or not {ENGLISH, CHINESE} <= category.names.keys():
            continue
        own = [attributes[key] for key in category.attributes if key in attributes]
        options = [attribute for attribute in own if attribute.attribute_id in _OPTION_ATTRIBUTES][:2]
        rest = [attribute for attribute in own if attribute not in options]
        middle_price = math.exp(chooser.uniform(math.log(2_000), math.log(200_000)))
        categories.append(_Category(category_id, category.names, rest, options, middle_price))
    return categories


def _choose_unevenly(chooser: Random, items: Sequence[Any]) -> Any:
    """Return an item; the first tenth is chosen as often as a third of the rest would be."""
    return items[int(len(items) * chooser.random() ** 2)]


def _choose_attributes(chooser: Random, category: _Category) -> list[tuple[_Attribute, list[str]]]:
    """Choose some attributes and their values."""
    count = min(len(category.attributes), chooser.randint(2, _MAX_ATTRIBUTES))
    chosen = chooser.sample(category.attributes, count)
    return [
        (
            attribute,
            chooser.sample(
                attribute.choices, min(len(attribute.choices), chooser.choice((1, 1, 1, 2)) if attribute.is_list else 1)
            ),
        )
        for attribute in chosen
    ]


def _choose_options(chooser: Random, category: _Category) -> list[tuple[_Attribute, list[str]]]:
    """Choose the attributes by which the variants differ, and their values. None makes one variant."""
    return [
        (option, chooser.sample(option.choices, min(len(option.choices), chooser.randint(1, _MAX_OPTION_VALUES))))
        for option in category.options
        if chooser.random() < 0.7
    ]


def _make_brand(chooser: Random) -> str:
    if chooser.random() < _CHINESE_BRANDS:
        return "".join(chooser.sample(_CHINESE_PARTS, 2))
    return "".join(chooser.sample(_SYLLABLES, chooser.choice((2, 2, 3)))).capitalize()
