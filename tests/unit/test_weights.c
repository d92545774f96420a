/* Files of weights: orientation and names as Hugging Face has them, and what is accepted and refused from
 * files that others made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/safetensors.h"
#include "checkpoints/weights.h"
#include "tests/support/checkpoint_case.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

enum { EMBEDDING = 6 };

/* A model of two tensors, and a third for an untied head. */
static TensorEntry entries[] = {
    {.name = "transformer.wte.weight", .rank = 2, .shape = {3, 2}, .count = 6},
    {.name = "transformer.h.0.mlp.c_fc.weight",
     .rank = 2,
     .shape = {3, 2},
     .transposed = true,
     .offset = 6,
     .count = 6},
    {.name = "lm_head.weight", .rank = 2, .shape = {3, 2}, .offset = 12, .count = 6}};
static const TensorTable tied = {.entries = entries, .size = 2, .total = 12};
static const TensorTable untied = {.entries = entries, .size = 3, .total = 18};

/* In memory; in a file the second tensor is {7, 9, 11, 8, 10, 12}. */
static const float MEMORY[18] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
static const float FILE_DATA[18] = {1, 2, 3, 4, 5, 6, 7, 9, 11, 8, 10, 12, 13, 14, 15, 16, 17, 18};

/* Writes model.safetensors in the directory. */
static void write_model(TempDir *directory, const char *header, const void *data, size_t bytes) {
  const char *path = temp_dir_path(directory, "model.safetensors");
  const uint64_t length = strlen(header);
  FILE *file = fopen(path, "wbe");
  assert_non_null(file);
  assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
  assert_int_equal(fwrite(header, 1, length, file), length);
  assert_int_equal(fwrite(data, 1, bytes, file), bytes);
  assert_int_equal(fclose(file), 0);
}

typedef struct LoadRun {
  const char *path;
  const TensorTable *table;
} LoadRun;

static Status load_rank(TestRank *rank, void *context, Error *error) {
  const LoadRun *run = context;
  float got[18] = {0};
  TRY(checkpoint_load_weights(run->path, run->table, got, rank->world, error));
  if (memcmp(got, MEMORY, (size_t)run->table->total * sizeof *got) == 0) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "%s: other weights came back", run->path);
}

static Status load(const char *path, const TensorTable *table, int ranks, Error *error) {
  LoadRun run = {.path = path, .table = table};
  return run_ranks(ranks, 1, 1, load_rank, &run, error);
}

static void check_loads(const char *path, const TensorTable *table) {
  for (int ranks = 1; ranks <= 3; ranks++) {
    Error error = {0};
    expect_ok(load(path, table, ranks, &error), &error);
  }
}

static void check_refused(const char *path, const TensorTable *table, Status expected, const char *text) {
  for (int ranks = 1; ranks <= 2; ranks++) {
    Error error = {0};
    const Status status = load(path, table, ranks, &error);
    if (status != expected || strstr(error.text, text) == NULL) fail_msg("status %d: %s", status, error.text);
  }
}

/* ---------------------------------------------------------------- own files */

static void test_orientation(void **state) {
  TempDir *temp = *state;
  const char *path = temp_dir_path(temp, "model.safetensors");
  ManifestFile file = {0};
  Error error = {0};
  float got[6];
  Safetensors tensors = SAFETENSORS_CLOSED;
  assert_int_equal(weights_write(path, &tied, MEMORY, &file, &error), STATUS_OK);
  assert_int_equal(safetensors_open(path, &tensors, &error), STATUS_OK);
  const SafetensorsEntry *entry = safetensors_find(&tensors, "transformer.h.0.mlp.c_fc.weight");
  assert_non_null(entry);
  assert_int_equal(entry->shape[0], 2);
  assert_int_equal(entry->shape[1], 3);
  assert_int_equal(safetensors_read(&tensors, entry, 0, 6, got, &error), STATUS_OK);
  assert_memory_equal(got, FILE_DATA + 6, sizeof got);
  safetensors_close(&tensors);
  check_loads(path, &tied);
  check_loads(temp->path, &tied);
}

/* Matrices larger than the blocks in which they are turned, and rows longer than a block. */
static void test_large_transposed(void **state) {
  TempDir *temp = *state;
  static const int64_t shapes[][2] = {{1200, 700}, {300000, 3}, {3, 300000}, {1, 1}, {524288, 1}};
  const char *path = temp_dir_path(temp, "model.safetensors");
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
    const int64_t outputs = shapes[s][0];
    const int64_t inputs = shapes[s][1];
    const int64_t count = outputs * inputs;
    TensorEntry entry = {
        .name = "a", .rank = 2, .shape = {outputs, inputs}, .transposed = true, .count = count};
    const TensorTable table = {.entries = &entry, .size = 1, .total = count};
    float *memory = malloc((size_t)count * sizeof *memory);
    float *got = malloc((size_t)count * sizeof *got);
    assert_true(memory != NULL && got != NULL);
    for (int64_t i = 0; i < count; i++) memory[i] = (float)i;
    ManifestFile file;
    Safetensors tensors = SAFETENSORS_CLOSED;
    Error error = {0};
    assert_int_equal(weights_write(path, &table, memory, &file, &error), STATUS_OK);
    assert_int_equal(safetensors_open(path, &tensors, &error), STATUS_OK);
    assert_int_equal(safetensors_read(&tensors, &tensors.entries[0], 0, count, got, &error), STATUS_OK);
    safetensors_close(&tensors);
    int64_t wrong = 0;
    for (int64_t o = 0; o < outputs; o++) {
      for (int64_t i = 0; i < inputs; i++) wrong += got[i * outputs + o] != memory[o * inputs + i];
    }
    assert_int_equal(wrong, 0);
    memset(got, 0, (size_t)count * sizeof *got);
    assert_int_equal(weights_read(path, &table, got, &error), STATUS_OK);
    assert_memory_equal(got, memory, (size_t)count * sizeof *got);
    free(got);
    free(memory);
  }
}

/* Of a checkpoint only the model file must be whole. */
static void test_from_checkpoint(void **state) {
  const TempDir *temp = *state;
  case_save_step(temp->path, 2, 1);
  char *directory = case_path(temp->path, 1, "");
  char *model = case_path(temp->path, 1, "model.safetensors");
  char *optimizer = case_path(temp->path, 1, "optimizer-00000-of-00002.safetensors");
  float got[1024];
  uint32_t bits[1024];
  Comm *world = NULL;
  Error error = {0};
  assert_int_equal(comm_local_create(1, &world, &error), STATUS_OK);
  assert_int_equal(unlink(optimizer), 0);
  assert_int_equal(checkpoint_load_weights(directory, case_table(), got, world, &error), STATUS_OK);
  for (int64_t i = 0; i < case_table()->total; i++) bits[i] = case_bits(10, 0, i);
  assert_memory_equal(got, bits, (size_t)case_table()->total * sizeof *got);
  /* Zeros in place of the last weight, which only the manifest's checksum can notice. */
  assert_int_equal(truncate(model, 0), 0);
  ManifestFile file;
  memset(got, 0, sizeof got);
  assert_int_equal(weights_write(model, case_table(), got, &file, &error), STATUS_OK);
  assert_int_equal(checkpoint_load_weights(directory, case_table(), got, world, &error), STATUS_DATA);
  assert_non_null(strstr(error.text, "model.safetensors: damaged"));
  comm_destroy(world);
  free(optimizer);
  free(model);
  free(directory);
}

/* ---------------------------------------------------------------- files of others */

#define ENTRY(name, dtype, shape, begin, end)                                                                \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end "]}"
#define WTE ENTRY("transformer.wte.weight", "F32", "3,2", "0", "24")
#define FC ENTRY("transformer.h.0.mlp.c_fc.weight", "F32", "2,3", "24", "48")

static void test_names_without_prefix(void **state) {
  TempDir *temp = *state;
  write_model(temp,
              "{" ENTRY("wte.weight", "F32", "3,2", "0", "24") "," ENTRY("h.0.mlp.c_fc.weight", "F32", "2,3",
                                                                         "24", "48") "}",
              FILE_DATA, 48);
  check_loads(temp->path, &tied);
  write_model(temp, "{" ENTRY("wte.weight", "F32", "3,2", "0", "24") "," FC "}", FILE_DATA, 48);
  check_loads(temp->path, &tied);
  /* Both names for one tensor are one too many. */
  write_model(temp, "{" WTE "," FC "," ENTRY("wte.weight", "F32", "3,2", "48", "72") "}", FILE_DATA, 72);
  check_refused(temp->path, &tied, STATUS_CONFIG,
                "tensor wte.weight, which the model of the configuration lacks");
}

static void test_half_precision(void **state) {
  TempDir *temp = *state;
  uint16_t halves[12];
  for (int i = 0; i < 6; i++) {
    uint32_t bits = 0;
    memcpy(&bits, &FILE_DATA[i], sizeof bits);
    halves[i] = (uint16_t)(bits >> 16);
    memcpy(&bits, &FILE_DATA[6 + i], sizeof bits);
    halves[6 + i] = (uint16_t)((((bits >> 23) - 112) << 10) | ((bits >> 13) & 0x3ff));
  }
  write_model(temp,
              "{" ENTRY("transformer.wte.weight", "BF16", "3,2", "0",
                        "12") "," ENTRY("transformer.h.0.mlp.c_fc.weight", "F16", "2,3", "12", "24") "}",
              halves, sizeof halves);
  check_loads(temp->path, &tied);
  write_model(temp,
              "{" ENTRY("transformer.wte.weight", "I16", "3,2", "0",
                        "12") "," ENTRY("transformer.h.0.mlp.c_fc.weight", "F16", "2,3", "12", "24") "}",
              halves, sizeof halves);
  check_refused(temp->path, &tied, STATUS_CONFIG, "transformer.wte.weight has dtype I16");
}

static void test_buffers(void **state) {
  TempDir *temp = *state;
  float data[15];
  memcpy(data, FILE_DATA, 12 * sizeof *data);
  data[12] = data[13] = data[14] = 99;
  write_model(temp,
              "{" WTE "," FC "," ENTRY("h.0.attn.bias", "F32", "1,1,1,1", "48", "52") "," ENTRY(
                  "transformer.h.0.attn.masked_bias", "F32", "", "52",
                  "56") "," ENTRY("model.layers.0.self_attn.rotary_emb.inv_freq", "U8", "4", "56", "60") "}",
              data, sizeof data);
  check_loads(temp->path, &tied);
  write_model(temp, "{" WTE "," FC "," ENTRY("h.0.attn.c_attn.bias", "F32", "1", "48", "52") "}", data, 52);
  check_refused(temp->path, &tied, STATUS_CONFIG, "h.0.attn.c_attn.bias");
}

static void test_tied_head(void **state) {
  TempDir *temp = *state;
  float data[18];
  memcpy(data, FILE_DATA, sizeof data);
  write_model(temp, "{" WTE "," FC "}", data, 48);
  check_loads(temp->path, &tied);
  check_refused(temp->path, &untied, STATUS_CONFIG, "has no tensor lm_head.weight");
#define WITH_HEAD "{" WTE "," FC "," ENTRY("lm_head.weight", "F32", "3,2", "48", "72") "}"
  write_model(temp, WITH_HEAD, data, sizeof data);
  check_loads(temp->path, &untied);
  check_refused(temp->path, &tied, STATUS_CONFIG, "model.tie_word_embeddings");
  for (int i = 0; i < EMBEDDING; i++) data[12 + i] = data[i];
  write_model(temp, WITH_HEAD, data, sizeof data);
  check_loads(temp->path, &tied);
  data[17] = 7;
  write_model(temp, WITH_HEAD, data, sizeof data);
  check_refused(temp->path, &tied, STATUS_CONFIG, "model.tie_word_embeddings");
}

static void test_not_a_model(void **state) {
  TempDir *temp = *state;
  const char *missing = temp_dir_path(temp, "missing");
  const char *index = temp_dir_path(temp, "model.safetensors.index.json");
  const char *text = temp_dir_path(temp, "notes.safetensors");
  check_refused(missing, &tied, STATUS_NO_INPUT, "missing: cannot be opened");
  check_refused(temp->path, &tied, STATUS_NO_INPUT, "model.safetensors: cannot be opened");
  temp_file_write_text(index, "{}");
  check_refused(temp->path, &tied, STATUS_NO_INPUT, "split over several files");
  temp_file_write_text(text, "This is not a file of tensors.");
  check_refused(text, &tied, STATUS_DATA, "not a safetensors file");
  write_model(temp, "{" WTE "}", FILE_DATA, 24);
  check_refused(temp->path, &tied, STATUS_CONFIG, "has no tensor transformer.h.0.mlp.c_fc.weight");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_dir_set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_orientation),     TEST(test_large_transposed),
      TEST(test_from_checkpoint), TEST(test_names_without_prefix),
      TEST(test_half_precision),  TEST(test_buffers),
      TEST(test_tied_head),       TEST(test_not_a_model),
  };
  return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
