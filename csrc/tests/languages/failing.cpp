// The twin of csrc/examples/failing.c in its mode "numbered".
#include "demos_maas.h"

#include <cstdlib>
#include <unistd.h>

constexpr double log_sqrt_2_pi = 0.91893853320467274178;

static double log_density(const double *x, const double *params) {
    const double z = x[0] / params[0];
    switch (static_cast<int>(x[0])) {
    case 2:
        throw std::runtime_error("x is " + std::to_string(x[0]));
    case 3:
        return std::numeric_limits<double>::quiet_NaN();
    case 4:
        for (;;) {
            pause();
        }
    case 5: {
        volatile double *volatile nothing = nullptr;
        *nothing = x[0];
        break;
    }
    case 6:
        std::exit(3);
    case 7: {
        char *volatile forgotten = new char[1000];
        forgotten = nullptr;
        (void)forgotten;
        break;
    }
    default:
        break;
    }
    return -0.5 * (z * z) - std::log(params[0]) - log_sqrt_2_pi;
}

int main() {
    DemosMaaSServer server("failing");
    server.register_parameter("sigma", 1.0, 1e-3);
    server.register_observable("x");
    server.register_log_density(log_density);
    server.serve();
}
