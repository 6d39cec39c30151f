"""What charts are drawn of: text, lines and boxes as SVG."""

from __future__ import annotations

from markupsafe import escape

__all__ = ["line", "number_text", "rect", "text"]


def text(x: float, y: float, words: str, anchor: str = "middle", *, turn: bool = False, name: str = "") -> str:
    """Write escaped words; `anchor` is start, middle or end, `turn` writes upwards, `name` is the class."""
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    named = f' class="{name}"' if name else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(words)}</text>'


def line(name: str, x0: float, x1: float, y: float) -> str:
    """Draw a level line."""
    return f'<path class="{name}" d="M{x0:.1f} {y:.1f}H{x1:.1f}"/>'


def rect(name: str, x: float, y: float, wide: float, high: float) -> str:
    """Draw a box from its upper left corner."""
    return f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{max(high, 0):.1f}"/>'


def number_text(value: float) -> str:
    """Write a number at an axis."""
    return f"{value:,.6g}".replace("-", "−") if abs(value) < 1e6 else f"{value:,.0f}"
