/* What the products of attention read, and what the rows outside are made of. A word is 32 bits: a float, or
 * two bf16 numbers that follow each other in the sum, which vdpbf16ps multiplies at once. The elements of the
 * rows are floats or bf16; where there is no such instruction, bf16 elements become words of one float. */
#ifndef RINGGPT_CPU_ATTENTION_WORDS_H
#define RINGGPT_CPU_ATTENTION_WORDS_H

#include <stdint.h>
#include <string.h>

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/vector_element.h"

#if defined(ELEMENTS_ARE_BF16) && defined(__AVX512BF16__)
#define ATTENTION_PAIRS
#endif

#if defined(ATTENTION_PAIRS)

/* Terms of a sum in one word. */
enum { TERMS = 2 };
typedef uint32_t Word;
typedef __m512i Words;

static inline Words words_load(const Word *p) {
  return _mm512_loadu_si512(p);
}

static inline Words words_set(Word word) {
  return _mm512_set1_epi32((int)word);
}

/* sum + a b, term by term. */
static inline Vector words_multiply_add(Words a, Words b, Vector sum) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

#else

enum { TERMS = 1 };
typedef float Word;
typedef Vector Words;

static inline Words words_load(const Word *p) {
  return lanes_load(p);
}

static inline Words words_set(Word word) {
  return vector_set(word);
}

static inline Vector words_multiply_add(Words a, Words b, Vector sum) {
  return vector_multiply_add(a, b, sum);
}

#endif

#endif
