/* Jacobi rotations, and the polynomials of sine and cosine, without branches. */
#include "eigen.h"

#include <math.h>

#include "wide.h"

/* Convergence is quadratic: four are enough for all matrices of test_neutrino.c, three are not. */
enum { SWEEPS = 5 };

/*
 * One rotation of Jacobi's method (Golub and Van Loan, Matrix Computations, 2013, section 8.5; for 3x3 matrices see
 * Kopp, Int. J. Mod. Phys. C 19 (2008) 523), which makes the element pq zero; r is the third index. Eigenvectors are
 * orthogonal to rounding however close eigenvalues are. There are no branches, so that it is done for many at a time.
 */
NEUTRINO_WIDE static void rotate(double *restrict pp, double *restrict qq, double *restrict pq, double *restrict pr,
                                 double *restrict qr, tracks *restrict vp, tracks *restrict vq) {
    for (int t = 0; t < TRACKS; t++) {
        double gap = qq[t] - pp[t], off = pq[t];
        /* The smaller root; the last term is for 0 / 0. */
        double wide = fabs(gap) + sqrt(gap * gap + 4 * off * off) + 1e-300;
        double tangent = (gap < 0 ? -2 : 2) * off / wide;
        double c = 1 / sqrt(1 + tangent * tangent), s = tangent * c;
        double a = pr[t], b = qr[t];
        pp[t] -= tangent * off;
        qq[t] += tangent * off;
        pq[t] = 0;
        pr[t] = c * a - s * b;
        qr[t] = s * a + c * b;
        for (int k = 0; k < 3; k++) {
            double x = vp[3 * k][t], y = vq[3 * k][t];
            vp[3 * k][t] = c * x - s * y;
            vq[3 * k][t] = s * x + c * y;
        }
    }
}

void diagonalize(tracks m[6], eigensystem *eigen) {
    enum { XX, YY, ZZ, XY, XZ, YZ };
    tracks(*v)[3] = eigen->vector;
    for (int k = 0; k < 3; k++) {
        for (int l = 0; l < 3; l++) {
            for (int t = 0; t < TRACKS; t++) {
                v[k][l][t] = k == l;
            }
        }
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        rotate(m[XX], m[YY], m[XY], m[XZ], m[YZ], &v[0][0], &v[0][1]);
        rotate(m[XX], m[ZZ], m[XZ], m[XY], m[YZ], &v[0][0], &v[0][2]);
        rotate(m[YY], m[ZZ], m[YZ], m[XY], m[XZ], &v[0][1], &v[0][2]);
    }
    for (int k = 0; k < 3; k++) {
        for (int t = 0; t < TRACKS; t++) {
            eigen->value[k][t] = m[k][t];
        }
    }
}

/*
 * Reduction by pi/2 in three parts, and polynomials on [-pi/4, pi/4], both of fdlibm (Sun Microsystems, 1993:
 * e_rem_pio2.c, k_sin.c, k_cos.c), whose functions are libm's; but those are for one angle at a time.
 */
static inline void compute_sine(double x, double *sine, double *cosine) {
    const double to_nearest = 0x1.8p52; /* adding and subtracting it rounds to an integer */
    double q = x * 6.36619772367581382433e-01 + to_nearest - to_nearest;
    double r = x - q * 1.57079632673412561417e+00;
    r = r - q * 6.07710050630396597660e-11 - q * 2.02226624879595063154e-21;
    double z = r * r;
    double s = 1.58969099521155010221e-10;
    s = -2.50507602534068634195e-08 + z * s;
    s = 2.75573137070700676789e-06 + z * s;
    s = -1.98412698298579493134e-04 + z * s;
    s = 8.33333333332248946124e-03 + z * s;
    s = -1.66666666666666324348e-01 + z * s;
    s = r + r * z * s;
    double c = -1.13596475577881948265e-11;
    c = 2.08757232129817482790e-09 + z * c;
    c = -2.75573143513906633035e-07 + z * c;
    c = 2.48015872894767294178e-05 + z * c;
    c = -1.38888888888741095749e-03 + z * c;
    c = 4.16666666666666019037e-02 + z * c;
    c = 1 - (0.5 * z - z * z * c);
    /* -2 to 2: in which quarter of the circle */
    double quarter = q - 4 * (q * 0.25 + to_nearest - to_nearest);
    int is_swapped = fabs(quarter) == 1;
    double sin_r = is_swapped ? c : s, cos_r = is_swapped ? s : c;
    *sine = fabs(quarter - 0.5) == 0.5 ? sin_r : -sin_r;   /* 0, 1 */
    *cosine = fabs(quarter + 0.5) == 0.5 ? cos_r : -cos_r; /* -1, 0 */
}

NEUTRINO_WIDE static void find_sines(const double *restrict angle, double *restrict sine, double *restrict cosine) {
    for (int t = 0; t < TRACKS; t++) {
        double s, c;
        compute_sine(angle[t], &s, &c);
        sine[t] = s;
        cosine[t] = c;
    }
}

void compute_sines(const tracks angle, tracks sine, tracks cosine) { find_sines(angle, sine, cosine); }
