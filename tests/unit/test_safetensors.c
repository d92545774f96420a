/* safetensors: files byte for byte as specified, every dtype read exactly, every broken header refused with
 * its reason, and hostile ones quickly and without much memory. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "checkpoints/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unit.h"

#define MEBIBYTE ((size_t)1 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static const char *path;

static int set_up(void **state) {
  (void)temp_dir_set_up(state);
  path = temp_dir_path(*state, "file.safetensors");
  return 0;
}

/* Writes a file of length, header and data. */
static void write_file(const char *header, size_t header_bytes, const void *data, size_t bytes) {
  const uint64_t length = header_bytes;
  char *file = malloc(sizeof length + header_bytes + bytes);
  assert_non_null(file);
  memcpy(file, &length, sizeof length);
  memcpy(file + sizeof length, header, header_bytes);
  if (bytes > 0) memcpy(file + sizeof length + header_bytes, data, bytes);
  temp_file_write(path, file, sizeof length + header_bytes + bytes);
  free(file);
}

static void write_text(const char *header, const void *data, size_t bytes) {
  write_file(header, strlen(header), data, bytes);
}

static void open_file(Safetensors *tensors) {
  Error error = {0};
  expect_ok(safetensors_open(path, tensors, &error), &error);
}

static const SafetensorsEntry *get(const Safetensors *tensors, const char *name) {
  const SafetensorsEntry *entry = safetensors_find(tensors, name);
  if (entry == NULL) fail_msg("no tensor %s", name);
  return entry;
}

/* ---------------------------------------------------------------- writing */

static void test_written_bytes(void **state) {
  (void)state;
  const SafetensorsItem items[] = {{.name = "b", .rank = 2, .shape = {2, 3}},
                                   {.name = "a.weight", .rank = 1, .shape = {1, 1}}};
  const float data[7] = {1, -2, 3.5F, 0, -0.0F, 1e-45F, 7};
  static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,"
                               "3],\"data_offsets\":[0,24]},"
                               "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[24,28]}}";
  SafetensorsWriter writer = SAFETENSORS_WRITER_CLOSED;
  Error error = {0};
  assert_int_equal(safetensors_create(path, items, 2, &writer, &error), STATUS_OK);
  assert_int_equal(safetensors_append(&writer, data, 5, &error), STATUS_OK);
  assert_int_equal(safetensors_append(&writer, data + 5, 2, &error), STATUS_OK);
  assert_int_equal(safetensors_finish(&writer, &error), STATUS_OK);
  /* The header's text, spaces up to a multiple of 8, the data. */
  unsigned char expected[512];
  const uint64_t length = (sizeof header - 1 + 7) / 8 * 8;
  memset(expected, ' ', sizeof expected);
  memcpy(expected, &length, 8);
  memcpy(expected + 8, header, sizeof header - 1);
  memcpy(expected + 8 + length, data, sizeof data);
  const size_t size = 8 + length + sizeof data;
  assert_int_equal(writer.size, size);
  assert_int_equal(writer.crc32, crc32_z(0, expected, size));
  unsigned char got[512];
  FILE *file = fopen(path, "rbe");
  assert_non_null(file);
  assert_int_equal(fread(got, 1, sizeof got, file), size);
  assert_int_equal(fclose(file), 0);
  assert_memory_equal(got, expected, size);
}

static void test_round_trip(void **state) {
  (void)state;
  enum { TENSORS = 300, ELEMENTS = 1000 };
  static char names[TENSORS][24];
  static SafetensorsItem items[TENSORS];
  static uint32_t bits[TENSORS][ELEMENTS];
  static float data[ELEMENTS];
  Random random = {.state = 5};
  SafetensorsWriter writer = SAFETENSORS_WRITER_CLOSED;
  Error error = {0};
  for (int t = 0; t < TENSORS; t++) {
    (void)snprintf(names[t], sizeof names[t], "tensor.%d", t);
    items[t] = (SafetensorsItem){.name = names[t], .rank = 1, .shape = {random_below(&random, ELEMENTS), 1}};
    for (int i = 0; i < ELEMENTS; i++) bits[t][i] = (uint32_t)random_bits(&random);
  }
  assert_int_equal(safetensors_create(path, items, TENSORS, &writer, &error), STATUS_OK);
  for (int t = 0; t < TENSORS; t++) {
    memcpy(data, bits[t], sizeof data);
    assert_int_equal(safetensors_append(&writer, data, items[t].shape[0], &error), STATUS_OK);
  }
  assert_int_equal(safetensors_finish(&writer, &error), STATUS_OK);
  Safetensors tensors = SAFETENSORS_CLOSED;
  open_file(&tensors);
  assert_int_equal(tensors.count, TENSORS);
  for (int t = 0; t < TENSORS; t++) {
    const SafetensorsEntry *entry = get(&tensors, names[t]);
    assert_int_equal(entry->count, items[t].shape[0]);
    const int64_t first = entry->count > 0 ? random_below(&random, entry->count) : 0;
    assert_int_equal(safetensors_read(&tensors, entry, first, entry->count - first, data, &error), STATUS_OK);
    assert_memory_equal(data, bits[t] + first, (size_t)(entry->count - first) * sizeof *data);
  }
  assert_null(safetensors_find(&tensors, "tensor.300"));
  safetensors_close(&tensors);
  safetensors_close(&tensors);
}

static void test_wrong_amount_of_data(void **state) {
  (void)state;
  const SafetensorsItem item = {.name = "a", .rank = 1, .shape = {3, 1}};
  const float data[4] = {0};
  for (int64_t count = 2; count <= 4; count += 2) {
    SafetensorsWriter writer = SAFETENSORS_WRITER_CLOSED;
    Error error = {0};
    assert_int_equal(safetensors_create(path, &item, 1, &writer, &error), STATUS_OK);
    assert_int_equal(safetensors_append(&writer, data, count, &error), STATUS_OK);
    assert_int_equal(safetensors_finish(&writer, &error), STATUS_INTERNAL);
  }
}

/* ---------------------------------------------------------------- reading what others wrote */

static void test_other_writers(void **state) {
  (void)state;
  const float data[6] = {1, 2, 3, 4, 5, 6};
  Safetensors tensors = SAFETENSORS_CLOSED;
  float got[6];
  Error error = {0};
  /* Not aligned, in another order than the data, spaces anywhere, an escaped name, a scalar, empty tensors.
   */
  write_text("{ \"z\" : { \"shape\" : [ 4 ] , \"data_offsets\" : [ 8 , 24 ], \"dtype\" : \"F32\" },\n"
             "\"caf\\u00e9\\\"{\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
             "\"e\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[4,4]},"
             "\"__metadata__\":{\"a\":\"}{\",\"format\":\"pt\"},"
             "\"y\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[4,8]}}  \n ",
             data, sizeof data);
  open_file(&tensors);
  assert_int_equal(tensors.count, 4);
  assert_int_equal(safetensors_read(&tensors, get(&tensors, "z"), 1, 3, got, &error), STATUS_OK);
  assert_memory_equal(got, data + 3, 3 * sizeof *got);
  assert_int_equal(safetensors_read(&tensors, get(&tensors, "caf\xc3\xa9\"{"), 0, 1, got, &error), STATUS_OK);
  assert_true(got[0] == 1);
  assert_int_equal(get(&tensors, "y")->rank, 8);
  assert_int_equal(get(&tensors, "e")->count, 0);
  assert_int_equal(safetensors_read(&tensors, get(&tensors, "e"), 0, 0, got, &error), STATUS_CONFIG);
  assert_non_null(strstr(error.text, "I64"));
  safetensors_close(&tensors);
  write_text("{}", NULL, 0);
  open_file(&tensors);
  assert_int_equal(tensors.count, 0);
  safetensors_close(&tensors);
}

/* A binary16 by its definition. */
static double half_value(unsigned half) {
  const int exponent = (int)(half >> 10) & 0x1f;
  const int mantissa = (int)half & 0x3ff;
  const double sign = half >> 15 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25));
}

static void test_all_halves(void **state) {
  (void)state;
  enum { ALL = 65536 };
  static uint16_t halves[2][ALL];
  static float got[ALL];
  for (int i = 0; i < ALL; i++) halves[0][i] = halves[1][i] = (uint16_t)i;
  write_text("{\"f16\":{\"dtype\":\"F16\",\"shape\":[256,256],\"data_offsets\":[0,131072]},"
             "\"bf16\":{\"dtype\":\"BF16\",\"shape\":[65536],\"data_offsets\":[131072,262144]}}",
             halves, sizeof halves);
  Safetensors tensors = SAFETENSORS_CLOSED;
  Error error = {0};
  open_file(&tensors);
  assert_int_equal(safetensors_read(&tensors, get(&tensors, "f16"), 0, ALL, got, &error), STATUS_OK);
  for (unsigned i = 0; i < ALL; i++) {
    const double expected = half_value(i);
    if (isnan(expected) ? !isnan(got[i])
                        : got[i] != expected || (signbit(got[i]) != 0) != (signbit(expected) != 0)) {
      fail_msg("binary16 %04x became %g", i, (double)got[i]);
    }
  }
  assert_int_equal(safetensors_read(&tensors, get(&tensors, "bf16"), 0, ALL, got, &error), STATUS_OK);
  for (uint32_t i = 0; i < ALL; i++) {
    uint32_t bits = 0;
    memcpy(&bits, &got[i], sizeof bits);
    if (bits != i << 16) fail_msg("bfloat16 %04x became %08x", i, bits);
  }
  /* A part that starts anywhere. */
  assert_int_equal(safetensors_read(&tensors, get(&tensors, "bf16"), 12345, 20000, got, &error), STATUS_OK);
  uint32_t bits = 0;
  memcpy(&bits, &got[19999], sizeof bits);
  assert_int_equal(bits, (uint32_t)(12345 + 19999) << 16);
  safetensors_close(&tensors);
}

/* ---------------------------------------------------------------- broken headers */

typedef struct Broken {
  const char *header;
  size_t data_bytes;
  const char *reason;
} Broken;

#define A(members) "{\"a\":{" members "}}"
#define F32(name, shape, begin, end)                                                                         \
  "\"" name "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end "]}"

static const Broken BROKEN[] = {
    {"", 0, "does not start with {"},
    {" {}", 0, "does not start with {"},
    {"[]", 0, "does not start with {"},
    {"{", 0, "a string in quotes"},
    {"{}x", 0, "follows"},
    {"{}{}", 0, "follows"},
    {"{\"a\"}", 0, "a colon"},
    {"{\"a\"/**/:{}}", 0, "a colon"},
    {"{\"a\":1}", 0, "an object should be here"},
    {"{\"a\":[]}", 0, "an object should be here"},
    {"{\"a", 0, "a string does not end"},
    {"{\"a\\", 0, "a string does not end"},
    {"{\"a\":{", 0, "a string in quotes"},
    {"{\"a\":{]}", 0, "a string in quotes"},
    {"{\"a\":{}", 0, "a string in quotes"},
    {"{" F32("a", "1", "0", "4"), 4, "a comma or }"},
    {"{" F32("a", "1", "0", "4") ",}", 4, "a string in quotes"},
    {"{" F32("a", "1", "0", "4") " " F32("b", "1", "4", "8") "}", 8, "a comma or }"},
    {"{\"\\ud800\":{}}", 0, "the string in front is not valid"},
    {"{\"\\u0000\":{}}", 0, "the string in front is not valid"},
    {"{\"\xff\":{}}", 0, "the string in front is not valid"},
    {"{" F32("a\\u001b]0;b", "1", "0", "4") "}", 4, "control characters"},
    {"{" F32("a\\n", "1", "0", "4") "}", 4, "control characters"},
    {"{" F32("\x7f", "1", "0", "4") "}", 4, "control characters"},
    {"{" F32("a\xc2\x9b", "1", "0", "4") "}", 4, "control characters"},
    {"{" F32("a\\u0080", "1", "0", "4") "}", 4, "control characters"},
    {A("\"dtype\":\"F32\",\"shape\":[1]"), 4, "it lacks dtype"},
    {A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1"), 4, "alone"},
    {A("\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]"), 4, "alone"},
    {A("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, "comes twice"},
    {A("\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, "the dtype in front is unknown"},
    {A("\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]"), 4, "a string in quotes"},
    {A("\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]"), 4, "an array should be here"},
    {"{" F32("a", "-1", "0", "4") "}", 4, "a whole number"},
    {"{" F32("a", "1.0", "0", "4") "}", 4, "a comma or ]"},
    {"{" F32("a", "\"1\"", "0", "4") "}", 4, "a whole number"},
    {"{" F32("a", "1,1,1,1,1,1,1,1,1", "0", "4") "}", 4, "the array is too long"},
    {"{" F32("a", "9223372036854775808", "0", "4") "}", 4, "too large for 64 bits"},
    {"{" F32("a", "01", "0", "4") "}", 4, "a whole number"},
    {"{" F32("a", "1,", "0", "4") "}", 4, "a whole number"},
    {"{" F32("a", "1 1", "0", "4") "}", 4, "a comma or ]"},
    {"{" F32("a", "true", "0", "4") "}", 4, "a whole number"},
    {A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]"), 4, "two data_offsets"},
    {A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],"), 4, "a string in quotes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1", 0, "a comma or ]"},
    {"{" F32("a", "4294967296,4294967296", "0", "0") "}", 0, "too large"},
    {"{" F32("a", "4294967296,4294967296,0", "0", "0") "}", 0, "too large"},
    {"{" F32("a", "4611686018427387904", "0", "0") "}", 0, "do not have one size"},
    {"{" F32("a", "2", "0", "4") "}", 4, "do not have one size"},
    {"{" F32("a", "1", "0", "8") "}", 8, "do not have one size"},
    {"{" F32("a", "1", "4", "0") "}", 4, "outside of the file"},
    {"{" F32("a", "1", "-4", "0") "}", 4, "a whole number"},
    {"{" F32("a", "2", "0", "8") "}", 4, "outside of the file"},
    {"{" F32("a", "1", "9223372036854775803", "9223372036854775807") "}", 4, "outside of the file"},
    {A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]"), 4, "the array is too long"},
    {"{" F32("a", "1", "0", "4") "}", 8, "truncated or has something behind"},
    {"{}", 1, "truncated or has something behind"},
    {"{" F32("a", "1", "4", "8") "}", 8, "a hole in front"},
    {"{" F32("a", "1", "0", "4") "," F32("b", "1", "8", "12") "}", 12, "tensor b: there is a hole"},
    {"{" F32("a", "1", "0", "4") "," F32("b", "1", "0", "4") "}", 4, "overlap"},
    {"{" F32("a", "2", "0", "8") "," F32("b", "1", "4", "8") "}", 8, "overlap"},
    {"{" F32("a", "1", "0", "4") "," F32("a", "1", "4", "8") "}", 8, "described twice"},
    {"{" F32("a", "1", "0", "4") "," F32("\\u0061", "1", "4", "8") "}", 8, "described twice"},
    {"{" F32("a", "0", "0", "0") "," F32("a", "0", "0", "0") "}", 0, "described twice"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "a string in quotes"},
    {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "a string in quotes"},
    {"{\"__metadata__\":{\"a\":[[[1]]]}}", 0, "a string in quotes"},
    {"{\"__metadata__\":{\"a\":\"b\"", 0, "a comma or }"},
    {"{\"__metadata__\":{\"a\":\"b\",\"a\":\"b\"}}", 0, "come twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "comes twice"},
    {"{\"a\":{\"dtype\":[[[1]]]}}", 0, "a string in quotes"},
};

static void check_refused(const char *what, const char *reason) {
  Safetensors tensors = SAFETENSORS_CLOSED;
  Error error = {0};
  const Status status = safetensors_open(path, &tensors, &error);
  if (status != STATUS_DATA || strstr(error.text, reason) == NULL || strstr(error.text, path) == NULL) {
    safetensors_close(&tensors);
    fail_msg("%s\ngave status %d: %s", what, status, error.text);
  }
  assert_null(tensors.entries);
}

static void test_broken_headers(void **state) {
  (void)state;
  static const char zeros[64] = {0};
  for (size_t i = 0; i < sizeof BROKEN / sizeof BROKEN[0]; i++) {
    write_text(BROKEN[i].header, zeros, BROKEN[i].data_bytes);
    check_refused(BROKEN[i].header, BROKEN[i].reason);
  }
}

static void test_short_files(void **state) {
  (void)state;
  enum { LENGTH = 0x40 };
  char good[sizeof(uint64_t) + LENGTH] = {LENGTH, 0, 0, 0, 0, 0, 0, 0, '{'};
  memset(good + sizeof(uint64_t) + 1, ' ', LENGTH - 1);
  for (size_t bytes = 0; bytes < sizeof(uint64_t); bytes++) {
    temp_file_write(path, good, bytes);
    check_refused("a few bytes", "truncated");
  }
  for (size_t bytes = sizeof(uint64_t); bytes < sizeof good; bytes++) {
    temp_file_write(path, good, bytes);
    check_refused("a short header", "does not fit");
  }
  Error error = {0};
  Safetensors tensors = SAFETENSORS_CLOSED;
  assert_int_equal(safetensors_open("/nonexistent/file", &tensors, &error), STATUS_NO_INPUT);
}

/* Every byte of a good header, changed in every bit: refused, or still a header that keeps all promises. */
static void test_every_bit(void **state) {
  (void)state;
  static const char header[] =
      "{\"__metadata__\":{\"format\":\"pt\"}," F32("a", "2,3", "0", "24") "," F32("b", "2", "24", "32") "}";
  char changed[sizeof header];
  static const char zeros[32] = {0};
  for (size_t bit = 0; bit < 8 * (sizeof header - 1); bit++) {
    memcpy(changed, header, sizeof header);
    changed[bit / 8] = (char)(changed[bit / 8] ^ (1 << (bit % 8)));
    write_file(changed, sizeof header - 1, zeros, sizeof zeros);
    Safetensors tensors = SAFETENSORS_CLOSED;
    Error error = {0};
    const Status status = safetensors_open(path, &tensors, &error);
    assert_true(status == STATUS_OK || status == STATUS_DATA);
    int64_t bytes = 0;
    for (int64_t i = 0; i < tensors.count; i++) bytes += tensors.entries[i].end - tensors.entries[i].begin;
    if (status == STATUS_OK) assert_int_equal(bytes, sizeof zeros);
    safetensors_close(&tensors);
  }
}

/* ---------------------------------------------------------------- hostile headers */

/* Refuses the file in a process of its own and checks the processor time and the memory that it took. */
static void check_refused_cheaply(const char *what, const char *reason) {
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    Safetensors tensors = SAFETENSORS_CLOSED;
    Error error = {0};
    struct rusage before;
    struct rusage after;
    (void)getrusage(RUSAGE_SELF, &before);
    const clock_t start = clock();
    const Status status = safetensors_open(path, &tensors, &error);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    (void)getrusage(RUSAGE_SELF, &after);
    const long kibibytes = after.ru_maxrss - before.ru_maxrss;
    const int right = status == STATUS_DATA && strstr(error.text, reason) != NULL;
    const int cheap = SANITIZED || (seconds < 0.1 && kibibytes < 64 * 1024);
    if (!right || !cheap) {
      (void)fprintf(stderr, "%s: %.0f ms, %ld KiB, status %d: %s\n", what, 1e3 * seconds, kibibytes, status,
                    error.text);
    }
    _exit(right && cheap ? 0 : 1);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("%s: see above", what);
}

/* A header of 16 MiB: `start`, `part` as often as it fits, spaces. */
static void write_large(const char *start, const char *part) {
  const size_t bytes = 16 * MEBIBYTE;
  const size_t part_bytes = strlen(part);
  char *header = malloc(bytes);
  assert_non_null(header);
  memset(header, ' ', bytes);
  size_t at = 0;
  for (; start[at] != '\0'; at++) header[at] = start[at];
  for (; at + part_bytes <= bytes; at += part_bytes) {
    for (size_t i = 0; i < part_bytes; i++) header[at + i] = part[i];
  }
  write_file(header, bytes, NULL, 0);
  free(header);
}

/* As many empty tensors as `count`, all of one name or each with its number behind it. */
static void write_many(int count, const char *name, bool numbered) {
  char *header = malloc(16 * MEBIBYTE);
  assert_non_null(header);
  size_t used = 1;
  header[0] = '{';
  for (int i = 0; i < count; i++) {
    char number[16] = "";
    if (numbered) (void)snprintf(number, sizeof number, "%d", i);
    used += (size_t)snprintf(header + used, 128,
                             "\"%s%s\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}%s", name,
                             number, i + 1 < count ? "," : "}");
  }
  write_file(header, used, NULL, 0);
  free(header);
}

static void test_bombs(void **state) {
  (void)state;
  static const uint64_t lengths[] = {UINT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7, (16U << 20) + 1};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    temp_file_write(path, &lengths[i], sizeof lengths[i]);
    check_refused_cheaply("a huge length", "not a safetensors file");
  }
  write_large("{\"a\":", "[");
  check_refused_cheaply("brackets", "an object should be here");
  write_large("", "{\"a\":");
  check_refused_cheaply("deep objects", "alone");
  write_large("{\"a\":{\"shape\":[", "1,");
  check_refused_cheaply("a long shape", "the array is too long");
  write_large("{\"a\":{\"dtype\":\"", "F");
  check_refused_cheaply("a long string", "does not end");
  write_large("{\"", "a");
  check_refused_cheaply("a long name", "does not end");
  write_large("{\"__metadata__\":{", "\"a\":\"\",");
  check_refused_cheaply("large metadata", "come twice");
  write_large("{\"__metadata__\":{\"x\":\"y\",\"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  check_refused_cheaply("a long key", "does not end");
  write_large("{", "\"a\":{},");
  check_refused_cheaply("empty tensors", "a string in quotes");
  write_large("{\"__metadata__\":{\"a\":", "[");
  check_refused_cheaply("deep metadata", "a string in quotes");
  write_large("{", "\"__metadata__\":{},");
  check_refused_cheaply("much metadata", "comes twice");
  write_many(100001, "", true);
  check_refused_cheaply("too many tensors", "more than 100000");
  write_many(100000, "a", false);
  check_refused_cheaply("one name", "described twice");
}

/* What is large but right is read. */
static void test_most_tensors(void **state) {
  (void)state;
  Safetensors tensors = SAFETENSORS_CLOSED;
  write_many(100000, "tensor.", true);
  open_file(&tensors);
  assert_int_equal(tensors.count, 100000);
  assert_non_null(safetensors_find(&tensors, "tensor.99999"));
  safetensors_close(&tensors);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, temp_dir_tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_written_bytes), TEST(test_round_trip), TEST(test_wrong_amount_of_data),
      TEST(test_other_writers), TEST(test_all_halves), TEST(test_broken_headers),
      TEST(test_short_files),   TEST(test_every_bit),  TEST(test_bombs),
      TEST(test_most_tensors),
  };
  return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
