/* The yardstick: the textbook's sigma-point Kalman filter for one R-C pair, as plain C.
 *
 * Discharge positive. State i_R, h, z; augmented with current and voltage noise: 5 dimensions, 11 points; hysteresis
 * driven by the mean current. No gates, no clamps, no temperature, one cell: less than the package does in a step.
 * Written for clarity and for the compiler (fixed sizes), not by hand for the processor.
 */
#include <math.h>

#define N 3
#define A 5
#define POINTS (2 * A + 1)
#define GRID 201

struct cell {
    double capacity_ah, efficiency, r0, r1, tau, m, m0, gamma, current_sd, voltage_sd;
    double ocv[GRID];
};

static double ocv_at(const struct cell *c, double z)
{
    double place = fmin(fmax(z, 0.0), 1.0) * (GRID - 1);
    int k = (int)place;
    if (k > GRID - 2) k = GRID - 2;
    return c->ocv[k] + (place - k) * (c->ocv[k + 1] - c->ocv[k]);
}

static void cholesky(double P[N][N], double S[N][N])
{
    for (int k = 0; k < N; k++) {
        double pivot = P[k][k];
        for (int m = 0; m < k; m++) pivot -= S[k][m] * S[k][m];
        S[k][k] = sqrt(fmax(pivot, 1e-18));
        for (int j = k + 1; j < N; j++) {
            double rest = P[j][k];
            for (int m = 0; m < k; m++) rest -= S[j][m] * S[k][m];
            S[j][k] = rest / S[k][k];
        }
    }
}

static double step(const struct cell *c, double x[N], double P[N][N], double *s, double dt, double i, double v)
{
    const double h = sqrt(3.0), w0 = (3.0 - A) / 3.0, w = 1.0 / 6.0;
    double S[N][N] = {{0}}, X[POINTS][A], Y[POINTS], mean[N] = {0}, y = 0, py = 0, pxy[N] = {0};
    cholesky(P, S);
    for (int p = 0; p < POINTS; p++)
        for (int j = 0; j < A; j++) X[p][j] = j < N ? x[j] : 0.0;
    for (int k = 0; k < A; k++)
        for (int j = k; j < A; j++) {
            double root = k < N && j < N ? S[j][k] : j != k ? 0.0 : k == N ? c->current_sd : c->voltage_sd;
            X[1 + k][j] += h * root;
            X[1 + A + k][j] -= h * root;
        }
    double stored = i < 0 ? c->efficiency * i : i, per_a = dt / (3600.0 * c->capacity_ah);
    double a = exp(-dt / c->tau), decay = exp(-fabs(c->gamma * stored * per_a));
    double direction = (stored > 0) - (stored < 0);
    if (fabs(i) > c->capacity_ah / 100) *s = i > 0 ? -1.0 : 1.0;
    for (int p = 0; p < POINTS; p++) {
        X[p][0] = a * X[p][0] + (1 - a) * (stored + X[p][3]);
        X[p][1] = decay * X[p][1] - (1 - decay) * direction;
        X[p][2] -= (stored + X[p][3]) * per_a;
        Y[p] = ocv_at(c, X[p][2]) + c->m * X[p][1] + c->m0 * *s - c->r1 * X[p][0] - c->r0 * (i + X[p][3]) + X[p][4];
    }
    for (int p = 0; p < POINTS; p++) {
        double weight = p ? w : w0;
        for (int j = 0; j < N; j++) mean[j] += weight * X[p][j];
        y += weight * Y[p];
    }
    for (int j = 0; j < N; j++)
        for (int k = 0; k < N; k++) P[j][k] = 0;
    for (int p = 0; p < POINTS; p++) {
        double weight = p ? w : w0, dy = Y[p] - y, d[N];
        for (int j = 0; j < N; j++) d[j] = X[p][j] - mean[j];
        for (int j = 0; j < N; j++) {
            for (int k = 0; k < N; k++) P[j][k] += weight * d[j] * d[k];
            pxy[j] += weight * d[j] * dy;
        }
        py += weight * dy * dy;
    }
    for (int j = 0; j < N; j++) x[j] = mean[j] + pxy[j] / py * (v - y);
    for (int j = 0; j < N; j++)
        for (int k = 0; k < N; k++) P[j][k] -= pxy[j] * pxy[k] / py;
    return sqrt(P[2][2]);
}

/* Carry x and P through n samples; out gets z and its standard deviation for each. */
void spkf(const struct cell *c, double x[N], double P[N][N], long n, const double *dt, const double *i, const double *v,
          double *out)
{
    double s = 0;
    for (long k = 0; k < n; k++) {
        out[2 * k + 1] = step(c, x, P, &s, dt[k], i[k], v[k]);
        out[2 * k] = x[2];
    }
}
