"""Pictures of the demonstration's products, drawn here: simple shapes, without a network or a font."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from commerce.kernel.errors import NotFound, NotReady
from commerce.kernel.optional import require_extra
from commerce.pictures.model import AltTexts
from ops.services import CliServices

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_ACTOR = "demo"
_SIDE_PX, _SMOOTHING = 1_024, 2
_INK, _WHITE, _STEEL, _DARK = "#23303b", "#fdfcf8", "#b9c4cc", "#3d4c59"

_Shape = tuple[str, Sequence[float], str]
"""kind, coordinates in hundredths of the side, colour; a `box` has rounded corners, a `line` is 2 wide"""
_DRAWINGS: dict[str, tuple[tuple[str, str], AltTexts, Sequence[_Shape]]] = {
    "PHONE-X1": (
        ("#dfe7f2", "#9fb4d1"),
        {"en": "A dark blue phone, seen from its screen", "zh": "深蓝色手机正面"},
        [
            ("box", (33, 14, 67, 86), "#17233f"),
            ("box", (35, 17, 65, 83), "#3f63a8"),
            ("pie", (35, 42, 65, 72), "#7fa2dd"),
            ("ellipse", (48, 19, 52, 23), "#17233f"),
            ("box", (43, 79, 57, 80), _WHITE),
        ],
    ),
    "BUDS-2": (
        ("#f3ece2", "#d9c7ab"),
        {"en": "Two white earbuds above their charging case", "zh": "两只白色耳机和充电盒"},
        [
            ("box", (25, 52, 75, 84), _WHITE),
            ("line", (25, 62, 75, 62), _STEEL),
            ("ellipse", (48, 70, 52, 74), "#69b578"),
            ("ellipse", (28, 18, 44, 34), _WHITE),
            ("box", (33, 28, 39, 48), _WHITE),
            ("ellipse", (56, 18, 72, 34), _WHITE),
            ("box", (61, 28, 67, 48), _WHITE),
            ("ellipse", (31, 22, 37, 28), _DARK),
            ("ellipse", (63, 22, 69, 28), _DARK),
        ],
    ),
    "KETTLE-17": (
        ("#e6efe9", "#a9c4b4"),
        {"en": "A steel kettle with a dark handle", "zh": "黑色把手的不锈钢电水壶"},
        [
            ("arc", (58, 26, 88, 72), _INK),
            ("polygon", (34, 30, 20, 26, 30, 46), _STEEL),
            ("polygon", (36, 24, 64, 24, 72, 78, 28, 78), _STEEL),
            ("polygon", (40, 24, 48, 24, 44, 78, 36, 78), "#dbe2e7"),
            ("box", (38, 20, 62, 25), _INK),
            ("ellipse", (47, 14, 53, 21), _INK),
            ("box", (26, 78, 74, 85), _INK),
        ],
    ),
    "TEA-LJ-250": (
        ("#eef3df", "#b7c98b"),
        {"en": "A green tin of tea with a leaf on its label", "zh": "绿色茶叶罐,标签上有一片茶叶"},
        [
            ("box", (30, 24, 70, 84), "#3f6b3a"),
            ("box", (28, 16, 72, 30), "#2f5130"),
            ("box", (35, 42, 65, 72), "#f4efd9"),
            ("polygon", (40, 66, 42, 54, 50, 47, 60, 47, 59, 57, 52, 64), "#7da453"),
            ("line", (39, 68, 56, 51), "#2f5130"),
        ],
    ),
    "RICE-5KG": (
        ("#f6efe4", "#dcc9a6"),
        {"en": "A bag of rice with ears on it", "zh": "一袋大米,袋上有稻穗"},
        [
            ("polygon", (28, 22, 72, 22, 76, 84, 24, 84), "#fbf6ea"),
            ("polygon", (30, 14, 70, 14, 66, 24, 34, 24), "#c7553b"),
            ("box", (32, 38, 68, 70), "#c7553b"),
            ("line", (42, 66, 50, 42), "#f2d479"),
            ("line", (58, 66, 50, 42), "#f2d479"),
            *(("ellipse", (46 + n, 40 + 5 * n, 50 + n, 46 + 5 * n), "#f2d479") for n in range(4)),
            *(("ellipse", (50 - n, 40 + 5 * n, 54 - n, 46 + 5 * n), "#f2d479") for n in range(4)),
        ],
    ),
    "DUVET-200": (
        ("#e9eaf4", "#b5b8d6"),
        {"en": "A folded white duvet", "zh": "折叠好的白色被子"},
        [
            *(("box", (18, 60 - 14 * n, 82, 76 - 14 * n), ("#ffffff", "#eef0fa", "#dfe2f2")[n]) for n in range(3)),
            *(("line", (18 + 16 * n, 32, 18 + 16 * n, 46), "#c4c9e4") for n in range(1, 4)),
            ("box", (44, 28, 56, 78), "#7d86c1"),
        ],
    ),
    "LAMP-LED": (
        ("#f7f1dc", "#e2c76f"),
        {"en": "A lamp that is switched on", "zh": "亮着的台灯"},
        [
            ("polygon", (34, 40, 66, 40, 86, 78, 14, 78), "#fff4bf"),
            ("box", (48, 36, 52, 80), _DARK),
            ("polygon", (40, 16, 60, 16, 72, 42, 28, 42), "#c75d3c"),
            ("ellipse", (45, 38, 55, 47), "#fff9e0"),
            ("box", (34, 78, 66, 84), _DARK),
        ],
    ),
    "SHOES-42": (
        ("#e3f0f3", "#9cc3cd"),
        {"en": "A red running shoe with a white sole", "zh": "白色鞋底的红色跑鞋"},
        [
            ("polygon", (18, 40, 32, 34, 44, 46, 62, 54, 80, 60, 84, 70, 16, 70), "#d1493f"),
            ("polygon", (18, 40, 32, 34, 34, 46, 24, 56, 17, 56), "#9c2f2b"),
            ("box", (14, 68, 86, 77), _WHITE),
            *(("line", (40 + 7 * n, 43 + 4 * n, 34 + 7 * n, 52 + 4 * n), _WHITE) for n in range(4)),
            ("polygon", (44, 66, 62, 57, 68, 60, 50, 68), "#f2c14e"),
        ],
    ),
    "MASK-50": (
        ("#e8f4f5", "#a7d3d8"),
        {"en": "A light blue face mask", "zh": "浅蓝色口罩"},
        [
            ("arc", (8, 34, 36, 68), _STEEL),
            ("arc", (64, 34, 92, 68), _STEEL),
            ("polygon", (24, 34, 76, 34, 80, 52, 68, 72, 32, 72, 20, 52), "#8fd0dc"),
            *(("line", (24, 43 + 8 * n, 76, 43 + 8 * n), "#6ab6c4") for n in range(3)),
            ("box", (38, 34, 62, 37), _WHITE),
        ],
    ),
    "CABLE-C-1M": (
        ("#ececec", "#bdbdbd"),
        {"en": "A white cable with a plug at each end", "zh": "两端带插头的白色数据线"},
        [
            ("arc", (22, 26, 78, 82), _WHITE),
            ("arc", (32, 36, 68, 72), _WHITE),
            ("box", (12, 44, 24, 66), _WHITE),
            ("box", (14, 34, 22, 45), _STEEL),
            ("box", (76, 44, 88, 66), _WHITE),
            ("box", (78, 34, 86, 45), _STEEL),
        ],
    ),
}


async def create_demo_pictures(shop: CliServices) -> None:
    """Upload a picture of each product of the demonstration that has none. A worker renders them.

    Creates nothing in an installation without the extra `aftersales`."""
    try:
        require_extra("draw pictures", "aftersales", "PIL")
    except NotReady:
        return  # everything else works
    for product_id, (_, alt_texts, _) in _DRAWINGS.items():
        try:
            existing = await shop.pictures.list_of_product(product_id)
        except NotFound:
            continue
        if not existing.pictures and not existing.imports:
            content = await asyncio.to_thread(draw, product_id)
            await shop.pictures.upload(product_id, content, _ACTOR, alt_texts)


def draw(product_id: str) -> bytes:
    """Draw a product as PNG."""
    from PIL import Image, ImageDraw  # noqa: PLC0415  # an extra

    (light, shade), _, shapes = _DRAWINGS[product_id]
    side_px = _SIDE_PX * _SMOOTHING
    image = Image.new("RGB", (side_px, side_px), light)
    fade = Image.linear_gradient("L").resize((side_px, side_px))
    image.paste(Image.new("RGB", image.size, shade), mask=fade)
    canvas = ImageDraw.Draw(image)
    _draw_shape(canvas, ("ellipse", (18, 80, 82, 92), shade), side_px)  # its shadow
    for shape in shapes:
        _draw_shape(canvas, shape, side_px)
    written = BytesIO()
    image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS).save(written, "PNG")
    return written.getvalue()


def _draw_shape(canvas: ImageDraw, shape: _Shape, side_px: int) -> None:
    kind, places, color = shape
    points = [place * side_px / 100 for place in places]
    width_px = side_px // 50
    match kind:
        case "box":
            canvas.rounded_rectangle(points, min(points[2] - points[0], points[3] - points[1]) / 5, color)
        case "ellipse":
            canvas.ellipse(points, color)
        case "polygon":
            canvas.polygon(points, color)
        case "line":
            canvas.line(points, color, width_px)
        case "pie":
            canvas.pieslice(points, 180, 360, color)
        case "arc":
            canvas.arc(points, 0, 360, color, width_px * 2)
