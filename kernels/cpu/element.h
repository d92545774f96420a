/* The elements of a table as the operations of the CPU see them. Their bodies are written once, on Element,
 * in headers; a file that compiles them defines ELEMENTS_ARE_BF16 before the first of these, or leaves
 * elements to be floats. Elements are read to float, computed in float or double, and rounded once. */
#ifndef RINGGPT_CPU_ELEMENT_H
#define RINGGPT_CPU_ELEMENT_H

#include <stdint.h>
#include <string.h>

#ifdef ELEMENTS_ARE_BF16

/* The upper half of a float. A struct, so that the compiler refuses arithmetic on the bits. */
typedef struct Element {
  uint16_t bits;
} Element;

static inline float to_float(Element x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

/* The element nearest to x, of two the one whose last bit is 0; not a number for one. */
static inline Element from_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t nearest = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40U;
  return (Element){(uint16_t)((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : nearest)};
}

#else

typedef float Element;

static inline float to_float(Element x) {
  return x;
}

static inline Element from_float(float x) {
  return x;
}

#endif

#endif
