/* A small model for tests of checkpoints. */
#include "tests/support/checkpoint_case.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/philox.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/unit.h"

enum { CASE_RING = 4, CASE_DATA = 2, CASE_THREADS = 3, CASE_SKIPPED = 5 };

#define ENTRY(text, r, rows, columns, turned, first)                                                         \
  {                                                                                                          \
    .name = (text), .rank = (r), .shape = {rows, columns}, .transposed = (turned), .offset = (first),        \
    .count = (rows) * (columns)                                                                              \
  }

static TensorEntry entries[] = {
    ENTRY("transformer.wte.weight", 2, 37, 8, false, 0),
    ENTRY("transformer.wpe.weight", 2, 5, 8, false, 296),
    ENTRY("transformer.h.0.ln_1.weight", 1, 8, 1, false, 336),
    ENTRY("transformer.h.0.attn.c_attn.weight", 2, 24, 8, true, 344),
    ENTRY("transformer.h.0.attn.c_attn.bias", 1, 24, 1, false, 536),
    ENTRY("transformer.h.0.attn.c_proj.weight", 2, 8, 8, true, 560),
    ENTRY("transformer.h.0.mlp.c_fc.weight", 2, 31, 8, true, 624),
    ENTRY("transformer.ln_f.bias", 1, 1, 1, false, 872),
};
#define ENTRY_COUNT ((int64_t)(sizeof entries / sizeof entries[0]))

const TensorTable *case_table(void) {
  static const TensorTable table = {.entries = entries, .size = ENTRY_COUNT, .total = 873};
  return &table;
}

uint32_t case_bits(int64_t number, int kind, int64_t element) {
  uint32_t words[4];
  philox_draw((uint64_t)number, PHILOX_WEIGHTS, (uint32_t)kind, (uint64_t)element, words);
  return words[0];
}

static void fill(float *out, int64_t number, int kind, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const uint32_t bits = case_bits(number, kind, i);
    memcpy(out + (i - begin), &bits, sizeof bits);
  }
}

/* The first element whose bits are not the expected ones, or -1. */
static int64_t find_difference(const float *got, int64_t number, int kind, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    uint32_t bits = 0;
    memcpy(&bits, got + (i - begin), sizeof bits);
    if (bits != case_bits(number, kind, i)) return i;
  }
  return -1;
}

/* ---------------------------------------------------------------- warnings */

static void collect(void *context, const char *text) {
  CaseWarnings *warnings = context;
  if (warnings->count == CASE_MOST_WARNINGS) return;
  (void)snprintf(warnings->text[warnings->count++], sizeof warnings->text[0], "%s", text);
}

CheckpointLog case_log(CaseWarnings *warnings) {
  return (CheckpointLog){.warn = warnings == NULL ? NULL : collect, .context = warnings};
}

bool case_warned(const CaseWarnings *warnings, const char *name, const char *reason) {
  for (int i = 0; i < warnings->count; i++) {
    if (strstr(warnings->text[i], name) != NULL && strstr(warnings->text[i], reason) != NULL) return true;
  }
  return false;
}

/* ---------------------------------------------------------------- saving */

typedef struct SaveRun {
  const CaseSave *save;
  Status statuses[CASE_MOST_RANKS];
  Error errors[CASE_MOST_RANKS];
} SaveRun;

/* One range: equal shares, or one rank holds all but one element of each other. */
static CheckpointRange moments_range(const CaseSave *save, int64_t total, int rank) {
  CheckpointRange range;
  const int64_t behind = save->ranks - 1 - save->greedy_rank;
  if (save->greedy_rank < 0) {
    comm_part(total, rank, save->ranks, &range.begin, &range.end);
    return range;
  }
  range.begin = rank <= save->greedy_rank ? rank : total - behind + (rank - save->greedy_rank - 1);
  range.end = rank < save->greedy_rank ? rank + 1 : total - behind + (rank - save->greedy_rank);
  return range;
}

/* Two ranges: the first `cut` elements and the others are shared out one by one. */
static void moments_pieces(int64_t total, int64_t cut, int rank, int ranks, CheckpointRange ranges[2]) {
  comm_part(cut, rank, ranks, &ranges[0].begin, &ranges[0].end);
  comm_part(total - cut, rank, ranks, &ranges[1].begin, &ranges[1].end);
  ranges[1].begin += cut;
  ranges[1].end += cut;
}

static int64_t ranges_length(const CheckpointRange *ranges, int64_t count) {
  int64_t length = 0;
  for (int64_t i = 0; i < count; i++) length += ranges[i].end - ranges[i].begin;
  return length;
}

static void fill_ranges(float *out, int64_t number, int kind, const CheckpointRange *ranges, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    fill(out, number, kind, ranges[i].begin, ranges[i].end);
    out += ranges[i].end - ranges[i].begin;
  }
}

static Status save_rank(TestRank *rank, void *context, Error *error) {
  SaveRun *run = context;
  const CaseSave *save = run->save;
  const TensorTable *table = case_table();
  const CheckpointLog log = case_log(rank->world->rank == 0 ? save->warnings : NULL);
  const CheckpointManifest manifest = {.step = save->step,
                                       .tokens = save->number,
                                       .skipped_steps = CASE_SKIPPED,
                                       .skipped_in_a_row = 1,
                                       .ring = CASE_RING,
                                       .data = CASE_DATA,
                                       .threads = CASE_THREADS,
                                       .transport = "local"};
  CheckpointState state = {.table = table, .model_config = "{}\n", .run_config = "run:\n"};
  CheckpointRange ranges[2];
  state.ranges = ranges;
  state.range_count = save->in_pieces ? 2 : 1;
  ranges[0] = moments_range(save, table->total, rank->world->rank);
  if (save->in_pieces) moments_pieces(table->total, table->total / 2, rank->world->rank, save->ranks, ranges);
  const int64_t length = ranges_length(ranges, state.range_count);
  float *values = calloc((size_t)(table->total + 2 * length), sizeof *values);
  if (values == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  float *m = values + table->total;
  float *v = m + length;
  fill_ranges(m, save->number, 1, ranges, state.range_count);
  fill_ranges(v, save->number, 2, ranges, state.range_count);
  state.m = m;
  state.v = v;
  /* Only rank 0's weights and texts count. */
  if (rank->world->rank == 0) {
    fill(values, save->number, 0, 0, table->total);
    state.weights = values;
  } else {
    state.model_config = NULL;
    state.run_config = NULL;
  }
  const int me = rank->world->rank;
  run->statuses[me] =
      checkpoint_save(save->directory, save->keep, &manifest, &state, &log, rank->world, &run->errors[me]);
  free(values);
  return STATUS_OK;
}

Status case_save(const CaseSave *save, Error *error) {
  SaveRun *run = calloc(1, sizeof *run);
  assert_non_null(run);
  run->save = save;
  const Status ran = run_ranks(save->ranks, 1, 1, save_rank, run, error);
  expect_ok(ran, error);
  for (int rank = 1; rank < save->ranks; rank++) {
    assert_int_equal(run->statuses[rank], run->statuses[0]);
    assert_string_equal(run->errors[rank].text, run->errors[0].text);
  }
  const Status status = run->statuses[0];
  if (status != STATUS_OK) *error = run->errors[0];
  free(run);
  return status;
}

void case_save_step(const char *directory, int ranks, int64_t step) {
  Error error = {0};
  const CaseSave save = {.directory = directory,
                         .ranks = ranks,
                         .keep = 2,
                         .step = step,
                         .number = 10 * step,
                         .greedy_rank = -1};
  expect_ok(case_save(&save, &error), &error);
}

/* ---------------------------------------------------------------- loading */

static Status check_manifest(const CheckpointManifest *manifest, Error *error) {
  const bool right = manifest->skipped_steps == CASE_SKIPPED && manifest->skipped_in_a_row == 1 &&
                     manifest->ring == CASE_RING && manifest->data == CASE_DATA &&
                     manifest->threads == CASE_THREADS && strcmp(manifest->transport, "local") == 0 &&
                     manifest->parameters == case_table()->total && manifest->tensors == ENTRY_COUNT &&
                     manifest->model_crc32 == manifest_model_crc32(case_table()) && manifest->time > 0;
  if (right) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "the manifest of step %lld came back with other numbers",
              (long long)manifest->step);
}

typedef struct LoadRun {
  const char *path;
  const TensorTable *table;
  bool check; /* whether the contents must be those of case_bits */
} LoadRun;

static Status check_contents(const CheckpointTarget *target, int64_t number, Error *error) {
  const float *m = target->m;
  const float *v = target->v;
  int64_t difference = find_difference(target->weights, number, 0, 0, target->table->total);
  for (int64_t i = 0; i < target->range_count && difference < 0; i++) {
    const CheckpointRange range = target->ranges[i];
    difference = find_difference(m, number, 1, range.begin, range.end);
    if (difference < 0) difference = find_difference(v, number, 2, range.begin, range.end);
    m += range.end - range.begin;
    v += range.end - range.begin;
  }
  if (difference < 0) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "element %lld came back with other bits", (long long)difference);
}

/* Each rank asks for two pieces; those of the last one begin at 0. */
static Status load_rank(TestRank *rank, void *context, Error *error) {
  const LoadRun *run = context;
  CheckpointTarget target = {.table = run->table};
  const int64_t total = target.table->total;
  const int me = rank->world->rank;
  Checkpoint found;
  Status status = STATUS_OK;
  float *values = calloc((size_t)(3 * total), sizeof *values);
  if (values == NULL) return fail(error, STATUS_SYSTEM, "no memory");
  CheckpointRange ranges[2];
  moments_pieces(total, total / 3, me, rank->world->size, ranges);
  if (me == rank->world->size - 1) ranges[0].begin = 0;
  target.ranges = ranges;
  target.range_count = 2;
  target.weights = values;
  target.m = values + total;
  target.v = values + 2 * total;
  TRY_GOTO(checkpoint_open(run->path, rank->world, &found, error), release);
  TRY_GOTO(checkpoint_load(&found, &target, rank->world, error), release);
  if (!run->check) goto release;
  TRY_GOTO(check_manifest(&found.manifest, error), release);
  TRY_GOTO(check_contents(&target, found.manifest.tokens, error), release);
release:
  free(values);
  return status;
}

Status case_load(const char *path, int ranks, Error *error) {
  LoadRun run = {.path = path, .table = case_table(), .check = true};
  return run_ranks(ranks, 1, 1, load_rank, &run, error);
}

Status case_load_table(const char *path, int ranks, const TensorTable *table, Error *error) {
  LoadRun run = {.path = path, .table = table};
  return run_ranks(ranks, 1, 1, load_rank, &run, error);
}

Status case_find(const char *directory, CaseWarnings *warnings, Checkpoint *found, Error *error) {
  Comm *world = NULL;
  const CheckpointLog log = case_log(warnings);
  TRY(comm_local_create(1, &world, error));
  const Status status = checkpoint_find(directory, &log, world, found, error);
  comm_destroy(world);
  return status;
}

/* ---------------------------------------------------------------- paths */

char *case_path(const char *directory, int64_t step, const char *file) {
  char *path = NULL;
  const int length = asprintf(&path, "%s/step_%08lld%s%s", directory, (long long)step,
                              file[0] == '\0' || file[0] == '.' ? "" : "/", file);
  assert_true(length > 0);
  return path;
}

int case_entries(const char *directory) {
  int count = 0;
  DIR *stream = opendir(directory);
  if (stream == NULL) return 0;
  for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) count++;
  }
  (void)closedir(stream);
  return count;
}
