/* Memory of cases: see the header. */
#include "tests/bench/memory.h"

#include <stdlib.h>
#include <string.h>

/* Numbers that are written again and again to fill an array. */
#define TILE_NUMBERS ((int64_t)1 << 20)

struct BenchMemory {
  BenchMemory *next;
  Device *device;
  void *memory;
};

void *bench_zeros(Bench *bench, ElementType device, size_t bytes) {
  if (bench->error.status != STATUS_OK) return NULL;
  BenchMemory *memory = malloc(sizeof *memory);
  if (memory == NULL) {
    (void)fail(&bench->error, STATUS_SYSTEM, "the machine has no memory left");
    return NULL;
  }
  *memory = (BenchMemory){.next = bench->memory, .device = bench->devices[device]};
  if (device_alloc(memory->device, bytes > 0 ? bytes : 1, "the benchmark", &memory->memory, &bench->error) !=
      STATUS_OK) {
    free(memory);
    return NULL;
  }
  bench->memory = memory;
  return memory->memory;
}

void bench_release(Bench *bench) {
  while (bench->memory != NULL) {
    BenchMemory *memory = bench->memory;
    bench->memory = memory->next;
    device_free(memory->device, memory->memory);
    free(memory);
  }
  bench->error = (Error){0};
}

void bench_keep(Bench *bench) {
  while (bench->memory != NULL) {
    BenchMemory *memory = bench->memory;
    bench->memory = memory->next;
    free(memory);
  }
}

/* Numbers in [-1, 1): products of zeros would draw less power and so run faster. */
static void fill(Device *device, bool floats, int64_t count, void *memory) {
  const size_t size = floats ? sizeof(float) : sizeof(uint16_t);
  const int64_t tile = count < TILE_NUMBERS ? count : TILE_NUMBERS;
  char *host = malloc((size_t)tile * size + 1);
  uint32_t random = 1;
  for (int64_t i = 0; host != NULL && i < tile; i++) {
    random = random * 1664525U + 1013904223U;
    const float x = (float)(random >> 8) / 8388608.0F - 1.0F;
    const char *bytes = (const char *)&x;
    /* The upper half of a float is a bf16 number. */
    memcpy(host + (size_t)i * size, floats ? bytes : bytes + 2, size);
  }
  for (int64_t i = 0; host != NULL && i < count; i += tile) {
    const int64_t left = count - i < tile ? count - i : tile;
    device_write(device, (char *)memory + (size_t)i * size, host, (size_t)left * size);
  }
  free(host);
}

elem *bench_elements(Bench *bench, ElementType type, int64_t count) {
  const bool floats = type == ELEMENT_F32;
  elem *memory = bench_zeros(bench, type, (size_t)count * (floats ? sizeof(float) : sizeof(uint16_t)));
  if (memory != NULL) fill(bench->devices[type], floats, count, memory);
  return memory;
}

float *bench_floats(Bench *bench, ElementType device, int64_t count) {
  float *memory = bench_zeros(bench, device, (size_t)count * sizeof(float));
  if (memory != NULL) fill(bench->devices[device], true, count, memory);
  return memory;
}
