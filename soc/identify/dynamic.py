"""The dynamic part of a cell, from runs with a reference: separable, bounded, penalised least squares.

**Sign**: inside this module the current is the literature's, positive *discharges*; `_columns_of` turns it, once.

With the poles τ_j, the hysteresis rate γ and the charge-transfer current I0 given, the model's voltage is linear in all
else, so each temperature is one bounded linear problem; only τ_j and γ (shared by all temperatures, so that what lies
between them can be interpolated) and I0 (per temperature) are searched. Unknowns of one temperature T_a:

    v − OCV(z,T) = share·Σ shift_k·hat_k(z) + (1−share)·shift_neighbour(z)
                   − Σ_j g_j(z,T)·R_j(z)·f_j(i_Rj) + M(z)·h + M0·s            j = 0 is R0 with i itself

A run warms its cell, so between T_a and its neighbour everything is read as a filter will read it: `share` is linear
in T, g_j = (R_j,neighbour/R_j,a)^w with w linear in 1/T_K. Bounds (R, M, M0 ≥ 0) keep the parts physical; penalties on
second differences (of what departs from the neighbour's shape) carry the curves through states of charge that a cold
cell never reaches. Resistances are held in V at 1C, so the same penalties serve every size of cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, minimize, minimize_scalar

from soc.compiled import compiled
from soc.identify.runs import Run
from soc.ocv import GRID, Ocv, read

Array = NDArray[np.float64]

KELVIN = 273.15
SOC_KNOTS: Array = np.array(
    [0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]
    + [0.95, 1.0]
)
R_KNOTS: Array = np.array([0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


@dataclass(frozen=True, eq=False)
class Settings:
    """How to fit. Penalties are in V² per unit of what they weigh; the defaults held on cells of 1 to 3 Ah."""

    tau_start_s: tuple[float, ...] = (2.0, 25.0, 150.0)
    tau_range_s: tuple[float, float] = (0.7, 3000.0)
    gamma_start: float = 100.0
    gamma_range: tuple[float, float] = (5.0, 1500.0)
    charge_transfer_below_degc: float = 5.0
    charge_transfer_rate: tuple[float, float] = (0.1, 10.0)  # I0 in capacities per hour
    soc_knots: Array = field(default_factory=lambda: SOC_KNOTS)
    r_knots: Array = field(default_factory=lambda: R_KNOTS)
    m_knots: Array = field(default_factory=lambda: np.array([0.5]))
    lowest_soc: float = 0.03  # below, the voltage falls over the edge and would lead the fit
    smooth_shift: float = 1e-5
    ridge_shift: float = 1e-6
    shift_limit_v: float = 0.5
    smooth_r: float = 1.3e-4
    ridge_r: float = 1e-9
    ridge_m: float = 1e-3
    r_floor_v: float = 1e-4  # V at 1C: log R must exist
    evaluations: int = 120
    sweeps: int = 3

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Knots of the shift, of a resistance, of M, and the number of R–C pairs."""
        return len(self.soc_knots), len(self.r_knots), len(self.m_knots), len(self.tau_start_s)


@dataclass(frozen=True, eq=False)
class Anchor:
    """What was found at one temperature. `r_v` [1 + pairs, r_knots] is R·(1C) in V, R0 first.

    `sd` are the standard deviations of `coefficients`, for as many independent looks as the coloured residuals are
    worth; zero for what lies on a bound.
    """

    temperature_degc: float
    capacity_ah: float
    efficiency: float
    charge_transfer_a: float
    shift_v: Array
    r_v: Array
    m_v: Array
    m0_v: float
    rms_v: float
    sd: Array
    m0_observable: bool
    tested: bool = True  # False: interpolated between tested temperatures

    @property
    def r_ohm(self) -> Array:
        """The resistances, Ω."""
        return self.r_v / self.capacity_ah

    @property
    def coefficients(self) -> Array:
        """All linear unknowns in one row: shift, resistances (V at 1C), M, M0."""
        return np.concatenate([self.shift_v, self.r_v.ravel(), self.m_v, [self.m0_v]])


@dataclass(frozen=True, eq=False)
class Fit:
    """Anchors by rising temperature, what they share, and what the fit has to say about itself."""

    ocv: Ocv
    settings: Settings
    tau_s: Array
    gamma: float
    anchors: tuple[Anchor, ...]
    warnings: tuple[str, ...] = ()


def fit(runs: Sequence[Run], ocv: Ocv, settings: Settings | None = None) -> Fit:
    """The dynamic parameters at every temperature that the runs were made at.

    Shared τ_j and γ by Nelder–Mead in logarithms over independent temperatures; then sweeps over the temperatures,
    from the one nearest 25 °C outwards, each with its neighbours fixed.
    """
    settings = settings or Settings()
    groups = by_temperature(runs)
    tau, gamma = _shared(groups, ocv, settings)
    anchors = refine(groups, ocv, settings, tau, gamma, {}, settings.sweeps)
    found = Fit(ocv, settings, tau, gamma, anchors)
    return replace(found, warnings=tuple(warnings_of(found)))


def by_temperature(runs: Sequence[Run]) -> dict[float, list[Run]]:
    """The runs of each test temperature, rising."""
    temperatures = sorted({run.temperature_degc for run in runs})
    return {t: [run for run in runs if run.temperature_degc == t] for t in temperatures}


def refine(
    groups: Mapping[float, Sequence[Run]],
    ocv: Ocv,
    settings: Settings,
    tau_s: Array,
    gamma: float,
    known: Mapping[float, Anchor],
    sweeps: int,
) -> tuple[Anchor, ...]:
    """Anchors of these groups with poles and γ given; temperatures only in `known` stay as they are.

    The first sweep of a temperature not yet known takes it alone and searches I0.
    """
    anchors = dict(known)
    order = sorted(groups, key=lambda t: abs(t - 25.0))
    for sweep in range(sweeps):
        for t in order:
            inner = _inner_neighbour(t, anchors)
            before = anchors.get(t)
            neighbours = {k: a for k, a in anchors.items() if k != t} if before else {}
            problem = _Problem(groups[t], ocv, settings, tau_s, gamma, before, neighbours, inner)
            current = before.charge_transfer_a if before and sweep else _charge_transfer(problem, t)
            anchors[t] = problem.anchor(t, current)
    return tuple(anchors[t] for t in sorted(anchors))


def warnings_of(found: Fit) -> list[str]:
    """What a reader of the parameters must know: poles without evidence, M0 that the data cannot show."""
    low, high = found.settings.tau_range_s
    said = []
    for k, tau in enumerate(found.tau_s):
        peak = max(float(a.r_v[k + 1].max()) for a in found.anchors)
        if tau < 1.2 * low or tau > high / 1.2:
            said.append(f"pole {k + 1} not identifiable: τ = {tau:.3g} s is at the edge of {low:g}..{high:g} s")
        elif peak < 10 * found.settings.r_floor_v:
            said.append(f"pole {k + 1} not identifiable: its resistance is zero at every temperature")
    for a in found.anchors:
        if not a.m0_observable:
            said.append(f"{a.temperature_degc:g} °C: M0 not observable, the current never changes sign; set to 0")
    return said


def predict(found: Fit, run: Run) -> Array:
    """The voltage of the model along a run at its reference state of charge, V: what a filter with these numbers sees.

    Between anchors everything is interpolated as `soc.parameters` says; outside, the nearest anchor holds.
    """
    temperature = run.series.temperature_degc
    at = np.array([a.temperature_degc for a in found.anchors])
    low = np.clip(np.searchsorted(at, temperature, side="right") - 1, 0, max(len(at) - 2, 0))
    voltage = np.zeros(len(run.soc))
    total = np.zeros(len(run.soc))
    for k in range(max(len(at) - 1, 1)):
        rows = low == k
        if not rows.any():
            continue
        pair = found.anchors[k : k + 2]
        for own, other in ((pair[0], pair[-1]), (pair[-1], pair[0])):
            share = _share(temperature, own.temperature_degc, other.temperature_degc)
            value = _one_sided(found, run, own, other)
            voltage[rows] += share[rows] * value[rows]
            total[rows] += share[rows]
    return voltage / total


def _one_sided(found: Fit, run: Run, own: Anchor, other: Anchor) -> Array:
    """The voltage along a run with `own`'s γ-driven parts and resistances read between `own` and `other`."""
    problem = _Problem(
        [run], found.ocv, found.settings, found.tau_s, found.gamma, own, {other.temperature_degc: other}, None
    )
    return problem.voltage(run, own)


# ---- one temperature ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Columns:
    """One run made ready for the compiled loops; current positive discharges. Places are (knot, weight of it)."""

    dt_s: Array
    current_a: Array
    effective_a: Array
    rest_v: Array  # voltage less OCV and the neighbours' share of the shift
    base_v: Array  # what was subtracted
    keep: NDArray[np.bool_]
    share: Array
    scale: Array  # [1 + pairs, n]
    shift_at: tuple[NDArray[np.int64], Array]
    r_at: tuple[NDArray[np.int64], Array]
    m_at: tuple[NDArray[np.int64], Array]
    h_start: float

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What the compiled loops read of every sample, in their order."""
        shares = (self.dt_s, self.current_a, self.effective_a, self.share, self.scale)
        return (*shares, *self.shift_at, *self.r_at, *self.m_at)


class _Problem:
    """The bounded linear problem of one temperature: its columns, penalties, bounds and prior."""

    def __init__(
        self,
        runs: Sequence[Run],
        ocv: Ocv,
        settings: Settings,
        tau_s: Array,
        gamma: float,
        own: Anchor | None,
        neighbours: Mapping[float, Anchor],
        inner: Anchor | None,
    ) -> None:
        self.runs, self.settings, self.tau_s, self.gamma = runs, settings, tau_s, gamma
        self.capacity_ah, self.efficiency = runs[0].capacity_ah, runs[0].efficiency
        self.columns = [_columns_of(run, ocv, settings, own, neighbours) for run in runs]
        self.m0_observable = any(run.regenerates for run in runs)
        self.prior = inner

    def equations(self, charge_transfer_a: float) -> tuple[Array, Array, float, int]:
        """Normal matrix, right side, Σy² and number of samples."""
        n_s, n_r, n_m, pairs = self.settings.sizes
        size = n_s + n_r * (1 + pairs) + n_m + 1
        matrix, right = np.zeros((size, size)), np.zeros(size)
        square, count = 0.0, 0
        for c in self.columns:
            law = (self.tau_s, self.gamma, self.capacity_ah, charge_transfer_a, c.h_start)
            s, n = _accumulate(*c.arrays, c.rest_v, c.keep, *law, n_s, n_r, n_m, *_room(pairs), matrix, right)
            square, count = square + s, count + n
        return matrix, right, square, count

    def solve(self, charge_transfer_a: float) -> tuple[Array, Array, float, Array]:
        """Coefficients, information matrix (per sample), rms error and which coefficients are free."""
        matrix, right, square, count = self.equations(charge_transfer_a)
        penalty, centre = self._penalty(matrix, right, count)
        low, high = self._bounds()
        information = matrix / count + penalty
        x = bounded(information, right / count + penalty @ centre, low, high)
        error = (square - 2 * right @ x + x @ matrix @ x) / count
        return x, information, float(np.sqrt(max(error, 0.0))), (x > low) & (x < high)

    def anchor(self, temperature_degc: float, charge_transfer_a: float) -> Anchor:
        """The solution as an Anchor, with the standard deviations of its coefficients."""
        x, information, rms, free = self.solve(charge_transfer_a)
        n_s, n_r, n_m, pairs = self.settings.sizes
        r = x[n_s : n_s + n_r * (1 + pairs)].reshape(1 + pairs, n_r)
        sd = np.zeros(len(x))
        looks = sum(self._independent_looks(c, x, charge_transfer_a) for c in self.columns)
        sd[free] = rms * np.sqrt(np.diag(np.linalg.inv(information[np.ix_(free, free)])) / looks)
        return Anchor(
            temperature_degc=temperature_degc, capacity_ah=self.capacity_ah, efficiency=self.efficiency,
            charge_transfer_a=charge_transfer_a, shift_v=x[:n_s], r_v=r, m_v=x[-1 - n_m : -1], m0_v=float(x[-1]),
            rms_v=rms, sd=sd, m0_observable=self.m0_observable,
        )  # fmt: skip

    def voltage(self, run: Run, anchor: Anchor) -> Array:
        """The model's voltage along a run of this problem."""
        c = self.columns[self.runs.index(run)]
        return c.base_v + self._model(c, anchor.coefficients, anchor.charge_transfer_a)

    def _model(self, c: _Columns, x: Array, charge_transfer_a: float) -> Array:
        n_s, n_r, n_m, pairs = self.settings.sizes
        out = np.zeros(len(c.dt_s))
        law = (self.tau_s, self.gamma, self.capacity_ah, charge_transfer_a, c.h_start)
        _evaluate(*c.arrays, *law, n_s, n_r, n_m, *_room(pairs), x, out)
        return out

    def _independent_looks(self, c: _Columns, x: Array, charge_transfer_a: float) -> float:
        """How many independent samples the residuals of a run are worth: they are coloured."""
        residual = (c.rest_v - self._model(c, x, charge_transfer_a))[c.keep]
        step = float(np.median(c.dt_s[1:]))
        return max(len(residual) / (1.0 + 2.0 * correlation_time(residual, step) / step), 1.0)

    def _penalty(self, matrix: Array, right: Array, count: int) -> tuple[Array, Array]:
        """The penalty matrix, and what it pulls towards: the inner neighbour's shapes, resistances to scale."""
        s = self.settings
        n_s, n_r, n_m, pairs = s.sizes
        size = len(right)
        penalty, centre = np.zeros((size, size)), np.zeros(size)
        penalty[:n_s, :n_s] = s.smooth_shift * bending(s.soc_knots) + s.ridge_shift * np.eye(n_s)
        for j in range(1 + pairs):
            block = slice(n_s + j * n_r, n_s + (j + 1) * n_r)
            penalty[block, block] = s.smooth_r * bending(s.r_knots) + s.ridge_r * np.eye(n_r)
        tail = slice(size - n_m - 1, size)
        penalty[tail, tail] = s.ridge_m * np.eye(n_m + 1)
        if n_m > 1:
            block = slice(size - n_m - 1, size - 1)
            penalty[block, block] = s.ridge_m * (np.eye(n_m) / n_m + bending(s.m_knots))
        if self.prior is not None:
            centre[:n_s] = self.prior.shift_v
            shape = np.concatenate([np.zeros(n_s), self.prior.r_v.ravel(), np.zeros(n_m + 1)])
            rest = right - matrix @ np.concatenate([self.prior.shift_v, np.zeros(size - n_s)])
            ratio = float(shape @ rest) / max(float(shape @ matrix @ shape), 1e-30)
            centre[n_s : size - n_m - 1] = max(ratio, 0.0) * self.prior.r_v.ravel()
        return penalty, centre

    def _bounds(self) -> tuple[Array, Array]:
        n_s, n_r, n_m, pairs = self.settings.sizes
        size = n_s + n_r * (1 + pairs) + n_m + 1
        low, high = np.zeros(size), np.full(size, np.inf)
        low[:n_s], high[:n_s] = -self.settings.shift_limit_v, self.settings.shift_limit_v
        low[n_s : size - n_m - 1] = self.settings.r_floor_v
        if not self.m0_observable:
            high[-1] = 1e-12
        return low, high


def bounded(matrix: Array, right: Array, low: Array, high: Array) -> Array:
    """The x within the bounds that makes ½·xᵀAx − bᵀx least; A symmetric positive definite."""
    factor = np.linalg.cholesky(matrix)
    target = np.linalg.solve(factor, right)
    x = np.linalg.solve(factor.T, target)
    if np.all(x >= low) and np.all(x <= high):
        return np.asarray(x)
    return np.asarray(lsq_linear(factor.T, target, bounds=(low, high), method="bvls").x)


def bending(knots: Array) -> Array:
    """The matrix whose quadratic form is ∫(second derivative)² of the piecewise-linear curve through the knots."""
    size = len(knots)
    form = np.zeros((size, size))
    for k in range(1, size - 1):
        left, right = knots[k] - knots[k - 1], knots[k + 1] - knots[k]
        row = np.zeros(size)
        row[k - 1 : k + 2] = 1 / left, -1 / left - 1 / right, 1 / right
        form += np.outer(row, row) * (left + right) / 2
    return form


def correlation_time(residual: Array, step_s: float) -> float:
    """The integral of the autocorrelation over positive lags up to its first zero, s."""
    x = residual - residual.mean()
    power = float(x @ x)
    if power <= 0.0 or len(x) < 3:
        return 0.0
    n = 1 << (2 * len(x) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(x, n)) ** 2
    rho = np.fft.irfft(spectrum, n)[: len(x)] / power
    crossing = np.flatnonzero(rho <= 0.0)
    return float(rho[1 : crossing[0] if len(crossing) else len(x)].sum()) * step_s


# ---- searches -------------------------------------------------------------------------------------------------------


def _shared(groups: Mapping[float, Sequence[Run]], ocv: Ocv, settings: Settings) -> tuple[Array, float]:
    """The poles and γ that make the mean of log(rms) over the temperatures least."""
    pairs = len(settings.tau_start_s)
    low = np.log([settings.tau_range_s[0]] * pairs + [settings.gamma_range[0]])
    high = np.log([settings.tau_range_s[1]] * pairs + [settings.gamma_range[1]])
    problems = {t: _Problem(g, ocv, settings, np.ones(pairs), 1.0, None, {}, None) for t, g in groups.items()}
    currents = {t: p.capacity_ah if t < settings.charge_transfer_below_degc else np.inf for t, p in problems.items()}

    def cost(logs: Array) -> float:
        inside = np.clip(logs, low, high)
        errors = []
        for t, problem in problems.items():
            problem.tau_s, problem.gamma = np.exp(inside[:pairs]), float(np.exp(inside[pairs]))
            errors.append(np.log(max(problem.solve(currents[t])[2], 1e-9)))
        return float(np.mean(errors) + np.sum((logs - inside) ** 2))

    start = np.log([*settings.tau_start_s, settings.gamma_start])
    simplex = np.vstack([start, *(start + 0.7 * unit for unit in np.eye(pairs + 1))])
    options = {"maxfev": settings.evaluations, "initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-4}
    found = np.exp(np.clip(minimize(cost, start, method="Nelder-Mead", options=options).x, low, high))
    return np.sort(found[:pairs]), float(found[pairs])


def _charge_transfer(problem: _Problem, temperature_degc: float) -> float:
    """I0 in A: searched below the limit of the settings, kept if it lowers the error by 1 %; else infinite (linear)."""
    settings = problem.settings
    if temperature_degc >= settings.charge_transfer_below_degc or len(settings.tau_start_s) == 0:
        return float("inf")
    low, high = np.log(np.array(settings.charge_transfer_rate) * problem.capacity_ah)
    options = {"maxiter": 12, "xatol": 0.05}
    found = minimize_scalar(
        lambda x: problem.solve(float(np.exp(x)))[2], bounds=(low, high), method="bounded", options=options
    )
    linear = problem.solve(float("inf"))[2]
    return float(np.exp(found.x)) if found.fun < 0.99 * linear else float("inf")


def _inner_neighbour(temperature_degc: float, anchors: Mapping[float, Anchor]) -> Anchor | None:
    """The known anchor next to this temperature on the side of 25 °C."""
    towards = [t for t in anchors if t != temperature_degc and abs(t - 25.0) < abs(temperature_degc - 25.0)]
    return anchors[min(towards, key=lambda t: abs(t - temperature_degc))] if towards else None


# ---- columns --------------------------------------------------------------------------------------------------------


def _columns_of(
    run: Run, ocv: Ocv, settings: Settings, own: Anchor | None, neighbours: Mapping[float, Anchor]
) -> _Columns:
    series = run.series
    discharge = -series.current_a
    n, rows = len(series), 1 + len(settings.tau_start_s)
    share, scale, known = np.ones(n), np.ones((rows, n)), np.zeros(n)
    if own is not None:
        for other in _bracketing(own.temperature_degc, neighbours):
            _blend(series.temperature_degc, run.soc, settings, own, other, share, scale, known)
    base = _ocv_along(ocv, run.soc, series.temperature_degc) + known
    return _Columns(
        dt_s=np.concatenate(([0.0], np.diff(series.time_s))),
        current_a=discharge,
        effective_a=np.where(discharge < 0, run.efficiency, 1.0) * discharge,
        rest_v=series.voltage_v - base,
        base_v=base,
        keep=(run.soc >= settings.lowest_soc) & (np.arange(n) > 0),
        share=share,
        scale=scale,
        shift_at=place(run.soc, settings.soc_knots),
        r_at=place(run.soc, settings.r_knots),
        m_at=place(run.soc, settings.m_knots),
        h_start=1.0 if run.starts_full else 0.0,
    )


def _bracketing(temperature_degc: float, neighbours: Mapping[float, Anchor]) -> list[Anchor]:
    below = [t for t in neighbours if t < temperature_degc]
    above = [t for t in neighbours if t > temperature_degc]
    return [neighbours[t] for t in ([max(below)] if below else []) + ([min(above)] if above else [])]


def _blend(
    temperature_degc: Array,
    soc: Array,
    settings: Settings,
    own: Anchor,
    other: Anchor,
    share: Array,
    scale: Array,
    known: Array,
) -> None:
    """Put into share, scale and known what the neighbour on one side does to the samples on that side."""
    part = _share(temperature_degc, own.temperature_degc, other.temperature_degc)
    side = part < share
    k_s, w_s = place(soc, settings.soc_knots)
    shift = w_s * other.shift_v[k_s] + (1 - w_s) * np.append(other.shift_v, 0.0)[k_s + 1]
    known[side] = ((1 - part) * shift)[side]
    inverse = 1 / (temperature_degc + KELVIN)
    own_k, other_k = 1 / (own.temperature_degc + KELVIN), 1 / (other.temperature_degc + KELVIN)
    weight = np.clip((inverse - own_k) / (other_k - own_k), 0.0, 1.0)
    for j in range(len(scale)):
        ratio = np.log(
            np.interp(soc, settings.r_knots, other.r_ohm[j]) / np.interp(soc, settings.r_knots, own.r_ohm[j])
        )
        scale[j, side] = np.exp(weight * ratio)[side]
    share[side] = part[side]


def _share(temperature_degc: Array, own_degc: float, other_degc: float) -> Array:
    """How much of the anchor at `own_degc` these temperatures have: 1 at it and beyond, 0 at the other."""
    if own_degc == other_degc:
        return np.ones_like(temperature_degc)
    return np.clip((other_degc - temperature_degc) / (other_degc - own_degc), 0.0, 1.0)


def place(soc: Array, knots: Array) -> tuple[NDArray[np.int64], Array]:
    """Where each z lies on the knots: the knot below, and its weight (the next knot has the rest); held outside."""
    if len(knots) == 1:
        return np.zeros(len(soc), dtype=np.int64), np.ones(len(soc))
    k = np.clip(np.searchsorted(knots, soc, side="right") - 1, 0, len(knots) - 2)
    weight = np.clip((knots[k + 1] - soc) / (knots[k + 1] - knots[k]), 0.0, 1.0)
    return k.astype(np.int64), weight


def _ocv_along(ocv: Ocv, soc: Array, temperature_degc: Array) -> Array:
    """OCV(z,T) along a run, V."""
    return np.asarray(read(ocv.ocv0_v, soc) + temperature_degc * np.interp(soc, GRID, ocv.ocvrel_v_per_k))


def _room(pairs: int) -> tuple[Array, NDArray[np.int64], Array]:
    """Room for the compiled loops: i_R at rest, and a row's places and values."""
    width = 2 + 2 * (pairs + 1) + 3
    return np.zeros(pairs), np.zeros(width, dtype=np.int64), np.zeros(width)


# ---- compiled loops -------------------------------------------------------------------------------------------------


@compiled
def _advance(dt, current, effective, tau, gamma, capacity, i_r, h, s):  # type: ignore[no-untyped-def]
    """Carry i_R (in place) over one interval; give back h and s at its end."""
    for j in range(len(tau)):
        a = np.exp(-dt / tau[j])
        i_r[j] = a * i_r[j] + (1.0 - a) * effective
    decay = np.exp(-abs(gamma * effective * dt / (3600.0 * capacity)))
    h = decay * h - (1.0 - decay) * np.sign(effective)
    if abs(current) > capacity / 100.0:
        s = -np.sign(current)
    return h, s


@compiled
def _row(  # type: ignore[no-untyped-def]
    k, current, capacity, i_r, h, s, i0, share, scale, ks, ws, kr, wr, km, wm, n_s, n_r, n_m, at, value
):
    """Write the non-zero entries of one sample's row (places, values); give back how many there are."""
    pairs = len(i_r)
    n = 0
    at[n], value[n] = ks[k], share[k] * ws[k]
    n += 1
    if n_s > 1:
        at[n], value[n] = ks[k] + 1, share[k] * (1.0 - ws[k])
        n += 1
    for j in range(pairs + 1):
        x = current if j == 0 else i_r[j - 1]
        if j == 1 and np.isfinite(i0):
            x = i0 * np.arcsinh(x / i0)
        x = -x * scale[j, k] / capacity
        start = n_s + j * n_r
        at[n], value[n] = start + kr[k], x * wr[k]
        n += 1
        if n_r > 1:
            at[n], value[n] = start + kr[k] + 1, x * (1.0 - wr[k])
            n += 1
    start = n_s + (pairs + 1) * n_r
    at[n], value[n] = start + km[k], h * wm[k]
    n += 1
    if n_m > 1:
        at[n], value[n] = start + km[k] + 1, h * (1.0 - wm[k])
        n += 1
    at[n], value[n] = start + n_m, s
    return n + 1


@compiled
def _accumulate(  # type: ignore[no-untyped-def]
    dt, current, effective, share, scale, ks, ws, kr, wr, km, wm, y, keep,
    tau, gamma, capacity, i0, h_start, n_s, n_r, n_m, i_r, at, value, matrix, right,
):  # fmt: skip
    """Add one run's normal equations to matrix and right; give back Σy² and the number of samples.

    `i_r` (zeros), `at` and `value` are room to work in: compiled code allocates nothing.
    """
    h, s, square, count = h_start, 0.0, 0.0, 0
    for k in range(1, len(dt)):
        h, s = _advance(dt[k], current[k], effective[k], tau, gamma, capacity, i_r, h, s)
        if not keep[k]:
            continue
        n = _row(k, current[k], capacity, i_r, h, s, i0, share, scale, ks, ws, kr, wr, km, wm, n_s, n_r, n_m, at, value)
        for a in range(n):
            for b in range(n):
                matrix[at[a], at[b]] += value[a] * value[b]
            right[at[a]] += value[a] * y[k]
        square += y[k] * y[k]
        count += 1
    return square, count


@compiled
def _evaluate(  # type: ignore[no-untyped-def]
    dt, current, effective, share, scale, ks, ws, kr, wr, km, wm,
    tau, gamma, capacity, i0, h_start, n_s, n_r, n_m, i_r, at, value, x, out,
):  # fmt: skip
    """Add the linear part of the model along one run, V, to `out`; room to work in as for `_accumulate`."""
    h, s = h_start, 0.0
    for k in range(len(dt)):
        h, s = _advance(dt[k], current[k], effective[k], tau, gamma, capacity, i_r, h, s)
        n = _row(k, current[k], capacity, i_r, h, s, i0, share, scale, ks, ws, kr, wr, km, wm, n_s, n_r, n_m, at, value)
        for a in range(n):
            out[k] += x[at[a]] * value[a]
