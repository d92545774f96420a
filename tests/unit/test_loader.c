/* The loader: for every grid the ranks together hold exactly the sequences, their targets and their document
 * starts; a position in the data is one integer; errors come with the batch that meets them. */
#include "data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/file.h"
#include "kernels/ops.h"
#include "tests/support/expect.h"
#include "tests/support/shards.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

#define VOCAB 300
#define END 299

/* A set of three shards, one of each form, and its tokens. */
typedef struct Set {
  const char *pattern;
  int32_t *tokens; /* (count); about one in 20 ends a document */
  int64_t count;
} Set;

static Set make_set(TempDir *directory, int64_t count) {
  const char *names[] = {"s_0.bin", "s_1.bin.gz", "s_2.bin.gz"};
  Set set = {.pattern = temp_dir_path(directory, "s_*"), .count = count};
  set.tokens = shards_tokens(count, VOCAB - 1);
  for (int64_t i = 0; i < count; i++) set.tokens[i] = set.tokens[i] % 20 == 3 ? END : set.tokens[i];
  for (int i = 0; i < 3; i++) {
    const int64_t first = count * i / 3;
    shards_write(temp_dir_path(directory, names[i]), (ShardForm)i, set.tokens + first,
                 count * (i + 1) / 3 - first, 2);
  }
  return set;
}

static LoaderOptions base_options(const Set *set, int64_t sequence_length) {
  return (LoaderOptions){.pattern = set->pattern,
                         .vocab_size = VOCAB,
                         .end_of_document = END,
                         .documents = true,
                         .sequence_length = sequence_length,
                         .micro_batch = 1,
                         .ring_size = 1,
                         .data_size = 1,
                         .seed = 11,
                         .read_ahead = 2};
}

/* What the ranks of a ring together say of one sequence. */
typedef struct Sequence {
  int64_t sample;
  int32_t *tokens;  /* (T) */
  int32_t *targets; /* (T) */
  uint8_t *starts;  /* (T) ranks that say that a document starts here */
  uint8_t *seen;    /* (T) positions that a rank has held */
} Sequence;

static Sequence make_sequence(int64_t length) {
  const size_t size = (size_t)length;
  Sequence sequence = {.sample = -1};
  sequence.tokens = calloc(size, sizeof *sequence.tokens);
  sequence.targets = calloc(size, sizeof *sequence.targets);
  sequence.starts = calloc(size, 1);
  sequence.seen = calloc(size, 1);
  assert_true(sequence.tokens && sequence.targets && sequence.starts && sequence.seen);
  return sequence;
}

static void free_sequence(Sequence *sequence) {
  free(sequence->tokens);
  free(sequence->targets);
  free(sequence->starts);
  free(sequence->seen);
}

/* Adds the share of one rank; what is padding must say so. */
static void add_share(Sequence *sequence, const Batch *batch, int rank, int64_t row) {
  const int64_t length = batch->layout.sequence_length;
  int64_t place = row * batch->layout.local_length;
  assert_true(sequence->sample < 0 || sequence->sample == batch->samples[row]);
  sequence->sample = batch->samples[row];
  for (Run run = {0}; layout_next_run(&batch->layout, row, rank, &run);) {
    for (int64_t position = run.start; position < run.start + run.length; position++, place++) {
      if (position >= length) {
        assert_int_equal(batch->tokens[place], 0);
        assert_int_equal(batch->targets[place], IGNORED_TARGET);
        continue;
      }
      assert_int_equal(sequence->seen[position], 0);
      sequence->seen[position] = 1;
      sequence->tokens[position] = batch->tokens[place];
      sequence->targets[position] = batch->targets[place];
    }
  }
  if (batch->document_marks == NULL) return;
  const Documents documents = batch_documents(batch);
  for (int64_t position = 0; position < length; position++) {
    if (!documents_marked(&documents, row, position)) continue;
    sequence->starts[position] = (uint8_t)(sequence->starts[position] + 1);
  }
}

static void check_sequence(const Sequence *sequence, const Set *set, int64_t length, int informed) {
  const int32_t *truth = set->tokens + sequence->sample * length;
  assert_true((sequence->sample + 1) * length < set->count);
  for (int64_t p = 0; p < length; p++) {
    assert_int_equal(sequence->seen[p], 1);
    assert_int_equal(sequence->tokens[p], truth[p]);
    assert_int_equal(sequence->targets[p], truth[p + 1]);
    assert_int_equal(sequence->starts[p], p > 0 && truth[p - 1] == END ? informed : 0);
  }
}

/* Opens a loader for every rank of a grid; reads `steps` batches of each and checks every sequence. The
 * samples come to samples[(step x data_size + rank) x B + row]. */
static void run_grid(const Set *set, LoaderOptions options, int ring_size, int data_size, int steps,
                     int64_t *samples) {
  Error error = {0};
  const int64_t length = options.sequence_length;
  for (int data_rank = 0; data_rank < data_size; data_rank++) {
    Loader *loaders[8];
    for (int rank = 0; rank < ring_size; rank++) {
      options.ring_rank = rank;
      options.ring_size = ring_size;
      options.data_rank = data_rank;
      options.data_size = data_size;
      expect_ok(loader_open(&options, &loaders[rank], &error), &error);
      assert_int_equal(loader_samples(loaders[rank]), (set->count - 1) / length);
    }
    for (int64_t step = 0; step < steps; step++) {
      const Batch *batches[8];
      for (int rank = 0; rank < ring_size; rank++) {
        expect_ok(loader_next(loaders[rank], &batches[rank], &error), &error);
        assert_int_equal(batches[rank]->sequences, options.micro_batch);
      }
      for (int64_t row = 0; row < options.micro_batch; row++) {
        Sequence sequence = make_sequence(length);
        for (int rank = 0; rank < ring_size; rank++) add_share(&sequence, batches[rank], rank, row);
        check_sequence(&sequence, set, length, options.documents ? ring_size : 0);
        samples[(step * data_size + data_rank) * options.micro_batch + row] = sequence.sample;
        free_sequence(&sequence);
      }
    }
    for (int rank = 0; rank < ring_size; rank++) loader_close(loaders[rank]);
  }
}

static void test_every_grid_holds_the_sequences(void **state) {
  const int rings[] = {1, 2, 3, 4, 8};
  /* Not multiples of 2R, shorter than 2R, one token; 997 runs across the borders of shards. */
  const int64_t lengths[] = {1, 2, 5, 64, 101, 997};
  Set set = make_set(*state, 20011);
  for (size_t r = 0; r < 5; r++) {
    for (int data_size = 1; data_size <= 2; data_size++) {
      for (size_t l = 0; l < 6; l++) {
        int64_t samples[64];
        LoaderOptions options = base_options(&set, lengths[l]);
        options.micro_batch = 2;
        run_grid(&set, options, rings[r], data_size, 4, samples);
        for (int64_t i = 0; i < 4 * data_size * 2; i++) assert_int_equal(samples[i], i);
      }
    }
  }
  free(set.tokens);
}

/* The order of samples does not depend on the grid, and each epoch visits every sample once. */
static void test_epochs_are_permutations(void **state) {
  Set set = make_set(*state, 2400);
  const int64_t per_epoch = 2399 / 53; /* 45 */
  int64_t one[90];
  int64_t grid[90];
  LoaderOptions options = base_options(&set, 53);
  options.shuffle = true;
  run_grid(&set, options, 1, 1, 90, one);
  for (int64_t epoch = 0; epoch < 2; epoch++) {
    uint8_t seen[45] = {0};
    for (int64_t i = 0; i < per_epoch; i++) {
      assert_int_equal(seen[one[epoch * per_epoch + i]], 0);
      seen[one[epoch * per_epoch + i]] = 1;
    }
  }
  assert_memory_not_equal(one, one + per_epoch, (size_t)per_epoch * sizeof *one);
  options.micro_batch = 3;
  run_grid(&set, options, 2, 2, 15, grid);
  assert_memory_equal(one, grid, sizeof one);
  options.seed = 12;
  run_grid(&set, options, 1, 1, 30, grid);
  assert_memory_not_equal(one, grid, sizeof one);
  free(set.tokens);
}

/* A run that resumes after k samples, on whatever grid, goes on with sample k. */
static void test_resuming(void **state) {
  Set set = make_set(*state, 2400);
  int64_t whole[120];
  LoaderOptions options = base_options(&set, 97);
  options.shuffle = true;
  run_grid(&set, options, 1, 1, 120, whole);
  for (int64_t first = 0; first < 60; first++) {
    int64_t samples[12];
    options.first_sample = first;
    options.micro_batch = 1 + first % 3;
    const int data_size = 1 + (int)(first % 2);
    run_grid(&set, options, 1 + (int)(first % 4), data_size, 2, samples);
    assert_memory_equal(samples, whole + first,
                        (size_t)(2 * data_size * options.micro_batch) * sizeof *samples);
  }
  free(set.tokens);
}

/* One long document and many short ones: the ranks still hold exactly the sequences, zigzag is no longer
 * even, and what is chosen instead is. */
static void test_uneven_documents(void **state) {
  enum { LENGTH = 4096, SEQUENCES = 2 };
  Set set = {.pattern = temp_dir_path(*state, "uneven.bin.gz"), .count = 20011};
  set.tokens = calloc((size_t)set.count, sizeof *set.tokens);
  assert_non_null(set.tokens);
  int64_t samples[8];
  LoaderOptions options = base_options(&set, LENGTH);
  options.micro_batch = SEQUENCES;
  for (int64_t i = 0; i < set.count; i++) {
    const bool end = i % LENGTH < 2500 ? i % 50 == 0 : i % LENGTH == 2500;
    set.tokens[i] = end ? END : (int32_t)(i % 251);
  }
  shards_write(set.pattern, FORM_BGZF, set.tokens, set.count, 2);
  for (int ring = 2; ring <= 8; ring *= 2) {
    run_grid(&set, options, ring, 1, 2, samples);
    Loader *loader = NULL;
    const Batch *batch = NULL;
    Balancer balancer;
    Balance zigzag;
    Error error = {0};
    options.ring_size = ring;
    expect_ok(loader_open(&options, &loader, &error), &error);
    expect_ok(loader_next(loader, &batch, &error), &error);
    assert_non_null(batch->layout.chunks);
    const Documents documents = batch_documents(batch);
    expect_ok(balancer_create(&batch->layout, SEQUENCES, 0, &balancer, &error), &error);
    balancer_measure_zigzag(&balancer, &documents, &zigzag);
    assert_true(10 * zigzag.largest * ring > 12 * zigzag.pairs);
    assert_true(10 * batch->balance.largest * ring <= 11 * batch->balance.pairs);
    balancer_free(&balancer);
    loader_close(loader);
  }
  free(set.tokens);
}

/* Without documents their ends are tokens as others, and the layout is zigzag. */
static void test_without_documents(void **state) {
  Set set = make_set(*state, 20011);
  int64_t samples[8];
  LoaderOptions options = base_options(&set, 997);
  options.documents = false;
  options.micro_batch = 2;
  for (int ring = 1; ring <= 8; ring++) run_grid(&set, options, ring, 1, 4, samples);
  free(set.tokens);
}

static int count_documents(const Batch *batch, int64_t row, int64_t length) {
  const Documents documents = batch_documents(batch);
  int count = 0;
  for (Run document = {0}; documents_next(&documents, row, length, &document);) count++;
  return count;
}

static void test_no_end_of_document(void **state) {
  Set set = make_set(*state, 1000);
  Error error = {0};
  Loader *loader = NULL;
  const Batch *batch = NULL;
  LoaderOptions options = base_options(&set, 500);
  options.end_of_document = -1;
  expect_ok(loader_open(&options, &loader, &error), &error);
  expect_ok(loader_next(loader, &batch, &error), &error);
  assert_int_equal(count_documents(batch, 0, 500), 1);
  loader_close(loader);
  free(set.tokens);
}

/* Every position ends a document: there is room for them. */
static void test_documents_of_one_token(void **state) {
  TempDir *directory = *state;
  int32_t tokens[202];
  Error error = {0};
  Loader *loader = NULL;
  const Batch *batch = NULL;
  for (int i = 0; i < 202; i++) tokens[i] = END;
  const Set set = {.pattern = temp_dir_path(directory, "a.bin"), .tokens = tokens, .count = 202};
  shards_write(set.pattern, FORM_PLAIN, tokens, 202, 2);
  LoaderOptions options = base_options(&set, 100);
  options.micro_batch = 2;
  options.ring_size = 4;
  for (options.ring_rank = 0; options.ring_rank < 4; options.ring_rank++) {
    expect_ok(loader_open(&options, &loader, &error), &error);
    expect_ok(loader_next(loader, &batch, &error), &error);
    assert_int_equal(count_documents(batch, 0, 100), 100);
    assert_int_equal(count_documents(batch, 1, 100), 100);
    loader_close(loader);
  }
}

/* Without shuffling the set ends; the good batches before the end still come. */
static void test_end_of_the_set(void **state) {
  Set set = make_set(*state, 1000);
  Error error = {0};
  Loader *loader = NULL;
  const Batch *batch = NULL;
  LoaderOptions options = base_options(&set, 100); /* 9 samples */
  options.micro_batch = 2;
  options.read_ahead = 8;
  expect_ok(loader_open(&options, &loader, &error), &error);
  for (int i = 0; i < 4; i++) {
    expect_ok(loader_next(loader, &batch, &error), &error);
    assert_int_equal(batch->samples[1], 2 * i + 1);
  }
  for (int i = 0; i < 2; i++) {
    expect_error(loader_next(loader, &batch, &error), &error, STATUS_DATA, set.pattern, "sample 9",
                 "holds 9");
    assert_null(batch);
  }
  loader_close(loader);
  free(set.tokens);
}

/* Without documents a damaged block stops the rank that needs it, after the batches before it; the others go
 * on. */
static void test_damage_comes_with_its_batch(void **state) {
  TempDir *directory = *state;
  const int64_t count = 400000;
  const char *path = temp_dir_path(directory, "a.bin.gz");
  Error error = {0};
  size_t bytes = 0;
  int32_t *tokens = shards_tokens(count, VOCAB - 1);
  shards_write(path, FORM_BGZF, tokens, count, 2);
  uint8_t *file = temp_file_read(path, &bytes);
  const uint8_t flipped = file[bytes / 2] ^ 1;
  free(file);
  temp_file_patch(path, bytes / 2, &flipped, 1);
  const Set set = {.pattern = path, .tokens = tokens, .count = count};
  LoaderOptions options = base_options(&set, count - 1);
  int failed = 0;
  options.documents = false;
  options.ring_size = 4; /* chunks of 50,000 tokens: the block of 32,640 lies in those around the middle */
  for (options.ring_rank = 0; options.ring_rank < 4; options.ring_rank++) {
    Loader *loader = NULL;
    const Batch *batch = NULL;
    expect_ok(loader_open(&options, &loader, &error), &error);
    if (loader_next(loader, &batch, &error) != STATUS_OK) {
      expect_error(error.status, &error, STATUS_DATA, path, "byte");
      assert_int_equal(options.ring_rank, 3);
      failed++;
    }
    loader_close(loader);
  }
  assert_int_equal(failed, 1);
  options.sequence_length = 1000;
  options.ring_rank = 0;
  options.ring_size = 1;
  Loader *loader = NULL;
  const Batch *batch = NULL;
  int good = 0;
  expect_ok(loader_open(&options, &loader, &error), &error);
  while (loader_next(loader, &batch, &error) == STATUS_OK) assert_int_equal(batch->samples[0], good++);
  expect_error(error.status, &error, STATUS_DATA, path, "byte");
  assert_true(good > 150 && good < 220);
  loader_close(loader);
  free(tokens);
}

static void test_wrong_sets_and_options(void **state) {
  TempDir *directory = *state;
  Set set = make_set(directory, 100);
  Error error = {0};
  Loader *loader = NULL;
  LoaderOptions options = base_options(&set, 100); /* its last target is missing */
  expect_error(loader_open(&options, &loader, &error), &error, STATUS_DATA, set.pattern, "100 tokens",
               "one sequence of 100");
  options = base_options(&set, 99);
  expect_ok(loader_open(&options, &loader, &error), &error);
  assert_int_equal(loader_samples(loader), 1);
  loader_close(loader);
  options.pattern = temp_dir_path(directory, "nothing_*");
  expect_error(loader_open(&options, &loader, &error), &error, STATUS_NO_INPUT, options.pattern, "no file");
  const LoaderOptions good = base_options(&set, 9);
  for (int fault = 0; fault < 9; fault++) {
    options = good;
    if (fault == 0) options.vocab_size = 0;
    if (fault == 1) options.sequence_length = 0;
    if (fault == 2) options.micro_batch = 0;
    if (fault == 3) options.ring_rank = 1;
    if (fault == 4) options.data_rank = -1;
    if (fault == 5) options.first_sample = -1;
    if (fault == 6) options.read_ahead = 0;
    if (fault == 7) options.data_size = 0;
    if (fault == 8) options.end_of_document = -2;
    expect_error(loader_open(&options, &loader, &error), &error, STATUS_CONFIG, set.pattern, "out of range");
    assert_null(loader);
  }
  options = good;
  options.vocab_size = 200;
  const Batch *batch = NULL;
  expect_ok(loader_open(&options, &loader, &error), &error);
  Status status = STATUS_OK;
  for (int i = 0; i < 10 && status == STATUS_OK; i++) status = loader_next(loader, &batch, &error);
  expect_error(status, &error, STATUS_DATA, "s_0.bin", "vocabulary has 200");
  loader_close(loader);
  loader_close(NULL);
  free(set.tokens);
}

/* Closing while the thread reads, or waits for room, ends it. */
static void test_closing_early(void **state) {
  Set set = make_set(*state, 50000);
  Error error = {0};
  for (int i = 0; i < 40; i++) {
    Loader *loader = NULL;
    const Batch *batch = NULL;
    LoaderOptions options = base_options(&set, 100);
    options.shuffle = true;
    options.read_ahead = 1 + i % 5;
    expect_ok(loader_open(&options, &loader, &error), &error);
    for (int taken = 0; taken < i % 4; taken++) expect_ok(loader_next(loader, &batch, &error), &error);
    loader_close(loader);
  }
  free(set.tokens);
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_TEMP_DIR(test_every_grid_holds_the_sequences),
      IN_TEMP_DIR(test_epochs_are_permutations),
      IN_TEMP_DIR(test_resuming),
      IN_TEMP_DIR(test_uneven_documents),
      IN_TEMP_DIR(test_without_documents),
      IN_TEMP_DIR(test_no_end_of_document),
      IN_TEMP_DIR(test_documents_of_one_token),
      IN_TEMP_DIR(test_end_of_the_set),
      IN_TEMP_DIR(test_damage_comes_with_its_batch),
      IN_TEMP_DIR(test_wrong_sets_and_options),
      IN_TEMP_DIR(test_closing_early),
  };
  return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
