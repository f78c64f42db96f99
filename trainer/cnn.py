"""An image classifier that learns in seconds: augmentation, warm start from the champion, a narrow student to serve.

The networks are in networks.py; after airbench come alternating flips, label smoothing, SGD with Nesterov momentum or
Muon on a triangle, and several views of an image when it answers (Jordan, arXiv 2404.00498). Structured pruning is a
narrow student of the trained net (Hinton et al. 2015) that sees the same augmented images as its teacher (Beyer et
al., CVPR 2022): unlike single weights, channels that are not there cost no time. Figures and machine: README.md.

Shapes: N images, B a batch, C channels (3 colour, 1 grey), P pixels a side, K classes, S points of a warp, Q = S x S,
D = 2 coordinates.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812 - the name the whole field uses
from torch import Tensor, nn

from trainer import classification, images, loop, optimisers, parallel, rows, tensors
from trainer.bootstrap import Metrics
from trainer.contract import BadRequestError, DataError, parse_hyperparameters, setting
from trainer.families import Job, Trained
from trainer.networks import Net
from trainer.progress import say
from trainer.tensors import Tensors

ODD, ORDER, WARP, HELD = range(4)
"""What a draw is for: beside the seed, so that no two uses share their numbers."""
RISE = 0.2  # of the steps, until the learning rate is highest; then it falls to zero
WARP_POINTS = 6
LOOKED_AT = 2000  # images, for mean, deviation and stem
SOFTENED = 4.0  # the temperature at which a student listens; at 1 it learned less than from the labels alone
DIVERGED_FACTOR = 3.0  # a loss beyond so many times that of a uniform guess
DEVICE_BYTES_MAX = 20_000_000_000  # of images kept on the GPU; more stay in the machine's memory
PREDICTED_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    model: str = setting("cnn", choices=("cnn",))
    generation: int = setting(0, low=0)
    seed: int = setting(0, low=0, high=2**63 - 1)  # what torch takes
    label: str = setting("label")
    pixels: int = setting(32, low=8, high=1024)
    colour: str = setting("rgb", choices=("rgb", "grey"))
    network: str = setting("fast", choices=("fast", "resnet18"))
    width: int = setting(16, low=4, high=1024)  # channels of the first block; resnet18's usual one is 64
    stem: int = setting(2, low=1, high=4)  # pixels from one of the stem's patches to the next
    distil_width: int = setting(0, low=0, high=1024)  # above 0: a student of this width is trained after, and saved
    epochs: int = setting(12, low=1, high=10_000)
    epochs_warm: int = setting(6, low=0, high=10_000)  # after a warm start; 0: the champion as it is, for its student
    epochs_distil: int = setting(12, low=1, high=10_000)
    warm_start: str = setting("auto", choices=("auto", "never"))
    batch_rows: int = setting(64, low=2, high=65_536)
    optimiser: str = setting("muon", choices=("muon", "sgd"))
    learning_rate: float = setting(0.5, low=0.0, high=1e6)
    muon_learning_rate: float = setting(0.1, low=0.0, high=1e6)  # of the filters, relative to their norm
    weight_decay: float = setting(5e-4, low=0.0, high=1.0)
    label_smoothing: float = setting(0.1, low=0.0, high=0.9)
    flip: str = setting("never", choices=("never", "alternate"))  # digits and letters have no mirror image
    translate: float = setting(0.06, low=0.0, high=0.5)  # at most so many sides either way
    rotate: float = setting(10.0, low=0.0, high=180.0)  # degrees, likewise
    zoom: float = setting(0.1, low=0.0, high=0.9)
    elastic: float = setting(0.02, low=0.0, high=0.5)  # standard deviation, in half sides, at 6 x 6 points
    views: int = setting(5, low=1, high=5)  # of an image when predicting: itself, and moved by a pixel four ways
    validation_share: float = setting(0.05, low=0.0, high=0.5)
    interruption_seconds: float = setting(3600.0, low=0.0)
    workers: int = setting(0, low=0, high=1024)


# ---- augmentation: drawn on the CPU, a few numbers an image, and done on the device


def warps(count: int, draws: np.random.Generator, p: Hyperparameters) -> npt.NDArray[np.float32]:
    """Where S x S points of each image are taken from, as (x, y) with sides from -1 to 1: float32 [B, 2, S, S].

    Turned, zoomed and moved as a whole, and every point moved a little on its own (Simard et al., ICDAR 2003).
    """
    side_S = np.linspace(-1, 1, WARP_POINTS)
    point_DQ = np.stack(np.meshgrid(side_S, side_S)).reshape(2, -1)
    draw_BD = draws.uniform(-1, 1, (count, 4))
    angle_B, zoom_B = np.radians(p.rotate) * draw_BD[:, 0], 1 + p.zoom * draw_BD[:, 1]
    cos_B, sin_B = zoom_B * np.cos(angle_B), zoom_B * np.sin(angle_B)
    turn_BDD = np.stack([np.stack([cos_B, -sin_B], 1), np.stack([sin_B, cos_B], 1)], 1)
    warp_BDQ = turn_BDD @ point_DQ + 2 * p.translate * draw_BD[:, 2:, None]
    if p.elastic > 0:
        warp_BDQ = warp_BDQ + p.elastic * draws.standard_normal(warp_BDQ.shape)
    return warp_BDQ.reshape(count, 2, WARP_POINTS, WARP_POINTS).astype(np.float32)


def warped(pixel_BCPP: Tensor, warp_BDSS: Tensor) -> Tensor:
    """Bilinear between the points and between the pixels; beyond the edges the edge repeats."""
    P = pixel_BCPP.shape[-1]
    grid_BDPP = F.interpolate(warp_BDSS, (P, P), mode="bilinear", align_corners=True)
    return F.grid_sample(pixel_BCPP.float(), grid_BDPP.permute(0, 2, 3, 1), padding_mode="border", align_corners=True)


def views(pixel_BCPP: Tensor, count: int) -> Iterator[tuple[Tensor, float]]:
    """The images, and moved by one pixel four ways, with their weights in the answer: one half, and an eighth each."""
    x_BCPP = pixel_BCPP.float()
    yield x_BCPP, 1.0 if count == 1 else 0.5
    P = x_BCPP.shape[-1]
    padded_BCPP = F.pad(x_BCPP, (1, 1, 1, 1), mode="replicate")
    for down, right in ((0, 0), (2, 2), (0, 2), (2, 0))[: count - 1]:
        yield padded_BCPP[:, :, down : down + P, right : right + P], 0.5 / (count - 1)


# ---- how it learns


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is learnt from: uint8 images and their class, on the device where they fit."""

    pixel_NCPP: Tensor
    class_N: Tensor

    @classmethod
    def of(cls, pixel_NCPP: Tensor, class_N: Tensor) -> Feed:
        fits = pixel_NCPP.nbytes <= DEVICE_BYTES_MAX
        return cls(pixel_NCPP=parallel.to_device(pixel_NCPP) if fits else pixel_NCPP, class_N=class_N)


class Momentum:
    """Nesterov's for all that learns, or Muon for the filters (airbench94_muon) and Nesterov's for the rest."""

    def __init__(self, net: nn.Module, p: Hyperparameters) -> None:
        learns = [(name, t) for name, t in net.named_parameters() if t.requires_grad]
        filters = [(name, t) for name, t in learns if t.ndim == 4 and p.optimiser == "muon"]
        muon = {name for name, _ in filters}
        rest = [(name, t) for name, t in learns if name not in muon]
        self.sgd = optimisers.SGD(rest, momentum=0.85, weight_decay=p.weight_decay)
        self.muon = optimisers.Muon(filters) if filters else None

    def step(self, learning_rate: float, muon_learning_rate: float) -> None:
        self.sgd.step(learning_rate)
        if self.muon:
            self.muon.step(muon_learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        return {**self.sgd.tensors(), **(self.muon.tensors() if self.muon else {})}


class Trainer:
    """A ``loop.Learner``: the net learns from the labels, then its student, where there is one, from the net."""

    def __init__(self, net: Net, student: Net | None, feed: Feed, p: Hyperparameters, epochs: int, folder: Path):
        self.nets = [net] if student is None else [net, student]
        self.forwards = [parallel.wrap(one, folder) for one in self.nets]
        self.momenta = [Momentum(one, p) for one in self.nets]
        self.spans = [epochs, p.epochs_distil][: len(self.nets)]
        self.feed, self.p, self.rows = feed, p, len(feed.class_N)
        self.learning_rate = 0.0
        self.loss_max = self.usual_max = DIVERGED_FACTOR * math.log(net.net.head.out_features + 1) + 1
        self.odd_N = np.random.default_rng([p.seed, ODD]).integers(0, 2, self.rows)
        self.order_N = np.arange(self.rows)
        net.train(epochs > 0)

    def epochs(self) -> int:
        return sum(self.spans)

    def steps(self, epoch: int) -> int:
        return max(1, self.rows // self.p.batch_rows)

    def begin_epoch(self, epoch: int) -> None:
        self.loss_max = self.usual_max * (1.0 if epoch < self.spans[0] else SOFTENED**2)
        self.order_N = np.random.default_rng([self.p.seed, ORDER, epoch]).permutation(self.rows)

    def step(self, epoch: int, step: int) -> Tensor:
        phase = int(epoch >= self.spans[0])
        done = (epoch - phase * self.spans[0] + (step + 0.5) / self.steps(epoch)) / self.spans[phase]
        height = min(done / RISE, (1 - done) / (1 - RISE))
        self.learning_rate = self.p.learning_rate * height
        loss = self._loss(phase, *self._batch(epoch, step))
        loss.backward()  # type: ignore[no-untyped-call]
        self.momenta[phase].step(self.learning_rate, self.p.muon_learning_rate * height)
        return loss.detach()

    def _batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor, int]:
        """This process's augmented images and their classes, and how many the whole batch has."""
        row_B = self.order_N[step * self.p.batch_rows : (step + 1) * self.p.batch_rows]
        warp_BDSS = warps(len(row_B), np.random.default_rng([self.p.seed, WARP, epoch, step]), self.p)
        if self.p.flip == "alternate":
            warp_BDSS[:, 0] *= (1 - 2 * ((self.odd_N[row_B] + epoch) % 2)).astype(np.float32)[:, None, None]
        part = parallel.share(len(row_B))
        mine_B = torch.from_numpy(row_B[part])
        pixel_BCPP = parallel.to_device(self.feed.pixel_NCPP[mine_B.to(self.feed.pixel_NCPP.device)])
        class_B = parallel.to_device(self.feed.class_N[mine_B])
        return warped(pixel_BCPP, parallel.to_device(torch.from_numpy(warp_BDSS[part]))), class_B, len(row_B)

    def _loss(self, phase: int, x_BCPP: Tensor, class_B: Tensor, batch_rows: int) -> Tensor:
        """The mean over the batch of the cross-entropy, and of a student's divergence from what the net says."""
        with parallel.half():
            logit_BK = self.forwards[phase](x_BCPP).float()
            total = F.cross_entropy(logit_BK, class_B, label_smoothing=self.p.label_smoothing, reduction="sum")
            if phase == 1:
                with torch.no_grad():
                    taught_BK = (self.forwards[0](x_BCPP).float() / SOFTENED).log_softmax(1)
                told_BK = (logit_BK / SOFTENED).log_softmax(1)
                total = total + SOFTENED**2 * F.kl_div(told_BK, taught_BK, reduction="sum", log_target=True)
        return total * (parallel.size() / batch_rows)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        if epoch + 1 == self.spans[0]:
            self.nets[0].eval()  # from now on it teaches
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self._tensors(), {"taught": not self.nets[0].training}

    def restore(self, tensors: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
        loop.fill(self._tensors(), tensors)
        self.nets[0].train(not notes["taught"])

    def _tensors(self) -> dict[str, Tensor]:
        nets = {f"net{n}": net.state_dict() for n, net in enumerate(self.nets)}
        momenta = {f"momentum{n}": one.tensors() for n, one in enumerate(self.momenta)}
        return loop.named(**nets, **momenta)


# ---- a job


def train(job: Job) -> Trained | None:
    p: Hyperparameters = job.p
    table = rows.read(*job.paths.learned, label=p.label, columns=[images.COLUMN, p.label])
    pixel_NCPP = torch.from_numpy(images.decode_column(table.table, p.pixels, p.colour))
    champion = job.champion() if p.warm_start == "auto" else None
    known = champion.predictor if champion and isinstance(champion.predictor, Classifier) else None
    classes = tuple(sorted({*table.label_N, *(known.classes if known else ())}))
    if len(classes) < 2:
        raise DataError(f"column '{p.label}' holds one class, '{classes[0]}'; give rows of at least two")
    class_N = torch.from_numpy(rows.index_of(classes, table.label_N.tolist()))
    held_N = torch.from_numpy(np.random.default_rng([p.seed, HELD]).random(len(class_N)) < p.validation_share)
    if held_N.all():
        held_N[:] = False
    feed = Feed.of(pixel_NCPP[~held_N], class_N[~held_N])
    net, warm = start(p, p.width, classes, known, feed)
    student, student_warm = start(p, p.distil_width, classes, known, feed) if p.distil_width else (None, False)
    parent = str(champion.manifest["weights_sha256"]) if champion and (warm or student_warm) else None
    if known and parent:
        say("warm_start", parent=parent[:12], new_classes=len(classes) - len(known.classes))
    else:
        say("cold_start", reason="the champion has another shape" if known else "no usable champion")
    trainer = Trainer(net, student, feed, p, p.epochs_warm if warm else p.epochs, job.paths.checkpoints)
    seen = tensors.digest({"pixel": pixel_NCPP.numpy(), "class": class_N.numpy()})
    if not loop.run(trainer, job, loop.fingerprint(p, seen, parent)):
        return None
    model = Classifier(trainer.nets[-1], _config(p, classes))
    first_at, last_at = table.window()
    return Trained(
        arrays={name: t.detach().cpu().numpy() for name, t in model.net.state_dict().items()},
        config=model.config,
        metrics=_validated(model, table, held_N.numpy()),
        rows=len(table),
        first_at=first_at,
        last_at=last_at,
        parent=parent,
    )


def start(
    p: Hyperparameters, width: int, classes: tuple[str, ...], known: Classifier | None, feed: Feed
) -> tuple[Net, bool]:
    """A net on the champion's weights where they fit, and whether they did; a new class begins as the mean class."""
    torch.manual_seed(p.seed)
    net = Net(p.network, images.channels(p.colour), p.pixels, len(classes), width, p.stem)
    shape = _shape(p, width)
    warm = known is not None and {name: known.config[name] for name in shape} == shape
    if known is not None and warm:
        place_K = torch.from_numpy(rows.index_of(known.classes, classes))
        state = {name: t.detach().cpu() for name, t in known.net.state_dict().items()}
        for name in [name for name in state if ".head." in name]:
            mean = state[name].mean(0, keepdim=True)
            state[name] = torch.cat([state[name], mean])[place_K]  # -1 takes the mean
        net.load_state_dict(state)
    else:
        net.look_at(feed.pixel_NCPP[:: max(1, len(feed.class_N) // LOOKED_AT)].cpu())
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.to(parallel.device()), warm


def _shape(p: Hyperparameters, width: int) -> dict[str, Any]:
    """What a champion must have in common to be started from."""
    return {"network": p.network, "width": width, "pixels": p.pixels, "colour": p.colour, "stem": p.stem}


def _config(p: Hyperparameters, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "family": "cnn",
        **_shape(p, p.distil_width or p.width),
        "label": p.label,
        "classes": list(classes),
        "views": p.views,
    }


def _validated(model: Classifier, table: rows.Rows, held_N: npt.NDArray[np.bool_]) -> Metrics:
    """On rows drawn at random: the newest ones, which a retraining is for, are not kept from it."""
    if not held_N.any():
        return {}
    parts = [rows.labelled(table.table.filter(pa.array(chosen_N)), table.label) for chosen_N in (~held_N, held_N)]
    metrics = classification.measure(model, classification.cases_of(*parts))
    say("validated", **{name: metric["value"] for name, metric in metrics.items()})
    return metrics


# ---- how it answers


class Classifier:
    def __init__(self, net: Net, config: Mapping[str, Any]) -> None:
        self.net, self.config = net.eval(), dict(config)
        self.classes: tuple[str, ...] = tuple(config["classes"])
        self.label: str = config["label"]

    @torch.inference_mode()
    def predict(self, pixel_NCPP: Tensor) -> npt.NDArray[np.float32]:
        """Probabilities [N, K]: the softmax of the views' mean logit."""
        parts = []
        device = next(self.net.parameters()).device
        for pixel_BCPP in torch.split(pixel_NCPP, PREDICTED_AT_ONCE):
            seen = views(pixel_BCPP.to(device), self.config["views"])
            logit_BK = torch.stack([self.net(x_BCPP) * weight for x_BCPP, weight in seen]).sum(0)
            parts.append(logit_BK.softmax(1).cpu())
        return torch.cat(parts).numpy()  # split gives one part even of no image

    def probabilities_NC(self, table: pa.Table) -> npt.NDArray[np.float32]:  # noqa: N802 - shapes in names
        return self.predict(torch.from_numpy(images.decode_column(table, self.config["pixels"], self.config["colour"])))

    def table(self, instances: list[dict[str, Any]]) -> pa.Table:
        """Instances of a request, ``{"image": base64 of a PNG or JPEG}``, as a table of decoded pixels."""
        decoded = []
        for number, instance in enumerate(instances):
            try:
                content = base64.b64decode(instance[images.COLUMN], validate=True)
                decoded.append(images.decode([content], self.config["pixels"], self.config["colour"], 1)[0].tobytes())
            except (KeyError, TypeError, ValueError, DataError) as error:  # ValueError: binascii's, or non-ASCII text
                example = f'{{"{images.COLUMN}": the base64 text of a PNG or JPEG file}}'
                raise BadRequestError(f"instance {number}: {error}; give {example}") from error
        size = images.channels(self.config["colour"]) * self.config["pixels"] ** 2
        return pa.table({images.COLUMN: pa.array(decoded, pa.binary(size))})


def load(arrays: Tensors, config: dict[str, Any]) -> Classifier:
    told = {name: str(config[name]) for name in ("network", "width", "pixels", "colour", "stem", "views")}
    p = parse_hyperparameters(Hyperparameters, told)
    if any(config[name] != getattr(p, name) for name in told):
        raise ValueError("a number in config.json is none")
    shape = p.network, images.channels(p.colour), p.pixels, len(classification.named(config)[1]), p.width, p.stem
    with torch.device("meta"):  # a config that lies about its width costs no memory
        expected = {name: (t.shape, str(t.dtype)) for name, t in Net(*shape).state_dict().items()}
    if {name: (array.shape, f"torch.{array.dtype}") for name, array in arrays.items()} != expected:
        raise ValueError("the weights are not those of this network")
    net = Net(*shape)
    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    net.load_state_dict(state)
    return Classifier(net.to(memory_format=torch.channels_last), config)  # type: ignore[call-overload]
