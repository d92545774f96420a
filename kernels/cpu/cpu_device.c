/* The CPU device: chooses the operations for the instruction set at hand, once, and gives host memory. */
#include "kernels/cpu/cpu_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/attention_avx512.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/products_dnnl.h"
#include "kernels/cpu/reference.h"
#include "kernels/cpu/vector_ops.h"

/* An instruction set: whether this CPU has it, and the entries of the table that it overrides. */
typedef struct InstructionSet {
  const char *name;
  bool (*present)(void);
  void (*override)(Ops *ops); /* NULL: none */
} InstructionSet;

static bool reference_present(void) {
  return true;
}

#if defined(__x86_64__)

static bool avx2_present(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool avx512_present(void) {
  return avx2_present() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

static void avx512_override(Ops *ops) {
  vector_ops_avx512_override(ops);
  ops->attention = attention_avx512;
}

#else

static bool avx2_present(void) {
  return false;
}

static bool avx512_present(void) {
  return false;
}

#define vector_ops_avx2_override NULL
#define avx512_override NULL

#endif

/* In ascending order of speed: the last one that the CPU has is chosen. */
static const InstructionSet instruction_sets[] = {
    {"reference", reference_present, NULL},
    {"avx2", avx2_present, vector_ops_avx2_override},
    {"avx512", avx512_present, avx512_override},
};
#define INSTRUCTION_SETS (sizeof instruction_sets / sizeof instruction_sets[0])

/* The instruction set that RINGGPT_ISA names. */
static Status forced_instruction_set(const char *name, const InstructionSet **out, Error *error) {
  for (size_t i = 0; i < INSTRUCTION_SETS; i++) {
    if (strcmp(name, instruction_sets[i].name) != 0) continue;
    if (!instruction_sets[i].present()) {
      return fail(error, STATUS_CONFIG, "RINGGPT_ISA=%s: this CPU does not have it; leave it unset", name);
    }
    *out = &instruction_sets[i];
    return STATUS_OK;
  }
  return fail(error, STATUS_CONFIG, "RINGGPT_ISA=%s: unknown; it may be reference, avx2 or avx512", name);
}

/* Fills the device's table. A forced "reference" means plain C for every operation; otherwise products are
 * oneDNN's where the build has it, limited to a forced instruction set unless oneDNN has been used before. */
static Status choose_operations(Device *device, Error *error) {
  const char *forced = getenv("RINGGPT_ISA");
  if (forced != NULL && forced[0] == '\0') forced = NULL;
  const InstructionSet *set = &instruction_sets[0];
  if (forced != NULL) TRY(forced_instruction_set(forced, &set, error));
  for (size_t i = 1; forced == NULL && i < INSTRUCTION_SETS; i++) {
    if (instruction_sets[i].present()) set = &instruction_sets[i];
  }
  reference_fill(&device->ops);
  if (set->override != NULL) set->override(&device->ops);
  device->ops.name = set->name;
  char products[32] = "reference products";
#if RINGGPT_DNNL
  if (forced == NULL || set->override != NULL) {
    if (forced != NULL) products_dnnl_limit(set->name);
    products_dnnl_override(&device->ops);
    products_dnnl_describe(products, sizeof products);
  }
#endif
  (void)snprintf(device->summary, sizeof device->summary, "cpu, %s, %s, %d thread%s", set->name, products,
                 device->threads, device->threads == 1 ? "" : "s");
  return STATUS_OK;
}

static const DeviceTable cpu_table;

Status cpu_device_create(int threads, Device **out, Error *error) {
  *out = NULL;
  if (threads < 1) return fail(error, STATUS_CONFIG, "a device needs at least one thread, not %d", threads);
  Status status = STATUS_OK;
  void *device_memory = NULL;
  void *modes_memory = NULL;
  TRY_GOTO(memory_alloc(1, sizeof(CpuDevice), "device", &device_memory, error), release);
  TRY_GOTO(memory_alloc((size_t)threads, sizeof(uint64_t), "device", &modes_memory, error), release);
  CpuDevice *cpu = device_memory;
  cpu->float_modes = modes_memory;
  cpu->device.table = &cpu_table;
  cpu->device.threads = threads;
  cpu->device.owner = pthread_self();
  TRY_GOTO(choose_operations(&cpu->device, error), release);
  float_mode_flush(threads, cpu->float_modes);
  *out = &cpu->device;
  return STATUS_OK;
release:
  free(modes_memory);
  free(device_memory);
  return status;
}

static void destroy(Device *device) {
  CpuDevice *cpu = (CpuDevice *)device;
  float_mode_restore(device->threads, cpu->float_modes);
  free(cpu->float_modes);
  free(cpu);
}

/* ---------------------------------------------------------------- memory */

static Status alloc(Device *device, size_t bytes, const char *what, void **out, Error *error) {
  (void)device;
  return memory_alloc(bytes, 1, what, out, error);
}

static void release(Device *device, void *memory) {
  (void)device;
  free(memory);
}

/* Bytes set or copied between two calls of the poll hook: some tens of microseconds. */
#define BYTES_AT_A_TIME ((size_t)1 << 18)

static size_t piece_bytes(const Device *device, size_t bytes, size_t at) {
  device_poll(device);
  return bytes - at < BYTES_AT_A_TIME ? bytes - at : BYTES_AT_A_TIME;
}

static void zero(Device *device, void *memory, size_t bytes) {
  for (size_t at = 0; at < bytes; at += BYTES_AT_A_TIME) {
    memset((char *)memory + at, 0, piece_bytes(device, bytes, at));
  }
}

static void copy(Device *device, void *to, const void *from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += BYTES_AT_A_TIME) {
    memcpy((char *)to + at, (const char *)from + at, piece_bytes(device, bytes, at));
  }
}

static void copy_rows(Device *device, void *to, size_t to_stride, const void *from, size_t from_stride,
                      size_t row_bytes, int64_t rows) {
  for (int64_t i = 0; i < rows; i++) {
    copy(device, (char *)to + (size_t)i * to_stride, (const char *)from + (size_t)i * from_stride, row_bytes);
  }
}

static const DeviceTable cpu_table = {
    .kind = "cpu",
    .alloc = alloc,
    .free = release,
    .zero = zero,
    .write = copy,
    .read = copy,
    .copy_rows = copy_rows,
    .destroy = destroy,
};
