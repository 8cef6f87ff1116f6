// The model as a program of its own: a rank of an MPI launch, or a worker that joins a server.
#include "demos_maas.h"

extern "C" double NAME_log_density(const double* x, const double* params);
extern "C" void NAME_sample(double* x, const double* params);

int main() {
    DemosMaaSServer server;
    server.register_log_density(NAME_log_density);
    server.register_sampler(NAME_sample);
    server.serve();
}
