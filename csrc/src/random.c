/* Random streams: Philox4x64-10 (Salmon, Moraes, Dror, Shaw, SC11), as NumPy's `Philox` counts it (csrc/WIRE.md, 8). */
#include "demos.h"
#include "normal_tables.h"

#include <math.h>

__extension__ typedef unsigned __int128 uint128;

enum { ROUNDS = 10, WORDS = 4 };

static const uint64_t MULTIPLIERS[2] = {0xD2E7470EE14C6C93, 0xCA5A826395121157};
static const uint64_t BUMPS[2] = {0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B};

/* What demos_uniform() and demos_normal() draw from in this thread. */
static _Thread_local demos_stream *current;

void demos_stream_set(demos_stream *stream, uint64_t seed, uint64_t block) {
    *stream = (demos_stream){.key = {seed, 0}, .counter = {0, 0, 0, block}, .used = WORDS};
}

static void refill(demos_stream *stream) {
    for (int word = 0; word < WORDS && ++stream->counter[word] == 0; word++) {
    }
    uint64_t c0 = stream->counter[0], c1 = stream->counter[1], c2 = stream->counter[2], c3 = stream->counter[3];
    uint64_t k0 = stream->key[0], k1 = stream->key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint128 first = (uint128)MULTIPLIERS[0] * c0, second = (uint128)MULTIPLIERS[1] * c2;
        c0 = (uint64_t)(second >> 64) ^ c1 ^ k0;
        c1 = (uint64_t)second;
        c2 = (uint64_t)(first >> 64) ^ c3 ^ k1;
        c3 = (uint64_t)first;
        k0 += BUMPS[0];
        k1 += BUMPS[1];
    }
    stream->buffer[0] = c0;
    stream->buffer[1] = c1;
    stream->buffer[2] = c2;
    stream->buffer[3] = c3;
    stream->used = 0;
}

static inline uint64_t draw_bits(demos_stream *stream) {
    if (stream->used >= WORDS) {
        refill(stream);
    }
    return stream->buffer[stream->used++];
}

static inline double draw_uniform(demos_stream *stream) { return (double)(draw_bits(stream) >> 11) * 0x1p-53; }

uint64_t demos_stream_bits(demos_stream *stream) { return draw_bits(stream); }

double demos_stream_uniform(demos_stream *stream) { return draw_uniform(stream); }

/* From beyond the last layer (Marsaglia, 1964): exponential steps, accepted by their square. */
static double draw_tail(demos_stream *stream, int is_negative) {
    for (;;) {
        double step = -log1p(-draw_uniform(stream)) / NORMAL_EDGE;
        double height = -log1p(-draw_uniform(stream));
        if (height + height > step * step) {
            return is_negative ? -(NORMAL_EDGE + step) : NORMAL_EDGE + step;
        }
    }
}

double demos_stream_normal(demos_stream *stream) {
    for (;;) {
        /* Of one word: 8 bits are the layer, one the sign, 52 the place; three are not used. */
        uint64_t bits = draw_bits(stream);
        unsigned layer = bits & 0xff;
        int is_negative = bits >> 8 & 1;
        uint64_t place = bits >> 9 & 0xfffffffffffff;
        double x = (double)place * NORMAL_WIDTHS[layer];
        x = is_negative ? -x : x;
        if (place < NORMAL_INNER[layer]) {
            return x; /* inside of the layer above: nearly always */
        }
        if (layer == 0) {
            return draw_tail(stream, place >> 8 & 1);
        }
        double lower = NORMAL_HEIGHTS[layer], upper = NORMAL_HEIGHTS[layer - 1];
        if ((upper - lower) * draw_uniform(stream) + lower < exp(-0.5 * x * x)) {
            return x;
        }
    }
}

demos_stream *demos_use_stream(demos_stream *stream) {
    demos_stream *before = current;
    current = stream;
    return before;
}

double demos_uniform(void) { return current == NULL ? (double)NAN : draw_uniform(current); }

double demos_normal(void) { return current == NULL ? (double)NAN : demos_stream_normal(current); }
