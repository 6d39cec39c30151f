"""What a run found, in a few plain lines for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phenohit.files import read_json

__all__ = ["headline", "headline_of_images"]


def headline(folder: Path) -> str:
    """Return the headline numbers of a finished run and where its report is."""
    manifest = read_json(folder / "manifest.json")
    lines = ["", manifest["name"]]
    if manifest["simulated"]:
        lines.append("SIMULATED data: these figures say nothing about a real screen.")
    steps = manifest["steps"]
    data, chemistry, labels = (steps[name] for name in ("data", "chemistry", "labels"))
    what = "imaged compounds" if data["features"] else "compounds"
    lines.append(
        f"{data['compounds']:,} {what} in {chemistry['series']:,} series; "
        f"{labels['labels']:,} labels in {labels['tasks']:,} tasks."
    )
    for path in sorted((folder / "splits").glob("*/summary.json")):
        split = path.parent.name
        leaks = steps.get(f"split/{split}", {}).get("failed_leak_checks", 0)
        lines += ["", f"Split '{split}': " + ("no leaks found." if not leaks else f"{leaks} leak checks FAILED.")]
        lines.append(f"  {'method':<22} {'mean AUROC':<22} {'tasks above 0.7':<18} above their own chance range")
        lines += [_method(name, s) for name, s in read_json(path).items()]
    plan = read_json(folder / "hits" / "plan.json")
    lines += ["", f"Picked with {plan['method']} for: " + (", ".join(plan["tasks"]) or "nothing")]
    lines += [f"  picks: {folder / 'hits'}", f"Report: {folder / 'report.html'}", ""]
    return "\n".join(lines)


def _method(name: str, summary: dict[str, Any]) -> str:
    mean, low, high = (summary[k] for k in ("auroc_mean", "auroc_mean_low", "auroc_mean_high"))
    above, beyond = summary["above"]["0.7"], summary["beyond_chance"]
    auroc = "undefined" if mean is None else f"{mean:.3f}"
    auroc += "" if None in (low, high) else f" [{low:.3f}, {high:.3f}]"
    return f"  {name:<22} {auroc:<22} {_count(above):<18} {_count(beyond)}"


def _count(counted: dict[str, Any]) -> str:
    expected = counted["expected"]
    return f"{counted['count']}" + ("" if expected is None else f" (chance {expected:.1f})")


def headline_of_images(folder: Path) -> str:
    """Return what became of a screen's images, plate by plate."""
    manifest = read_json(folder / "manifest.json")
    steps = manifest["steps"]
    if "images" not in steps:
        return "There are no images in this run: images.path is empty."
    whole = steps["images"]
    lines = ["", manifest["name"]]
    if manifest["simulated"]:
        lines.append("SIMULATED images: these figures say nothing about a real screen.")
    lines += ["", f"  {'plate':<24} {'views':>7} {'measured':>9} {'cells':>10} {'nucleus, pixels':>16}"]
    for name, found in steps.items():
        if name.startswith("images/plate/"):
            plate = name.removeprefix("images/plate/")
            counts = f"{found['views']:>7,} {found['measured']:>9,} {found['cells']:>10,} {found['diameter']:>16}"
            lines.append(f"  {plate:<24} {counts}")
    lines += [
        "",
        f"{whole['wells']:,} wells with {whole['features']:,} features of {whole['cells']:,} cells: "
        f"{folder / 'images' / 'wells.parquet'}",
        f"What was left out, and why: {folder / 'dropped' / 'images.csv'}",
        "",
    ]
    return "\n".join(lines)
