// The model as a program of its own, from C++: a table of functions that C has filled in.
//
//     c++ -std=c++17 -O2 $(demos-hpc config --mpi --cflags) server.cpp libneutrino.so -o neutrino
//         $(demos-hpc config --mpi --libs)
//
// server.c says how it is started.
#include <demos_maas.h>

#include <cstdio>

int main() try {
    demos_model model{};
    demos_error error{};
    if (demos_init_model(demos_model_init, "{}", &model, &error) != DEMOS_OK) {
        throw demos::Error(error.status, error.message);
    }
    DemosMaaSServer server;
    server.register_model(model);
    server.serve();
    demos_end_model(&model);
} catch (const demos::Error &error) {
    std::fprintf(stderr, "neutrino: %s: %s\n", demos_status_name(error.status()), error.what());
    return 1;
}
