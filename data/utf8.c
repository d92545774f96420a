/* UTF-8, strictly. */
#include "data/utf8.h"

#include <stdbool.h>
#include <stdint.h>

/* The length of the character at the start of `text` by its first byte, 0 for a byte that starts none; and
 * the range of its second byte, which alone keeps out overlong forms, surrogates and what is beyond U+10FFFF.
 */
static size_t first_byte(uint8_t first, uint8_t *low, uint8_t *high) {
  *low = first == 0xe0 ? 0xa0 : (first == 0xf0 ? 0x90 : 0x80);
  *high = first == 0xed ? 0x9f : (first == 0xf4 ? 0x8f : 0xbf);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

static bool is_character(const uint8_t *text, size_t bytes, size_t *length) {
  uint8_t low = 0;
  uint8_t high = 0;
  *length = first_byte(text[0], &low, &high);
  if (*length == 0 || *length > bytes) return false;
  if (*length > 1 && (text[1] < low || text[1] > high)) return false;
  for (size_t i = 2; i < *length; i++) {
    if (text[i] < 0x80 || text[i] > 0xbf) return false;
  }
  return true;
}

size_t utf8_valid_prefix(const char *text, size_t bytes) {
  const uint8_t *from = (const uint8_t *)text;
  size_t at = 0;
  size_t length = 0;
  while (at < bytes && is_character(from + at, bytes - at, &length)) at += length;
  return at;
}
