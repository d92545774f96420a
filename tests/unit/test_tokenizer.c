/* Tokenizers: bytes, and GPT-2's byte-pair encoding against values of Hugging Face's tokenizers (0.23.3). */
#include "data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/utf8.h"
#include "tests/support/expect.h"
#include "tests/support/small_gpt2.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

static Status open_gpt2(TempDir *directory, const char *folder, Tokenizer **out, Error *error) {
  char name[512];
  (void)snprintf(name, sizeof name, "gpt2:%s", temp_dir_path(directory, folder));
  return tokenizer_open(name, out, error);
}

static Tokenizer *make_gpt2(TempDir *directory) {
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  small_gpt2_write(directory, "mini", "vocab.json", "merges.txt");
  expect_ok(open_gpt2(directory, "mini", &tokenizer, &error), &error);
  return tokenizer;
}

/* The tokens of a text given in pieces of `piece` bytes; 0: at once. The caller frees list->tokens. */
static void encode(Tokenizer *tokenizer, const char *text, size_t bytes, size_t piece, TokenList *list) {
  size_t at = 0;
  size_t end = piece == 0 ? bytes : 0;
  *list = (TokenList){0};
  for (bool last = false; !last;) {
    Error error = {0};
    size_t used = 0;
    end = piece == 0 || end + piece > bytes ? bytes : end + piece;
    last = end == bytes;
    char *copy = malloc(end - at + 1); /* of its own, so that sanitizers see a read beyond its end */
    assert_non_null(copy);
    memcpy(copy, text + at, end - at);
    expect_ok(tokenizer_encode(tokenizer, copy, end - at, last, &used, list, &error), &error);
    assert_true(used <= end - at);
    at += used;
    free(copy);
  }
  assert_int_equal(at, bytes);
}

static void expect_text(const TokenList *list, const char *text, size_t bytes) {
  char token[SMALL_GPT2_VOCAB - 1][16];
  size_t lengths[SMALL_GPT2_VOCAB - 1];
  size_t at = 0;
  for (int32_t i = 0; i < SMALL_GPT2_VOCAB - 1; i++) lengths[i] = small_gpt2_token(i, token[i]);
  for (int64_t i = 0; i < list->count; i++) {
    assert_true(list->tokens[i] >= 0 && list->tokens[i] < SMALL_GPT2_VOCAB - 1);
    const size_t length = lengths[list->tokens[i]];
    assert_true(at + length <= bytes);
    assert_memory_equal(token[list->tokens[i]], text + at, length);
    at += length;
  }
  assert_int_equal(at, bytes);
}

static void test_bytes(void **state) {
  (void)state;
  char text[256];
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  TokenList list = {0};
  expect_ok(tokenizer_open("bytes", &tokenizer, &error), &error);
  assert_int_equal(tokenizer->vocab_size, 257);
  assert_int_equal(tokenizer->end_of_document, 256);
  for (int i = 0; i < 256; i++) text[i] = (char)i;
  encode(tokenizer, text, sizeof text, 100, &list);
  assert_int_equal(list.count, 256);
  for (int i = 0; i < 256; i++) assert_int_equal(list.tokens[i], i);
  free(list.tokens);
  tokenizer_close(tokenizer);
  tokenizer_close(NULL);
}

static void test_unknown_name(void **state) {
  (void)state;
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  expect_error(tokenizer_open("byte", &tokenizer, &error), &error, STATUS_USAGE, "\"byte\"", "gpt2:DIR");
  assert_null(tokenizer);
}

/* Words, contractions, numbers, white space in all forms, text beyond ASCII, a special token as plain text.
 */
static void test_gpt2_values(void **state) {
  const struct {
    const char *text;
    int64_t count;
    int32_t tokens[24];
  } cases[] = {
      {"the cat sat on that mat", 9, {257, 101, 281, 276, 256, 311, 280, 32, 300}},
      {"  return the value;\n    return that;", 11, {32, 285, 259, 32, 305, 304, 59, 284, 285, 280, 59}},
      {"it's they'll we've isn't I'D 's", 20, {105, 116, 265, 259, 121, 286, 108, 32, 306, 288,
                                               263, 303, 287, 32,  73,  39,  68,  32, 39,  115}},
      {"in 1999, 2001 and 2024", 12, {105, 110, 313, 57, 44, 277, 289, 32, 296, 100, 277, 291}},
      {"Gr\303\274\303\237e na\303\257ve caf\303\251", 9, {292, 274, 309, 32, 301, 307, 262, 294, 308}},
      {"a  b   \n\n c\t ", 11, {97, 32, 32, 98, 261, 32, 10, 10, 262, 9, 32}},
      {"\346\227\245\346\234\254 \360\237\230\200 \302\275",
       14,
       {230, 151, 165, 230, 156, 172, 32, 240, 159, 152, 128, 32, 194, 189}},
      {"x\302\240y\342\200\203 z\341\240\216 w",
       14,
       {120, 194, 160, 121, 226, 128, 131, 32, 122, 225, 160, 142, 32, 119}},
      {"<|endoftext|>", 13, {60, 124, 101, 110, 100, 111, 102, 116, 101, 120, 116, 124, 62}},
      {"aaatatatthe", 7, {97, 97, 256, 256, 256, 257, 101}},
      {"math path bath 199 20240199 thatathe",
       19,
       {300, 104, 32, 112, 256, 104, 32, 98, 256, 104, 313, 277, 291, 289, 267, 280, 256, 104, 101}}};
  Tokenizer *tokenizer = make_gpt2(*state);
  assert_int_equal(tokenizer->vocab_size, SMALL_GPT2_VOCAB);
  assert_int_equal(tokenizer->end_of_document, SMALL_GPT2_VOCAB - 1);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    for (size_t piece = 0; piece < 12; piece++) {
      TokenList list = {0};
      encode(tokenizer, cases[i].text, strlen(cases[i].text), piece, &list);
      assert_int_equal(list.count, cases[i].count);
      assert_memory_equal(list.tokens, cases[i].tokens, (size_t)list.count * sizeof *list.tokens);
      free(list.tokens);
    }
  }
  tokenizer_close(tokenizer);
}

static void test_other_file_names(void **state) {
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  small_gpt2_write(*state, "old", "encoder.json", "vocab.bpe");
  expect_ok(open_gpt2(*state, "old", &tokenizer, &error), &error);
  tokenizer_close(tokenizer);
}

/* Any bytes at all: nothing is lost, and the tokens do not depend on how the text is cut. */
static void test_invalid_utf8(void **state) {
  const char *alphabet[] = {"the",
                            " that",
                            "'ll",
                            "  \n",
                            "\xff",
                            "\xc3",
                            "\xe2\x80",
                            "\xc3\xa9",
                            "\x80",
                            "2024",
                            "\xf0\x9f\x98\x80",
                            "\xed\xa0\x80",
                            "\xc0\xaf",
                            "\xf4\x90\x80\x80"};
  Tokenizer *tokenizer = make_gpt2(*state);
  uint64_t random = 5;
  for (int i = 0; i < 400; i++) {
    char text[256];
    size_t bytes = 0;
    for (int part = 0; part < 40; part++) {
      random = random * 6364136223846793005U + 1442695040888963407U;
      const char *add = alphabet[(random >> 33) % (sizeof alphabet / sizeof alphabet[0])];
      for (const char *from = add; *from != '\0'; from++) text[bytes++] = *from;
    }
    TokenList whole = {0};
    TokenList cut = {0};
    encode(tokenizer, text, bytes, 0, &whole);
    encode(tokenizer, text, bytes, 1 + (size_t)i % 30, &cut);
    expect_text(&whole, text, bytes);
    assert_int_equal(whole.count, cut.count);
    assert_memory_equal(whole.tokens, cut.tokens, (size_t)whole.count * sizeof *whole.tokens);
    free(whole.tokens);
    free(cut.tokens);
  }
  tokenizer_close(tokenizer);
}

/* ---------------------------------------------------------------- decoding */

/* The bytes of the tokens, one behind the other, are the text that they were made of. */
static void expect_decoded(Tokenizer *tokenizer, const char *text, size_t bytes) {
  TokenList list = {0};
  size_t at = 0;
  encode(tokenizer, text, bytes, 0, &list);
  for (int64_t i = 0; i < list.count; i++) {
    Error error = {0};
    const char *part = NULL;
    size_t length = 0;
    expect_ok(tokenizer_decode(tokenizer, list.tokens[i], &part, &length, &error), &error);
    assert_true(length >= 1 && at + length <= bytes);
    assert_memory_equal(part, text + at, length);
    at += length;
  }
  assert_int_equal(at, bytes);
  free(list.tokens);
}

static void expect_unknown(Tokenizer *tokenizer, int32_t token) {
  Error error = {0};
  const char *part = NULL;
  size_t length = 0;
  char number[32];
  (void)snprintf(number, sizeof number, "no token %d", (int)token);
  expect_error(tokenizer_decode(tokenizer, token, &part, &length, &error), &error, STATUS_DATA, number);
}

/* Texts of all lengths, of any bytes and of words with characters of one to four bytes. */
static void expect_round_trips(Tokenizer *tokenizer) {
  static const char *const words[] = {
      "the", " that", "\n   ", "Gr\303\274\303\237e", "\346\227\245", " \360\237\230\200", "2024", "'ll"};
  uint64_t random = 17;
  for (size_t bytes = 0; bytes < 300; bytes++) {
    char text[600];
    size_t length = 0;
    while (length < bytes) {
      random = random * 6364136223846793005U + 1442695040888963407U;
      if (bytes % 2 == 0) {
        text[length++] = (char)(random >> 40);
        continue;
      }
      for (const char *from = words[random >> 61]; *from != '\0'; from++) text[length++] = *from;
    }
    expect_decoded(tokenizer, text, length);
  }
}

static void expect_end_is_empty(Tokenizer *tokenizer) {
  Error error = {0};
  const char *part = NULL;
  size_t length = 1;
  expect_ok(tokenizer_decode(tokenizer, tokenizer->end_of_document, &part, &length, &error), &error);
  assert_int_equal(length, 0);
  expect_unknown(tokenizer, -1);
  expect_unknown(tokenizer, (int32_t)tokenizer->vocab_size);
  expect_unknown(tokenizer, INT32_MAX);
  expect_unknown(tokenizer, INT32_MIN);
}

static void test_decode_bytes(void **state) {
  (void)state;
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  expect_ok(tokenizer_open("bytes", &tokenizer, &error), &error);
  expect_round_trips(tokenizer);
  expect_end_is_empty(tokenizer);
  tokenizer_close(tokenizer);
}

/* Also every token of the vocabulary alone, whether a text would give it or not. */
static void test_decode_gpt2(void **state) {
  Tokenizer *tokenizer = make_gpt2(*state);
  expect_round_trips(tokenizer);
  expect_end_is_empty(tokenizer);
  for (int32_t token = 0; token < SMALL_GPT2_VOCAB - 1; token++) {
    Error error = {0};
    char expected[16];
    const char *part = NULL;
    size_t length = 0;
    expect_ok(tokenizer_decode(tokenizer, token, &part, &length, &error), &error);
    assert_int_equal(length, small_gpt2_token(token, expected));
    assert_memory_equal(part, expected, length);
  }
  tokenizer_close(tokenizer);
}

/* Tokens that somebody added, with characters that stand for no byte, are their own text. */
static void test_decode_added_tokens(void **state) {
  static const char *const added[] = {"<|im start|>", "\305\277", "\342\202\254", "a\360\237\230\200b"};
  const int32_t count = (int32_t)(sizeof added / sizeof added[0]);
  TempDir *directory = *state;
  small_gpt2_write(directory, "more", "vocab.json", "merges.txt");
  const char *path = temp_dir_path(directory, "more/vocab.json");
  char *text = temp_file_read_text(path);
  char longer[9000];
  int used = snprintf(longer, sizeof longer, "%.*s", (int)(strlen(text) - 1), text);
  for (int32_t i = 0; i < count; i++) {
    used += snprintf(longer + used, sizeof longer - (size_t)used, ", \"%s\": %d", added[i],
                     SMALL_GPT2_VOCAB + (int)i);
  }
  (void)snprintf(longer + used, sizeof longer - (size_t)used, "}");
  temp_file_write_text(path, longer);
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  expect_ok(open_gpt2(directory, "more", &tokenizer, &error), &error);
  for (int32_t i = 0; i < count; i++) {
    const char *part = NULL;
    size_t length = 0;
    expect_ok(tokenizer_decode(tokenizer, SMALL_GPT2_VOCAB + i, &part, &length, &error), &error);
    assert_int_equal(length, strlen(added[i]));
    assert_memory_equal(part, added[i], length);
  }
  tokenizer_close(tokenizer);
  free(text);
}

/* The files of a tokenizer, under one name each, make the same tokenizer again. */
static void test_read_files(void **state) {
  TempDir *directory = *state;
  char name[512];
  Error error = {0};
  TokenizerFiles files;
  Tokenizer *tokenizer = NULL;
  small_gpt2_write(directory, "old", "encoder.json", "vocab.bpe");
  (void)snprintf(name, sizeof name, "gpt2:%s", temp_dir_path(directory, "old"));
  expect_ok(tokenizer_read_files(name, &files, &error), &error);
  assert_int_equal(files.count, 2);
  for (int64_t i = 0; i < files.count; i++) {
    char path[64];
    assert_true(tokenizer_owns_file(files.files[i].name));
    (void)snprintf(path, sizeof path, "new/%s", files.files[i].name);
    temp_file_write(temp_dir_path(directory, path), files.files[i].data, files.files[i].bytes);
  }
  tokenizer_free_files(&files);
  expect_ok(open_gpt2(directory, "new", &tokenizer, &error), &error);
  assert_int_equal(tokenizer->vocab_size, SMALL_GPT2_VOCAB);
  expect_round_trips(tokenizer);
  tokenizer_close(tokenizer);
  expect_ok(tokenizer_read_files("bytes", &files, &error), &error);
  assert_int_equal(files.count, 0);
  assert_int_equal(remove(temp_dir_path(directory, "new/merges.txt")), 0);
  (void)snprintf(name, sizeof name, "gpt2:%s", temp_dir_path(directory, "new"));
  expect_error(tokenizer_read_files(name, &files, &error), &error, STATUS_NO_INPUT, "merges.txt");
  expect_error(tokenizer_read_files("byte", &files, &error), &error, STATUS_USAGE, "\"byte\"");
}

/* Seconds of computing, whatever else the machine does. */
static double cpu_seconds(void) {
  struct timespec now;
  assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The least seconds that a word of `bytes`, of two characters in turn, takes in three trials. */
static double time_word(Tokenizer *tokenizer, const char characters[2], size_t bytes) {
  double least = 1e9;
  char *text = malloc(bytes);
  assert_non_null(text);
  for (size_t i = 0; i < bytes; i++) text[i] = characters[i % 2];
  for (int trial = 0; trial < 3; trial++) {
    TokenList list = {0};
    const double start = cpu_seconds();
    encode(tokenizer, text, bytes, 0, &list);
    const double seconds = cpu_seconds() - start;
    least = seconds < least ? seconds : least;
    if (trial == 0) expect_text(&list, text, bytes);
    free(list.tokens);
  }
  free(text);
  return least;
}

/* Long words take no time that grows with their square: that would be 256 times the work here. */
static void test_long_words(void **state) {
  enum { SHORT_BYTES = 62500, TIMES = 16 };
  Tokenizer *tokenizer = make_gpt2(*state);
  for (int kind = 0; kind < 4; kind++) {
    const char *characters = &"at  9'\xff\xff"[2 * kind];
    const double once = time_word(tokenizer, characters, SHORT_BYTES);
    const double more = time_word(tokenizer, characters, (size_t)TIMES * SHORT_BYTES);
    if (more > 5 * TIMES * once)
      fail_msg("word %d: %d times the bytes take %.1f times the work", kind, TIMES, more / once);
  }
  tokenizer_close(tokenizer);
}

static void test_damaged_files(void **state) {
  TempDir *directory = *state;
  const struct {
    const char *vocabulary; /* NULL: the good one */
    const char *merges;
    Status status;
    const char *text;
  } faults[] = {
      {"{\"a\": 0", NULL, STATUS_DATA, "vocab.json:1: is not JSON"},
      {"[]", NULL, STATUS_DATA, "not a JSON object"},
      {"{\"a\": 0, \"b\": 0}", NULL, STATUS_DATA, "the id of \"b\""},
      {"{\"a\": 0, \"b\": 2}", NULL, STATUS_DATA, "the id of \"b\""},
      {"{\"a\": \"0\"}", NULL, STATUS_DATA, "the id of \"a\""},
      {"{\"a\": 0, \"a\": 1}", NULL, STATUS_DATA, "JSON"},
      {"{\"a\": 0}", NULL, STATUS_DATA, "for the byte 0"},
      {NULL, "#version: 0.2\na t\nx y\n", STATUS_DATA, "merges.txt:3:"},
      {NULL, "a t\nat\n", STATUS_DATA, "merges.txt:2:"},
      {NULL, "a t\n\x01 t\n", STATUS_DATA, "merges.txt:2:"},
  };
  const char *vocabulary = temp_dir_path(directory, "bad/vocab.json");
  const char *list = temp_dir_path(directory, "bad/merges.txt");
  Error error = {0};
  Tokenizer *tokenizer = NULL;
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    small_gpt2_write(directory, "bad", "vocab.json", "merges.txt");
    if (faults[i].vocabulary != NULL) temp_file_write_text(vocabulary, faults[i].vocabulary);
    if (faults[i].merges != NULL) temp_file_write_text(list, faults[i].merges);
    expect_error(open_gpt2(directory, "bad", &tokenizer, &error), &error, faults[i].status, faults[i].text);
    assert_null(tokenizer);
  }
  small_gpt2_write(directory, "bad", "vocab.json", "merges.txt");
  temp_file_write(list, "a\0t\n", 4);
  expect_error(open_gpt2(directory, "bad", &tokenizer, &error), &error, STATUS_DATA, list, "zero byte");
  assert_int_equal(remove(list), 0);
  expect_error(open_gpt2(directory, "bad", &tokenizer, &error), &error, STATUS_NO_INPUT, "merges.txt",
               "vocab.bpe");
  expect_error(open_gpt2(directory, "missing", &tokenizer, &error), &error, STATUS_NO_INPUT, "vocab.json",
               "encoder.json");
}

static void test_utf8(void **state) {
  (void)state;
  const struct {
    const char *text;
    size_t bytes, valid;
  } cases[] = {
      {"", 0, 0},
      {"abc", 3, 3},
      {"\xc2\x80\xdf\xbf", 4, 4},
      {"\xe0\xa0\x80\xef\xbf\xbf", 6, 6},
      {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8, 8},
      {"a\xc3", 2, 1},            /* cut */
      {"a\xe2\x82", 3, 1},        /* cut */
      {"a\xc0\xaf", 3, 1},        /* overlong */
      {"\xe0\x9f\xbf", 3, 0},     /* overlong */
      {"\xf0\x8f\xbf\xbf", 4, 0}, /* overlong */
      {"\xed\x9f\xbf", 3, 3},     /* U+D7FF */
      {"\xed\xa0\x80", 3, 0},     /* a surrogate */
      {"\xf4\x90\x80\x80", 4, 0}, /* U+110000 */
      {"\xf5\x80\x80\x80", 4, 0},
      {"\x80", 1, 0},
      {"\xe2\x28\xa1", 3, 0},
      {"\xf0\x9f\x98\x28", 4, 0},
      {"a\0b", 3, 3},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    assert_int_equal(utf8_valid_prefix(cases[i].text, cases[i].bytes), cases[i].valid);
  }
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bytes),          cmocka_unit_test(test_unknown_name),
      IN_TEMP_DIR(test_gpt2_values),         IN_TEMP_DIR(test_other_file_names),
      IN_TEMP_DIR(test_invalid_utf8),        IN_TEMP_DIR(test_long_words),
      IN_TEMP_DIR(test_damaged_files),       cmocka_unit_test(test_utf8),
      cmocka_unit_test(test_decode_bytes),   IN_TEMP_DIR(test_decode_gpt2),
      IN_TEMP_DIR(test_decode_added_tokens), IN_TEMP_DIR(test_read_files),
  };
  return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
