"""Write report.html: facts through templates into one file that opens anywhere, offline.

Everything that comes from data reaches the page as escaped text or as JSON in an inert element.
As a second wall the page carries a content security policy: only our scripts, known by their hash,
run, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from phenohit import __version__
from phenohit.evaluate.reading import READINGS
from phenohit.files import write_text
from phenohit.report.charts import flow_bar, histogram, rank_chart, share_mark, strip
from phenohit.report.checks import FLAGS_SHOWN, PLATES_SHOWN
from phenohit.report.enrichment import enrichment_bar
from phenohit.report.facts import collect
from phenohit.report.heatmaps import CELL_BOUNDS, plate_map, scale_key
from phenohit.report.picks import DRAWN
from phenohit.report.plots import fold_bar, interval_bar, plotly_code, share_bar
from phenohit.report.reliability import JOINED, reliability_chart
from phenohit.report.results import LEVELS
from phenohit.report.selection import selection_chart
from phenohit.report.tables import number
from phenohit.report.traces import SERIES_SHOWN, trace_chart
from phenohit.report.upset import upset, venn

__all__ = ["build_report", "environment", "policy", "script_json", "style_sheet"]

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("table.js", "scatter.js", "reliability.js", "comparison.js")


def build_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all.

    Parameters
    ----------
    folder : path
        A run folder. Steps that have not run are shown as not computed.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    RunError, FileError
        If the folder holds no run, or one of its files is damaged.
    """
    folder = Path(folder)
    path = folder / "report.html"
    write_text(path, render(collect(folder)))
    return path


def environment() -> Environment:
    """Return an environment for the templates of all pages, with their filters."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "thousands": _thousands,
        "fixed": _fixed,
        "signed": _signed,
        "is_number": _is_number,
        "percent": _percent,
        "pvalue": _pvalue,
        "chance": _chance,
    }
    return made


def render(facts: dict[str, Any]) -> str:
    """Turn facts into the page."""
    pages = environment()
    drawings = (
        interval_bar, fold_bar, share_bar, flow_bar, histogram, rank_chart, share_mark, strip, plate_map, scale_key,
        reliability_chart, selection_chart, trace_chart, enrichment_bar, upset, venn,
    )  # fmt: skip
    pages.globals |= {draw.__name__: draw for draw in drawings}
    code = [plotly_code(), *((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)]
    return pages.get_template("report.html.j2").render(
        facts,
        version=__version__,
        readings=READINGS,
        drawn=DRAWN,
        levels=LEVELS,
        cell_bounds=CELL_BOUNDS,
        plates_shown=PLATES_SHOWN,
        flags_shown=FLAGS_SHOWN,
        joined=JOINED,
        series_shown=SERIES_SHOWN,
        style=style_sheet(),
        scripts=[_trusted(text) for text in code],
        policy=policy(code),
        results=script_json({"splits": [_for_page(split) for split in facts["splits"]], "readings": READINGS}),
    )


def script_json(value: Any) -> Markup:
    r"""Write a value as JSON that cannot end the script element it stands in.

    Notes
    -----
    ``<``, ``>`` and ``&`` become ``\u003c`` and so on, so neither ``</script>`` nor ``<!--`` occurs.
    NaN is refused: the page's parser would stumble over it.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _trusted(text)


def style_sheet() -> Markup:
    """Return the style sheet of all pages."""
    return _trusted((_TEMPLATES / "style.css").read_text(encoding="utf-8"))


def _trusted(text: str) -> Markup:
    """Text of our own that goes into the page as it is."""
    return Markup(text)  # noqa: S704


def policy(code: list[str]) -> str:
    """Return a content security policy that lets exactly these scripts run and nothing be fetched."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _for_page(split: dict[str, Any]) -> dict[str, Any]:
    """Return what the scripts need of a split."""
    methods = [{key: method[key] for key in ("name", "label", "kind")} for method in split["methods"]]
    page = {"name": split["name"], "lead": split["lead"], "methods": methods, **split["tasks"]}
    page["tests"] = [{key: pair[key] for key in ("a", "b", "verdict", "permutations")} for pair in split["roc"]]
    page["dependence"] = split["dependence"]["of"]
    return page | ({"comparison": split["comparison"]["page"]} if split["comparison"] else {})


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _fixed(value: float | None, digits: int = 2, nothing: str = "–") -> str:
    return nothing if value is None else f"{value:,.{digits}f}".replace("-", "−")


def _signed(value: float | None, digits: int = 2) -> str:
    return (
        "–" if value is None else ("+" if round(value, digits) > 0 else "") + _fixed(round(value, digits) + 0.0, digits)
    )


def _is_number(value: str) -> bool:
    return number(value) is not None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _chance(value: float) -> str:
    """Write an expected count; a small one is not rounded to nothing."""
    return "< 0.1" if 0 < value < 0.05 else f"{value:.1f}"


def _pvalue(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"
