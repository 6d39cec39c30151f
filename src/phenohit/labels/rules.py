"""The rules that activity records must pass, in their order, and what each record tells.

A record's fate is what it was used for, or the first rule that it breaks. Sources: Hofmarcher et al. (2019),
Ha's thesis, and ChEMBL's own definition of pChEMBL: -log10 of a molar concentration whose relation is '='.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phenohit.config import CurateConfig
from phenohit.labels.records import NO_COMPOUND, NOT_IMAGED, Block, Records

__all__ = ["FATES", "REASONS", "USED", "Judged", "bound_votes", "code", "judge", "unit_of", "vote_of"]

# What a record was used for; then the rules in the order in which they are applied.
FATES = (
    "value", "value and comment", "bound", "bound and comment", "comment",
    "assay", "target", "assay type", "confidence", "compound", "potential duplicate", "validity", "type", "no value",
    "relation", "censored", "units", "no pchembl", "range", "open bound", "settled", "spread", "not imaged",
)  # fmt: skip
USED = 5  # fates below this are uses

REASONS = {
    "value": "exact value, averaged with its repeats",
    "value and comment": "exact value, and a vote by its comment",
    "bound": "bound that settles a threshold",
    "bound and comment": "bound that settles a threshold, and a vote by its comment",
    "comment": "vote by its comment",
    "assay": "the assay is not named, or left out by the settings",
    "target": "the target is not one of curate.targets",
    "assay type": "the assay type is not one of curate.assay_types",
    "confidence": "the confidence score is below curate.min_confidence",
    "compound": "no structure: the compound cannot be identified",
    "potential duplicate": "marked as a copy of an earlier record",
    "validity": "a data validity comment that is not in curate.validity",
    "type": "the standard type is not in curate.types",
    "no value": "no positive number where one is needed",
    "relation": "neither an exact value nor a bound (relation empty or approximate)",
    "censored": "known only as above or below a bound (curate.censored: ignore)",
    "units": "units that are no molar concentration",
    "no pchembl": "a concentration to which ChEMBL gives no pChEMBL value",
    "range": "outside curate.low to curate.high",
    "open bound": "a bound that settles no threshold",
    "settled": "a bound where there is an exact value",
    "spread": "exact values of the pair differ by more than curate.max_spread",
    "not imaged": "passes every rule, but the compound was not imaged",
}

_ACTIVE = frozenset({"active"})
_INACTIVE = frozenset(
    {
        "inactive", "not active", "no activity",
        # The misspelling is ChEMBL's.
        "not active (inhibition < 50% @ 10 um and thus dose-reponse curve not measured)",
        "not active (inhibition < 50% @ 10 um and thus dose-response curve not measured)",
    }
)  # fmt: skip
_ABOVE, _BELOW, _AT = 1, 2, 4  # meaning of a relation, as bits
_RELATIONS = {">": _ABOVE, ">>": _ABOVE, ">=": _ABOVE | _AT, "<": _BELOW, "<<": _BELOW, "<=": _BELOW | _AT}
_EXPONENTS = {"m": 0, "mm": 3, "um": 6, "nm": 9, "pm": 12, "fm": 15}
_LOG_TYPE = re.compile(r"^(p(ic|ec|gi|ac|ed|xc|cc|lc|ki|kd)|-\s*log)")
_NOT_MOLAR, _BARE = -1, -2


def code(fate: str) -> int:
    """Return the number of a fate."""
    return FATES.index(fate)


def vote_of(comment: str) -> int:
    """Return 1 for a comment that says active, 0 for inactive, -1 for any other."""
    text = " ".join(comment.casefold().split())
    return 1 if text in _ACTIVE else 0 if text in _INACTIVE else -1


def unit_of(units: str) -> int:
    """Return minus the decimal exponent of a molar unit, `_BARE` for none, `_NOT_MOLAR` else."""
    text = units.casefold().replace("µ", "u").replace("μ", "u").replace(" ", "").replace("mol/l", "m")
    if text in ("", "log", "logunits"):
        return _BARE
    # Capitals carry no meaning here but one: mM and MM do not both occur, mm (millimetre) does.
    return _NOT_MOLAR if units.strip() in ("mm", "nm", "pm", "fm", "um", "m") else _EXPONENTS.get(text, _NOT_MOLAR)


class Judged(NamedTuple):
    """What a block of records tells; one element per record.

    `fate` (int8), `p` (float64: -log10 M where known, exact or bound), `bound` (int8: 0 exact, 1 the
    value is above `p`, 2 below, +4 at it too), `vote` (int8: 1, 0, -1 none).
    """

    fate: NDArray[np.int8]
    p: NDArray[np.float64]
    bound: NDArray[np.int8]
    vote: NDArray[np.int8]


def judge(records: Records, block: Block, how: CurateConfig, thresholds: NDArray[np.float64]) -> Judged:
    """Apply every rule to a block of records.

    Parameters
    ----------
    records : Records
        Its words and assays.
    block : Block, n records
    how : CurateConfig
    thresholds : float array
        For bounds: which are settled.

    Returns
    -------
    Judged
        The fates ``settled`` and ``spread`` need all records of a pair and are given later.
    """
    words = records.words
    types, exact_signs = {t.casefold() for t in how.types}, set(how.relations)
    harmless = {v.casefold() for v in how.validity} | {""}
    kind = words["type"].judged("type", lambda t: _type_of(t, types))[block.type]
    sign = words["relation"].judged("sign", lambda r: 0 if r in exact_signs else _RELATIONS.get(r, -1))[block.relation]
    unit = words["units"].judged("unit", unit_of)[block.units]
    valid = words["validity"].judged("valid", lambda v: v.casefold() in harmless)[block.validity] == 1
    vote = words["comment"].judged("vote", vote_of)[block.comment] if how.comments else np.int8(-1)
    vote = np.broadcast_to(vote, block.comment.shape)

    bound = np.where(sign > 0, sign, 0).astype(np.int8)
    p, no_number, wrong_unit, withheld = _potency(block, kind, unit, bound, convert=records.molar)
    # A sign beside a concentration speaks of it; beside a logarithm alone it speaks of that.
    bound = np.where((bound > 0) & (kind == _MOLAR) & ~np.isnan(block.value), _flip(bound), bound).astype(np.int8)
    open_bound = (bound > 0) & ~_settles(p, bound, thresholds).any(axis=1)

    rule = np.append(records.assay_rule, np.int8(code("assay")))[block.assay]  # -1: no assay
    common = [rule >= 0, block.compound == NO_COMPOUND, block.duplicate & (how.potential_duplicates == "drop"), ~valid]
    names = ["", "compound", "potential duplicate", "validity"]
    breaks_common = np.logical_or.reduce(common)
    numbers = [
        (kind == _OTHER, "type"), (no_number, "no value"), (sign < 0, "relation"),
        ((sign > 0) & (how.censored == "ignore"), "censored"), (wrong_unit, "units"), (withheld, "no pchembl"),
        ((bound == 0) & ~((p >= how.low - 1e-9) & (p <= how.high + 1e-9)), "range"), (open_bound, "open bound"),
    ]  # fmt: skip
    breaks_number = np.logical_or.reduce([broken for broken, _ in numbers])
    votes = ~breaks_common & (vote >= 0)
    counts = ~breaks_common & ~breaks_number
    fate = np.select(
        [common[0], *common[1:], counts & votes & (bound > 0), counts & (bound > 0), counts & votes, counts, votes,
         *(broken for broken, _ in numbers)],
        [rule, *(code(n) for n in names[1:]), code("bound and comment"), code("bound"), code("value and comment"),
         code("value"), code("comment"), *(code(n) for _, n in numbers)],
    ).astype(np.int8)  # fmt: skip
    fate[(fate < USED) & (block.compound == NOT_IMAGED)] = code("not imaged")
    return Judged(fate, np.where(kind == _OTHER, np.nan, p), bound, np.where(votes, vote, -1).astype(np.int8))


_OTHER, _MOLAR, _LOG = 0, 1, 2


def _type_of(text: str, accepted: set[str]) -> int:
    """Tell a type that is not accepted, a concentration (no type at all is one), and a logarithm."""
    folded = text.casefold()
    if text and folded not in accepted:
        return _OTHER
    return _LOG if _LOG_TYPE.match(folded) else _MOLAR


def _potency(
    block: Block, kind: NDArray[np.int8], unit: NDArray[np.int8], bound: NDArray[np.int8], *, convert: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return -log10 M, and where there is no number, no molar unit, or a concentration ChEMBL left unconverted."""
    given = ~np.isnan(block.pchembl)
    logarithm, molar = kind == _LOG, kind == _MOLAR
    positive = block.value > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        converted = unit - np.log10(np.where(positive, block.value, np.nan))
    p = np.where(given, block.pchembl, np.where(logarithm, block.value, converted))
    no_number = ~given & np.where(logarithm, np.isnan(block.value), ~positive)
    wrong_unit = ~given & np.where(logarithm, unit != _BARE, unit < 0)
    # Why ChEMBL gives no pChEMBL to an exact concentration it does not say; its judgement is followed.
    withheld = ~given & molar & (bound == 0) & (not convert)
    return p, no_number, wrong_unit, withheld


def _flip(bound: NDArray[np.int8]) -> NDArray[np.int8]:
    """More nanomoles is less potency: above becomes below."""
    return np.where(bound & _ABOVE, _BELOW, _ABOVE).astype(np.int8) | (bound & _AT)


def _settles(p: NDArray[np.float64], bound: NDArray[np.int8], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which thresholds (columns) each bound settles."""
    p = np.round(p, 9)[:, None]
    below = np.where((bound & _AT)[:, None] > 0, p < thresholds, p <= thresholds)
    return np.where((bound & _ABOVE)[:, None] > 0, p >= thresholds, below & ((bound & _BELOW)[:, None] > 0))


def bound_votes(
    p: NDArray[np.float64], bound: NDArray[np.int8], thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return record, threshold and class (1 active, 0 inactive) of everything that bounds settle.

    A value known to be below `p` is inactive at every threshold from `p` on; one at or above `p` is
    active at every threshold up to `p`.
    """
    record, level = np.nonzero(_settles(p, bound, thresholds))
    return record, level, (bound[record] & _ABOVE > 0).astype(np.float64)
