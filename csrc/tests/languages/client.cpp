// Calls a model and writes doubles into a file; client.py says which.
#include "demos_client.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>

using Vector = demos::Client::Vector;

static void put(std::ostream &file, const Vector &numbers) {
    file.write(reinterpret_cast<const char *>(numbers.data()),
               static_cast<std::streamsize>(numbers.size() * sizeof(double)));
}

static void put(std::ostream &file, const demos::Client::WithGradient &both) {
    put(file, both.value);
    put(file, both.gradient);
}

static void call(demos::Client &model, std::ostream &file) {
    constexpr int n = 2500, seed = 7;
    const Vector point{0.5, 2.0}, points{0.5, 2.0, -0.25, 1.5};
    Vector rows;
    for (int i = 0; i < n; i++) {
        rows.push_back(0.001 * i);
        rows.push_back(1 + 0.001 * i);
    }
    put(file, {double(model.observables()), double(model.params()), double(model.outputs())});
    const Vector x = model.sample(n, point, seed);
    put(file, x);
    put(file, model.sample(3, point, seed, 1024));
    put(file, model.log_density(x, point));
    put(file, model.log_density(x, rows));
    put(file, model.log_density_gradient(x, rows));
    put(file, model.log_density_gradient_x(x));
    put(file, model.log_likelihood_gradient(x, points));
    put(file, model.evaluate(points));
    put(file, model.defaults());
    double status = 0;
    try {
        model.sample(1, {0.0, -1.0}, seed);
    } catch (const demos::Error &error) {
        status = error.status();
    }
    put(file, Vector{status});
}

static void call_with(demos::Client &model, std::ostream &file, double number) {
    try {
        put(file, {0, model.log_density({number}, {1.0}).at(0)});
    } catch (const demos::Error &error) {
        put(file, {double(error.status()), 0});
    }
}

int main(int count, char **words) {
    try {
        std::ofstream file(count > 1 ? words[1] : "", std::ios::binary);
        demos::Client model;
        if (count == 2) {
            call(model, file);
        }
        for (int i = 2; i < count; i++) {
            call_with(model, file, std::strtod(words[i], nullptr));
        }
        return file.good() ? 0 : 2;
    } catch (const demos::Error &error) {
        std::fprintf(stderr, "client: %s: %s\n", demos_status_name(error.status()), error.what());
        return 1;
    }
}
