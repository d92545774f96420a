/* The CPU device: chooses the operations for the instruction set at hand, once, and gives host memory. */
#include "kernels/cpu/cpu_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/cpu/attention_vector.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/products_dnnl.h"
#include "kernels/cpu/reference.h"
#include "kernels/cpu/vector_ops.h"

enum { ELEMENT_TYPES = ELEMENT_BF16 + 1 };

/* An instruction set: whether this CPU has it, and the entries of the tables that it overrides. */
typedef struct InstructionSet {
  const char *name;
  bool (*present)(void);
  void (*override[ELEMENT_TYPES])(Ops *ops); /* NULL: none */
  bool bf16;                                 /* has instructions for products in bf16 */
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

static bool avx512_bf16_present(void) {
  return avx512_present() && __builtin_cpu_supports("avx512bf16");
}

static void avx2_override(Ops *ops) {
  vector_ops_avx2_override(ops);
  ops->attention = attention_avx2;
}

static void bf16_avx2_override(Ops *ops) {
  vector_ops_bf16_avx2_override(ops);
  ops->attention = attention_bf16_avx2;
}

static void avx512_override(Ops *ops) {
  vector_ops_avx512_override(ops);
  ops->attention = attention_avx512;
}

static void bf16_avx512_override(Ops *ops) {
  vector_ops_bf16_avx512_override(ops);
  ops->attention = attention_bf16_avx512;
}

static void bf16_avx512_bf16_override(Ops *ops) {
  vector_ops_bf16_avx512bf16_override(ops);
  ops->attention = attention_bf16_avx512bf16;
}

#else

static bool avx2_present(void) {
  return false;
}

static bool avx512_present(void) {
  return false;
}

static bool avx512_bf16_present(void) {
  return false;
}

#define avx2_override NULL
#define bf16_avx2_override NULL
#define avx512_override NULL
#define bf16_avx512_override NULL
#define bf16_avx512_bf16_override NULL

#endif

/* In ascending order of speed: the last one that the CPU has is chosen. */
static const InstructionSet instruction_sets[] = {
    {"reference", reference_present, {NULL, NULL}, false},
    {"avx2", avx2_present, {avx2_override, bf16_avx2_override}, false},
    {"avx512", avx512_present, {avx512_override, bf16_avx512_override}, false},
    {"avx512_bf16", avx512_bf16_present, {avx512_override, bf16_avx512_bf16_override}, true},
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
  return fail(error, STATUS_CONFIG,
              "RINGGPT_ISA=%s: unknown; it may be reference, avx2, avx512 or avx512_bf16", name);
}

/* The instruction set that is forced, else the fastest. */
static Status choose_instruction_set(const char *forced, const InstructionSet **out, Error *error) {
  if (forced != NULL) return forced_instruction_set(forced, out, error);
  for (size_t i = 0; i < INSTRUCTION_SETS; i++) {
    if (instruction_sets[i].present()) *out = &instruction_sets[i];
  }
  return STATUS_OK;
}

/* Products by oneDNN, limited to a forced instruction set unless oneDNN has been used before. `text` says
 * what they are. */
static Status use_dnnl(CpuDevice *cpu, const InstructionSet *set, bool forced, ElementType elements,
                       char *text, size_t size, Error *error) {
#if RINGGPT_DNNL
  if (forced) products_dnnl_limit(set->name);
  TRY(products_dnnl_create(elements, set->bf16, cpu->device.threads, &cpu->products, error));
  if (elements == ELEMENT_BF16) {
    products_dnnl_bf16_override(&cpu->device.ops);
  } else {
    products_dnnl_override(&cpu->device.ops);
  }
  products_dnnl_describe(cpu->products, text, size);
#else
  (void)cpu, (void)set, (void)forced, (void)elements, (void)text, (void)size, (void)error;
#endif
  return STATUS_OK;
}

/* Fills the device's table. A forced "reference" means plain C for every operation; otherwise products are
 * oneDNN's where the build has it. */
static Status choose_operations(CpuDevice *cpu, ElementType elements, Error *error) {
  Device *device = &cpu->device;
  const bool bf16 = elements == ELEMENT_BF16;
  const char *forced = getenv("RINGGPT_ISA");
  if (forced != NULL && forced[0] == '\0') forced = NULL;
  const InstructionSet *set = NULL;
  TRY(choose_instruction_set(forced, &set, error));
  (bf16 ? reference_bf16_fill : reference_fill)(&device->ops);
  if (set->override[elements] != NULL) set->override[elements](&device->ops);
  device->ops.name = set->name;
  char products[40] = "reference products";
  if (forced == NULL || set->override[elements] != NULL) {
    TRY(use_dnnl(cpu, set, forced != NULL, elements, products, sizeof products, error));
  }
  (void)snprintf(device->summary, sizeof device->summary, "cpu%s, %s, %s, %d thread%s", bf16 ? " bf16" : "",
                 set->name, products, device->threads, device->threads == 1 ? "" : "s");
  return STATUS_OK;
}

static const DeviceTable cpu_table;

Status cpu_device_create(int threads, ElementType elements, Device **out, Error *error) {
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
  TRY_GOTO(choose_operations(cpu, elements, error), release);
  float_mode_flush(threads, cpu->float_modes);
  *out = &cpu->device;
  return STATUS_OK;
release:
  free(modes_memory);
  free(device_memory);
  return status;
}

bool cpu_device_has_bf16(const Device *device) {
#if RINGGPT_DNNL
  const CpuDevice *cpu = (const CpuDevice *)device;
  return cpu->products != NULL && products_dnnl_have_bf16(cpu->products);
#else
  (void)device;
  return false;
#endif
}

static void destroy(Device *device) {
  CpuDevice *cpu = (CpuDevice *)device;
  float_mode_restore(device->threads, cpu->float_modes);
#if RINGGPT_DNNL
  products_dnnl_destroy(cpu->products);
#endif
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

static size_t left(Device *device) {
  (void)device;
  return memory_available();
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
    .left = left,
};
