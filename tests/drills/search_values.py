"""Typical values of searches of products: a rare word, or a filter that few products fit."""

from __future__ import annotations


def values_of_search(products: int) -> dict[str, dict[int, object]]:
    """Return values of searches among so many products."""
    text = "'word77'"
    no_filters: dict[int, object] = {2: None, 3: None, 4: None, 5: None, 6: None}
    matching = {1: text, **no_filters}
    return {
        "product_search.begin_search": {1: "1000"},
        "product_search.find_by_score": matching | {7: 10_001, 8: [1.0], 9: [text], 10: None, 11: None, 12: 20},
        "product_search.find_cheapest": no_filters | {1: None, 7: 100, 8: 2**31 - 1, 9: 20},
        "product_search.find_dearest": matching | {7: None, 8: None, 9: 20},
        "product_search.find_newest": no_filters | {1: None, 7: products, 8: products, 9: 20},
        "product_search.count_found": matching | {7: 10_001},
        "product_search.count_facets": matching | {7: 10_000, 8: None, 9: None, 10: b"\x01" * 100, 11: 30, 12: 50},
        "product_search.choose_query": {1: ["'nothing'", text]},
        "product_search.list_known": {1: [text]},
        "product_search.list_near": {1: ["erm78", "term78"], 2: 200},
        "product_search.suggest_products": {1: "'word7' | 'word77':*", 2: 100},
        "product_search.suggest_categories": {1: "abc%", 2: 8},
        "product_search.list_changed": {1: products - 100, 2: 5_000},
        "product_search.list_index_rows": {1: products - 100, 2: 2_000},
        "product_search.note_products_with_attributes": {1: "'color=color1' & '*brand=b41'"},
        "product_search.note_products": {1: "", 2: 1_000},
        "product_search.take_changed_products": {1: 300},
        "product_search.list_category_changes": {1: 0, 2: 1_000},
        "product_search.raise_terms": {1: "[]"},
        "product_search.update_products": {1: "[]"},
        "product_search.insert_products": {1: "[]"},
    }
