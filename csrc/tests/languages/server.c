/* A plug-in as a program of its own: serves what demos_model_init() makes of the settings that it is started with. */
#include <demos_mpi.h>
#include <stdio.h>

int main(int count, char **words) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .minor = DEMOS_ABI_MINOR};
    demos_error error = {0};
    int32_t status = demos_model_init(&model, count > 1 ? words[1] : "{}", &error);
    if (status == DEMOS_OK) {
        status = demos_mpi_serve(&model, NULL, &error);
        model.destroy(model.user);
    }
    if (status != DEMOS_OK) {
        fprintf(stderr, "server: %s: %s\n", demos_status_name(status), error.message);
    }
    return status == DEMOS_OK ? 0 : 1;
}
