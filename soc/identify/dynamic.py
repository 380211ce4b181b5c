"""The dynamic parameters of a cell from runs with a reference: separable, bounded, penalised least squares.

**Sign**: inside this module discharge is positive, as in the literature; `columns_of` reverses the sign once.

With the time constants τ_j, the hysteresis rate γ and the charge-transfer current I0 given, the model's voltage is
linear in all other parameters, so each temperature is one bounded linear problem. Only τ_j and γ (shared by all
temperatures, so that they can be interpolated) and I0 (per temperature) are searched. The unknowns of one temperature
T_a satisfy

    v − OCV(z,T) = share·Σ shift_k·hat_k(z) + (1−share)·shift_neighbour(z)
                   − Σ_j g_j(z,T)·R_j(z)·f_j(i_Rj) + M(z)·h + M0·s            j = 0 is R0 with i itself

A run warms its cell, so between T_a and its neighbour all parameters are interpolated as in a filter: `share` is linear
in T, g_j = (R_j,neighbour/R_j,a)^w with w linear in 1/T_K. Bounds (R, M, M0 ≥ 0) keep the parameters physical.
Penalties on second differences (of the departure from the neighbour's shape) extend the curves to states of charge
that a cold cell never reaches. Resistances are in V at 1C, so the same penalties suit every size of cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from soc.cell.ocv import Ocv
from soc.identify.fit_results import Anchor, Fit, Settings
from soc.identify.problem import Problem
from soc.identify.regressors import share_of
from soc.identify.runs import Run

Array = NDArray[np.float64]


def fit(runs: Sequence[Run], ocv: Ocv, settings: Settings | None = None) -> Fit:
    """Fit the dynamic parameters at every test temperature of the runs.

    Shared τ_j and γ are found by Nelder–Mead in logarithms over independent temperatures. Sweeps over the temperatures
    follow, from the one nearest 25 °C outwards, each with its neighbours fixed.
    """
    settings = settings or Settings()
    groups = by_temperature(runs)
    tau, gamma = _shared(groups, ocv, settings)
    anchors = refine(groups, ocv, settings, tau, gamma, {}, settings.sweeps)
    found = Fit(ocv, settings, tau, gamma, anchors)
    return replace(found, warnings=tuple(warnings_of(found)))


def by_temperature(runs: Sequence[Run]) -> dict[float, list[Run]]:
    """Return the runs of each test temperature, rising."""
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
    """Return the anchors of these groups with time constants and γ given; other temperatures in `known` do not change.

    The first sweep of a temperature that is not yet known fits it alone and searches I0.
    """
    anchors = dict(known)
    order = sorted(groups, key=lambda t: abs(t - 25.0))
    for sweep in range(sweeps):
        for t in order:
            inner = _inner_neighbour(t, anchors)
            before = anchors.get(t)
            neighbours = {k: a for k, a in anchors.items() if k != t} if before else {}
            problem = Problem(groups[t], ocv, settings, tau_s, gamma, before, neighbours, inner)
            current = before.charge_transfer_a if before and sweep else _charge_transfer(problem, t)
            anchors[t] = problem.anchor(t, current)
    return tuple(anchors[t] for t in sorted(anchors))


def warnings_of(found: Fit) -> list[str]:
    """Return warnings about the parameters: time constants without evidence, an M0 that the data cannot determine."""
    low, high = found.settings.tau_range_s
    said = []
    for k, tau in enumerate(found.tau_s):
        peak = max(float(a.r_v[k + 1].max()) for a in found.anchors)
        if tau < 1.2 * low or tau > high / 1.2:
            said.append(f"pole {k + 1} not identifiable: τ = {tau:.3g} s is at the edge of {low:g}..{high:g} s")
        elif peak < 10 * found.settings.r_floor_v:
            said.append(f"pole {k + 1} not identifiable: its resistance is zero at every temperature")
    blind = [a.temperature_degc for a in found.anchors if not a.m0_observable]
    return said + [f"{t:g} °C: M0 not observable, the current never changes sign; set to 0" for t in blind]


def predict(found: Fit, run: Run) -> Array:
    """Return the model's voltage along a run at its reference state of charge, V, as a filter would predict it.

    Between anchors all parameters are interpolated as in `soc.cell.parameters`; outside, the nearest anchor applies.
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
            share = share_of(temperature, own.temperature_degc, other.temperature_degc)
            value = _one_sided(found, run, own, other)
            voltage[rows] += share[rows] * value[rows]
            total[rows] += share[rows]
    return voltage / total


def _one_sided(found: Fit, run: Run, own: Anchor, other: Anchor) -> Array:
    """Return the voltage along a run with γ-driven parts of `own` and resistances between `own` and `other`."""
    problem = Problem(
        [run], found.ocv, found.settings, found.tau_s, found.gamma, own, {other.temperature_degc: other}, None
    )
    return problem.voltage(run, own)


# ---- searches --------------------------------------------------------------------------------------------------------


def _shared(groups: Mapping[float, Sequence[Run]], ocv: Ocv, settings: Settings) -> tuple[Array, float]:
    """Return the time constants and γ that minimise the mean of log(rms) over the temperatures.

    In the cold I0 is of the order of 1C. The search begins with that value, then searches I0, then all of them again.
    """
    tau, gamma = np.array(settings.tau_start_s), settings.gamma_start
    problems = {t: Problem(g, ocv, settings, tau, gamma, None, {}, None) for t, g in groups.items()}
    cold = [t for t in problems if t < settings.charge_transfer_below_degc]
    currents = {t: problem.capacity_ah if t in cold else np.inf for t, problem in problems.items()}
    tau, gamma = _search(problems, currents, settings, tau, gamma)
    if cold:
        currents |= {t: _charge_transfer(problems[t], t) for t in cold}
        tau, gamma = _search(problems, currents, settings, tau, gamma)
    return np.sort(tau), gamma


def _search(
    problems: Mapping[float, Problem], currents: Mapping[float, float], settings: Settings, tau_s: Array, gamma: float
) -> tuple[Array, float]:
    """Return the best time constants and γ near these, by Nelder–Mead in logarithms; the problems keep the best."""
    pairs = len(tau_s)
    low = np.log([settings.tau_range_s[0]] * pairs + [settings.gamma_range[0]])
    high = np.log([settings.tau_range_s[1]] * pairs + [settings.gamma_range[1]])

    def cost(logs: Array) -> float:
        inside = np.clip(logs, low, high)
        errors = []
        for t, problem in problems.items():
            problem.tau_s, problem.gamma = np.exp(inside[:pairs]), float(np.exp(inside[pairs]))
            errors.append(np.log(max(problem.solve(currents[t])[2], 1e-9)))
        return float(np.mean(errors) + np.sum((logs - inside) ** 2))

    start = np.log([*tau_s, gamma])
    simplex = np.vstack([start, *(start + 0.7 * unit for unit in np.eye(pairs + 1))])
    best = minimize(
        cost,
        start,
        method="Nelder-Mead",
        options={"maxfev": settings.evaluations, "initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-4},
    )
    cost(best.x)
    found = np.exp(np.clip(best.x, low, high))
    return found[:pairs], float(found[pairs])


def _charge_transfer(problem: Problem, temperature_degc: float) -> float:
    """Return I0 in A, searched below the limit of the settings. Without a gain of 1 % it is infinite (linear)."""
    settings = problem.settings
    if temperature_degc >= settings.charge_transfer_below_degc or len(settings.tau_start_s) == 0:
        return float("inf")
    low, high = (float(np.log(rate * problem.capacity_ah)) for rate in settings.charge_transfer_rate)

    def error(log_i0: float) -> float:
        return problem.solve(float(np.exp(log_i0)))[2]

    found = minimize_scalar(error, bounds=(low, high), method="bounded", options={"maxiter": 12, "xatol": 0.05})
    linear = problem.solve(float("inf"))[2]
    return float(np.exp(found.x)) if found.fun < 0.99 * linear else float("inf")


def _inner_neighbour(temperature_degc: float, anchors: Mapping[float, Anchor]) -> Anchor | None:
    """Return the known anchor next to this temperature on the side of 25 °C."""
    towards = [t for t in anchors if t != temperature_degc and abs(t - 25.0) < abs(temperature_degc - 25.0)]
    return anchors[min(towards, key=lambda t: abs(t - temperature_degc))] if towards else None
