"""Drawings are small, inert, and show the atoms that are there."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, RDLogger

from phenohit.chem.draw import draw

MOLECULES = [
    "CC(=O)Nc1ccc(O)cc1",
    "C[C@H]1CN(c2cc(F)c(Cl)cc2S(=O)(=O)N)CCO1",
    "Cc1cn(-c2cc(NC(=O)c3ccc(C)c(Nc4nccc(-c5cccnc5)n4)c3)cc(C(F)(F)F)c2)cn1",
    "C[N+](C)(C)CCOP(=O)([O-])[O-].[Na+].[Na+]",
    "c1ccc2c(c1)[nH]c1ccccc12",
    "F/C=C/Br",
]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_every_heteroatom_is_lettered(smiles):
    mol = Chem.MolFromSmiles(smiles)
    atoms = Counter(a.GetSymbol() for a in mol.GetAtoms() if a.GetSymbol() in {"N", "O", "F", "S", "P"})
    letters = Counter(t.text for t in parsed(draw([smiles])[0]).iter("text"))
    # Na, Br and Cl are drawn letter by letter or as one text; N of Na must not be taken for nitrogen.
    sodium = sum(a.GetSymbol() == "Na" for a in mol.GetAtoms())
    letters["N"] -= sodium if letters["a"] else 0
    assert {s: letters[s] for s in atoms} == dict(atoms)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_is_compact_transparent_and_inert(smiles):
    svg = draw([smiles])[0]
    names = {e.tag for e in parsed(svg).iter()}
    attributes = {a for e in parsed(svg).iter() for a in e.attrib}
    assert names <= {"svg", "path", "g", "text"}  # no rect: nothing is painted behind; no script, no image
    assert attributes <= {"class", "role", "aria-label", "viewBox", "style", "d", "x", "y"}
    assert len(svg) < 4500
    assert "#000000" not in svg  # black would vanish on a dark page


def test_bonds_lie_inside_the_box():
    svg = draw(["Cc1ccccc1C(=O)O"], size=(160, 100))[0]
    points = [float(v) for d in re.findall(r' d="([^"]*)"', svg) for v in re.findall(r"-?\d+(?:\.\d+)?", d)]
    assert len(points) > 30
    assert min(points) >= 0
    assert max(points) <= 160
    assert 'viewBox="0 0 160 100"' in svg


def test_order_and_repeats_are_kept():
    first, second = draw(["CCO"]), draw(["CCN"])
    assert draw(["CCO", "CCN", "CCO"]) == [*first, *second, *first]
    assert first != second
    assert draw([]) == []


@pytest.mark.parametrize("smiles", ["", "  ", "C1CC(", "not a molecule", "<script>alert(1)</script>"])
def test_what_cannot_be_read_says_so(smiles):
    svg = draw([smiles])[0]
    assert "no structure" in svg
    assert "alert" not in svg
    parsed(svg)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_text_gives_an_inert_drawing(text):
    RDLogger.DisableLog("rdApp.*")
    svg = draw([text])[0]
    assert {e.tag for e in parsed(svg).iter()} <= {"svg", "path", "g", "text"}
