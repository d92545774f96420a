/* Vectorised dropout: the body for any width of kernels/cpu/vector.h and any elements. */
#ifndef RINGGPT_CPU_VECTOR_DROPOUT_H
#define RINGGPT_CPU_VECTOR_DROPOUT_H

#include "kernels/cpu/poll.h"
#include "kernels/cpu/vector_element.h"
#include "kernels/cpu/vector_words.h"
#include "kernels/device.h"

/* Elements between those at work and those that are asked for meanwhile: the CPU itself reads an element only
 * when it knows that it is kept. */
#define DROPOUT_AHEAD 1024

/* `count` elements from x to y, those of `draws` draws; `block` is the number of their first random block. */
GROUP_INLINE void dropout_group(int draws, const DropoutKey *key, uint64_t block, int64_t count,
                                const Element *x, Element *y) {
  Words words[2 * WORDS_DRAWS];
  words_draw(key->seed, PHILOX_DROPOUT, key->stream, block, draws, words);
  for (int k = 0; k < 2 * draws && k * VECTOR_FLOATS < count; k++) {
    const int64_t at = (int64_t)k * VECTOR_FLOATS;
    const Vector value = vector_set(key->scale) * vector_load_elements(x + at, count - at);
    vector_store_elements(y + at, words_keep(words[k], key->threshold, value), count - at);
  }
}

static void vector_dropout(Device *device, int64_t n, int64_t c, const DropoutKey *key, const int64_t *rows,
                           const elem *x, elem *y) {
  const Element *in = x; /* (n, c) */
  Element *out = y;      /* (n, c) */
  const uint64_t blocks = ((uint64_t)c + 3) / 4;
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, 2 * c);
    const uint64_t first = (uint64_t)rows[i] * blocks;
    const Element *from = in + i * c;
    Element *to = out + i * c;
    int64_t j = 0;
    for (; j + GROUP_FLOATS <= c; j += GROUP_FLOATS) {
      group_prefetch(from + j + DROPOUT_AHEAD);
      dropout_group(WORDS_DRAWS, key, first + (uint64_t)j / 4, GROUP_FLOATS, from + j, to + j);
    }
    for (; j < c; j += 2 * VECTOR_FLOATS) {
      dropout_group(1, key, first + (uint64_t)j / 4, c - j, from + j, to + j);
    }
  }
}

#endif
