"""A whole simulated screen in a folder: profiles, structures, activities, the truth, and settings to run it.

Chemistry comes from `phenohit.chem.library`, numbers and files from `phenohit.data.simulate*`; this file joins
the two. It is a command as well, so it imports nothing heavy before it runs, not even for its annotations: the
command line resolves those to build its help.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phenohit.data.simulate_settings import SimulateSettings

if TYPE_CHECKING:
    import pandas as pd

    from phenohit.data.simulate import Latents

__all__ = ["SimulateSettings", "command", "simulate"]

_DEFAULTS = SimulateSettings()


def command(out: str = "simulated-screen", settings: SimulateSettings = _DEFAULTS) -> None:
    """Simulate a screen with known truth, ready for `phenohit run`.

    Parameters
    ----------
    out : str
        Folder to write into; made if absent.
    settings : SimulateSettings
        Size, noise and assays.
    """
    counts = simulate(Path(out), settings)
    if settings.images:
        seen = f"{counts['views']:,} views of {counts['channels']} channels ({counts['bad_views']:,} of them bad)"
    else:
        seen = f"{counts['features']:,} features"
    print(
        f"Simulated {counts['compounds']:,} compounds in {counts['wells']:,} wells on {counts['plates']:,} plates, "
        f"{seen}, {counts['measurements']:,} measurements in {counts['assays']:,} assays.\n"
        f"Next: phenohit run {Path(out) / 'simulated.yaml'}"
    )


def simulate(folder: Path, settings: SimulateSettings = _DEFAULTS) -> dict[str, int]:
    """Simulate a screen and write it.

    Parameters
    ----------
    folder : Path
        Made if absent; files of an earlier simulation are replaced.
    settings : SimulateSettings

    Returns
    -------
    dict of str to int
        Counts: compounds, series (of two or more), singletons, wells, plates, batches, assays, measurements; and
        features, or of images views, channels, nuclei and bad_views.

    Raises
    ------
    ConfigError
        If more compounds or features are wanted than can be made, or images and tifffile is not installed.
    FileError
        If the folder cannot be written.

    Notes
    -----
    Writes ``simulated_profiles.parquet`` (wells, normalised to the DMSO wells of each plate),
    ``simulated_structures.csv``, ``simulated_activities.csv`` (long; Parquet beyond a million rows),
    ``simulated_truth.csv`` (per assay: kind and the best reachable AUROC), ``simulated_answers.csv`` (true
    pIC50, measured or not), ``simulated.yaml`` and ``README.txt``. With images there are no profiles but what
    `phenohit.images.draw_screen.write_images` writes, and ``simulated_platemaps``. Wells are written plate by plate and
    assays measured one by one: 524,371 compounds x 842 features x 1,200 assays need about 3 GiB.
    """
    import numpy as np

    from phenohit.chem.library import GROUPS, build_library, functional_groups
    from phenohit.data.simulate import draw_latents
    from phenohit.data.simulate_assays import draw_assays, measure_assays
    from phenohit.data.simulate_files import write_screen
    from phenohit.data.simulate_layout import plan_wells

    library = build_library(
        settings.n_compounds,
        seed=settings.seed,
        series_share=settings.series_share,
        pains_share=settings.pains_share,
        salt_share=settings.salt_share,
        stereo_share=settings.stereo_share,
    )
    # Ids in random order: neither the id nor the place on a plate may tell the series.
    shuffled = np.random.default_rng([settings.seed, 8]).permutation(len(library))
    library = library.iloc[shuffled].reset_index(drop=True)
    width = max(4, len(str(len(library))))
    library.insert(0, "compound_id", [f"SIM-{i:0{width}d}" for i in range(1, len(library) + 1)])
    groups, logp = functional_groups(library["parent"].tolist())
    latents = draw_latents(settings, library["series"].to_numpy(), library["core"].to_numpy())
    wells = plan_wells(settings, len(library))
    seen = _observe(folder, settings, latents, wells, library["compound_id"].tolist())
    assays = draw_assays(settings, latents, groups, list(GROUPS), logp)
    measured, truth = measure_assays(settings, assays)
    write_screen(folder, settings, library=library, assays=assays, measured=measured, truth=truth)
    sizes = library["series"].value_counts()
    return {
        "compounds": len(library),
        "series": int((sizes > 1).sum()),
        "singletons": int((sizes == 1).sum()),
        "wells": len(wells),
        "plates": int(wells["plate"].nunique()),
        "batches": int(wells["batch"].nunique()),
        **seen,
        "assays": len(truth),
        "measurements": len(measured),
    }


def _observe(
    folder: Path, settings: SimulateSettings, latents: Latents, wells: pd.DataFrame, ids: list[str]
) -> dict[str, int]:
    """Write what was seen of the wells, profiles or images; return its counts."""
    from phenohit.data.simulate import measure_plates
    from phenohit.data.simulate_files import write_platemaps, write_wells
    from phenohit.progress import track

    if settings.images:
        from phenohit.images.draw_screen import write_images

        (folder / "simulated_profiles.parquet").unlink(missing_ok=True)  # of an earlier simulation, of other wells
        write_platemaps(folder / "simulated_platemaps", settings, ids, wells)
        return write_images(folder, settings, latents, wells)
    plates = track(measure_plates(settings, latents, wells), "simulate plates", int(wells["plate"].nunique()))
    return {"features": len(write_wells(folder / "simulated_profiles.parquet", settings, ids, wells, plates))}
