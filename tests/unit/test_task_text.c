/* Samples of needle and passkey: the number is where it belongs and is the answer, what is around it is the
 * shards' text; and each mistake with its message. */
#include "train/task_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer.h"
#include "tests/support/expect.h"
#include "tests/support/shards.h"
#include "tests/support/small_gpt2.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"
#include "train/tasks.h"

static TempDir directory;

static int make_directory(void **state) {
  (void)state;
  directory = temp_dir_create();
  return 0;
}

static int remove_directory(void **state) {
  (void)state;
  temp_dir_remove(&directory);
  return 0;
}

static void *take(size_t count, size_t size) {
  void *memory = calloc(count, size);
  assert_non_null(memory);
  return memory;
}

/* ---------------------------------------------------------------- samples of text */

enum { SHARD_TOKENS = 3000 };

/* A shard of letters: text in which no number and no sentence of a task occurs. */
static const char *write_shard(int32_t *tokens) {
  const char *path = temp_dir_path(&directory, "text.bin");
  for (int64_t i = 0; i < SHARD_TOKENS; i++) tokens[i] = (int32_t)('a' + (i * i + i / 7) % 26);
  shards_write(path, FORM_PLAIN, tokens, SHARD_TOKENS, 2);
  return path;
}

/* The bytes of tokens as a text, to be freed. */
static char *text_of(const char *tokenizer_name, const int32_t *tokens, int64_t count) {
  Tokenizer *tokenizer = NULL;
  char *text = NULL;
  size_t bytes = 0;
  Error error = {0};
  expect_ok(tokenizer_open(tokenizer_name, &tokenizer, &error), &error);
  FILE *stream = open_memstream(&text, &bytes);
  for (int64_t i = 0; i < count; i++) {
    const char *piece = NULL;
    size_t length = 0;
    expect_ok(tokenizer_decode(tokenizer, tokens[i], &piece, &length, &error), &error);
    (void)fwrite(piece, 1, length, stream);
  }
  (void)fclose(stream);
  tokenizer_close(tokenizer);
  return text;
}

static TaskText *open_text(TaskTextKind kind, const char *tokenizer, const char *pattern) {
  const TaskTextOptions options = {
      .kind = kind, .tokenizer = tokenizer, .pattern = pattern, .vocab_size = 400, .seed = 9};
  TaskText *text = NULL;
  Error error = {0};
  expect_ok(task_text_open(&options, &text, &error), &error);
  return text;
}

/* One sample as text: the number is where it belongs and is the answer. Returns the bytes before the
 * sentence.
 */
static int64_t check_sample(TaskText *text, const char *tokenizer, const TaskTextPlace *place,
                            const char *before, size_t digits, char number[16]) {
  Error error = {0};
  int64_t answers = 0;
  int32_t *tokens = take((size_t)place->context + 1, sizeof(int32_t));
  expect_ok(task_text_sample(text, place, tokens, &answers, &error), &error);
  char *answer = text_of(tokenizer, tokens + place->context + 1 - answers, answers);
  char *all = text_of(tokenizer, tokens, place->context + 1);
  const char *digits_at = answer + strspn(answer, " ");
  assert_int_equal(strspn(digits_at, "0123456789"), digits);
  assert_int_equal(strlen(digits_at), digits);
  (void)snprintf(number, 16, "%s", digits_at);
  const char *sentence = strstr(all, before);
  assert_non_null(sentence);
  assert_memory_equal(sentence + strlen(before), number, digits);
  const int64_t position = sentence - all;
  free(all);
  free(answer);
  free(tokens);
  return position;
}

static void test_needle(void **state) {
  (void)state;
  const char *const words = "\nThe number painted on the door of the lighthouse is ";
  int32_t shard[SHARD_TOKENS];
  TaskText *text = open_text(TASK_TEXT_NEEDLE, "bytes", write_shard(shard));
  char numbers[3][16];
  for (int sample = 0; sample < 3; sample++) {
    const int64_t fixed =
        (int64_t)(2 * strlen(words)) + 2 + 14; /* "." and the line end, and the number twice */
    const int64_t filler = 1000 + 1 - fixed;
    for (int64_t row = 0; row < 5; row++) {
      const TaskTextPlace place = {.context = 1000, .sample = sample, .depth = task_depth(row, 5)};
      const int64_t at = check_sample(text, "bytes", &place, words, 7, numbers[sample]);
      assert_int_equal(at, (int64_t)((double)(row * filler) / 4));
    }
  }
  assert_true(strcmp(numbers[0], numbers[1]) != 0 && strcmp(numbers[1], numbers[2]) != 0);
  /* What is around the sentence is one piece of the shard. */
  int32_t tokens[1001];
  int64_t answers = 0;
  Error error = {0};
  const TaskTextPlace place = {.context = 1000, .sample = 0, .depth = 0.25};
  expect_ok(task_text_sample(text, &place, tokens, &answers, &error), &error);
  assert_int_equal(answers, 7);
  const int64_t filler = 1001 - (int64_t)(2 * strlen(words)) - 16;
  const int64_t before = filler / 4;
  const int64_t sentence = (int64_t)strlen(words) + 9;
  memmove(tokens + before, tokens + before + sentence, (size_t)(filler - before) * sizeof *tokens);
  bool found = false;
  for (int64_t i = 0; i + filler <= SHARD_TOKENS; i++) {
    found = found || memcmp(shard + i, tokens, (size_t)filler * sizeof *tokens) == 0;
  }
  assert_true(found);
  task_text_close(text);
}

static void test_passkey(void **state) {
  (void)state;
  small_gpt2_write(&directory, "gpt2", "vocab.json", "merges.txt");
  char gpt2[512];
  (void)snprintf(gpt2, sizeof gpt2, "gpt2:%s", temp_dir_path(&directory, "gpt2"));
  const char *const tokenizers[] = {"bytes", gpt2};
  for (size_t i = 0; i < 2; i++) {
    char numbers[2][16];
    TaskText *text = open_text(TASK_TEXT_PASSKEY, tokenizers[i], "");
    int64_t last = -1;
    for (int64_t row = 0; row < 3; row++) {
      const TaskTextPlace place = {.context = 1500, .sample = 4, .depth = task_depth(row, 3)};
      const int64_t at = check_sample(text, tokenizers[i], &place, " The pass key is ", 5, numbers[row % 2]);
      assert_true(at > last);
      last = at;
    }
    assert_string_equal(numbers[0], numbers[1]);
    task_text_close(text);
  }
}

static void test_text_mistakes(void **state) {
  (void)state;
  int32_t shard[SHARD_TOKENS];
  int32_t tokens[SHARD_TOKENS + 2];
  int64_t answers = 0;
  Error error = {0};
  TaskText *text = open_text(TASK_TEXT_NEEDLE, "bytes", write_shard(shard));
  TaskTextPlace place = {.context = 121, .depth = 0.5};
  expect_ok(task_text_sample(text, &place, tokens, &answers, &error), &error);
  place.context = 120;
  expect_error(task_text_sample(text, &place, tokens, &answers, &error), &error, STATUS_CONFIG,
               "a context of 120 tokens is too short", "121 at least");
  place.context = SHARD_TOKENS + 121;
  int32_t *many = take((size_t)place.context + 1, sizeof(int32_t));
  expect_ok(task_text_sample(text, &place, many, &answers, &error), &error);
  place.context++;
  expect_error(task_text_sample(text, &place, many, &answers, &error), &error, STATUS_DATA,
               "data.val holds 3000 tokens, too few for the 3001", "3122");
  free(many);
  task_text_close(text);
  TaskTextOptions options = {.kind = TASK_TEXT_PASSKEY, .tokenizer = "bytes", .vocab_size = 256};
  expect_error(task_text_open(&options, &text, &error), &error, STATUS_CONFIG,
               "the model knows 256 tokens, but the tokenizer bytes has 257");
  assert_null(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_needle), cmocka_unit_test(test_passkey),
                                     cmocka_unit_test(test_text_mistakes)};
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
