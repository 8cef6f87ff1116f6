/* Mixing matrices: U = R23 U13 R12 of the Particle Data Group, with U_e3 = s13 exp(-i delta). */
#include <math.h>
#include <string.h>

#include "oscillation.h"

/* sin, cos and their derivatives by sin^2; the latter kept finite where they are not. */
typedef struct angle {
    double sine, cosine, sine_slope, cosine_slope;
} angle;

static angle angle_of(double squared) {
    angle a = {.sine = sqrt(squared), .cosine = sqrt(1 - squared)};
    a.sine_slope = 0.5 / fmax(a.sine, 1e-15);
    a.cosine_slope = -0.5 / fmax(a.cosine, 1e-15);
    return a;
}

/* Adds factor (a b^T + b a^T) / 2. */
static void add_product(double m[6], double factor, const double a[3], const double b[3]) {
    for (int k = 0; k < 3; k++) {
        m[k] += factor * a[k] * b[k];
        int row = k == 2, column = k == 0 ? 1 : 2;
        m[3 + k] += 0.5 * factor * (a[row] * b[column] + a[column] * b[row]);
    }
}

static void make_mass(const mixing *p, mixing_matrices *m) {
    angle a = angle_of(p->s12sq), b = angle_of(p->s13sq);
    /* The columns of R13 R12, and what changes of the second and the third one. */
    const double first[3] = {a.cosine * b.cosine, -a.sine, -a.cosine * b.sine};
    const double second[3] = {a.sine * b.cosine, a.cosine, -a.sine * b.sine}, third[3] = {b.sine, 0, b.cosine};
    const double second_12[3] = {a.sine_slope * b.cosine, a.cosine_slope, -a.sine_slope * b.sine};
    const double second_13[3] = {a.sine * b.cosine_slope, 0, -a.sine * b.sine_slope};
    const double third_13[3] = {b.sine_slope, 0, b.cosine_slope};
    add_product(m->mass, p->dm21, second, second);
    add_product(m->mass, p->dm31, third, third);
    add_product(m->mass_slopes[0], 2 * p->dm21, second_12, second);
    add_product(m->mass_slopes[1], 2 * p->dm21, second_13, second);
    add_product(m->mass_slopes[1], 2 * p->dm31, third_13, third);
    add_product(m->mass_slopes[2], 1, second, second);
    add_product(m->mass_slopes[3], 1, third, third);
    m->squares[1] = p->dm21;
    m->squares[2] = p->dm31;
    for (int k = 0; k < 3; k++) {
        m->vectors[k][0] = first[k];
        m->vectors[k][1] = second[k];
        m->vectors[k][2] = third[k];
    }
}

static void make_flavors(const mixing *p, double sign, mixing_matrices *m) {
    angle a = angle_of(p->s23sq);
    double re = cos(p->delta), im = sign * sin(p->delta);
    m->re[ELECTRON][0] = 1;
    const double y[3] = {0, a.cosine, -a.sine}, z[3] = {0, a.sine, a.cosine};
    const double dy[3] = {0, a.cosine_slope, -a.sine_slope}, dz[3] = {0, a.sine_slope, a.cosine_slope};
    for (int flavor = MUON; flavor <= TAU; flavor++) {
        m->re[flavor][1] = y[flavor];
        m->re[flavor][2] = re * z[flavor];
        m->im[flavor][2] = im * z[flavor];
        m->slope_re[0][flavor][1] = dy[flavor];
        m->slope_re[0][flavor][2] = re * dz[flavor];
        m->slope_im[0][flavor][2] = im * dz[flavor];
        m->slope_re[1][flavor][2] = -sign * m->im[flavor][2];
        m->slope_im[1][flavor][2] = sign * m->re[flavor][2];
    }
}

void mixing_make(const mixing *parameters, double sign, mixing_matrices *matrices) {
    memset(matrices, 0, sizeof *matrices);
    make_mass(parameters, matrices);
    make_flavors(parameters, sign, matrices);
}
