"""The three objects that carry everything, the readers of tables, and the simulated screen."""

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles

__all__ = ["Labels", "Predictions", "Profiles"]
