"""What a run folder says about itself: inputs, losses, settings. Nothing here knows HTML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from phenohit.errors import FileError, RunError
from phenohit.files import read_json, read_table
from phenohit.report.checks import checks_facts
from phenohit.report.images import images_facts
from phenohit.report.labels import labels_facts
from phenohit.report.measured import measured_plates
from phenohit.report.picks import hits_facts, replaceable_facts, reviews_facts
from phenohit.report.pictures import add_views
from phenohit.report.results import split_facts
from phenohit.report.selection import selection_facts
from phenohit.report.tables import number, read_csv, records
from phenohit.report.traces import traces_facts
from phenohit.report.verdict import verdict

__all__ = ["collect", "has_images", "losses"]

SHOWN = 200  # rows of dropped.csv set into the page; the file has all of them
STEPS_SHOWN = 14  # longest steps shown one by one
REASONS = 6  # reasons shown per stage; rarer ones are counted together


def collect(folder: Path) -> dict[str, Any]:
    """Gather everything the report shows.

    Parameters
    ----------
    folder : Path
        A run folder; parts that are missing are shown as not computed.

    Returns
    -------
    dict
        Keys ``name, simulated, started, inputs, losses, match, images, plates, labels, splits, selection, fit, hits,
        reviews, made, verdict``; ``images``, ``plates``, ``labels`` and ``fit`` are None where nothing is known of
        them.

    Raises
    ------
    RunError
        If the folder holds no run.
    """
    if not (folder / "manifest.json").is_file():
        raise RunError(
            f"'{folder}' holds no run (there is no manifest.json). Give the folder that `phenohit run` wrote."
        )
    manifest = read_json(folder / "manifest.json")
    images = has_images(folder)
    folders = sorted(path for path in (folder / "splits").glob("*") if path.is_dir())
    splits = _ordered([split_facts(path, images=images) for path in folders], folder, manifest)
    hits = hits_facts(folder, splits[0] if splits else None)
    imaged = measured_plates(folder)
    add_views(folder, hits, imaged)
    inputs = _inputs(folder, manifest)
    lost = read_csv(folder / "dropped.csv")
    return {
        "name": str(manifest.get("name") or folder.name),
        "simulated": bool(manifest.get("simulated", False)),
        "started": str(manifest.get("started", ""))[:16].replace("T", " "),
        "inputs": inputs,
        "losses": losses(lost),
        "match": _match(read_csv(folder / "match.csv")),
        "images": images_facts(folder, imaged),
        "plates": checks_facts(folder, lost),
        "labels": labels_facts(folder),
        "splits": splits,
        "selection": selection_facts(folder, splits),
        "fit": traces_facts(folder),
        "hits": hits,
        "reviews": reviews_facts(folder),
        "replaceable": replaceable_facts(folder),
        "made": _made(folder, manifest),
        "verdict": verdict(splits, hits, images=images),
    }


def has_images(folder: Path) -> bool:
    """Whether the run had a profile table; without one its features are fingerprints of structures."""
    path = folder / "profiles.parquet"
    if not path.is_file():
        return True
    names = [n for n in _schema(path) if not n.startswith("Metadata_")]
    return not all(n.lower().startswith("ecfp") for n in names)


def losses(table: pd.DataFrame) -> dict[str, Any]:
    """Count what was dropped, by stage and reason.

    Parameters
    ----------
    table : DataFrame
        Columns ``stage, what, id, reason``; may be empty.

    Returns
    -------
    dict
        ``n`` in all; ``stages``: list of dicts with stage, what, n and reasons (most frequent first);
        ``rows``: the first `SHOWN` rows.
    """
    if table.empty:
        return {"n": 0, "stages": [], "rows": []}
    patterns = {reason: _pattern(reason) for reason in table["reason"].unique()}
    table = table.assign(pattern=table["reason"].map(patterns))
    stages = []
    for key, part in table.groupby(["stage", "what"], sort=False):
        stage, what = (str(k) for k in tuple(key))  # pyright: ignore[reportGeneralTypeIssues]
        # Reasons that differ only in a quoted value or a number are one reason, shown by its first example.
        grouped = part.groupby("pattern", sort=False)["reason"].agg(["size", "first", "nunique"])
        grouped = grouped.sort_values("size", ascending=False, kind="stable")
        reasons = [
            {"n": int(row["size"]), "text": row["first"], "alike": int(row["nunique"]) - 1}
            for _, row in grouped.iloc[:REASONS].iterrows()
        ]
        rest = int(grouped["size"].iloc[REASONS:].sum())
        if rest:
            reasons.append({"n": rest, "text": f"{len(grouped) - REASONS} rarer reasons", "alike": 0})
        stages.append({"stage": stage, "what": what, "n": len(part), "reasons": reasons})
    return {"n": len(table), "stages": stages, "rows": records(table.drop(columns="pattern").head(SHOWN))}


def _pattern(reason: str) -> str:
    """Return a reason with its quoted values and numbers left open."""
    return re.sub(r"(?<![\w.])-?\d+(\.\d+)?(?![\w])", "…", re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason))


def _schema(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"'{path}' cannot be read as Parquet ({error}). Run again to make it anew.") from error


def _ordered(splits: list[dict[str, Any]], folder: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Put splits in the order of the settings; hits are chosen by the first."""
    order = [str(name) for name in manifest.get("splits", [])]
    config = folder / "config.yaml"
    if not order and config.is_file():
        order = _names_in(config.read_text(encoding="utf-8", errors="replace"))
    return sorted(splits, key=lambda split: order.index(split["name"]) if split["name"] in order else len(order))


def _names_in(config: str) -> list[str]:
    """Names of the splits in config.yaml; a split without one is named after its settings."""
    try:
        splits = (yaml.safe_load(config) or {}).get("splits") or []
        kinds = [(s.get("name"), s.get("kind", "series"), s.get("folds", 5), s.get("plate_folds", 0)) for s in splits]
        return [name or kind + "-holdout" * (k < 2) + "-plates" * (plates > 1) for name, kind, k, plates in kinds]
    except (yaml.YAMLError, AttributeError, TypeError):
        return []  # only the order depends on it


def _inputs(folder: Path, manifest: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of the 'what went in' table: what, how many, remark."""
    rows: list[dict[str, str]] = []

    def add(what: str, n: int, note: str = "") -> None:
        rows.append({"what": what, "n": f"{n:,}", "note": note})

    profiles = folder / "profiles.parquet"
    if profiles.is_file():
        names = _schema(profiles)
        n_features = sum(not n.startswith("Metadata_") for n in names)
        add("Profile rows", pq.read_metadata(profiles).num_rows, "wells or compounds, as the models see them")
        add("Features", n_features, "fingerprint bits: no images in this run" if not has_images(folder) else "")
    if (folder / "compounds.parquet").is_file():
        compounds, _ = read_table(folder / "compounds.parquet")
        add("Compounds", len(compounds), _structures(compounds))
        for column in compounds.columns[compounds.columns.str.startswith("series_")]:
            at = column.removeprefix("series_")
            add("Chemical series", compounds[column].nunique(), f"linked by an ECFP6 Tanimoto similarity of {at}")
        if "scaffold" in compounds:
            scaffolds = compounds["scaffold"].astype(str)
            add("Murcko scaffolds", scaffolds[scaffolds != ""].nunique(), f"{(scaffolds == '').sum():,} have no ring")
    tasks = folder / "labels.tasks.parquet"
    if tasks.is_file():
        table, _ = read_table(tasks)
        add("Assays", table["assay"].nunique())
        add("Tasks", len(table), "assay and threshold")
        if {"n_active", "n_inactive"} <= set(table):
            active, inactive = int(table["n_active"].sum()), int(table["n_inactive"].sum())
            share = f"{active / max(active + inactive, 1):.1%} active"
            add("Labels", active + inactive, f"{active:,} active, {inactive:,} inactive ({share})")
    return rows or [{"what": key, "n": value, "note": ""} for key, value in _flat(manifest.get("counts", {})).items()]


def _structures(compounds: pd.DataFrame) -> str:
    if "smiles" not in compounds:
        return ""
    n = int((compounds["smiles"].fillna("").astype(str) != "").sum())
    return "all with a structure" if n == len(compounds) else f"{n:,} with a structure"


def _made(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """How the run was made: settings, versions, seconds."""
    config = folder / "config.yaml"
    seconds = _seconds(manifest.get("steps") or {})
    shown = sorted(seconds.items(), key=lambda item: -item[1])
    steps = [{"step": name, "seconds": spent} for name, spent in shown[:STEPS_SHOWN]]
    rest = shown[STEPS_SHOWN:]
    if len(rest) == 1:
        steps.append({"step": rest[0][0], "seconds": rest[0][1]})
    elif rest:
        steps.append({"step": f"{len(rest)} shorter steps", "seconds": sum(spent for _, spent in rest)})
    return {
        "config": config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        "versions": {str(k): str(v) for k, v in manifest.get("versions", {}).items()},
        "counts": _flat(manifest.get("counts", {})),
        "seed": manifest.get("seed", "not stated"),
        "platform": str(manifest.get("platform", "")),
        "memory": number(manifest.get("peak_memory_gib")),
        "seconds": steps,
        "total": sum(seconds.values()),
        "longest": max((step["seconds"] for step in steps), default=0.0),
    }


def _seconds(steps: dict[str, Any]) -> dict[str, float]:
    """Seconds per step, the folds of one method on one split taken together."""
    seconds: dict[str, float] = {}
    for name, kept in steps.items():
        parts = str(name).split("/")
        group = " / ".join(parts[:3]) if parts[0] == "fit" else parts[0]
        seconds[group] = seconds.get(group, 0.0) + (
            number(kept.get("seconds") if isinstance(kept, dict) else kept) or 0.0
        )
    return seconds


def _flat(counts: dict[str, Any], above: str = "") -> dict[str, str]:
    """Write out nested counts of the manifest."""
    rows: dict[str, str] = {}
    for key, value in counts.items():
        name = f"{above}{key}".replace("_", " ")
        if isinstance(value, dict):
            rows |= _flat(value, f"{key}: ")
        elif key != "seconds":
            rows[name] = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return rows


def _match(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the match table that matched something, with the file's name instead of its path."""
    if not {"source", "match", "n_labels"} <= set(table.columns):
        return records(table)
    kept = table[(table["n_labels"].astype(float) > 0) | (table["match"] == "unmatched")]
    source = kept["source"].astype(str).str.replace("\\", "/").str.rsplit("/", n=1).str[-1]
    match = kept["match"].replace({"unmatched": "none: not imaged"})
    return records(kept.assign(source=source, match=match))
