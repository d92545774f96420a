/* Vectorised dropout: the body for any width of kernels/cpu/vector.h and any elements. */
#ifndef RINGGPT_CPU_VECTOR_DROPOUT_H
#define RINGGPT_CPU_VECTOR_DROPOUT_H

#include "kernels/cpu/poll.h"
#include "kernels/cpu/vector_element.h"
#include "kernels/cpu/vector_words.h"
#include "kernels/device.h"

static void vector_dropout(Device *device, int64_t n, int64_t c, const DropoutKey *key, const int64_t *rows,
                           const elem *x, elem *y) {
  const Element *in = x; /* (n, c) */
  Element *out = y;      /* (n, c) */
  const uint64_t blocks = ((uint64_t)c + 3) / 4;
  const Vector scale = vector_set(key->scale);
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * c);
    const uint64_t first = (uint64_t)rows[i] * blocks;
    for (int64_t j = 0; j < c; j += 2 * VECTOR_FLOATS) {
      Words words[2];
      words_draw(key->seed, PHILOX_DROPOUT, key->stream, first + (uint64_t)j / 4, words);
      for (int half = 0; half < 2; half++) {
        const int64_t at = j + half * VECTOR_FLOATS;
        if (at >= c) break;
        const Vector value = scale * vector_load_elements(in + i * c + at, c - at);
        vector_store_elements(out + i * c + at, words_keep(words[half], key->threshold, value), c - at);
      }
    }
  }
}

#endif
