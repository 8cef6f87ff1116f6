/* Calls a model of two observables and two parameters in every way, and prints a line of numbers for each. */
#include "demos_maas.h"

#include <cstdio>

using Vector = demos::Client::Vector;

static void print(const char *what, const Vector &numbers) {
    std::printf("%s", what);
    for (const double number : numbers) {
        std::printf(" %.17g", number);
    }
    std::printf("\n");
}

static void print(const char *what, const demos::Client::WithGradient &both) {
    Vector numbers = both.value;
    numbers.insert(numbers.end(), both.gradient.begin(), both.gradient.end());
    print(what, numbers);
}

/* Prints what goes wrong, which something has to. */
template <class Call> static void refuse(const char *what, const Call &call) {
    try {
        call();
    } catch (const demos::Error &error) {
        std::printf("%s %s: %s\n", what, demos_status_name(error.status()), error.what());
        return;
    }
    std::printf("%s went well\n", what);
}

static void call(demos::Client &model) {
    const Vector x{0.5, -1, 2, 0.25, 3, 4}, point{0.3, 1.7}, points{0.3, 1.7, 0.1, 1.1, -2, 0.9};
    std::printf("widths %zu %zu %zu\n", model.observables(), model.params(), model.outputs());
    print("log_density", model.log_density(x, point));
    print("log_density_each", model.log_density(x, points));
    print("log_density_own", model.log_density(x));
    print("log_density_gradient", model.log_density_gradient(x, point));
    print("log_density_gradient_x", model.log_density_gradient_x(x, points));
    print("log_likelihood", model.log_likelihood(x, points));
    print("log_likelihood_own", model.log_likelihood(x));
    print("log_likelihood_gradient", model.log_likelihood_gradient(x, points));
    print("sample", model.sample(3, point, 7));
    print("sample_later", model.sample(2, point, 7, 1024));
    print("evaluate", model.evaluate(points));
    print("evaluate_own", model.evaluate());
    print("nothing", model.log_density({}, point));
    print("defaults", model.defaults());
    std::printf("revision %u\n", model.set_params("{\"mu\": 0.5}"));
    print("defaults_now", model.defaults());
    std::printf("metadata %s\n", model.metadata().c_str());
    refuse("odd_x", [&] { model.log_density({1, 2, 3}, point); });
    refuse("odd_params", [&] { model.log_density(x, {1, 2, 3}); });
    refuse("odd_points", [&] { model.log_likelihood(x, {1, 2, 3}); });
    refuse("odd_point", [&] { model.sample(1, points, 7); });
    refuse("outside", [&] { model.sample(1, {0, -1}, 7); });
    refuse("unknown", [&] { model.set_params("{\"nu\": 1}"); });
}

int main(int count, char **words) {
    try {
        demos::Client first(count > 1 ? words[1] : "");
        demos::Client model = std::move(first);
        model.timeout(60);
        refuse("nobody", [] { demos::Client("nobody"); });
        call(model);
    } catch (const demos::Error &error) {
        std::fprintf(stderr, "%s: %s\n", demos_status_name(error.status()), error.what());
        return 3;
    }
    return 0;
}
