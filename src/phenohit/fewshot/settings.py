from phenohit.config import Config as FewShotRun
from phenohit.episodic import FewShotConfig

__all__ = ["FewShotConfig", "FewShotRun"]
