"""Whether the champion errs more than it did at first: a sequential test of its losses against a frozen baseline.

The evidence is a Shiryaev-Roberts process: the sum, over all moments at which the loss could have risen, of how much
likelier the losses since then are if it had. While the mean loss stays at or below a limit it grows by no more than one
a label on the average, so it reaches 10,000 / share within 10,000 labels in no more than that share of all histories,
however often one looks (Ville 1939; Pollak 1985, Ann. Stat. 13:206; as e-detectors: Shin, Ramdas and Rinaldo 2024,
arXiv 2203.03532). Several sizes of a rise are tried at once, by the mean of their processes, which is one again.

- Of 0/1 losses each is the likelihood ratio of two error rates, which holds for any loss within [0, 1].
- Of other losses it is exp(l x - l^2 (x^2 / 6 + v / 3)) for x above the limit, v the variance, and l as a normal loss
  would have it: no more than one on the average for whatever shape (Delyon 2009, Electron. J. Probab. 14:752), and one
  outlier adds no more than 3/2 to its logarithm.

Labels count for the baseline once nothing speaks for a rise any longer, until there are FREEZE times `labels_min` of
them; then it is frozen. How the constants were chosen, and what they reach: bench/README.md, `make bench-errors`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from retrainer.core.evidence import BatchLoss

MARGIN = 0.25
"""A rise by less than this share does not add up to evidence, however many labels show it, if the baseline is right."""

LABELS_MIN = 1_000
"""What the baseline is made of before anything is compared with it."""

FALSE_ALARMS = 0.01
"""The chance of an alarm within LABELS labels, if nothing has risen."""

LABELS = 10_000

FREEZE = 5
"""Times `labels_min`: so many labels make the baseline, after which it stays."""

RISES = ((1.0, 0.9), (2.0, 0.05), (6.0, 0.05))
"""Sizes of a rise that are looked for, in twice the margin, and their weights: by half, to double, to four times."""

UNSURE, UNSURE_SQUARED = 0.5, 10.0
"""The limit lies above the baseline by so many of its standard errors, and by more while errors are few."""

ROUNDING = 1e-9
"""Losses are 0 and 1 where their variance is mean (1 - mean), but for this."""

NOTHING = 1e-100
"""A mean loss of no more is none: its square could not be reckoned with."""

APART = 3
"""So many batches, those with most squared loss, may be left out of the baseline of a loss that is not 0/1."""

DOMINANT = 10.0
"""A batch is, where its squared loss is so many times that of all smaller ones: then it is of few outliers only."""

REMEMBERED = 1e6
"""Evidence is held at so many times the threshold: some hundreds of labels show a loss that is well again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """The evidence that the loss has risen, as a ratio of likelihoods, and how much of it is asked for."""

    due: bool
    value: float
    threshold: float
    why: str


def judge(
    losses: Sequence[BatchLoss],
    *,
    margin: float = MARGIN,
    labels_min: int = LABELS_MIN,
    false_alarms: float = FALSE_ALARMS,
) -> Concept:
    """Whether the loss of a champion that has had these `losses` since its promotion, oldest first, has risen.

    `margin` is a share of the baseline, `false_alarms` the chance of one within 10,000 labels. All is computed anew
    each time: a batch whose labels are corrected later counts as if it had always been so.
    """
    detector = Detector(margin=margin, labels_min=labels_min, false_alarms=false_alarms)
    for batch in losses:
        detector.add(batch.labels, batch.mean, batch.variance)
    return Concept(
        due=detector.due, value=detector.evidence, threshold=detector.threshold, why=_why(detector, labels_min)
    )


def _why(detector: "Detector", labels_min: int) -> str:
    base, since = detector.baseline, detector.since
    if detector.labels < labels_min:
        return f"{detector.labels} of {labels_min} labels for a baseline"
    newest = f", {since.mean:.4g} on {since.labels} since" if since.labels else ""
    frozen = "" if detector.frozen else ", not frozen yet"
    without = f" but {left_out} beside an outlier" if (left_out := detector.labels - base.labels) else ""
    return (
        f"loss {base.mean:.4g} on the first {detector.labels} labels{without}{frozen}{newest}; "
        f"evidence of a rise {detector.evidence:.3g} of {detector.threshold:.3g}"
    )


@dataclass(slots=True)
class Sums:
    """Labels, their summed loss and its square, and how far the batches differ: all that a baseline is made of."""

    labels: int = 0
    batches: int = 0
    total: float = 0.0
    squares: float = 0.0
    between: float = 0.0
    """The sum of labels times squared mean, over batches."""

    def add(self, labels: int, mean: float, variance: float) -> None:
        """Count one batch."""
        self.labels += labels
        self.batches += 1
        self.total += labels * mean
        self.squares += labels * (variance + mean * mean)
        self.between += labels * mean * mean

    def join(self, other: "Sums") -> None:
        """Count what the other counted."""
        self.labels += other.labels
        self.batches += other.batches
        self.total += other.total
        self.squares += other.squares
        self.between += other.between

    @property
    def mean(self) -> float:
        """The mean loss of a label; of none, 0."""
        return self.total / self.labels if self.labels else 0.0

    @property
    def variance(self) -> float:
        """That of a label, within and between batches."""
        return max(0.0, self.squares / self.labels - self.mean * self.mean)

    @property
    def inflation(self) -> float:
        """How many times the variance of independent labels the means of batches have; 1 unless it is no chance.

        A dispersion (McCullagh and Nelder 1989, section 4.5); below two standard deviations of it, it may be chance.
        """
        if self.batches < 2 or not self.variance:
            return 1.0
        freedom = self.batches - 1
        found = (self.between - self.labels * self.mean * self.mean) / self.variance / freedom
        return found if found > 1 + 2 * math.sqrt(2 / freedom) else 1.0


@dataclass(slots=True)
class Baseline:
    """The first labels. A batch with an enormous outlier counts among them, but what they are like is said without it.

    Else one outlier would make the limit and the variance so large that no rise could be seen.
    """

    rest: Sums = field(default_factory=Sums)
    largest: list[Sums] = field(default_factory=list)
    """Batches of most squared loss, the least of them first."""

    def join(self, batch: Sums) -> None:
        """Count a batch."""
        self.largest = sorted((*self.largest, batch), key=lambda held: held.squares)
        if len(self.largest) > APART:
            self.rest.join(self.largest.pop(0))

    @property
    def labels(self) -> int:
        """All of them."""
        return self.rest.labels + sum(batch.labels for batch in self.largest)

    def typical(self, *, bounded: bool) -> Sums:
        """All of a loss within bounds; else without the batches that a few outliers make up."""
        found = Sums()
        found.join(self.rest)
        for batch in self.largest:
            size = max(1.0, batch.labels / found.labels) if found.labels else 1.0
            if not bounded and 0 < DOMINANT * size * found.squares < batch.squares:
                break
            found.join(batch)
        return found


@dataclass(slots=True)
class Rise:
    """One size of a rise: `terms` make the logarithm of the likelihood ratio of a label.

    They are a constant and what the loss and its square are multiplied by, so a batch's sums are all that it takes.
    """

    size: float
    weight: float
    most: float
    terms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    evidence: float = 0.0

    def add(self, labels: int, mean: float, square: float) -> float:
        """Take in a batch; the logarithm of its likelihood ratio. A rise may have begun before any of its labels."""
        constant, by_loss, by_square = self.terms
        found = labels * (constant + by_loss * mean + by_square * square)
        self.evidence = min(self.most, (self.evidence + labels) * math.exp(min(found, 100.0)))
        return found


class Detector:
    """The test itself, for losses that come in batches or, of variance 0, label by label."""

    def __init__(
        self, *, margin: float = MARGIN, labels_min: int = LABELS_MIN, false_alarms: float = FALSE_ALARMS
    ) -> None:
        self.threshold = LABELS / false_alarms
        self.evidence = 0.0
        self.since = Sums()
        """The labels since something first spoke for a rise: not in the baseline, or not yet."""
        self._first = Baseline()
        self._margin = margin
        self._labels_min = labels_min
        self._zero_one = True
        self._can_rise = False
        self._suspicion = 0.0
        self._reckoned = 0
        self._rises = tuple(
            Rise(size=2 * margin * times, weight=weight, most=REMEMBERED * self.threshold / weight)
            for times, weight in RISES
        )

    @property
    def due(self) -> bool:
        """Whether the loss has risen."""
        return self.evidence >= self.threshold

    @property
    def labels(self) -> int:
        """How many labels the baseline has, those included that are left out of its figures."""
        return self._first.labels

    @property
    def baseline(self) -> Sums:
        """What the loss is compared with."""
        return self._first.typical(bounded=self._zero_one)

    @property
    def frozen(self) -> bool:
        """Whether the baseline takes in no more labels. One of which a single label makes up about half is too few."""
        if self.labels < FREEZE * self._labels_min:
            return False
        base = self.baseline
        return self._zero_one or DOMINANT * base.variance <= base.labels * base.mean * base.mean

    def add(self, labels: int, mean: float, variance: float = 0.0) -> None:
        """Take in a batch of labels: their mean loss, and the variance of one (divided by their number)."""
        if self._zero_one and abs(variance - mean * (1 - mean)) > ROUNDING:
            self._zero_one, self._reckoned = False, 0
        # A baseline that has grown by a hundredth is all but the same.
        if self.labels >= self._labels_min and self.labels > 1.01 * self._reckoned:
            self._can_rise = self._reckon()
        if not self._can_rise:
            batch = Sums()
            batch.add(labels, mean, variance)
            self._first.join(batch)
            return
        square = variance + mean * mean
        smallest, *others = self._rises
        found = smallest.add(labels, mean, square)
        self.evidence = smallest.weight * smallest.evidence
        for rise in others:
            rise.add(labels, mean, square)
            self.evidence += rise.weight * rise.evidence
        self.since.add(labels, mean, variance)
        # A sum that begins anew at 0 (Page 1954): there nothing speaks for a rise any longer.
        self._suspicion = max(0.0, self._suspicion + found)
        if not self._suspicion:
            if not self.frozen:
                self._first.join(self.since)
            self.since = Sums()

    def _reckon(self) -> bool:
        """Set what speaks for each rise by the baseline as it is now; the evidence so far is kept.

        False where no rise can be named: of a loss that was never seen, as it has no scale, or whose squares are past
        all numbers, and of an error rate which the margin takes past 1.
        """
        base = self.baseline
        self._reckoned = self.labels
        # As if half an error had been seen in one more label: a model that never erred may yet do so.
        mean = (base.total + 0.5) / (base.labels + 1) if self._zero_one else base.mean
        if mean <= NOTHING or math.isinf(base.squares) or (self._zero_one and mean * (1 + self._margin) >= 1):
            return False
        inflation = base.inflation
        variance = mean * (1 - mean) if self._zero_one else max(base.variance, (self._margin * mean) ** 2)
        unsure = math.sqrt(inflation * variance / base.labels) / mean
        limit = mean * (1 + UNSURE * unsure + UNSURE_SQUARED * unsure**2)
        for rise in self._rises:
            terms = _of_rates if self._zero_one else _of_losses
            rise.terms = terms(limit, rise.size, variance, inflation)
        return True


def _of_rates(limit: float, size: float, _variance: float, inflation: float) -> tuple[float, float, float]:
    """The likelihood ratio of an error rate risen by `size` and one at the limit."""
    limit = min(limit, 0.98)
    risen = min(limit * (1 + size), (1 + limit) / 2)
    wrong, right = math.log(risen / limit), math.log((1 - risen) / (1 - limit))
    return right / inflation, (wrong - right) / inflation, 0.0


def _of_losses(limit: float, size: float, variance: float, inflation: float) -> tuple[float, float, float]:
    """Delyon's bound for losses of any shape.

    The drift of the evidence changes its sign at half the size. A loss that varies little would show much less than
    that: then the limit itself lies further up.
    """
    slope = min(size * limit / variance, 1 / math.sqrt(variance))
    limit += max(0.0, size * limit - slope * variance) / 2
    constant = -slope * limit - slope**2 * (limit**2 / 6 + variance / 3)
    return constant / inflation, (slope + slope**2 * limit / 3) / inflation, -(slope**2) / 6 / inflation
