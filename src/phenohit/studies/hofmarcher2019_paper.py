"""What Hofmarcher et al. 2019 printed: Tables 1 to 3 and the counts of Figure 4."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COSTS", "FIGURE_4", "P_VALUES", "RESULTS", "Cost", "Result"]


class Result(NamedTuple):
    """A row of Table 1: means and standard deviations over 209 tasks, and tasks above AUROC 0.9, 0.8 and 0.7."""

    name: str
    auroc: float
    auroc_sd: float
    f1: float
    f1_sd: float
    above: tuple[int, int, int]


class Cost(NamedTuple):
    """A row of Table 3: seconds per epoch on one GTX 1080 Ti; GMAC counted on 5 x 520 x 696, additions included."""

    parameters: int
    seconds_epoch: float
    gmac: float


# Our model -> its row. `network` is the paper's FNN, on measured features.
RESULTS = {
    "resnet101": Result("ResNet", 0.731, 0.19, 0.508, 0.30, (68, 94, 119)),
    "densenet121": Result("DenseNet", 0.730, 0.19, 0.530, 0.30, (61, 98, 121)),
    "gapnet": Result("GapNet", 0.725, 0.19, 0.510, 0.29, (63, 94, 117)),
    "milnet": Result("MIL-Net", 0.711, 0.18, 0.445, 0.32, (61, 81, 105)),
    "mcnn": Result("M-CNN", 0.705, 0.19, 0.482, 0.31, (57, 78, 105)),
    "sccnn": Result("SC-CNN", 0.705, 0.20, 0.362, 0.29, (61, 83, 109)),
    "network": Result("FNN", 0.675, 0.20, 0.361, 0.31, (55, 71, 90)),
}

# (method, other): p of the one-sided paired Wilcoxon test that the first is better (Table 2: column against row).
P_VALUES = {
    ("resnet101", "densenet121"): 7.18e-01,
    ("resnet101", "gapnet"): 8.36e-02,
    ("densenet121", "gapnet"): 4.09e-02,
    ("resnet101", "milnet"): 1.08e-05,
    ("densenet121", "milnet"): 4.47e-03,
    ("gapnet", "milnet"): 4.90e-02,
    ("resnet101", "mcnn"): 1.17e-08,
    ("densenet121", "mcnn"): 3.01e-05,
    ("gapnet", "mcnn"): 1.13e-03,
    ("milnet", "mcnn"): 6.37e-01,
    ("resnet101", "sccnn"): 4.70e-08,
    ("densenet121", "sccnn"): 1.20e-05,
    ("gapnet", "sccnn"): 1.29e-04,
    ("milnet", "sccnn"): 9.07e-01,
    ("mcnn", "sccnn"): 3.22e-01,
    ("resnet101", "network"): 1.71e-14,
    ("densenet121", "network"): 1.20e-09,
    ("gapnet", "network"): 3.23e-08,
    ("milnet", "network"): 2.39e-10,
    ("mcnn", "network"): 2.66e-07,
    ("sccnn", "network"): 8.98e-07,
}

COSTS = {
    "gapnet": Cost(3_694_545, 662.04, 1.72),
    "milnet": Cost(726_180, 1344.18, 4.46),
    "mcnn": Cost(11_230_929, 4252.47, 7.55),
    "densenet121": Cost(7_174_353, 8519.91, 21.19),
    "resnet101": Cost(42_934_673, 13208.64, 58.48),
}

# GapNet against the FNN on the first of three splits: tasks by verdict, and Pearson's r of their AUROCs.
FIGURE_4 = {"better": 29, "worse": 3, "same": 177, "r": 0.72}
