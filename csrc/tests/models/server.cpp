/* A program that serves a square and says what it is by itself; its first argument is what it leaves out. */
#include "demos_maas.h"

#include <cstdio>

static double density(const double *x, const double *) { return x[0] >= 0 && x[0] <= 1 ? 1 : 0; }

static std::int32_t log_density(void *, std::size_t n, std::size_t, std::size_t, const double *x, const double *,
                                std::size_t, double *value, demos_error *error) {
    return demos::guard(error, [=] {
        for (std::size_t i = 0; i < n; i++) {
            if (x[i] > 100) {
                throw std::runtime_error("x is above 100");
            }
            value[i] = std::log(density(x + i, nullptr));
        }
    });
}

int main(int count, char **words) {
    const std::string without = count > 1 ? words[1] : "";
    try {
        DemosMaaSServer server;
        if (without == "scalars") {
            demos_model model{};
            model.size = sizeof model;
            model.major = DEMOS_ABI_MAJOR;
            model.minor = DEMOS_ABI_MINOR;
            model.log_density = log_density;
            server.register_model(model);
        } else if (without != "functions") {
            server.register_density(density);
        }
        if (without == "json") {
            server.describe("name: square");
        } else if (without != "words") {
            server.describe(R"({"name": "square", "parameters": [], "observables": ["x"]})");
        }
        server.serve();
    } catch (const demos::Error &error) {
        std::fprintf(stderr, "%s: %s\n", demos_status_name(error.status()), error.what());
        return 3;
    }
    std::fprintf(stderr, "served\n");
    return 0;
}
