/* Preparing text: what is taken, in which order, what is written, and when it is refused. */
#include "data/prepare.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "data/dataset.h"
#include "data/loader.h"
#include "kernels/base/file.h"
#include "tests/support/compressed.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

#define END 256

static PrepareOptions base_options(TempDir *directory, const char *const *paths, size_t count) {
  return (PrepareOptions){.out = temp_dir_path(directory, "out"),
                          .tokenizer = "bytes",
                          .seed = 1,
                          .shard_tokens = PREPARE_SHARD_TOKENS,
                          .paths = paths,
                          .path_count = count};
}

/* All tokens of a split, as text with '|' for the end of a document. The caller frees it. */
static char *read_split(TempDir *directory, const char *split) {
  char name[64];
  Error error = {0};
  Dataset *dataset = NULL;
  (void)snprintf(name, sizeof name, "out/%s", split);
  expect_ok(dataset_open(temp_dir_path(directory, name), 257, &dataset, &error), &error);
  const int64_t count = dataset_tokens(dataset);
  int32_t *tokens = malloc((size_t)count * sizeof *tokens);
  char *text = calloc((size_t)count + 1, 1);
  assert_true(tokens != NULL && text != NULL);
  expect_ok(dataset_read(dataset, 0, count, tokens, &error), &error);
  for (int64_t i = 0; i < count; i++) text[i] = (char)(tokens[i] == END ? '|' : tokens[i]);
  free(tokens);
  dataset_close(dataset);
  return text;
}

static void expect_split(TempDir *directory, const char *split, const char *expected) {
  char *text = read_split(directory, split);
  assert_string_equal(text, expected);
  free(text);
}

static void run(const PrepareOptions *options, Description *description) {
  Error error = {0};
  expect_ok(prepare(options, description, &error), &error);
}

static void test_what_is_taken(void **state) {
  TempDir *directory = *state;
  const char *in = temp_dir_path(directory, "in");
  const char *alone = temp_dir_path(directory, "alone.c");
  const char *const paths[] = {in, alone, in};
  Description description = {0};
  PrepareOptions options = base_options(directory, paths, 3);
  temp_file_write_text(temp_dir_path(directory, "in/b.txt"), "bee");
  temp_file_write_text(temp_dir_path(directory, "in/a.txt"), "ay");
  temp_file_write_text(temp_dir_path(directory, "in/a/z.txt"), "deep");
  temp_file_write_text(temp_dir_path(directory, "in/empty.txt"), "");
  temp_file_write_text(temp_dir_path(directory, "else/where.txt"), "linked");
  temp_file_write_text(alone, "single");
  assert_int_equal(symlink("../else/where.txt", temp_dir_path(directory, "in/link")), 0);
  assert_int_equal(symlink("nowhere", temp_dir_path(directory, "in/broken")), 0);
  assert_int_equal(symlink("loop", temp_dir_path(directory, "in/loop")), 0);
  assert_int_equal(symlink("..", temp_dir_path(directory, "in/a/up")), 0);
  assert_int_equal(mkfifo(temp_dir_path(directory, "in/fifo"), 0600), 0);
  run(&options, &description);
  expect_split(directory, "train", "single|ay|deep|bee|linked|");
  assert_int_equal(description.splits[SPLIT_TRAIN].documents, 5);
  assert_int_equal(description.splits[SPLIT_TRAIN].tokens, 26);
  assert_int_equal(description.splits[SPLIT_TRAIN].bytes, 21);
  assert_int_equal(description.splits[SPLIT_TRAIN].shards, 1);
  assert_int_equal(description.splits[SPLIT_VAL].shards, 0);
}

static void test_suffixes_and_own_output(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {directory->path};
  const char *const suffixes[] = {".h", ".c"};
  Description description = {0};
  PrepareOptions options = base_options(directory, paths, 1);
  options.suffixes = suffixes;
  options.suffix_count = 2;
  temp_file_write_text(temp_dir_path(directory, "x.h"), "x");
  temp_file_write_text(temp_dir_path(directory, "y.c"), "y");
  temp_file_write_text(temp_dir_path(directory, "z.txt"), "z");
  temp_file_write_text(temp_dir_path(directory, "out/old.c"), "not to be taken");
  run(&options, &description);
  expect_split(directory, "train", "x|y|");
  assert_true(file_exists(temp_dir_path(directory, "out/old.c")));
}

/* Twenty documents named after their place in the order. */
static const char *write_documents(TempDir *directory) {
  for (int i = 0; i < 20; i++) {
    char name[32];
    char text[32];
    const int place = i * 7 % 20; /* made in another order */
    (void)snprintf(name, sizeof name, "docs/%c", 'a' + place);
    (void)snprintf(text, sizeof text, "%c", 'a' + place);
    temp_file_write_text(temp_dir_path(directory, name), text);
  }
  return temp_dir_path(directory, "docs");
}

static void test_split(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  const double fractions[] = {0.0, 1e-9, 0.3, 1.0 - 1e-12};
  char first[64] = "";
  for (int i = 0; i < 4; i++) {
    Description description = {0};
    PrepareOptions options = base_options(directory, paths, 1);
    options.val_fraction = fractions[i];
    options.overwrite = true;
    run(&options, &description);
    const SplitDescription *splits = description.splits;
    assert_int_equal(splits[SPLIT_TRAIN].documents + splits[SPLIT_VAL].documents, 20);
    if (i == 0) assert_int_equal(splits[SPLIT_VAL].documents, 0);
    if (i == 1) assert_int_equal(splits[SPLIT_VAL].documents, 1);
    if (i == 2) assert_in_range(splits[SPLIT_VAL].documents, 2, 11);
    if (i == 3) assert_int_equal(splits[SPLIT_TRAIN].documents, 1);
  }
  /* Each document is in exactly one split; another seed draws others. */
  for (uint64_t seed = 1; seed <= 2; seed++) {
    Description description = {0};
    PrepareOptions options = base_options(directory, paths, 1);
    options.val_fraction = 0.5;
    options.overwrite = true;
    options.seed = seed;
    run(&options, &description);
    char *train = read_split(directory, "train");
    char *val = read_split(directory, "val");
    for (int c = 'a'; c < 'a' + 20; c++) assert_true((strchr(train, c) == NULL) != (strchr(val, c) == NULL));
    if (seed == 1) (void)snprintf(first, sizeof first, "%s", val);
    if (seed == 2) assert_string_not_equal(first, val);
    free(train);
    free(val);
  }
}

static void test_one_document_is_for_training(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {temp_dir_path(directory, "only")};
  Description description = {0};
  temp_file_write_text(paths[0], "text");
  for (uint64_t seed = 0; seed < 4; seed++) {
    PrepareOptions options = base_options(directory, paths, 1);
    options.val_fraction = 0.9;
    options.seed = seed;
    options.overwrite = true;
    run(&options, &description);
    expect_split(directory, "train", "text|");
    assert_int_equal(description.splits[SPLIT_VAL].documents, 0);
  }
}

/* Shards are cut at exactly their size, through documents; the stream is the same as in one shard. */
static void test_shard_size(void **state) {
  TempDir *directory = *state;
  const int64_t sizes[] = {1000, 7, 1, 70000};
  char text[150001];
  const char *const paths[] = {temp_dir_path(directory, "in")};
  for (int i = 0; i < 150000; i++) text[i] = (char)('a' + i * (i % 7) % 26);
  text[150000] = '\0';
  for (int i = 0; i < 4; i++) {
    const int length = i == 3 ? 150000 : 60;
    char expected[150008];
    Description description = {0};
    PrepareOptions options = base_options(directory, paths, 1);
    options.shard_tokens = sizes[i];
    options.overwrite = true;
    (void)snprintf(expected, sizeof expected, "%.*s|xyz|", length, text);
    temp_file_write(temp_dir_path(directory, "in/a"), text, (size_t)length);
    temp_file_write_text(temp_dir_path(directory, "in/b"), "xyz");
    run(&options, &description);
    expect_split(directory, "train", expected);
    const int64_t tokens = length + 5;
    assert_int_equal(description.splits[SPLIT_TRAIN].tokens, tokens);
    assert_int_equal(description.splits[SPLIT_TRAIN].shards, (tokens + sizes[i] - 1) / sizes[i]);
  }
}

static void test_gunzip_gives_the_llmc_file(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  const uint8_t numbers[12] = {0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 40, 0, 0, 0}; /* 20240520, 1, 40 */
  Description description = {0};
  size_t bytes = 0;
  const PrepareOptions options = base_options(directory, paths, 1);
  run(&options, &description);
  uint8_t *data = compressed_gunzip(temp_dir_path(directory, "out/train_000000.bin.gz"), &bytes);
  assert_int_equal(bytes, 1024 + 2 * 40);
  assert_memory_equal(data, numbers, sizeof numbers);
  for (int i = 0; i < 20; i++) {
    const uint8_t document[4] = {(uint8_t)('a' + i), 0, 0, 1};
    assert_memory_equal(data + 1024 + 4 * i, document, sizeof document);
  }
  free(data);
}

static void test_the_same_files_give_the_same_set(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  const char *names[] = {"out/train_000000.bin.gz", "out/val_000000.bin.gz.index", "out/dataset.json"};
  uint8_t *before[3];
  size_t bytes[3];
  for (int round = 0; round < 2; round++) {
    Description description = {0};
    PrepareOptions options = base_options(directory, paths, 1);
    options.val_fraction = 0.3;
    options.overwrite = true;
    run(&options, &description);
    for (int i = 0; i < 3; i++) {
      size_t again = 0;
      uint8_t *data = temp_file_read(temp_dir_path(directory, names[i]), &again);
      if (round == 0) {
        before[i] = data;
        bytes[i] = again;
        continue;
      }
      assert_int_equal(again, bytes[i]);
      assert_memory_equal(data, before[i], again);
      free(data);
      free(before[i]);
    }
  }
}

static void test_a_set_is_not_overwritten_unasked(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  Error error = {0};
  Description description = {0};
  PrepareOptions options = base_options(directory, paths, 1);
  options.shard_tokens = 10; /* four shards */
  run(&options, &description);
  options.shard_tokens = 1000;
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, options.out, "already");
  /* Neither are the remains of a preparation that was killed. */
  assert_int_equal(unlink(temp_dir_path(directory, "out/dataset.json")), 0);
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, options.out, "already");
  /* What was there before is gone afterwards, but nothing else. */
  temp_file_write_text(temp_dir_path(directory, "out/train_notes.txt"), "mine");
  options.overwrite = true;
  run(&options, &description);
  assert_true(file_exists(temp_dir_path(directory, "out/train_000000.bin.gz")));
  assert_false(file_exists(temp_dir_path(directory, "out/train_000001.bin.gz")));
  assert_false(file_exists(temp_dir_path(directory, "out/train_000001.bin.gz.index")));
  assert_true(file_exists(temp_dir_path(directory, "out/train_notes.txt")));
  /* Missing input costs the old set nothing. */
  const char *const missing[] = {temp_dir_path(directory, "missing")};
  options.paths = missing;
  expect_error(prepare(&options, &description, &error), &error, STATUS_NO_INPUT, missing[0]);
  assert_true(file_exists(temp_dir_path(directory, "out/dataset.json")));
}

static void test_wrong_options(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {temp_dir_path(directory, "in")};
  Error error = {0};
  Description description = {0};
  const PrepareOptions good = base_options(directory, paths, 1);
  PrepareOptions options = good;
  temp_file_write_text(temp_dir_path(directory, "in/empty"), "");
  expect_error(prepare(&options, &description, &error), &error, STATUS_NO_INPUT, paths[0],
               "no file with text");
  assert_false(file_exists(temp_dir_path(directory, "out/dataset.json")));
  options.val_fraction = 1.0;
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, "[0, 1)");
  options = good;
  options.shard_tokens = 0;
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, "tokens per shard");
  options.shard_tokens = INT64_C(1) << 31;
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, "2147483647");
  options = good;
  options.tokenizer = "words";
  expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, "words");
  options = good;
  options.out = temp_dir_path(directory, "in/empty");
  expect_error(prepare(&options, &description, &error), &error, STATUS_IO, options.out, "not a directory");
  options.out = "";
  expect_error(prepare(&options, &description, &error), &error, STATUS_IO, "No such file");
}

/* What goes wrong once the first document is read. */
typedef struct Accident {
  const char *removed; /* a document that is gone */
  const char *full;    /* a name that leads to a full device; or NULL */
  bool happened;
} Accident;

static void have_accident(void *context, const PrepareProgress *progress) {
  Accident *accident = context;
  (void)progress;
  if (accident->happened) return;
  accident->happened = true;
  if (accident->removed != NULL) assert_int_equal(unlink(accident->removed), 0);
  if (accident->full != NULL) assert_int_equal(symlink("/dev/full", accident->full), 0);
}

/* A failure half-way leaves no shard behind, and the old set as it was. */
static void test_a_failure_costs_the_old_set_nothing(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  const char *kept[] = {"out/train_000000.bin.gz", "out/train_000003.bin.gz.index", "out/dataset.json"};
  Error error = {0};
  Description description = {0};
  PrepareOptions options = base_options(directory, paths, 1);
  options.shard_tokens = 10;
  options.overwrite = true;
  if (!file_exists("/dev/full")) skip();
  for (int round = 0; round < 4; round++) {
    /* First with nothing there, then with a set: the last document is gone, or the index of the third shard
     * cannot be written. */
    const bool full = round % 2 == 0;
    Accident accident = {.removed = full ? NULL : temp_dir_path(directory, "docs/t"),
                         .full = full ? temp_dir_path(directory, "out/.new/train_000002.bin.gz.index.tmp")
                                      : NULL};
    if (round == 2) run(&options, &description);
    char *before = round < 2 ? NULL : read_split(directory, "train");
    PrepareOptions failing = options;
    failing.progress = have_accident;
    failing.context = &accident;
    failing.shard_tokens = full ? 10 : 7;
    const Status status = prepare(&failing, &description, &error);
    if (full) expect_error(status, &error, STATUS_IO, "train_000002", "No space");
    if (!full) expect_error(status, &error, STATUS_NO_INPUT, "docs/t");
    for (int i = 0; i < 3; i++) {
      assert_int_equal(file_exists(temp_dir_path(directory, kept[i])), round >= 2);
    }
    if (round >= 2) expect_split(directory, "train", before);
    free(before);
    assert_false(file_exists(temp_dir_path(directory, "out/.new")));
    temp_file_write_text(temp_dir_path(directory, "docs/t"), "t");
  }
}

/* What a preparation that was killed left is in nobody's way; what is not of a set is not removed. */
static void test_remains_of_a_killed_preparation(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  Error error = {0};
  Description description = {0};
  const PrepareOptions options = base_options(directory, paths, 1);
  temp_file_write_text(temp_dir_path(directory, "out/.new/train_000009.bin.gz"), "half");
  temp_file_write_text(temp_dir_path(directory, "out/.new/train_000009.bin.gz.index.tmp"), "half");
  temp_file_write_text(temp_dir_path(directory, "out/.new/dataset.json"), "half");
  temp_file_write_text(temp_dir_path(directory, "out/.new/dataset.json.tmp"), "half");
  run(&options, &description);
  assert_false(file_exists(temp_dir_path(directory, "out/.new")));
  assert_false(file_exists(temp_dir_path(directory, "out/train_000009.bin.gz")));
  assert_int_equal(description.splits[SPLIT_TRAIN].documents, 20);
  const char *mine = temp_dir_path(directory, "other/.new/mine");
  PrepareOptions other = options;
  other.out = temp_dir_path(directory, "other");
  temp_file_write_text(mine, "text");
  expect_error(prepare(&other, &description, &error), &error, STATUS_IO, "other/.new", "not empty");
  assert_true(file_exists(mine));
}

/* The set that would be replaced is no text, by whatever path it is named. */
static void test_the_set_is_no_input(void **state) {
  TempDir *directory = *state;
  const char *const documents[] = {write_documents(directory)};
  const char *names[] = {"out",
                         "out/../out/.",
                         "linked",
                         "out/train_000000.bin.gz",
                         "out/train_000000.bin.gz.index",
                         "out/dataset.json",
                         "linked/dataset.json",
                         "in/shard"};
  Error error = {0};
  Description description = {0};
  PrepareOptions options = base_options(directory, documents, 1);
  run(&options, &description);
  char *before = read_split(directory, "train");
  temp_file_write_text(temp_dir_path(directory, "in/text"), "text");
  temp_file_write_text(temp_dir_path(directory, "out/mine/text"), "mine");
  assert_int_equal(symlink("out", temp_dir_path(directory, "linked")), 0);
  assert_int_equal(symlink("../out/train_000000.bin.gz", temp_dir_path(directory, "in/shard")), 0);
  options.overwrite = true;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *const paths[] = {documents[0], temp_dir_path(directory, names[i])};
    options.paths = paths;
    options.path_count = 2;
    expect_error(prepare(&options, &description, &error), &error, STATUS_USAGE, paths[1], "another folder");
    expect_split(directory, "train", before);
  }
  /* In a folder a link to it is passed over; other files in the output folder can be named. */
  const char *const paths[] = {temp_dir_path(directory, "in"), temp_dir_path(directory, "out/mine")};
  options.paths = paths;
  run(&options, &description);
  expect_split(directory, "train", "text|mine|");
  free(before);
}

/* One file by several paths is one document: otherwise both splits could hold it. */
static void test_a_file_is_taken_once(void **state) {
  TempDir *directory = *state;
  char dotted[512];
  const char *const paths[] = {dotted, temp_dir_path(directory, "in"), temp_dir_path(directory, "link")};
  Description description = {0};
  const PrepareOptions options = base_options(directory, paths, 3);
  (void)snprintf(dotted, sizeof dotted, "%s/./in", directory->path);
  temp_file_write_text(temp_dir_path(directory, "in/b"), "bee");
  temp_file_write_text(temp_dir_path(directory, "in/c"), "sea");
  assert_int_equal(symlink("in/c", temp_dir_path(directory, "link")), 0);
  assert_int_equal(symlink("c", temp_dir_path(directory, "in/a")), 0);
  assert_int_equal(link(temp_dir_path(directory, "in/b"), temp_dir_path(directory, "in/d")), 0);
  run(&options, &description);
  expect_split(directory, "train", "sea|bee|"); /* by the names a and b */
  assert_int_equal(description.splits[SPLIT_TRAIN].documents, 2);
}

/* Stands before the C library's function: fails when `reads_left` comes to 0. */
static int reads_left = -1;

struct dirent *readdir(DIR *folder) {
  struct dirent *(*real)(DIR *) = NULL;
  /* POSIX lets a function pointer be had from dlsym; C itself does not. */
  void *const symbol = dlsym(RTLD_NEXT, "readdir64");
  memcpy(&real, &symbol, sizeof real);
  if (reads_left > 0 && --reads_left == 0) {
    errno = EIO;
    return NULL;
  }
  return real(folder);
}

/* A folder that cannot be read to its end is not one without a set. */
static void test_folder_that_cannot_be_read(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  Error error = {0};
  Description description = {0};
  const PrepareOptions options = base_options(directory, paths, 1);
  temp_file_write_text(temp_dir_path(directory, "out/train_000000.bin.gz"), "shard");
  reads_left = 1;
  const Status status = prepare(&options, &description, &error);
  reads_left = -1;
  expect_error(status, &error, STATUS_IO, options.out, "Input/output error");
}

/* Also stands before the C library's: notes what was synced. */
static ino_t synced[64];
static size_t synced_count;

int fsync(int descriptor) {
  struct stat info;
  if (fstat(descriptor, &info) == 0) synced[synced_count++ % 64] = info.st_ino;
  return (int)syscall(SYS_fsync, descriptor);
}

static bool was_synced(const char *path) {
  struct stat info;
  bool found = false;
  assert_int_equal(stat(path, &info), 0);
  for (size_t i = 0; i < synced_count && i < 64; i++) found = found || synced[i] == info.st_ino;
  return found;
}

static void test_new_folders_are_durable(void **state) {
  TempDir *directory = *state;
  Error error = {0};
  synced_count = 0;
  expect_ok(file_make_directory(temp_dir_path(directory, "x/y/z/"), &error), &error);
  assert_true(was_synced(directory->path));
  assert_true(was_synced(temp_dir_path(directory, "x")));
  assert_true(was_synced(temp_dir_path(directory, "x/y")));
  synced_count = 0;
  expect_ok(file_make_directory(temp_dir_path(directory, "x/y"), &error), &error);
  assert_int_equal(synced_count, 0);
}

typedef struct Reports {
  int count;
  PrepareProgress last;
} Reports;

static void note_progress(void *context, const PrepareProgress *progress) {
  Reports *reports = context;
  assert_true(progress->documents >= reports->last.documents && progress->tokens >= reports->last.tokens);
  reports->last = *progress;
  reports->count++;
}

static void test_progress(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  Description description = {0};
  Reports reports = {0};
  PrepareOptions options = base_options(directory, paths, 1);
  options.progress = note_progress;
  options.context = &reports;
  run(&options, &description);
  assert_true(reports.count >= 1);
  assert_int_equal(reports.last.documents, 20);
  assert_int_equal(reports.last.documents_total, 20);
  assert_int_equal(reports.last.bytes, 20);
  assert_int_equal(reports.last.bytes_total, 20);
  assert_int_equal(reports.last.tokens, 40);
}

/* Documents larger than what is read at once, one of them a single word for the tokenizer. */
static void test_large_documents(void **state) {
  TempDir *directory = *state;
  const size_t bytes = 3500000;
  const char *const paths[] = {temp_dir_path(directory, "in")};
  Description description = {0};
  PrepareOptions options = base_options(directory, paths, 1);
  char *text = malloc(bytes);
  assert_non_null(text);
  for (size_t i = 0; i < bytes; i++) text[i] = (char)('a' + i % 23);
  temp_file_write(temp_dir_path(directory, "in/a"), text, bytes);
  run(&options, &description);
  char *read = read_split(directory, "train");
  assert_int_equal(strlen(read), bytes + 1);
  assert_memory_equal(read, text, bytes);
  free(read);
  free(text);
}

/* From text to batches. */
static void test_loader_reads_what_was_prepared(void **state) {
  TempDir *directory = *state;
  const char *const paths[] = {write_documents(directory)};
  Error error = {0};
  Description description = {0};
  Loader *loader = NULL;
  const Batch *batch = NULL;
  const PrepareOptions options = base_options(directory, paths, 1);
  run(&options, &description);
  const LoaderOptions reading = {.pattern = temp_dir_path(directory, "out/train"),
                                 .vocab_size = description.vocab_size,
                                 .end_of_document = description.end_of_document,
                                 .documents = true,
                                 .sequence_length = 9,
                                 .micro_batch = 2,
                                 .ring_size = 1,
                                 .data_size = 1,
                                 .read_ahead = 1};
  expect_ok(loader_open(&reading, &loader, &error), &error);
  expect_ok(loader_next(loader, &batch, &error), &error);
  const int32_t second[9] = {END, 'f', END, 'g', END, 'h', END, 'i', END};
  const uint64_t marks[2] = {1 << 2 | 1 << 4 | 1 << 6 | 1 << 8, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7};
  assert_memory_equal(batch->tokens + 9, second, sizeof second);
  assert_memory_equal(batch->document_marks, marks, sizeof marks);
  loader_close(loader);
}

#define IN_TEMP_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_TEMP_DIR(test_what_is_taken),
      IN_TEMP_DIR(test_suffixes_and_own_output),
      IN_TEMP_DIR(test_split),
      IN_TEMP_DIR(test_one_document_is_for_training),
      IN_TEMP_DIR(test_shard_size),
      IN_TEMP_DIR(test_gunzip_gives_the_llmc_file),
      IN_TEMP_DIR(test_the_same_files_give_the_same_set),
      IN_TEMP_DIR(test_a_set_is_not_overwritten_unasked),
      IN_TEMP_DIR(test_wrong_options),
      IN_TEMP_DIR(test_a_failure_costs_the_old_set_nothing),
      IN_TEMP_DIR(test_remains_of_a_killed_preparation),
      IN_TEMP_DIR(test_the_set_is_no_input),
      IN_TEMP_DIR(test_a_file_is_taken_once),
      IN_TEMP_DIR(test_folder_that_cannot_be_read),
      IN_TEMP_DIR(test_new_folders_are_durable),
      IN_TEMP_DIR(test_progress),
      IN_TEMP_DIR(test_large_documents),
      IN_TEMP_DIR(test_loader_reads_what_was_prepared),
  };
  return cmocka_run_group_tests_name("prepare", tests, NULL, NULL);
}
