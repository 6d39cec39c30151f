"""Time of an episode: many at once against a loop of one at a time, for prototypes and for tuned networks.

    python bench/fewshot.py --quick          # about a minute on one thread
    python bench/fewshot.py --device cuda

Features and labels are simulated. Both sides do the same arithmetic on the same episodes (support 32; inference: 8 to
96, as in the benchmark), with the same widths, in the same run and in turns. The loops are plain torch (nn.Linear,
nn.Dropout, torch.optim.Adam) and embed only what their episode needs; those of prototypes add up the gradients of as
many episodes as ours takes in a step, so that they pay for no more Adam steps than we do. What differs: ours embeds a
row once for all episodes of a step, or of all tasks, and stacks the networks of many episodes.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.fewshot.episodes import SIZES, Episodes, draw_tasks
from phenohit.fewshot.finetune import MultiTask
from phenohit.fewshot.pools import Pools
from phenohit.fewshot.prototypes import Prototypes, PrototypesSettings
from phenohit.fewshot.prototypes_train import Features, Net, Pretraining
from phenohit.fewshot.trunk import find_device
from phenohit.models.contract import Known
from phenohit.models.fit import threads

F, M, Q, TASKS, COMPOUNDS = 993, 32, 32, 20, 400


def simulate(n: int = 4000) -> tuple[Profiles, Labels]:
    """Simulate features without meaning, and 20 tasks of 400 compounds."""
    rng = np.random.default_rng(0)
    row = np.concatenate([rng.choice(n, COMPOUNDS, replace=False) for _ in range(TASKS)])
    column = np.repeat(np.arange(TASKS), COMPOUNDS)
    Y = sparse.csr_matrix(((rng.random(len(row)) < 0.4).astype(np.float32), (row, column)), shape=(n, TASKS))
    keys, names = pd.DataFrame({"compound": [f"C{i}" for i in range(n)]}), [f"t{j}" for j in range(TASKS)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    X = rng.standard_normal((n, F), dtype=np.float32)
    rows = keys.rename(columns={"compound": "Metadata_compound"})
    return Profiles(X, rows, [f"f{j}" for j in range(F)]), Labels(Y, keys, tasks)


def trunk(settings: PrototypesSettings, device: torch.device) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(settings.dropout_input)]
    width = F
    for _ in range(settings.layers):
        layers += [nn.Linear(width, settings.units), nn.ReLU(), nn.Dropout(settings.dropout_hidden)]
        width = settings.units
    return nn.Sequential(*layers, nn.Linear(width, settings.embedding)).to(device)


def prototype_logits(net: nn.Module, X: torch.Tensor, y: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    Z = net(torch.cat([X, asked]))
    prototypes = torch.stack([Z[: len(y)][~y].mean(0), Z[: len(y)][y].mean(0)])
    return -torch.cdist(Z[len(y) :], prototypes)


def train_loop(data: Profiles, labels: Labels, s: PrototypesSettings, device: torch.device, steps: int) -> int:
    net = trunk(s, device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=s.learning_rate)
    pools = Pools.of(labels, data.compounds, [M], Q)
    X = torch.from_numpy(data.X).to(device)
    for step in range(steps):
        optimizer.zero_grad()
        for group in pools.draw(np.random.default_rng(step), [M], tasks=s.tasks, episodes=s.episodes, pool=s.pool):
            for e in range(len(group.support)):
                support, query = (
                    torch.as_tensor(group.rows[p[e]], device=device) for p in (group.support, group.query)
                )
                y, wanted = (torch.as_tensor(a[e], device=device) for a in (group.y_support, group.y_query))
                logits = prototype_logits(net, X[support], y, X[query])
                (functional.cross_entropy(logits, wanted.long()) / s.episodes).backward()
        optimizer.step()
    return steps * s.episodes


def train_ours(data: Profiles, labels: Labels, s: PrototypesSettings, device: torch.device, steps: int) -> int:
    pools = Pools.of(labels, data.compounds, [M], Q)
    features = Features.of(data.X, labels.Y, device)
    net = Net.begin(F, s, 0, device)
    training = Pretraining(
        net, s, pools, features, [M], seed=0, check=None, checkpoint=None, identity=""
    )  # fmt: skip
    for t in training.parameters:
        t.requires_grad_(True)
    for _ in range(steps):
        training.descend()
        training.step += 1
    return steps * s.episodes


@torch.no_grad()
def score_loop(net: nn.Module, X: torch.Tensor, episodes: list[Episodes]) -> int:
    net.eval()
    for one in episodes:
        for e in range(len(one)):
            y = torch.as_tensor(one.y_support[e], device=X.device)
            torch.softmax(prototype_logits(net, X[one.support[e]], y, X[one.query[e]]), 1)[:, 1].cpu().numpy()
    return sum(map(len, episodes))


def tune_loop(body: nn.Sequential, X: torch.Tensor, episodes: list[Episodes], method: MultiTask) -> int:
    s = method.settings
    for one in episodes:
        for e in range(len(one)):
            x, y = X[one.support[e]], torch.as_tensor(one.y_support[e], device=X.device).float()
            net = nn.Sequential(copy.deepcopy(body), nn.Linear(s.units, 1).to(X.device))
            asked = X[one.query[e]]
            if s.tune == "head":
                with torch.no_grad():
                    x, asked = body.eval()(x), body(asked)
                net = net[1]
            net.train()
            optimizer = torch.optim.Adam(net.parameters(), lr=s.learning_rate)
            for _ in range(s.epochs):
                for batch in torch.randperm(M, device=X.device).split(M // s.batches):
                    loss = functional.binary_cross_entropy_with_logits(net(x[batch])[:, 0], y[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            with torch.no_grad():
                torch.sigmoid(net.eval()(asked))[:, 0].cpu().numpy()
    return sum(map(len, episodes))


def compare(title: str, ours: Callable[[bool], int], loop: Callable[[bool], int], device: torch.device) -> None:
    """Print time per episode of both, twice in turns; the flag asks for a first, short run."""
    ours(True), loop(True)
    spent: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(2):
        for name, run in (("ours", ours), ("loop", loop)):
            start = time.perf_counter()
            n = run(False)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent[name].append((time.perf_counter() - start) / n * 1e3)
    each = [f"{name} {' and '.join(f'{v:.3g}' for v in values)} ms" for name, values in spent.items()]
    ratio = " and ".join(f"{b / a:.1f}" for a, b in zip(*spent.values(), strict=True))
    print(f"  {title}: {', '.join(each)} an episode; ratio {ratio}", flush=True)


def prototypes(data: Profiles, labels: Labels, device: torch.device, quick: bool, jobs: int) -> None:
    s = PrototypesSettings(device=device.type)
    ours_steps, loop_steps = (4, 1) if quick else (20, 2)
    print(f"prototypes: {F} -> {s.layers} x {s.units} -> {s.embedding}, {s.episodes} episodes a step")
    few_a_step = PrototypesSettings(episodes=4)
    compare(
        "training", lambda warm: train_ours(data, labels, s, device, 1 if warm else ours_steps),
        lambda warm: train_loop(data, labels, few_a_step if warm else s, device, loop_steps), device,
    )  # fmt: skip
    method = Prototypes(device=device.type)
    method.known, method.nets = Known.of(data, labels), {0: Net.begin(F, s, 0, device)}
    many = drawn(data, labels, 2 if quick else TASKS, 100, SIZES)
    few, X, net = [one.take(slice(0, 20)) for one in many], torch.from_numpy(data.X).to(device), trunk(s, device)
    compare(
        "inference", lambda warm: sum(map(len, method.score(data, few if warm else many, jobs=jobs))),
        lambda warm: score_loop(net, X, few[:1] if warm else many), device,
    )  # fmt: skip


def tuned(data: Profiles, labels: Labels, device: torch.device, quick: bool, jobs: int) -> None:
    X = torch.from_numpy(data.X).to(device)
    for tune, layers, units, n in (("head", 2, 512, 100), ("all", 2, 128, 16)):
        epochs = 10 if quick and tune == "all" else 50
        method = MultiTask(tune=tune, layers=layers, units=units, epochs=epochs, device=device.type)
        s, width, body = method.settings, F, []
        for _ in range(layers):
            body += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(s.dropout_hidden)]
            width = units
        net = nn.Sequential(nn.Dropout(s.dropout_input), *body).to(device)
        method.known = Known.of(data, labels)
        method.trunk = [(m.weight.detach(), m.bias.detach()) for m in net if isinstance(m, nn.Linear)]
        many = drawn(data, labels, 4, n)
        some = [one.take(slice(0, 2 if quick else 8)) for one in many]
        print(f"multitask, {tune}: {F} -> {layers} x {units} -> 1, {epochs} epochs of {s.batches} steps")
        compare(
            "tuning", lambda warm, m=method, a=many: sum(map(len, m.score(data, a[:1] if warm else a, jobs=jobs))),
            lambda warm, m=method, a=some, b=net: tune_loop(b, X, a[:1] if warm else a, m), device,
        )  # fmt: skip


def drawn(data: Profiles, labels: Labels, tasks: int, n: int, sizes: Sequence[int] = (M,)) -> list[Episodes]:
    return draw_tasks(labels, data.compounds, labels.task_names[:tasks], sizes=sizes, query=Q, n=n)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    device = find_device(chosen.device)
    print(f"simulated features, support {M}, query {Q}, {device.type}, ", end="")
    print(f"{chosen.threads} threads, load {os.getloadavg()[0]:.1f}")
    data, labels = simulate()
    with threads(chosen.threads):
        prototypes(data, labels, device, chosen.quick, chosen.threads)
        tuned(data, labels, device, chosen.quick, chosen.threads)


if __name__ == "__main__":
    main()
