"""A made-up but drug-like compound library: chemical series, singletons, and what real libraries carry along.

A molecule is a core with an arm and a tail; the tail carries a small group R. Members of a series share
core, arm and tail and differ in R, so they share a Murcko scaffold (unless R has a ring) and are close
analogues. Two series differ in at least two of the three pieces as long as enough combinations exist,
so they are not neighbours. The pieces are written as SMILES text with ring numbers of their own (core
1-3, arm 4-5, tail 6-7, R 8), so that joining them is text formatting and needs no reaction engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.chem.parallel import over_unique
from phenohit.errors import ConfigError

__all__ = ["GROUPS", "build_library", "functional_groups"]

GROUPS = {
    "sulfonamide": "[#6]S(=O)(=O)[NX3]",
    "carboxylic_acid": "[CX3](=O)[OX2H1]",
    "basic_amine": "[NX3;!$(N-[C,S,P]=[O,S,N]);!$(N-a);!$(N-C=C)]([CX4])([CX4])[CX4]",
    "urea": "[NX3]C(=O)[NX3]",
    "nitrile": "C#N",
    "trifluoromethyl": "C(F)(F)F",
}
"""Functional groups that `functional_groups` looks for: name -> SMARTS."""


def _pieces(text: str) -> list[str]:
    """Split a block of SMILES pieces."""
    return text.split()


_CORES = _pieces(
    "c1nc({t})c2cc({a})ccc2n1 c1cc({t})c2cc({a})ccc2n1 c1({a})cc2c({t})ncnc2n1C c1c({a})ncc2nc({t})n(C)c12 "
    "c1({t})nc2ccc({a})cc2[nH]1 c1({t})nc2ccc({a})cc2o1 c1({t})nc2ccc({a})cc2s1 c1({t})cc2cc({a})ccc2[nH]1 "
    "c1({t})cn(C)c2ccc({a})cc12 c1({t})cc2cc({a})ccc2o1 c1({t})cc2cc({a})ccc2s1 c1({t})nc({a})sc1C "
    "c1({t})nc({a})oc1C c1({t})noc({a})c1C c1({t})cc({a})n(C)n1 c1({t})nc({a})cc(C)n1 c1({t})cc({a})ncn1 "
    "c1({t})ncc({a})cn1 c1({t})cnc({a})cn1 c1({t})ccc({a})nn1 c1({t})ccc({a})nc1 c1({t})cncc({a})c1 "
    "c1({t})nnc({a})o1 c1({t})noc({a})n1 c1({t})nnc({a})n1C c1({t})cccc({a})c1 c1({t})ccc({a})c(F)c1 "
    "c1({t})ccc({a})cc1OC c1({t})cn2cc({a})cnc2n1 c1({t})cn2cc({a})ccc2n1 c1({t})cc2ncc({a})cn2n1 "
    "c1({t})nn(C)c2cc({a})ccc12 c1({t})ncc2cc({a})ccc2n1 c1({t})cnc2cc({a})ccc2n1 c1({t})ccc2cc({a})ccc2c1 "
    "c1({t})cc({a})c2ccccc2n1 c1({t})sc2ncnc({a})c2c1C c1({t})nc({a})c2c(n1)CCCC2 c1({t})cc(=O)c2cc({a})ccc2o1 "
    "C1CC({t})CCC1({a}) C1C({t})CCC1({a}) C1C({t})c2ccc({a})cc2OC1 c1({t})csc({a})c1"
)

_ARMS = _pieces(
    "S(=O)(=O)NCC4CCOCC4 S(=O)(=O)N4CCCC4 NS(=O)(=O)c4ccc(OC)cc4 CNS(=O)(=O)C4CC4 S(=O)(=O)NC4CCCC4 "
    "S(=O)(=O)NCc4ccco4 C(=O)NC(CC(C)C)C(=O)O OCc4ccc(C(=O)O)cc4 CCC(=O)NCC(=O)O C(=O)N4CCC(C(=O)O)CC4 "
    "C(=O)Nc4cccc(C(=O)O)c4 C(=O)N4CCN(CC)CC4 OCCCN4CCCC4 CN4CCN(C)CC4 C(=O)NCCN(C)C C(=O)NCCCN4CCCCC4 "
    "CCN4CCC(C)CC4 C(=O)N4CCC(C#N)CC4 OCc4cccc(C#N)c4 NC(=O)NC4CCCCC4 NC(=O)Nc4ccc(F)cc4 CNC(=O)NC(C)C "
    "NC(=O)N4CCOCC4 C(=O)NCc4cccnc4 C(=O)NC4CCOCC4 NC(=O)C4CCCC4 NC(=O)c4ccc(F)cc4 C(=O)N4CCOCC4 NC(=O)c4ccco4 "
    "C(=O)Nc4nccs4 OCC(=O)NC4CC4 OC4CCOCC4 C(=O)NC4CCN(C(C)=O)CC4 N4CCC(CO)CC4 C(=O)NCCOCC C(=O)Nc4cccc(C(F)(F)F)c4 "
    "NC(=O)c4ccc(C(F)(F)F)cc4 OCCCOC c4cnn(C)c4 NC(=O)Cc4cccs4 C(=O)N[C@@H](C)c4ccccc4 NC(=O)[C@@H](C)Oc4ccccc4 "
    "C(=O)N4CC[C@@H](O)C4 C(=O)N[C@@H](CC(C)C)C(=O)NC CC(=O)NCc4ccncc4 OCC4CCCO4 C(=O)NCC4CC4"
)

_PAINS_ARMS = _pieces(
    "C=C4SC(=S)NC4=O C=C4SC(=S)N(C)C4=O NC(=O)c4ccc(O)c(O)c4 CNC(=O)c4ccc(O)c(O)c4 C4=CC(=O)C=CC4=O "
    "NC4=CC(=O)c5ccccc5C4=O"
)

_TAILS = _pieces(
    "Nc6ccc({r})cc6 c6ccc({r})cc6 Oc6ccc({r})cc6 NCc6ccc({r})cc6 C(=O)Nc6ccc({r})cc6 NC(=O)c6ccc({r})cc6 "
    "OCc6ccc({r})cc6 N6CCN(c7ccc({r})cc7)CC6 N6CCC(c7ccc({r})cc7)CC6 C(=O)N6CCN(c7ccc({r})cc7)CC6 "
    "CN6CCN(C(=O)c7ccc({r})cc7)CC6 C(=O)NCCc6ccc({r})cc6 NCCc6ccc({r})cc6 SCc6ccc({r})cc6 "
    "C(=O)NC6CCN(c7ccc({r})cn7)CC6 c6ccc(Oc7ccc({r})cc7)cc6 c6ccc(NC(=O)c7ccc({r})cc7)cc6 c6cnn(Cc7ccc({r})cc7)c6 "
    "c6csc(Nc7ccc({r})cc7)n6 c6noc(-c7ccc({r})cc7)n6 N6CCC(Oc7ccc({r})cc7)CC6 OCCOc6ccc({r})cc6 "
    "c6ccc(-c7ccc({r})cc7)cc6 C(=O)N6CCC(Cc7ccc({r})cc7)CC6 CC(=O)Nc6ccc({r})cc6 c6nnc(-c7ccc({r})cc7)o6 "
    "NC6CCN(Cc7ccc({r})cc7)CC6 N6CCc7cc({r})ccc7C6 NCc6ccc(Oc7ccc({r})cc7)cc6 CCC(=O)Nc6ccc({r})cc6"
)

# Substituents beside R that make further tails for libraries too large for the tails above.
_BESIDE = _pieces("F Cl C OC C#N C(F)(F)F CC OC(F)F")
_LARGE = 100_000  # compounds beyond which further tails are needed

_R = _pieces(
    "F Cl Br C CC OC OCC C(F)(F)F C#N OC(F)F OC(F)(F)F CCC C(C)C OC(C)C SC C(C)(C)C C(C)=O S(C)(=O)=O C8CC8 "
    "CCCC OCCC OCCOC C(=O)NC NC(C)=O CO COC C(=O)OC CCO OC8CCC8"
)

_ACYLS = _pieces("CC CCC CCCCC CC(C)C CCCCCCC COCC CCOCC CSCC")
_RESIDUES = _pieces("[C@@H](C) [C@@H](CC(C)C) [C@@H](C(C)C) CC [C@@H](CCSC) [C@@H](CO) C(C)(C) CCCC")
_AMINES = _pieces("NCCO NCCC NCCCC NCC(C)C NCCOC N(C)CC NCCS(C)(=O)=O NCCC#N NCC(=O)O NCCN(C)C")

_SALTS = ("Cl", "O=C(O)C(F)(F)F", "CS(=O)(=O)O", "O=C(O)C=CC(=O)O")


def build_library(
    n: int,
    *,
    seed: int = 0,
    series_share: float = 0.6,
    pains_share: float = 0.03,
    salt_share: float = 0.03,
    stereo_share: float = 0.02,
) -> pd.DataFrame:
    """Build `n` different drug-like compounds in series and singletons.

    Parameters
    ----------
    n : int
        Compounds wanted.
    seed : int
        Same seed, same library.
    series_share : float in [0, 1]
        Share of compounds that belong to a series of three or more.
    pains_share : float in [0, 1]
        Share of compounds whose arm is a rhodanine, quinone or catechol.
    salt_share : float in [0, 1]
        Share of compounds written with a counter-ion or acid.
    stereo_share : float in [0, 1]
        Share of compounds that get their mirror image as a further compound, as far as chiral ones exist.

    Returns
    -------
    DataFrame, n rows
        ``smiles``, with the counter-ion if any; ``parent``, without; ``inchikey`` of the parent, unique;
        ``series`` int, the series the compound was made for (a singleton has a number of its own); ``core``
        int, -1 for acyclic compounds; ``is_pains``, ``is_salt``, ``is_twin`` (a mirror image) bool: made on
        purpose to be so; others may hit an alert by chance.

    Raises
    ------
    ConfigError
        If more compounds are wanted than can be made.
    """
    rng = np.random.default_rng([seed, 1])
    tails = _TAILS if n <= _LARGE else [*_TAILS, *_more_tails()]
    families = _families(rng, series_share, pains_share, tails)
    kept: list[pd.DataFrame] = []
    seen: set[str] = set()
    missing = n
    while missing > 0:
        block = _members(rng, families, missing, stereo_share)
        if not len(block):
            raise ConfigError(
                f"Only {n - missing:,} different compounds can be made from the building blocks, not {n:,}. "
                "Ask for fewer compounds."
            )
        block = _checked(block, seen).iloc[:missing]
        kept.append(block)
        missing -= len(block)
    library = pd.concat(kept, ignore_index=True)
    # Series are numbered by first appearance so that numbers have no gaps after duplicates are gone.
    library["series"] = pd.factorize(library["series"])[0]
    library["is_salt"] = rng.random(n) < salt_share
    salt = rng.integers(len(_SALTS), size=n)
    counter = np.where(library["is_salt"], np.array([f".{s}" for s in _SALTS])[salt], "")
    library["parent"] = library["smiles"]
    library["smiles"] = library["parent"] + counter
    return library[["smiles", "parent", "inchikey", "series", "core", "is_pains", "is_salt", "is_twin"]]


def functional_groups(smiles: list[str]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Find the functional groups of `GROUPS` and the computed logP of each compound.

    Parameters
    ----------
    smiles : list of str, length N
        Readable structures; counter-ions are counted with the rest, so give parents.

    Returns
    -------
    groups : bool array, shape (N, len(GROUPS))
        True where the compound holds the group; columns in the order of `GROUPS`.
    logp : float64 array, shape (N,)
        Crippen logP (Wildman and Crippen 1999, doi:10.1021/ci990307l).
    """
    found = over_unique(_groups_of, smiles, jobs=0, title="functional groups")
    return found[:, :-1] > 0, found[:, -1]


def _groups_of(smiles: list[str]) -> NDArray[np.float64]:
    """Functional groups (0 or 1) and logP of some structures, (n, len(GROUPS) + 1)."""
    from rdkit import Chem
    from rdkit.Chem import Crippen

    patterns = [Chem.MolFromSmarts(smarts) for smarts in GROUPS.values()]
    found = np.zeros((len(smiles), len(patterns) + 1))
    for i, text in enumerate(smiles):
        molecule = Chem.MolFromSmiles(text)
        found[i, :-1] = [molecule.HasSubstructMatch(pattern) for pattern in patterns]
        found[i, -1] = Crippen.MolLogP(molecule)
    return found


def _families(
    rng: np.random.Generator, series_share: float, pains_share: float, tails: list[str]
) -> Iterator[tuple[int, str, int, bool, int]]:
    """Yield number, template with ``{r}``, core, whether PAINS, and wanted size of each series or singleton."""
    share_of_series = _share_of_series(series_share)
    acyclic = [f"{acyl}C(=O)N{residue}C(=O){amine}" for acyl, residue, amine in product(_ACYLS, _RESIDUES, _AMINES)]
    acyclic = [acyclic[i] for i in rng.permutation(len(acyclic))]
    pains_owed = 0.0
    for number, (core, arm, tail) in enumerate(_combinations(rng, len(tails))):
        is_series = rng.random() < share_of_series
        size = 2 + int(rng.geometric(_GEOMETRIC)) if is_series else 1
        pains_owed += pains_share * size
        is_pains = pains_owed >= size  # by debt, not by chance: a small library gets its share as well
        pains_owed -= size * is_pains
        if size == 1 and not is_pains and acyclic and rng.random() < 0.02:  # a few acyclic singletons
            yield number, acyclic.pop(), -1, False, 1
        else:
            piece = _PAINS_ARMS[rng.integers(len(_PAINS_ARMS))] if is_pains else _ARMS[arm]
            # The tail keeps its own placeholder for R: it is filled in per member.
            template = _CORES[core].replace("{a}", piece).replace("{t}", tails[tail])
            yield number, template, core, is_pains, size


_GEOMETRIC = 0.22  # series sizes are 2 + geometric: 3 at least, 6.5 on average


def _share_of_series(series_share: float) -> float:
    """Turn the share of compounds that are in series into the share of families that are series."""
    mean = 2 + 1 / _GEOMETRIC
    return series_share / (series_share + (1 - series_share) * mean)


def _more_tails() -> list[str]:
    """Tails with a fixed substituent next to R, for every tail that has room for one."""
    spots = {"cc({r})": "c({b})c({r})", "ccc({r})": "cc({b})c({r})"}
    made = []
    for tail in _TAILS:
        old = next((spot for spot in spots if spot in tail), None)
        if old is not None:
            made += [tail.replace(old, spots[old].replace("{b}", beside)) for beside in _BESIDE]
    return made


def _combinations(rng: np.random.Generator, n_tails: int) -> Iterator[tuple[int, int, int]]:
    """Yield all (core, arm, tail) in seeded order, those that differ in two pieces or more first.

    For a fixed `shift`, arm = core + tail + shift (mod arms) is a Latin square: any two of its
    combinations share at most one piece.
    """
    n_cores, n_arms = len(_CORES), len(_ARMS)
    cores, arms, tails = rng.permutation(n_cores), rng.permutation(n_arms), rng.permutation(n_tails)
    for shift in rng.permutation(n_arms):
        for cell in rng.permutation(n_cores * n_tails):
            core, tail = divmod(int(cell), n_tails)
            yield int(cores[core]), int(arms[(core + tail + shift) % n_arms]), int(tails[tail])


def _members(
    rng: np.random.Generator,
    families: Iterator[tuple[int, str, int, bool, int]],
    wanted: int,
    stereo_share: float,
) -> pd.DataFrame:
    """Draw families until at least `wanted` compounds are written; empty when there are no more."""
    rows: list[tuple[str, int, int, bool, bool]] = []
    pairs_owed = 0.0
    for number, template, core, is_pains, size in families:
        if "{r}" not in template:
            members = [template]
        else:
            # Small groups come first in _R and are preferred: they make the closest analogues.
            order = np.argsort(np.arange(len(_R)) * 0.5 + rng.random(len(_R)) * len(_R))
            members = [template.replace("{r}", _R[i]) for i in order[:size]]
        pairs_owed += stereo_share * len(members)
        for smiles in members:
            rows.append((smiles, number, core, is_pains, False))
            if pairs_owed >= 1 and "@@" in smiles and core >= 0:
                rows.append((smiles.replace("@@", "@"), number, core, is_pains, True))
                pairs_owed -= 1
        if len(rows) >= wanted:
            break
    return pd.DataFrame(rows, columns=["smiles", "series", "core", "is_pains", "is_twin"])


def _checked(block: pd.DataFrame, seen: set[str]) -> pd.DataFrame:
    """Add canonical SMILES and InChIKey, and leave out compounds that were made before."""
    names = over_unique(_names_of, block["smiles"].tolist(), jobs=0, title="simulate structures")
    block = block.assign(smiles=names[:, 0], inchikey=names[:, 1])
    block = block.loc[~block["inchikey"].duplicated() & ~block["inchikey"].isin(seen)]
    seen.update(block["inchikey"])
    return block


def _names_of(smiles: list[str]) -> NDArray[np.object_]:
    """Canonical SMILES and InChIKey of some structures, (n, 2)."""
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    with BlockLogs():  # InChI comments on every undefined stereocentre
        molecules = [Chem.MolFromSmiles(text) for text in smiles]
        names = [(Chem.MolToSmiles(m), Chem.MolToInchiKey(m)) for m in molecules]
    return np.array(names, dtype=object).reshape(-1, 2)
