"""What a run folder says about itself: inputs, losses, settings. Nothing here knows HTML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenohit.errors import FileError, RunError
from phenohit.files import read_json, read_table
from phenohit.report.picks import hits_facts
from phenohit.report.results import split_facts
from phenohit.report.tables import read_csv, records
from phenohit.report.verdict import verdict

__all__ = ["collect", "has_images", "losses"]

SHOWN = 200  # rows of dropped.csv set into the page; the file has all of them
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
        Keys ``name, simulated, started, inputs, losses, splits, hits, made, verdict``.

    Raises
    ------
    RunError
        If the folder holds no run.
    """
    if not (folder / "manifest.json").is_file():
        raise RunError(f"'{folder}' holds no run (there is no manifest.json). Give the folder that `phenohit run` wrote.")
    manifest = read_json(folder / "manifest.json")
    images = has_images(folder)
    splits = [split_facts(path, images=images) for path in _split_folders(folder, manifest)]
    hits = hits_facts(folder, splits[0] if splits else None)
    inputs = _inputs(folder, manifest)
    return {
        "name": str(manifest.get("name") or folder.name),
        "simulated": bool(manifest.get("simulated", False)),
        "started": str(manifest.get("started", ""))[:16].replace("T", " "),
        "inputs": inputs,
        "losses": losses(read_csv(folder / "dropped.csv")),
        "match": records(read_csv(folder / "match.csv")),
        "splits": splits,
        "hits": hits,
        "made": _made(folder, manifest),
        "verdict": verdict(splits, hits, images=images),
    }


def has_images(folder: Path) -> bool:
    """Whether the run had a profile table; without one its features are fingerprints of structures."""
    path = folder / "profiles.parquet"
    if not path.is_file():
        return True
    names = [n for n in _schema(path) if not n.startswith("Metadata_")]
    return not names or not all(n.lower().startswith("ecfp") for n in names[:100])


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
    table = table.assign(pattern=table["reason"].map(_pattern))
    stages = []
    for (stage, what), part in table.groupby(["stage", "what"], sort=False):
        # Reasons that differ only in a quoted value or a number are one reason; a lone one keeps its wording.
        grouped = part.groupby("pattern", sort=False)["reason"].agg(["size", "first", "nunique"])
        grouped = grouped.sort_values("size", ascending=False, kind="stable")
        reasons = [
            {"n": int(row["size"]), "text": row["first"] if row["nunique"] == 1 else pattern}
            for pattern, row in grouped.iloc[:REASONS].iterrows()
        ]
        rest = int(grouped["size"].iloc[REASONS:].sum())
        if rest:
            reasons.append({"n": rest, "text": f"{len(grouped) - REASONS} rarer reasons"})
        stages.append({"stage": stage, "what": what, "n": len(part), "reasons": reasons})
    return {"n": len(table), "stages": stages, "rows": records(table.drop(columns="pattern").head(SHOWN))}


def _pattern(reason: str) -> str:
    """A reason with its quoted values and numbers left open."""
    return re.sub(r"(?<![\w.])-?\d+(\.\d+)?(?![\w])", "…", re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason))


def _schema(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"'{path}' cannot be read as Parquet ({error}). Run again to make it anew.") from error


def _split_folders(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """Folders of splits in the order of the config; hits are chosen by the first."""
    found = sorted(path for path in (folder / "splits").glob("*") if path.is_dir())
    order = [str(name) for name in manifest.get("splits", [])]
    steps = list(manifest.get("steps", {}))

    def place(path: Path) -> tuple[int, int, str]:
        named = order.index(path.name) if path.name in order else len(order)
        # Without a list, the order in which the steps ran is the order of the config.
        ran = next((i for i, step in enumerate(steps) if path.name in step.split("/")), len(steps))
        return named, ran, path.name

    return sorted(found, key=place)


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
        if "series" in compounds:
            add("Chemical series", compounds["series"].nunique(), "connected by ECFP6 Tanimoto similarity")
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
    return rows or [
        {"what": str(key).replace("_", " "), "n": str(value), "note": ""}
        for key, value in dict(manifest.get("counts", {})).items()
    ]


def _structures(compounds: pd.DataFrame) -> str:
    if "smiles" not in compounds:
        return ""
    n = int((compounds["smiles"].fillna("").astype(str) != "").sum())
    return "all with a structure" if n == len(compounds) else f"{n:,} with a structure"


def _made(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """How the run was made: settings, versions, seconds."""
    config = folder / "config.yaml"
    steps = manifest.get("steps") or manifest.get("seconds") or {}
    seconds: dict[str, float] = {}
    for name, value in steps.items():
        spent = value.get("seconds", 0.0) if isinstance(value, dict) else value
        # One line per kind of step: a run with hundreds of fits would fill pages.
        group = "/".join(str(name).split("/")[:3])
        seconds[group] = seconds.get(group, 0.0) + float(spent)
    return {
        "config": config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        "versions": {str(k): str(v) for k, v in manifest.get("versions", {}).items()},
        "counts": {str(k).replace("_", " "): v for k, v in manifest.get("counts", {}).items()},
        "seed": manifest.get("seed", "not stated"),
        "platform": str(manifest.get("platform", "")),
        "memory": manifest.get("peak_memory_gib"),
        "seconds": [{"step": k, "seconds": v} for k, v in seconds.items()],
        "total": sum(seconds.values()),
        "longest": max(seconds.values(), default=0.0),
    }
