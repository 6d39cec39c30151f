"""The `phenohit` command. Each sub-command is a typed function; nothing is imported before it is called."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["COMMANDS", "main"]

# name: (module:function, what it does). The order is the order of work.
COMMANDS = {
    "run": ("phenohit.commands:run", "the whole way: tables in, ranked hit list and report out"),
    "images": ("phenohit.commands:images", "raw images: check views, find cells, measure them, make wells"),
    "data": ("phenohit.commands:data", "read profiles and structures, identify compounds"),
    "chemistry": ("phenohit.commands:chemistry", "fingerprints, chemical series, scaffolds"),
    "labels": ("phenohit.commands:labels", "turn activities into tasks for the imaged compounds"),
    "split": ("phenohit.commands:split", "make folds and check them for leaks"),
    "select": ("phenohit.commands:select", "choose settings of models within every fold (tune.grids)"),
    "fit": ("phenohit.commands:fit", "cross-validate every model and baseline"),
    "evaluate": ("phenohit.commands:evaluate", "score every task, with intervals and chance levels"),
    "hits": ("phenohit.commands:hits", "rank, filter and pick compounds to test next"),
    "report": ("phenohit.commands:report", "write report.html"),
    "embed": ("phenohit.embedding:command", "profiles from images by a trained network or a backbone"),
    "predict": ("phenohit.commands:predict", "score new profiles with the final model of a run"),
    "annotate": ("phenohit.commands:annotate", "score a run's whole library in every task, with calls"),
    "deconvolve": ("phenohit.commands:deconvolve", "rank the targets that may stand behind a phenotype"),
    "fewshot": ("phenohit.own_assay:command", "predict your own assay from a few measured compounds"),
    "review": ("phenohit.commands:review", "what the lab measured for the picks, and what to test next"),
    "leaks": ("phenohit.commands:leaks", "check any table of folds for leaks"),
    "simulate": ("phenohit.simulate:command", "make a small simulated screen with known truth"),
    "simm2018": ("phenohit.studies.simm2018:command", "the whole study of Simm et al. 2018 on your screen"),
    "hofmarcher2019": ("phenohit.studies.hofmarcher2019:command", "networks on images against one on profiles"),
    "fslcp": ("phenohit.studies.fslcp:command", "which few-shot method is best on your screen, at 8 to 96 labels"),
    "models": ("phenohit.commands:models", "list the models and few-shot methods"),
}


def _overview() -> str:
    lines = [
        "usage: phenohit COMMAND [options]",
        "",
        "An imaging screen in, the next plate out.",
        "",
        "Try it:   phenohit simulate simulated-screen",
        "          phenohit run simulated-screen/simulated.yaml",
        "",
        "Commands (each also does the steps before it that are not done yet):",
    ]
    lines += [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    lines += ["", "phenohit COMMAND --help tells the options; every key of the YAML is one.", ""]
    return "\n".join(lines)


class _Lines(logging.Handler):
    """Plain lines on standard error that leave a progress bar below them whole."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command and return the exit code: 0 done, 2 the user can mend it, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        from phenohit import __version__

        print(f"phenohit {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    from phenohit.errors import PhenoHitError, nearest

    if name not in COMMANDS:
        print(f"'{name}' is no command. {nearest(name, COMMANDS)} See: phenohit --help", file=sys.stderr)
        return 2
    handler = _Lines()
    handler.setLevel(logging.INFO)
    log = logging.getLogger("phenohit")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)  # the run folder's log.txt keeps everything
    try:
        module, function = COMMANDS[name][0].split(":")
        command = getattr(import_module(module), function)
        from phenohit.settings import call

        call(command, rest, prog=f"phenohit {name}")
    except PhenoHitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to go on; finished steps are kept.", file=sys.stderr)
        return 130
    finally:
        log.removeHandler(handler)
    return 0
