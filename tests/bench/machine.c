/* The devices that are measured: see the header. */
#include "tests/bench/machine.h"

#include "kernels/base/clock.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/load.h"
#include "tests/bench/memory.h"
#include "tests/bench/peaks.h"

/* What a run with messages under way does at least. */
static void read_clock(void *context) {
  *(volatile double *)context = clock_seconds();
}

static Status create_cpu(Bench *bench, int threads, ElementType type, Device **device, Error *error) {
  TRY(cpu_device_create(threads, type, device, error));
  (*device)->poll = read_clock;
  (*device)->poll_context = &bench->polled_at;
  return STATUS_OK;
}

static Status create(Bench *bench, ElementType type, Error *error) {
  if (bench->cuda) return cuda_device_create(bench->index, type, &bench->devices[type], error);
  TRY(create_cpu(bench, bench->threads, type, &bench->devices[type], error));
  return bench->threads > 1 ? create_cpu(bench, 1, type, &bench->alone[type], error) : STATUS_OK;
}

static Status open_all(Bench *bench, int units, Error *error) {
  for (int type = ELEMENT_F32; type <= ELEMENT_BF16; type++) {
    Error missing = {0};
    const Status status = create(bench, (ElementType)type, &missing);
    if (status != STATUS_OK && (bench->cuda || type == ELEMENT_F32))
      return fail(error, status, "%s", missing.text);
    if (status != STATUS_OK) {
      printf("%s: left out: %s\n", bench_type_name((ElementType)type), missing.text);
      continue;
    }
    printf("%s: %s%s\n", bench_type_name((ElementType)type), bench->devices[type]->summary,
           bench->quick ? "; tiny sizes: the figures mean nothing" : "");
    TRY(device_alloc(bench->devices[type], sizeof(uint32_t), "the benchmark", &bench->words[type], error));
  }
  /* Processes share the cores: nothing is held against a peak. */
  return bench->processes == NULL ? peaks_open(bench, units, error) : STATUS_OK;
}

Status machine_open(Bench *bench, int units, Error *error) {
  const Status status = open_all(bench, units, error);
  if (status != STATUS_OK) machine_close(bench);
  return status;
}

/* The last device that was made goes first. */
void machine_close(Bench *bench) {
  bench_release(bench);
  peaks_close(bench);
  for (int type = ELEMENT_BF16; type >= ELEMENT_F32; type--) {
    if (bench->words[type] != NULL) device_free(bench->devices[type], bench->words[type]);
    device_destroy(bench->alone[type]);
    device_destroy(bench->devices[type]);
  }
}
