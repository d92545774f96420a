/* A small tokenizer of GPT-2's kind. */
#include "tests/support/small_gpt2.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const merges[] = {
    "a t", "t h",  "Ġ th",  "Ġth e", "Ġ r",    "Ġ Ġ",   "Ġ c",  "Ġ i",    "Ġr e",  "' s",
    "2 0", "9 9",  "a Ã",   "h at",  "o n",    "r n",   "t u",  "v e",    "Ã ¼",   "Ċ ĠĠ",
    "Ġ s", "Ġ 20", "Ġ hat", "Ł e",   "Ġth at", "Ġc at", "Ġi t", "Ġre tu", "ĊĠĠ Ġ", "Ġretu rn",
    "' l", "' t",  "' ve",  "0 1",   "1 99",   "2 4",   "G r",  "S t",    "a f",   "a l",
    "a n", "a s",  "a y",   "b e",   "m at",   "n aÃ",  "r aÃ", "s n",    "u e",   "v al",
    "w e", "¯ ve", "Ã ©",   "Ã Łe",  "Ġ at",   "Ġ on",  "Ġ Ã¼", "Ġ 199",  "Ġ Gr",  "Ġ St"};

/* The character that stands for a byte in the files of GPT-2, by the list of those that stand for themselves.
 */
static int byte_character(int byte) {
  int before = 0;
  for (int b = 0; b < 256; b++) {
    const bool itself = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
    if (b == byte) return itself ? b : 256 + before;
    before += !itself;
  }
  return -1;
}

/* Appends a character as UTF-8, with a backslash where JSON needs one. */
static char *put_character(char *to, int character, bool json) {
  if (json && (character == '"' || character == '\\')) *to++ = '\\';
  if (character < 0x80) {
    *to++ = (char)character;
  } else {
    *to++ = (char)(0xc0 | character >> 6);
    *to++ = (char)(0x80 | (character & 0x3f));
  }
  return to;
}

void small_gpt2_write(TempDir *directory, const char *folder, const char *vocabulary_name,
                      const char *merges_name) {
  char vocabulary[8192];
  char list[2048];
  char path[128];
  char *to = vocabulary;
  char *next = list + sprintf(list, "#version: 0.2\n");
  *to++ = '{';
  for (int byte = 0; byte < 256; byte++) {
    *to++ = '"';
    to = put_character(to, byte_character(byte), true);
    to += sprintf(to, "\": %d, ", byte);
  }
  for (int i = 0; i < SMALL_GPT2_MERGES; i++) {
    const char *space = strchr(merges[i], ' ');
    to += sprintf(to, "\"%.*s%s\": %d, ", (int)(space - merges[i]), merges[i], space + 1, 256 + i);
    next += sprintf(next, "%s\n", merges[i]);
  }
  (void)sprintf(to, "\"<|endoftext|>\": %d}", SMALL_GPT2_VOCAB - 1);
  (void)snprintf(path, sizeof path, "%s/%s", folder, vocabulary_name);
  temp_file_write_text(temp_dir_path(directory, path), vocabulary);
  (void)snprintf(path, sizeof path, "%s/%s", folder, merges_name);
  temp_file_write_text(temp_dir_path(directory, path), list);
}

size_t small_gpt2_token(int32_t token, char *out) {
  size_t length = 0;
  if (token < 256) {
    out[0] = (char)token;
    return 1;
  }
  for (const unsigned char *at = (const unsigned char *)merges[token - 256]; *at != '\0'; at++) {
    if (*at == ' ') continue;
    int character = *at;
    if (character >= 0x80) character = (character & 0x1f) << 6 | (*++at & 0x3f);
    for (int byte = 0; byte < 256; byte++) {
      if (byte_character(byte) == character) out[length++] = (char)byte;
    }
  }
  return length;
}
