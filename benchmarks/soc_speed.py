"""How fast the state-of-charge filters are, beside other libraries and a plain C filter, all in one run.

    python benchmarks/soc_speed.py [--steps 200000] [--cells 1000]

One cell, one R-C pair, 1 Hz, the same data and noises for all. "plain" is the textbook's filter (what the C one does);
the others add states for slow voltage error and current offset, coloured noise, gates and anchors.
The best of several runs is printed: the machine may be shared.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import soc
from soc.estimation.estimator import Estimator, Model, run_threaded
from soc.filters import Samples
from soc.models.measurement_update import OUTPUTS
from soc.models.options import PLAIN, Options, options

HERE = Path(__file__).parent
CURVE = [2.8, 3.15, 3.22, 3.26, 3.29, 3.30, 3.31, 3.33, 3.34, 3.36, 3.55]
CURRENT_SD_A, VOLTAGE_SD_V = 0.1, 0.01
START = np.diag([1e-4, 1e-2, 1e-2])

CELL = soc.CellParameters.plain(
    "bench",
    2.0,
    soc.Ocv.of_points(np.linspace(0, 1, 11), CURVE),
    0.010,
    [(0.015, 20.0)],
    efficiency=0.995,
    gamma=120.0,
    m_v=0.020,
    m0_v=0.002,
)


def best(run: Callable[[], object], repeats: int = 5) -> float:
    """The shortest time of several runs, s."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def data(steps: int, cells: int = 1, warming: bool = False) -> Samples:
    """A drive for each cell: wandering current about zero, voltage of the simulated cell."""
    current = np.random.default_rng(1).normal(0, 1, (cells, steps))
    voltage = [soc.simulate(CELL, np.arange(steps), row, 25.0, 0.55)[0].voltage_v for row in current]
    temperature = 25.0 + (0.001 * (np.arange(steps) % 1000) if warming else np.zeros(steps))
    columns = np.broadcast_arrays(np.arange(float(steps)), current, np.array(voltage), temperature, np.nan)
    return Samples(*(np.array(c) for c in columns))


def ours(name: str, chosen: Options, samples: Samples, threads: int = 1) -> float:
    """Microseconds per cell-step of one of our filters."""
    model = Model(CELL, name, chosen)
    cells, steps = samples.time_s.shape
    start = model.start(3.305, 25.0, 0.0, 0.55, 0.1)
    outs = np.empty((cells, steps, OUTPUTS))

    def run() -> None:
        beliefs = [np.repeat(a[None], cells, axis=0) for a in (start.mean, start.cov, start.memory)]
        run_threaded(model, *beliefs, samples, outs, threads)

    run()
    return best(run) / (cells * steps) * 1e6


def live(steps: int = 2000) -> float:
    """Microseconds of one step through Python."""
    estimator = Estimator(CELL, soc0=0.55)
    estimator.step(0.0, 0.0, 3.305, 25.0)

    def run() -> None:
        now = estimator.belief.time_s if estimator.belief else 0.0
        for k in range(1, steps + 1):
            estimator.step(now + k, 0.5, 3.305, 25.0)

    return best(run) / steps * 1e6


class YardstickCell(ctypes.Structure):
    """`struct cell` of spkf_yardstick.c."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("capacity_ah", "efficiency", "r0", "r1", "tau", "m", "m0", "gamma")),
        *((name, ctypes.c_double) for name in ("current_sd", "voltage_sd")),
        ("ocv", ctypes.c_double * 201),
    ]


def yardstick(samples: Samples) -> tuple[float, float]:
    """Microseconds per step of the C filter, compiled here, and its largest difference from ours in z."""
    steps = samples.time_s.shape[1]
    table = np.interp(np.linspace(0, 1, 201), np.linspace(0, 1, 11), CURVE)
    cell = YardstickCell(2.0, 0.995, 0.010, 0.015, 20.0, 0.020, 0.002, 120.0, CURRENT_SD_A, VOLTAGE_SD_V, tuple(table))
    discharge, dt = -samples.current_a[0, 1:], np.diff(samples.time_s[0])
    out = np.empty((steps - 1, 2))
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "yardstick.so"
        source = HERE / "spkf_yardstick.c"
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
        spkf = ctypes.CDLL(str(library)).spkf

        def run() -> None:
            x, P = np.array([0, 0, 0.55]), START.copy()
            columns = (dt, discharge, samples.voltage_v[0, 1:].copy(), out)
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, P, *columns)]
            spkf(ctypes.byref(cell), *pointers[:2], ctypes.c_long(steps - 1), *pointers[2:])

        taken = best(run) / (steps - 1) * 1e6
    model = Model(CELL, "spkf", plain())
    start = model.start(3.305, 25.0, 0.0, 0.55, 0.1)
    begun = soc.Belief(*model.names, model.states, np.array([0, 0, 0.55]), START, start.memory)
    _, mine = model.carry(begun, samples)
    return taken, float(np.abs(mine[1:, 0] - out[:, 0]).max())


def plain() -> Options:
    return options(PLAIN, current_sd_a=CURRENT_SD_A, sensor_v=VOLTAGE_SD_V)


class Textbook:
    """The model as a user of a general library would write it: numpy, additive noise, one state vector."""

    def __init__(self) -> None:
        self.a, self.c = np.exp(-1 / 20.0), 1 / 7200
        B = np.array([1 - self.a, 0, -self.c])
        self.Q, self.R = (
            np.outer(B, B) * CURRENT_SD_A**2 + 1e-16 * np.eye(3),
            VOLTAGE_SD_V**2 + (0.01 * CURRENT_SD_A) ** 2,
        )
        self.knots = np.linspace(0, 1, 11)
        self.i = self.s = 0.0

    def fx(self, x: np.ndarray, _dt: float) -> np.ndarray:
        stored = self.i if self.i >= 0 else 0.995 * self.i
        A = np.exp(-abs(120 * stored * self.c))
        sign = np.sign(stored)
        return np.array([self.a * x[0] + (1 - self.a) * stored, A * x[1] - (1 - A) * sign, x[2] - stored * self.c])

    def hx(self, x: np.ndarray) -> np.ndarray:
        x = np.ravel(x)
        v = np.interp(x[2], self.knots, CURVE) + 0.02 * x[1] + 0.002 * self.s - 0.015 * x[0] - 0.01 * self.i
        return np.array([v])

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        z = float(np.ravel(x)[2])
        slope = (np.interp(z + 0.01, self.knots, CURVE) - np.interp(z - 0.01, self.knots, CURVE)) / 0.02
        return np.array([[-0.015, 0.02, slope]])


def filterpy_filters(samples: Samples, steps: int) -> dict[str, float]:
    """Microseconds per step of filterpy's filters."""
    from filterpy.kalman import (
        CubatureKalmanFilter,
        ExtendedKalmanFilter,
        MerweScaledSigmaPoints,
        UnscentedKalmanFilter,
    )

    def run(name: str) -> None:
        model = Textbook()
        if name == "EKF":
            kf = ExtendedKalmanFilter(dim_x=3, dim_z=1)
            kf.F = np.diag([model.a, 1.0, 1.0])
        elif name == "CKF":
            kf = CubatureKalmanFilter(dim_x=3, dim_z=1, dt=1.0, hx=model.hx, fx=model.fx)
        else:
            points = MerweScaledSigmaPoints(3, alpha=1.0, beta=2.0, kappa=0.0)
            kf = UnscentedKalmanFilter(dim_x=3, dim_z=1, dt=1.0, hx=model.hx, fx=model.fx, points=points)
        column = name in ("EKF", "CKF")
        kf.x = np.array([[0], [0], [0.55]]) if column else np.array([0, 0, 0.55])
        kf.P, kf.Q, kf.R = START.copy(), model.Q, np.array([[model.R]])
        for k in range(steps):
            model.i = -samples.current_a[0, k]
            if name == "EKF":
                kf.x = model.fx(kf.x.ravel(), 1.0)[:, None]
                kf.P = kf.F @ kf.P @ kf.F.T + kf.Q
                kf.update(samples.voltage_v[0, k], model.jacobian, lambda x: model.hx(x)[:, None])
            else:
                kf.predict()
                kf.update(np.array([[samples.voltage_v[0, k]]]) if column else samples.voltage_v[0, k])

    return {f"filterpy {name}": best(lambda name=name: run(name), 3) / steps * 1e6 for name in ("EKF", "CKF", "UKF")}


def dynamax_ukf(samples: Samples, steps: int) -> float | None:
    """Microseconds per step of dynamax's UKF (compiled before the clock starts); None where it is not installed."""
    if importlib.util.find_spec("dynamax") is None:
        return None
    import jax
    import jax.numpy as jnp
    from dynamax.nonlinear_gaussian_ssm import ParamsNLGSSM, UKFHyperParams, unscented_kalman_filter

    jax.config.update("jax_enable_x64", True)  # double precision, as all others here; its default is single
    model = Textbook()
    knots, curve = jnp.linspace(0, 1, 11), jnp.array(CURVE)

    def fx(x, u):  # type: ignore[no-untyped-def]
        stored = jnp.where(u[0] >= 0, u[0], 0.995 * u[0])
        A = jnp.exp(-jnp.abs(120 * stored * model.c))
        return jnp.array(
            [model.a * x[0] + (1 - model.a) * stored, A * x[1] - (1 - A) * jnp.sign(stored), x[2] - stored * model.c]
        )

    def hx(x, u):  # type: ignore[no-untyped-def]
        return jnp.array([jnp.interp(x[2], knots, curve) + 0.02 * x[1] - 0.015 * x[0] - 0.01 * u[0]])

    params = ParamsNLGSSM(
        initial_mean=jnp.array([0.0, 0.0, 0.55]),
        initial_covariance=jnp.array(START),
        dynamics_function=fx,
        dynamics_covariance=jnp.array(model.Q),
        emission_function=hx,
        emission_covariance=jnp.array([[model.R]]),
    )
    volts, amps = jnp.array(samples.voltage_v[0, :steps, None]), jnp.array(-samples.current_a[0, :steps, None])
    run = jax.jit(lambda v, i: unscented_kalman_filter(params, v, UKFHyperParams(), inputs=i).filtered_means)
    run(volts, amps).block_until_ready()
    return best(lambda: run(volts, amps).block_until_ready()) / steps * 1e6


def first_estimate() -> float:
    """Seconds from starting Python to the first estimate, with the compiled code on disk."""
    program = "import soc; s, _ = soc.simulate(C, range(10), [0.0]*10, 25.0, 0.5); soc.estimate(s, C)"
    cell = (
        "import soc\nC = soc.CellParameters.plain('c', 2.0, soc.Ocv.of_points([0, 1], [3, 4]), 0.01, [(0.015, 20.0)])\n"
    )
    command = [sys.executable, "-c", cell + program]
    subprocess.run(command, check=True)
    return best(lambda: subprocess.run(command, check=True), 3)


def table(steps: int, cells: int) -> list[tuple[str, float]]:
    """Rows of (what, microseconds per cell-step)."""
    one, warming = data(steps), data(steps, warming=True)
    many = data(max(steps // 100, 100), cells)
    c_time, difference = yardstick(one)
    print(f"largest difference in z from the C filter: {difference:.1e}")
    rows = [("C, cc -O3 -march=native", c_time)]
    rows += [(f"{name}, plain", ours(name, plain(), one)) for name in ("spkf", "ekf", "coulomb")]
    rows += [("spkf, bias state", ours("spkf", options(offset_state=False), one))]
    rows += [("spkf, bias and offset states", ours("spkf", options(offset_state=True), one))]
    rows += [("the same, temperature changing", ours("spkf", options(offset_state=True), warming))]
    rows += [
        (f"spkf, plain, {cells} cells, {n} threads", ours("spkf", plain(), many, n)) for n in (1, os.cpu_count() or 1)
    ]
    rows += [("spkf, one live step", live())]
    rows += list(filterpy_filters(one, 2000).items())
    dynamax = dynamax_ukf(one, min(steps, 20_000))
    return rows + ([("dynamax UKF", dynamax)] if dynamax is not None else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--cells", type=int, default=1000)
    asked = parser.parse_args()
    rows = table(asked.steps, asked.cells)
    base = dict(rows)["spkf, plain"]
    print(f"\n{'':38}{'µs/step':>10}{'steps/s':>14}{'of spkf, plain':>16}")
    for what, micros in rows:
        print(f"{what:38}{micros:10.3f}{1e6 / micros:14,.0f}{micros / base:16.2f}")
    if "dynamax UKF" not in dict(rows):
        print(f"{'dynamax UKF':38}{'absent: not installed':>24}")
    print(f"\nimport and first estimate, warm cache: {first_estimate():.2f} s")
    print(f"largest memory of this run: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
