"""Pictures of what was predicted, for a biologist to look at: examples, a montage along the score, evidence maps."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from phenohit.data.predictions import Predictions
from phenohit.errors import ConfigError, FileError
from phenohit.evaluate.entries import Entries
from phenohit.files import atomic, hash_file, read_table, write_table
from phenohit.hits.export import neutralise
from phenohit.images.store import Store, open_store
from phenohit.images.thumbnails import COMPOSITE, channel_colors, contrast_limits
from phenohit.runs import slug
from phenohit.study import Study
from phenohit.viewing import rejected_views, store_folder

__all__ = ["COLUMNS", "PARTS", "step_gallery"]

log = logging.getLogger("phenohit")

PARTS = ("predicted active", "predicted inactive", "control", "montage", "evidence")
COLUMNS = (
    "file", "part", "compound", "compound_id", "plate", "well", "site", "score", "view_score", "label", "verdict",
)  # fmt: skip
_EXAMPLES = 6  # of predicted actives, and of predicted inactives
_CONTROLS = 2
_STEPS = 18  # of the montage
_EVIDENCE = 6  # picks with an evidence map
_SCORED = 6  # views of each of these, at most, of which the one with the highest score is shown
_SAMPLED = 8  # views of a plate that its contrast is taken from
_SIDE = 400  # pixels of a view's longer side
_GAP = 4  # white pixels between a view and its evidence
_BYTES = 200_000  # of a picture, at most
_WARM = ((213, 94, 0), (240, 228, 66))  # little to much evidence: vermilion to yellow, both far from grey to any eye
_PLACE = ["plate", "well", "site"]


def step_gallery(study: Study, plan: dict[str, Any], task: str) -> None:
    """Do the step ``gallery/<task>``: pictures in ``hits/<task>/gallery``; ``gallery.csv`` says what each is.

    Parameters
    ----------
    study : Study
        After the step ``hits/<task>``.
    plan : dict
        Of `phenohit.campaign.make_plan`.
    task : str

    Notes
    -----
    Nothing is made where `hits.gallery` is off, or the run has neither a store of views nor thumbnails; what an earlier
    run left is then removed.
    """
    folder = f"hits/{slug(task)}/gallery"
    state = _state(study) if study.config.hits.gallery else ""
    if not state:
        shutil.rmtree(study.run.folder / folder, ignore_errors=True)
        return
    split = study.splits()[0][0]
    measured = ["images"] if "images" in study.run.manifest["steps"] else []
    study.run.step(
        f"gallery/{task}",
        partial(_make, study, plan, task, folder),
        settings=[plan, study.config.seed, study.config.simulated],
        after=(f"hits/{task}", f"gather/{split}/{plan['method']}", *measured),
        inputs={"views to be shown": state},
        outputs=[f"{folder}/gallery.csv"],
    )


def _state(study: Study) -> str:
    """Return what changes with the views; '' where there is nothing to show."""
    index = store_folder(study) / "views.parquet"
    if index.is_file():
        return hash_file(index)
    return "thumbnails" if any(study.run.folder.glob("images/*/thumbnails.parquet")) else ""


def _make(study: Study, plan: dict[str, Any], task: str, folder: str) -> dict[str, Any]:
    shutil.rmtree(study.run.folder / folder, ignore_errors=True)
    made = study.folder(folder)
    source: _Source = _Stored(study) if _state(study) != "thumbnails" else _Thumbnails(study)
    wells, _ = read_table(study.run.path("wells.parquet"))
    places = source.places.merge(wells.drop_duplicates(["plate", "well"]).astype(str), on=["plate", "well"])
    # Of several wells the first by plate and well, as in the pick lists; of several views the first that is no reject.
    first = places.sort_values(["plate", "well"], kind="stable").drop_duplicates("compound")
    shown = pd.concat([_examples(study, plan, task, first), _montage(study, task, first)], ignore_index=True)
    shown = pd.concat([shown, _controls(study, source.places, shown)], ignore_index=True)
    rows = [(row, picture) for row, picture in zip(_records(shown), source.pictures(shown), strict=True) if picture]
    lost = len(shown) - len(rows)
    rows += _evidence(study, plan, task, source, places) if isinstance(source, _Stored) else []
    number: Counter[str] = Counter()
    for row, picture in rows:
        number[row["part"]] += 1
        name = f"{row['part'].replace(' ', '-')}-{number[row['part']]:02d}.jpg"
        row["file"] = f"SIMULATED-{name}" if study.config.simulated else name
        _write(made / row["file"], picture)
    table = pd.DataFrame([row for row, _ in rows], columns=list(COLUMNS))
    names = study.compounds.set_index("compound")["compound_id"].astype(str)
    table["compound_id"] = table["compound"].map(names).fillna("")
    write_table(made / "gallery.csv", neutralise(table))
    bare = ~study.compounds["compound"].isin(first["compound"])
    return {"pictures": len(table), "unreadable": lost, "compounds_without_view": int(bare.sum())}


def _records(shown: pd.DataFrame) -> list[dict[str, Any]]:
    found = shown.reindex(columns=[c for c in COLUMNS if c != "file"])
    scores = ["score", "view_score"]
    found = found.assign(**found[scores].astype(float).round(6)).astype(object)
    return found.where(found.notna(), "").to_dict("records")


def _write(path: Path, picture: Image.Image) -> None:
    """Write a JPEG that is not too large, whatever is in it."""
    for quality in (88, 75, 60, 40):
        with atomic(path) as partial_file:
            picture.save(partial_file, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= _BYTES:
            return


# --- what is shown ----------------------------------------------------------------------------


def _measured(study: Study, task: str) -> pd.DataFrame:
    """Return ``compound`` and ``label`` (active, inactive, or the value) of what was measured in a task."""
    labels = study.labels
    at = labels.task_names.index(task)
    column = labels.take_tasks(np.array([at])).Y.tocoo()  # stored zeros are inactive
    of_values = labels.tasks["kind"].iloc[at] == "value"
    text = [f"{y:.3g}" if of_values else "active" if y > 0 else "inactive" for y in column.data]
    return pd.DataFrame({"compound": labels.compounds["compound"].to_numpy(object)[column.row], "label": text})


def _examples(study: Study, plan: dict[str, Any], task: str, first: pd.DataFrame) -> pd.DataFrame:
    """Choose compounds with the highest and the lowest held-out scores, of those that were measured and have a view."""
    split = study.splits()[0][0]
    scored = Predictions.load(study.run.path("splits", slug(split), "predictions", f"{plan['method']}.parquet"))
    own = study.labels.take_tasks(np.array([study.labels.task_names.index(task)]))
    if own.tasks["kind"].iloc[0] == "value" or not len(scored):  # no classes, nothing right or wrong
        return pd.DataFrame(columns=["part"])
    entries = Entries.of(own, scored)
    score = pd.Series(entries.score, dtype=float).groupby(entries.compound).mean()
    keys = own.compounds["compound"].to_numpy(object)[score.index]
    table = pd.DataFrame({"compound": keys, "score": score.to_numpy()})
    table = table.merge(_measured(study, task), on="compound").merge(first, on="compound")
    table = table.sort_values(["score", "compound"], ascending=[False, True], ignore_index=True)
    n = min(_EXAMPLES, len(table) // 3)  # what is in the middle is neither
    both = [table.head(n).assign(part=PARTS[0]), table.tail(n)[::-1].assign(part=PARTS[1])]
    found = pd.concat(both, ignore_index=True)
    right = found["part"] == "predicted " + found["label"]
    return found.assign(verdict=np.where(right, "right", "wrong"))


def _montage(study: Study, task: str, first: pd.DataFrame) -> pd.DataFrame:
    """Choose compounds at even quantiles of the final score, highest first."""
    final = Predictions.load(study.run.path("predictions", "final.parquet"))
    score = np.asarray(final.score[:, final.tasks.index(task)], dtype=float)
    table = pd.DataFrame({"compound": final.compounds, "score": score}).merge(first, on="compound")
    table = table.sort_values(["score", "compound"], ascending=[False, True], ignore_index=True)
    at = np.unique(np.linspace(0, len(table) - 1, min(_STEPS, len(table))).round().astype(int))
    found = table.iloc[at].assign(part=PARTS[3])
    return found.merge(_measured(study, task), on="compound", how="left")


def _controls(study: Study, places: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Choose negative controls of the plates that most is shown of, with about the median number of cells."""
    path = study.run.folder / "checks" / "cells.parquet"
    if not path.is_file() or shown.empty:
        return pd.DataFrame(columns=["part"])
    examples = shown[shown["part"] != PARTS[3]]
    order = (shown if examples.empty else examples)["plate"].value_counts()
    wells, _ = read_table(path, ["plate", "well", "pert_type", "cell_count"])
    wells = wells[wells["pert_type"].astype(str).eq("negcon") & wells["plate"].astype(str).isin(order.index)]
    wells = wells.assign(plate=wells["plate"].astype(str), well=wells["well"].astype(str))
    wells = wells.merge(places.drop_duplicates(["plate", "well"]), on=["plate", "well"])
    typical = wells.groupby("plate")["cell_count"].transform("median")
    wells = wells.assign(away=(wells["cell_count"] - typical).abs(), rank=wells["plate"].map(order).astype(float))
    wells = wells.sort_values(["away", "well"], kind="stable", na_position="last")
    wells = wells.assign(turn=wells.groupby("plate").cumcount())  # two plates rather than one plate twice
    wells = wells.sort_values(["turn", "rank", "plate"], ascending=[True, False, True])
    return wells.head(_CONTROLS).assign(part=PARTS[2])


# --- where pixels come from -------------------------------------------------------------------


class _Source(Protocol):
    """Views that can be shown."""

    places: pd.DataFrame  # plate, well, site and where it is (at); without rejected views

    def pictures(self, shown: pd.DataFrame) -> list[Image.Image | None]:
        """Make the picture of every row; None where it cannot be read."""
        ...


def _accepted(study: Study, places: pd.DataFrame) -> pd.DataFrame:
    names = places["plate"] + "/" + places["well"] + "/" + places["site"]
    return places[~names.isin(rejected_views(study.run.folder / "images")["view"])].reset_index(drop=True)


class _Stored:
    """Views of a store of uint8."""

    def __init__(self, study: Study) -> None:
        self.store: Store = open_store(store_folder(study))
        self.seed = study.config.seed
        rows = self.store.views.rows
        table = {name: rows[f"Metadata_{name.capitalize()}"].astype(str) for name in _PLACE}
        self.places = _accepted(study, pd.DataFrame(table).assign(at=np.arange(len(rows))))
        self._limits: dict[str, NDArray[np.float32]] = {}

    def view(self, at: int) -> NDArray[np.uint8]:
        return self.store.read([at], threads=1)[0]

    def limits(self, plate: str) -> NDArray[np.float32]:
        """Contrast of a plate, from a few of its views."""
        if plate not in self._limits:
            own = self.places.loc[self.places["plate"] == plate, "at"].to_numpy()
            sample = np.sort(np.random.default_rng([self.seed, 29]).permutation(own)[:_SAMPLED])
            views = []
            for at in sample.tolist():
                with suppress(FileError):  # a damaged view is named when it is to be shown
                    views.append(self.view(at))
            if not views:
                raise FileError(f"None of {len(sample)} views of plate '{plate}' in '{self.store.folder}' can be read.")
            self._limits[plate] = contrast_limits(views)
        return self._limits[plate]

    def composite(self, view: NDArray[Any], plate: str) -> Image.Image:
        return _composite(view, self.limits(plate), self.store.views.channels)

    def pictures(self, shown: pd.DataFrame) -> list[Image.Image | None]:
        return [self._picture(int(at), str(plate)) for at, plate in zip(shown["at"], shown["plate"], strict=True)]

    def _picture(self, at: int, plate: str) -> Image.Image | None:
        try:
            return self.composite(self.view(at), plate)
        except FileError as error:  # nothing else of the run depends on this view
            log.warning("gallery: %s", error)
            return None


class _Thumbnails:
    """Small pictures of one view of every well, as they were kept while images were measured."""

    def __init__(self, study: Study) -> None:
        tables = [pd.DataFrame(columns=[*_PLACE, "at"])]
        for path in sorted(study.run.folder.glob("images/*/thumbnails.parquet")):
            columns = [f"Metadata_{name.capitalize()}" for name in _PLACE]
            table, _ = read_table(path, [*columns, "channel"])
            table = table.loc[table["channel"] == COMPOSITE, columns].astype(str).set_axis(_PLACE, axis=1)
            tables.append(table.assign(at=str(path)))
        self.places = _accepted(study, pd.concat(tables, ignore_index=True))

    def pictures(self, shown: pd.DataFrame) -> list[Image.Image | None]:
        import io

        found: dict[tuple[str, str], Image.Image] = {}
        for path, own in shown.groupby("at", sort=False):  # a table is read once
            columns = ["Metadata_Well", "channel", "png"]
            table, _ = read_table(str(path), columns, where=("Metadata_Well", sorted(set(own["well"]))))
            table = table[table["channel"] == COMPOSITE]
            for well, png in zip(table["Metadata_Well"].astype(str), table["png"], strict=True):
                found[str(path), well] = Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB")
        return [found.get((str(at), str(well))) for at, well in zip(shown["at"], shown["well"], strict=True)]


def _composite(view: NDArray[Any], limits: NDArray[np.float32], channels: Sequence[str]) -> Image.Image:
    """Lay the channels (C, H, W) over each other in their colours, shrunk to `_SIDE` pixels at most."""
    height, width = view.shape[1:]
    scale = min(_SIDE / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for pixels, (low, high), color in zip(view, limits, channel_colors(channels).values(), strict=True):
        small = np.asarray(Image.fromarray(np.asarray(pixels, np.float32)).resize(size, Image.Resampling.BOX))
        bright = np.clip((small - low) / max(float(high - low), 1e-6), 0.0, 1.0)
        total += bright[..., None] * np.array(color, np.float32)
    # As in the report's thumbnails: divided by the root of their number, so that not all of the picture turns white.
    return Image.fromarray(np.minimum(total / np.sqrt(len(view)), 255).round().astype(np.uint8))


# --- evidence of a network --------------------------------------------------------------------


class _Best(NamedTuple):
    """Views of picks, one each, with what the final model needs to look at them."""

    model: Any
    output: int
    rows: pd.DataFrame


def _evidence(
    study: Study, plan: dict[str, Any], task: str, source: _Stored, places: pd.DataFrame
) -> list[tuple[dict[str, Any], Image.Image]]:
    """Lay over the highest-scoring view of each of the first picks what the final model saw there."""
    if plan["input"] != "views":
        return []
    try:
        best = _best_views(study, plan, task, source, places)
        return [] if best is None else list(_maps(study, source, best))
    except (ConfigError, FileError) as error:  # a network without maps, a damaged view: the rest stands without them
        log.warning("gallery: no evidence maps: %s", error)
        return []


def _best_views(study: Study, plan: dict[str, Any], task: str, source: _Stored, places: pd.DataFrame) -> _Best | None:
    from phenohit.images.samples import view_rows
    from phenohit.models import find_model
    from phenohit.models.image_model import ImageModel

    hits, _ = read_table(study.run.path("hits", slug(task), "hits.parquet"), ["compound", "picked", "rank", "score"])
    # Picks were never measured in the assay: what is shown was not learned from their own labels.
    picks = hits[hits["picked"].astype(bool) & hits["compound"].isin(places["compound"])].sort_values("rank")
    picks = picks.head(_EVIDENCE)[["compound", "score"]].reset_index(drop=True)
    kind = find_model(plan["model"])
    if picks.empty or not issubclass(kind, ImageModel):
        return None
    model: Any = kind.load(study.run.path("models", "final", "model"))
    number = int(model.known.where([task])[0])
    if model.net is None or not model.known.fitted[number]:  # one class only: nothing was learned
        return None
    model.jobs = study.jobs
    rows = picks.merge(places, on="compound")  # in the order of the picks
    rows = rows[rows.groupby("compound").cumcount() < _SCORED].reset_index(drop=True)
    store = Store(source.store.folder, source.store.views.take(rows["at"]), source.store.shapes)
    data, _ = view_rows(
        pd.DataFrame({"Metadata_compound": picks["compound"]}), rows[["compound", "plate", "well"]], store
    )
    rows = rows.assign(view_score=model.view_scores(data, task))
    highest = rows.sort_values("view_score", ascending=False, kind="stable").drop_duplicates("compound").index
    output = int(np.cumsum(model.known.fitted)[number]) - 1
    return _Best(model, output, rows.loc[np.sort(highest)])


def _maps(study: Study, source: _Stored, best: _Best) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    import torch

    from phenohit.models.contract import cores
    from phenohit.models.fit import threads
    from phenohit.models.fit_images import Augment, normalise
    from phenohit.models.saliency import evidence, for_display

    settings, net = best.model.settings, best.model.net
    resize, crop = ((size[0], size[1]) if size else None for size in (settings.resize, settings.crop))
    augment = Augment(resize, crop)
    device = next(net.parameters()).device
    seen, maps = [], []
    with threads(cores(study.jobs)):
        for at, plate in zip(best.rows["at"], best.rows["plate"], strict=True):  # one by one: gradients take memory
            view = torch.from_numpy(source.view(int(at)))[None]
            x = augment.apply(normalise(view)).to(device)
            maps.append(evidence(net, x, best.output).cpu())
            seen.append(source.composite(augment.apply(view.float())[0].numpy(), str(plate)))
    bright = for_display(torch.cat(maps), together=True).numpy()
    for row, picture, one in zip(_records(best.rows.assign(part=PARTS[4])), seen, bright, strict=True):
        yield row, _beside(picture, one)


def _beside(picture: Image.Image, bright: NDArray[np.float32]) -> Image.Image:
    """Put a view beside itself in grey with evidence (H, W), 0 to 1, over it."""
    small = Image.fromarray(bright).resize(picture.size, Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(small), 0, 1)[..., None]
    low, high = np.asarray(_WARM, np.float32)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    over = grey * (1 - 0.75 * share) + 0.75 * share * (low + (high - low) * share)
    both = Image.new("RGB", (2 * picture.width + _GAP, picture.height), "white")
    both.paste(picture, (0, 0))
    both.paste(Image.fromarray(over.round().astype(np.uint8)), (picture.width + _GAP, 0))
    return both
