"""Structure drawings as small SVG text that can be set inline into a page.

RDKit's own SVG is 5 to 15 kB per molecule, with white background and fixed colours. Here all strokes
of one colour become one path, text stays text, and colours are `currentColor` or CSS variables with
a fallback, so that one drawing reads well on a light and on a dark page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

__all__ = ["draw"]

# Colours RDKit is told to use for an element, so that they can be found again in its SVG, and the
# style put in their place. The fallbacks keep about 4:1 contrast on white and on near-black.
_ELEMENTS = {
    (7,): ("#0000FF", "var(--mol-n,#3d78d8)"),
    (8,): ("#FF0000", "var(--mol-o,#d8483e)"),
    (9, 17): ("#00FF00", "var(--mol-hal,#2f8f4e)"),
    (16, 34): ("#FFFF00", "var(--mol-s,#97790f)"),
    (35, 53): ("#FF8000", "var(--mol-br,#b3612a)"),
    (15, 14, 5): ("#FF00FF", "var(--mol-p,#a855a0)"),
}
_STYLE = {marker: style for marker, style in _ELEMENTS.values()}
_PATH = re.compile(r"<path[^>]*? d='([^']*)'[^>]*? style='([^']*)'", re.DOTALL)
_TEXT = re.compile(r"<text x='([^']*)' y='([^']*)'[^>]*? style='([^']*)'[^>]*>(.*?)</text>", re.DOTALL)
_COLOUR = re.compile(r"(fill|stroke):(#[0-9A-Fa-f]{6})")
_FONT = re.compile(r"font-size:([0-9.]+)px")


def draw(smiles: Sequence[str], *, size: tuple[int, int] = (220, 140)) -> list[str]:
    """Draw structures as compact SVG strings.

    Parameters
    ----------
    smiles : sequence of str, length N
    size : (width, height), default (220, 140)
        View box in pixels; the page may scale it.

    Returns
    -------
    list of str, length N
        One ``<svg>`` each, in order, with transparent background. None holds an id, a script, an
        event handler or an outside address. A SMILES that is empty or cannot be read gives a box
        that says so.

    Notes
    -----
    The same SMILES is drawn once. The CSS variables ``--mol-n``, ``--mol-o``, ``--mol-s``,
    ``--mol-hal`` (F, Cl), ``--mol-br`` (Br, I) and ``--mol-p`` (P, Si, B) set colours; all else
    takes the page's text colour.

    Examples
    --------
    >>> draw(["CCO"])[0][:22]
    '<svg class="mol" role='
    """
    unique = {text: _one(text, size) for text in dict.fromkeys(str(s) for s in smiles)}
    return [unique[str(s)] for s in smiles]


def _one(smiles: str, size: tuple[int, int]) -> str:
    """One structure as SVG."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles.strip() else None
        if mol is None or not mol.GetNumAtoms():
            return _frame(size, _nothing(size), "no structure")
        return _frame(size, _compact(_rdkit_svg(mol, size)), "structure")


def _frame(size: tuple[int, int], body: str, label: str) -> str:
    """Put the svg element around a drawing."""
    return f'<svg class="mol" role="img" aria-label="{label}" viewBox="0 0 {size[0]} {size[1]}">{body}</svg>'


def _nothing(size: tuple[int, int]) -> str:
    """Say that there is no drawing."""
    x, y = size[0] / 2, size[1] / 2
    return f'<text x="{x:g}" y="{y:g}" font-size="12" text-anchor="middle" fill="currentColor">no structure</text>'


def _rdkit_svg(mol: Chem.Mol, size: tuple[int, int]) -> str:
    """RDKit's SVG with text as text and our marker colours."""
    drawer = rdMolDraw2D.MolDraw2DSVG(size[0], size[1], -1, -1, True)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.bondLineWidth = 1
    options.padding = 0.04
    options.fixedBondLength = 17.0  # of drawing units, about 25 px a bond: small molecules are not blown up
    options.minFontSize = 10
    options.maxFontSize = 13
    options.setAtomPalette({-1: (0.0, 0.0, 0.0)})
    options.updateAtomPalette(
        {number: _rgb(marker) for numbers, (marker, _) in _ELEMENTS.items() for number in numbers}
    )
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol, kekulize=True)
    drawer.FinishDrawing()
    return drawer.GetDrawingText()


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _colour(style: str, kind: str) -> str | None:
    """Return the page colour for RDKit's fill or stroke, None where there is none."""
    found = dict(_COLOUR.findall(style)).get(kind)
    return None if found is None else _STYLE.get(found.upper(), "currentColor")


def _compact(svg: str) -> str:
    """Join what is drawn alike into one element per colour."""
    strokes: dict[str, list[str]] = {}
    fills: dict[str, list[str]] = {}
    for path, style in _PATH.findall(svg):
        short = re.sub(r"\s*([MLQCZ])\s*", r"\1", path.strip()).replace(".0,", ",").replace(".0 ", " ")
        fill, stroke = _colour(style, "fill"), _colour(style, "stroke")
        if fill is not None:
            fills.setdefault(fill, []).append(short)
        elif stroke is not None:
            strokes.setdefault(stroke, []).append(short)
    parts = [
        f'<path style="fill:none;stroke:{colour};stroke-width:1.4;stroke-linecap:round" d="{"".join(paths)}"/>'
        for colour, paths in strokes.items()
    ]
    parts += [f'<path style="fill:{colour}" d="{"".join(paths)}"/>' for colour, paths in fills.items()]
    return "".join(parts) + _letters(svg)


def _letters(svg: str) -> str:
    """Atom labels, one group per colour and font size."""
    groups: dict[tuple[str, str], list[str]] = {}
    for x, y, style, text in _TEXT.findall(svg):
        font = _FONT.search(style)
        key = (_colour(style, "fill") or "currentColor", font.group(1) if font else "11")
        letter = html.escape(html.unescape(re.sub(r"<[^>]*>", "", text)))
        groups.setdefault(key, []).append(f'<text x="{float(x):g}" y="{float(y):g}">{letter}</text>')
    return "".join(
        f'<g style="fill:{colour};font-size:{size}px">{"".join(letters)}</g>'
        for (colour, size), letters in groups.items()
    )
