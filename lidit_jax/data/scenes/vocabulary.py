"""Vocabulary of scenes: names and values of colors, shapes, textures, sizes and relations.

These tables are shared by the renderer, the captions and the scorer, so that they agree. Lengths
are in units of the image's side, with y pointing down.
"""

from __future__ import annotations

from types import MappingProxyType

COLORS: MappingProxyType[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (214, 32, 32),
        "orange": (245, 132, 20),
        "yellow": (243, 218, 38),
        "green": (36, 160, 62),
        "cyan": (40, 192, 210),
        "blue": (36, 78, 214),
        "purple": (130, 48, 184),
        "pink": (242, 78, 170),
    }
)
"""sRGB of each color. Neighboring hues are at least 20 degrees apart, which survives blur."""

BACKGROUND: tuple[int, int, int] = (226, 226, 226)
"""sRGB of the plain background."""

SHADE = 0.45
"""Factor from an object's color to the darker tone of its stripes or dots; it keeps the hue."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "cross", "moon")
TEXTURES: tuple[str, ...] = ("solid", "striped", "dotted")
COUNTS: tuple[int, ...] = (2, 3, 4)
SIZES: tuple[str, ...] = ("small", "large")
"""Sizes that captions name."""

RADII: MappingProxyType[str, tuple[float, float]] = MappingProxyType(
    {
        "small": (6.0 / 64, 6.6 / 64),
        "medium": (8.8 / 64, 9.6 / 64),
        "large": (11.8 / 64, 12.6 / 64),
    }
)
"""Range of the radius of each size. Captions never say "medium": it is the default."""

OPPOSITES: MappingProxyType[str, str] = MappingProxyType(
    {"left": "right", "right": "left", "above": "below", "below": "above"}
)
RELATIONS: tuple[str, ...] = tuple(OPPOSITES)

LANGUAGES: tuple[str, ...] = ("en", "zh")
CHINESE: MappingProxyType[str, str] = MappingProxyType(
    {
        "red": "红色",
        "orange": "橙色",
        "yellow": "黄色",
        "green": "绿色",
        "cyan": "青色",
        "blue": "蓝色",
        "purple": "紫色",
        "pink": "粉色",
        "circle": "圆形",
        "square": "正方形",
        "triangle": "三角形",
        "star": "五角星",
        "heart": "心形",
        "cross": "十字形",
        "moon": "月牙",
        "solid": "纯色",
        "striped": "条纹",
        "dotted": "圆点",
        "small": "小",
        "large": "大",
    }
)
"""Chinese words of captions."""
