"""The two campaigns of Simm et al. 2018, counted again from the counts that the paper gives.

Both hit rates are those of compounds picked by a model, not of random ones. Of the primary screens only the
rate is printed, so the intervals of the ratios take it as known without error.

References
----------
Simm et al. 2018, Cell Chemical Biology 25, 611, doi:10.1016/j.chembiol.2018.01.015.
"""

from __future__ import annotations

import pandas as pd

from phenohit.review.rates import Primary, enrichment_interval, rate

__all__ = ["CAMPAIGNS", "recount", "text_table"]

# campaign, hits, tested, primary rate, rate and ratio as printed
CAMPAIGNS = (
    ("oncology (kinase)", 141, 342, "0.725%", "41 %", "60-fold"),
    ("CNS (non-kinase enzyme)", 37, 141, "0.088%", "22.7 %", "250-fold"),
    # What the printed rate of the second campaign would need.
    ("CNS, if 163 were tested", 37, 163, "0.088%", "22.7 %", "250-fold"),
)


def recount(confidence: float = 0.95) -> pd.DataFrame:
    """Return hit rates and ratios to the primary screen with their intervals.

    Returns
    -------
    DataFrame, one row per campaign
        ``campaign, hits, tested``; ``rate, rate_low, rate_high`` (Clopper-Pearson); ``primary``; ``fold,
        fold_low, fold_high``; ``printed_rate, printed_fold``.
    """
    rows = []
    for campaign, hits, tested, primary, printed_rate, printed_fold in CAMPAIGNS:
        found = rate(hits, tested, confidence)
        fold = enrichment_interval(hits, tested, Primary(primary), confidence)
        rows.append(
            {
                "campaign": campaign,
                "hits": hits,
                "tested": tested,
                "rate": found["rate"],
                "rate_low": found["low"],
                "rate_high": found["high"],
                "primary": Primary(primary).rate,
                "fold": fold["fold"],
                "fold_low": fold["low"],
                "fold_high": fold["high"],
                "printed_rate": printed_rate,
                "printed_fold": printed_fold,
            }
        )
    return pd.DataFrame(rows)


def text_table() -> str:
    """Return `recount` as a Markdown table, the one in the documentation."""
    lines = [
        "| campaign | hits | hit rate (95 %) | primary | times the primary (95 %) | the paper says |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.campaign} | {row.hits} of {row.tested} | {row.rate:.1%} ({row.rate_low:.1%} to {row.rate_high:.1%}) "
        f"| {row.primary:.3%} | {row.fold:.0f} ({row.fold_low:.0f} to {row.fold_high:.0f}) "
        f"| {row.printed_rate}, {row.printed_fold} |"
        for row in recount().itertuples()
    ]
    return "\n".join(lines)
