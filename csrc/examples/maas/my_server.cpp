#include "demos_maas.h"

// Benutzer implementiert diese Funktionen
double my_model_density(const double* x, const double* params);
void my_model_sample(double* x, const double* params);

int main() {
    DemosMaaSServer server;
    server.register_density(my_model_density);
    server.register_sampler(my_model_sample);
    server.serve(); // Auf Anfragen hören
}
