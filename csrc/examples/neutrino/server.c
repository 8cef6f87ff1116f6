/*
 * The model as a program of its own, no Python in its process: the plug-in's table, handed to demos_mpi_serve(). With
 * the library that meson.build makes:
 *
 *     cc -O2 $(demos-hpc config --mpi --cflags) server.c libneutrino.so -o neutrino $(demos-hpc config --mpi --libs)
 *     mpiexec -n 1 demos-hpc serve --spec nu.json : -n 4 ./neutrino : -n 1 python -m demos_hpc analysis.py
 *     demos-hpc serve --exec ./neutrino --workers 4
 *
 * nu.json needs to say no more than {"name": "nu_atm_c"}; the model has the rest of its description.
 *
 * server.cpp and server.f90 are its twins.
 */
#include <demos_mpi.h>
#include <stdio.h>

int main(void) {
    demos_model model = {0};
    demos_error error = {0};
    int32_t status = demos_init_model(demos_model_init, "{}", &model, &error);
    if (status == DEMOS_OK) {
        status = demos_mpi_serve(&model, NULL, &error);
        demos_end_model(&model);
    }
    if (status != DEMOS_OK) {
        fprintf(stderr, "neutrino: %s: %s\n", demos_status_name(status), error.message);
    }
    return status != DEMOS_OK;
}
