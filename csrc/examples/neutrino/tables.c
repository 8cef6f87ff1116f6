/* The least recently used table makes room for a new one. */
#include "tables.h"

#include <stdlib.h>
#include <string.h>

/* Tables that are kept; there are more where more threads use them at a time. A fit comes back to the point before. */
enum { KEPT = 4 };

tables *tables_open(void) {
    tables *all = calloc(1, sizeof *all);
    if (all == NULL || pthread_mutex_init(&all->lock, NULL) != 0) {
        free(all);
        return NULL;
    }
    if (pthread_cond_init(&all->ready, NULL) != 0) {
        pthread_mutex_destroy(&all->lock);
        free(all);
        return NULL;
    }
    rates_make(&all->rates);
    response_make(&all->rates, &all->response);
    return all;
}

void tables_close(tables *all) {
    while (all->first != NULL) {
        table *next = all->first->next;
        free(all->first);
        all->first = next;
    }
    pthread_cond_destroy(&all->ready);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

static table *find(tables *all, const double *params, int gradient) {
    for (table *t = all->first; t != NULL; t = t->next) {
        if (memcmp(t->params, params, sizeof t->params) == 0 && (t->has_gradient || !gradient)) {
            return t;
        }
    }
    return NULL;
}

/* One to be filled: the one that nobody has used for longest, or a new one. */
static table *find_room(tables *all) {
    table *oldest = NULL;
    for (table *t = all->first; t != NULL; t = t->next) {
        if (t->users == 0 && (oldest == NULL || t->last_use < oldest->last_use)) {
            oldest = t;
        }
    }
    if (oldest != NULL && all->n >= KEPT) {
        return oldest;
    }
    table *made = malloc(sizeof *made);
    if (made == NULL) {
        return oldest;
    }
    made->next = all->first;
    all->first = made;
    all->n++;
    return made;
}

static void compute(const tables *all, table *t) {
    rates_compute(&all->rates, t->params, t->has_gradient, t->fields);
    double sum = 0;
    for (int k = 0; k < N_ENERGIES * N_ZENITHS; k++) {
        sum += t->fields[0][k % N_ZENITHS][k / N_ZENITHS];
        t->cumulative[k] = sum;
    }
    expansion_make(&all->rates, &all->response, t->params[DE], t->has_gradient, t->fields, &t->density);
}

const table *tables_take(tables *all, const double *params, int gradient) {
    pthread_mutex_lock(&all->lock);
    table *t = find(all, params, gradient);
    int is_mine = t == NULL;
    if (is_mine && (t = find_room(all)) != NULL) {
        memcpy(t->params, params, sizeof t->params);
        t->has_gradient = gradient;
        t->is_ready = 0;
        t->users = 0;
    }
    if (t != NULL) {
        t->users++;
        t->last_use = ++all->clock;
        if (is_mine) {
            pthread_mutex_unlock(&all->lock);
            compute(all, t);
            pthread_mutex_lock(&all->lock);
            t->is_ready = 1;
            pthread_cond_broadcast(&all->ready);
        }
        while (!t->is_ready) {
            pthread_cond_wait(&all->ready, &all->lock);
        }
    }
    pthread_mutex_unlock(&all->lock);
    return t;
}

void tables_give_back(tables *all, const table *t) {
    pthread_mutex_lock(&all->lock);
    ((table *)t)->users--;
    pthread_mutex_unlock(&all->lock);
}
