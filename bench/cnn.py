"""Images per second of the networks that see images: training, inference, reading, beside their floor and a peer.

    python bench/cnn.py --device cuda           # 5 x 520 x 696, the paper's batches; under 8 minutes on an H200
    python bench/cnn.py --quick                 # small, on the processor, about 2 minutes
    python bench/cnn.py --networks gapnet --size 130 174 --batch 8 --steps 3

Everything goes through what a user gets: the models' own feed, plan and training loop. "resident" trains on one batch
that stays on the device, "loaded" on batches that come from a store of views (or of crops, for SC-CNN) in the cache of
the system, through normalisation and flips. Images are simulated: smooth shapes and noise, packed to about the size
that real fields are. The floor of a training step of GapNet is the larger of two times: its multiply-adds (three times
forward, without the gradient of the images) at the speed of a large product of matrices, and the bytes of its maps
(each is written, read, read again for the gradients, and its gradient written and read) at the speed of a large copy.
The peer is the loop of a tutorial: DataLoader, one .npz per view (the way of hti-cnn), float32.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy import ndimage, sparse
from torch import nn

from phenohit.data.views import Views
from phenohit.errors import PhenoHitError
from phenohit.images.samples import ImageRows, view_rows
from phenohit.images.store import open_store, write_store
from phenohit.imaging import ImageSource
from phenohit.models import find_model
from phenohit.models.fit import Batch, train
from phenohit.models.vision import PRESETS, make
from phenohit.models.vision_count import count

NETWORKS = ["gapnet", "milnet", "mcnn", "sccnn", "resnet101", "densenet121", "timm"]
TASKS, MEASURED = 209, 0.13  # Hofmarcher 2019
VIEWS = 198_824  # that the paper trains on
PAPER = {"gapnet": 662, "milnet": 1344, "mcnn": 4252, "densenet121": 8520, "resnet101": 13209}  # s an epoch, Table 3
QUICKLY_COMPILED = {"gapnet", "milnet", "mcnn", "sccnn"}  # the others take minutes
CROPS = 256  # of a chunk


def simulate(n: int, size: tuple[int, int]) -> np.ndarray:
    """Simulate views (n, 5, H, W) of smooth shapes with noise; no two are the same."""
    rng = np.random.default_rng(0)
    shapes = ndimage.gaussian_filter(rng.standard_normal((8, 5, *size)), (0, 0, 6, 6))
    shapes = np.maximum(40 * shapes / shapes.std(), 8) + rng.normal(0, 2.0, shapes.shape)  # most is background
    base = np.clip(shapes, 0, 255).astype(np.uint8)
    return np.stack([np.roll(base[i % 8], (3 * (i // 8), 5 * (i // 8)), (1, 2)) for i in range(n)])


def stored(folder: Path, pixels: np.ndarray) -> ImageRows:
    """Write views as a user's would be: TIFF by channel, then the store; a row each."""
    import tifffile

    names = [f"ch{i}" for i in range(5)]
    rows = pd.DataFrame({
        "Metadata_Plate": "P1", "Metadata_Well": [f"A{i:05d}" for i in range(len(pixels))], "Metadata_Site": "1",
    })  # fmt: skip
    files = pd.DataFrame({c: [f"{folder}/{i}_{c}.tif" for i in range(len(pixels))] for c in names})
    for i, view in enumerate(pixels):
        for c, image in zip(names, view, strict=True):
            tifffile.imwrite(files.loc[i, c], image)
    write_store(Views(rows, files), ImageSource(), folder / "store", jobs=-1)
    data, _ = view_rows(rows.assign(Metadata_compound=rows["Metadata_Well"]), rows, open_store(folder / "store"))
    return data


def cropped(folder: Path, pixels: np.ndarray, n: int) -> ImageRows:
    """Cut crops of 96 x 96 anywhere, as they are kept: many to a chunk."""
    import zarr

    rng = np.random.default_rng(1)
    size = min(96, *pixels.shape[2:])
    at = zip(
        *(rng.integers(0, m, n) for m in (len(pixels), pixels.shape[2] - size + 1, pixels.shape[3] - size + 1)),
        strict=True,
    )
    found = np.stack([pixels[v, :, y : y + size, x : x + size] for v, y, x in at])
    path = str(folder / "crops")
    zarr.create_array(path, shape=found.shape, chunks=(CROPS, *found.shape[1:]), dtype="uint8")[:] = found
    rows = pd.DataFrame({"Metadata_compound": [f"C{i}" for i in range(n)]})
    order = np.arange(n)
    return ImageRows(
        rows, [f"ch{i}" for i in range(5)], found.shape[1:], np.arange(n + 1), np.zeros(n, np.int16), order,
        order.astype(np.int32), [path], CROPS,
    )  # fmt: skip


def labelled(n: int) -> sparse.csr_matrix:
    """Simulate labels of which 13 % are measured; no row is without."""
    rng = np.random.default_rng(2)
    Y = sparse.random(n, TASKS, density=MEASURED, format="lil", dtype=np.float32, rng=rng)
    Y[np.arange(n), rng.integers(0, TASKS, n)] = 1.0
    Y = Y.tocsr()
    Y.data = (rng.random(Y.nnz) < 0.5).astype(np.float32)
    return Y


class Resident:
    """One batch, again and again; a `phenohit.models.fit.Feed`."""

    def __init__(self, batch: Batch, steps: int, device: torch.device) -> None:
        self.batch, self.device, self.block = batch, device, len(batch.samples)
        self.count = np.full(steps * self.block, max(len(batch.y) // self.block, 1))

    def __len__(self) -> int:
        return len(self.count)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return as many samples as the steps have."""
        return np.arange(len(self))

    def batches(self, order: np.ndarray, size: int, noise: Any = None) -> Iterator[Batch]:
        """Yield the batch."""
        for _ in range(0, len(order), size):
            yield self.batch

    def auroc(self, scores: Any) -> float:
        """Not asked for."""
        raise NotImplementedError


def settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: torch.device) -> float:
    settled(device)
    start = time.perf_counter()
    run()
    settled(device)
    return time.perf_counter() - start


def measure(name: str, data: ImageRows, given: dict[str, Any], steps: int, jobs: int) -> dict[str, float]:
    """Return images per second of one network: training and inference, from the store and from the device."""
    model = find_model(name)(epochs=1, select="last", **given)
    model.jobs = jobs
    model.untrained(data)  # knows the images; its one task is replaced by as many as the paper has
    net = make(name, 5, TASKS, data.shape[1:], model.settings.network)
    device, batch = model.device, model.settings.batch
    model.net = net.to(device, memory_format=torch.channels_last if device.type == "cuda" else torch.contiguous_format)
    n = steps * batch
    seen, plan = model.seen(), model.plan(False)
    part = data.take(np.arange(n) % len(data))
    feed = model.feed(part, labelled(n), jobs)
    first = next(feed.batches(np.arange(batch), batch))
    found = {}
    train(seen, Resident(first, 2 if device.type == "cuda" else 1, device), None, plan, seed=0)  # compiles
    found["train, resident"] = n / timed(
        lambda: train(seen, Resident(first, steps, device), None, plan, seed=0), device
    )
    found["train, loaded"] = n / timed(lambda: train(seen, feed, None, plan, seed=0), device)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
            for _ in range(steps):
                net(first.x)

    infer()
    found["infer, resident"] = n / timed(infer, device)
    found["infer, loaded"] = n / timed(lambda: model.view_scores(part, "none"), device)
    return found


def reading(data: ImageRows, batch: int, steps: int, jobs: int, device: torch.device) -> None:
    """Print images per second of reading alone: into memory, and to normalised batches on the device."""
    n, size = steps * batch, np.prod(data.shape) / 1e6
    part = data.take(np.arange(n) % len(data))
    out = np.empty((batch, *data.shape), np.uint8)
    parts = np.arange(n).reshape(steps, batch)
    host = n / timed(lambda: [part.read(p, out, jobs) for p in parts], device)
    model = find_model("gapnet")(device=device.type)
    feed = model.feed(part, labelled(n), jobs)
    there = n / timed(lambda: [None for _ in feed.batches(np.arange(n), batch)], device)
    print(f"reading, {jobs} threads: store -> memory {host:,.0f} images/s ({host * size / 1e3:.2f} GB/s)")
    print(f"  store -> device, normalised: {there:,.0f} images/s ({there * size / 1e3:.2f} GB/s of uint8)")


def floors(size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> tuple[float, float, str]:
    """Return images per second of training GapNet that arithmetic and that memory allow, and how they were found."""
    net = make("gapnet", 5, TASKS, size)
    products = count(net, (5, *size))[1]
    maps, first = [], []

    def add(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        maps.append(output[0].numel())
        if isinstance(layer, nn.Conv2d) and not first:
            first.append(output[0].numel() * layer.weight[0].numel())

    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):  # SELU is done in place
            layer.register_forward_hook(add)
    with torch.inference_mode():
        net(torch.zeros(1, 5, *size))
    moved = torch.finfo(dtype).bits // 8 * (5 * sum(maps) + 2 * 5 * size[0] * size[1])
    m = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(m, m, device=device, dtype=dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions are
    a @ b
    speed = m**3 / min(timed(lambda: a @ b, device) for _ in range(5))
    torch.backends.cuda.matmul.allow_tf32 = before
    big = torch.empty(1 << (32 if device.type == "cuda" else 27), dtype=torch.uint8, device=device)
    other = torch.ones_like(big)
    rate = 2 * len(big) / min(timed(lambda: big.copy_(other), device) for _ in range(5))
    said = (
        f"{(3 * products - first[0]) / 1e9:.2f} G multiply-adds an image at {2 * speed / 1e12:,.2f} TFLOP/s; "
        f"{moved / 1e6:.0f} MB an image at {rate / 1e9:,.0f} GB/s"
    )
    return speed / (3 * products - first[0]), rate / moved, said


class Npz(torch.utils.data.Dataset):
    """Views as hti-cnn reads them: one compressed file each, normalised by the process that reads it."""

    def __init__(self, files: list[str], labels: np.ndarray, mask: np.ndarray, n: int) -> None:
        self.files, self.labels, self.mask, self.n = files, labels, mask, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with np.load(self.files[i % len(self.files)], allow_pickle=False) as held:
            x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(held["sample"], -1, 0))).float()
        x = (x - x.mean((1, 2), keepdim=True)) / (x.std((1, 2), keepdim=True) + 1e-7)
        for axis in (1, 2):
            x = x.flip(axis) if torch.rand(()) < 0.5 else x
        return x, torch.from_numpy(self.labels[i]), torch.from_numpy(self.mask[i])


def peer(folder: Path, pixels: np.ndarray, batch: int, steps: int, workers: int, device: torch.device) -> float:
    """Return images per second of training GapNet by a plain loop over .npz files."""
    files = [str(folder / f"{i}.npz") for i in range(len(pixels))]
    write = delayed(lambda file, view: np.savez_compressed(file, sample=np.moveaxis(view, 0, -1)))
    Parallel(n_jobs=workers, prefer="threads")(write(f, v) for f, v in zip(files, pixels, strict=True))
    Y = labelled(steps * batch)
    mask = sparse.csr_matrix((np.ones_like(Y.data), Y.indices, Y.indptr), shape=Y.shape).toarray()
    net = make("gapnet", 5, TASKS, pixels.shape[2:]).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        Npz(files, Y.toarray(), mask, steps * batch), batch_size=batch, shuffle=True, num_workers=workers,
        pin_memory=device.type == "cuda",
    )  # fmt: skip

    def epoch() -> None:
        for x, y, measured in loader:
            x, y, measured = (t.to(device, non_blocking=True) for t in (x, y, measured))
            each = nn.functional.binary_cross_entropy_with_logits(net(x), y, reduction="none")
            loss = (each * measured).sum() / measured.sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()

    x = torch.zeros(batch, 5, *pixels.shape[2:], device=device)
    net(x).sum().backward()  # libraries choose
    return steps * batch / timed(epoch, device)


def table(args: argparse.Namespace, views: ImageRows, crops: ImageRows, end: float) -> dict[tuple[str, str], float]:
    """Print every network; return images per second of training from the store."""
    trained = {}
    dtypes = ["float32", "bfloat16"] if args.device == "cuda" else ["float32"]
    columns = ["train, resident", "train, loaded", "infer, resident", "infer, loaded"]
    print(f"\n{'images/s':24}{'batch':>6}" + "".join(f"{c:>17}" for c in columns) + f"{'epoch s':>12}{'paper s':>9}")
    for name in args.networks:
        for dtype in dtypes:
            batch = args.batch or (PRESETS[name].batch if name in PRESETS else 24)
            compiled = dtype == "bfloat16" and (name in QUICKLY_COMPILED or args.compile_all)
            given = {"batch": batch, "dtype": dtype, "compile": compiled, "device": args.device}
            if name == "timm":
                given["network"] = {"backbone": args.backbone}
            label = f"{name} {'bf16' if dtype == 'bfloat16' else 'fp32'}{' compiled' if compiled else ''}"
            if time.perf_counter() > end:
                print(f"{label:24} left out: no time left")
                continue
            data = crops if name == "sccnn" else views
            try:
                found = measure(name, data, given, args.steps, args.jobs)
            except PhenoHitError as error:
                print(f"{label:24} left out: {error}")
                continue
            finally:
                torch._dynamo.reset()
                if args.device == "cuda":
                    torch.cuda.empty_cache()
            trained[name, dtype] = found["train, loaded"]
            full = "" if name == "sccnn" else f"{VIEWS / found['train, loaded']:,.0f}"
            print(f"{label:24}{batch:>6}" + "".join(f"{found[c]:>17,.1f}" for c in columns), end="")
            print(f"{full:>12}{PAPER.get(name, ''):>9}", flush=True)
    print(
        f"epoch s: EXTRAPOLATED to {VIEWS:,} views of this size from {args.steps} steps, loaded. "
        "paper s: on a GTX 1080 Ti, 5 x 520 x 692."
    )
    return trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="144 x 192, batches of 8, 3 steps")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--size", type=int, nargs=2, default=(520, 696))
    parser.add_argument("--batch", type=int, default=0, help="0: the paper's")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--views", type=int, default=512, help="in the store")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--backbone", default="convnext_tiny", help="of timm")
    parser.add_argument("--compile-all", action="store_true", help="also networks that take minutes to compile")
    parser.add_argument("--minutes", type=float, default=6.5, help="begin no network later than this")
    args = parser.parse_args()
    if args.quick:
        args.size, args.batch, args.steps, args.views, args.backbone = (144, 192), 8, 3, 32, "resnet10t"
    end, device = time.perf_counter() + 60 * args.minutes, torch.device(args.device)
    torch.set_num_threads(args.jobs)
    where = torch.cuda.get_device_name() if args.device == "cuda" else "processor"
    print(
        f"{where}, torch {torch.__version__}, {args.jobs} cores; simulated views of 5 x {args.size[0]} x {args.size[1]}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = simulate(args.views, tuple(args.size))
        views = stored(folder, pixels)
        packed = sum(f.stat().st_size for f in Path(views.arrays[0]).rglob("c*") if f.is_file()) / pixels.nbytes
        crops = cropped(folder, pixels, min(16 * args.views, 8192))
        print(f"store of {len(pixels)} views, packed to {packed:.2f} of their size")
        batch = args.batch or PRESETS["gapnet"].batch
        reading(views, batch, args.steps, args.jobs, device)
        n = max(args.steps // 4, 2)
        plain = peer(folder, pixels[: max(len(pixels) // 4, 1)], batch, n, args.jobs, device)
        trained = table(args, views, crops, end)
    for dtype in (torch.float32, torch.bfloat16):
        ours = trained.get(("gapnet", str(dtype).removeprefix("torch.")))
        if ours is None:
            continue
        arithmetic, memory, said = floors(tuple(args.size), device, dtype)
        print(f"\nGapNet, {str(dtype).removeprefix('torch.')}: {said}")
        print(f"  floor of arithmetic {arithmetic:,.0f} images/s, ours {arithmetic / ours:.2f} times as long")
        print(f"  floor of memory     {memory:,.0f} images/s, ours {memory / ours:.2f} times as long")
        print(
            f"  peer (DataLoader, .npz, float32, {args.jobs} workers) {plain:,.1f} images/s: "
            f"ours {ours / plain:.2f} times as many"
        )
    best = max((rate for (name, _), rate in trained.items() if name == "gapnet"), default=0.0)
    if args.device == "cuda" and best:
        paper = VIEWS / PAPER["gapnet"]
        reached = "reached" if best >= max(5000, 20 * paper) else "MISSED"
        print(f"\ntarget: 5,000 images/s of GapNet and 20 times the paper's {paper:.0f}: {best:,.0f}, "
              f"{best / paper:.1f} times: {reached}")  # fmt: skip


if __name__ == "__main__":
    main()
