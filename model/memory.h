/* The memory of a model that grows with its batches: planned before anything is allocated, one block of
 * device memory and one of host memory for all of it, which models that never compute at the same time
 * share. */
#ifndef RINGGPT_MODEL_MEMORY_H
#define RINGGPT_MODEL_MEMORY_H

#include "kernels/base/arena.h"
#include "kernels/base/status.h"
#include "kernels/device.h"
#include "model/activations.h"
#include "model/model.h"
#include "model/ring_memory.h"

/* The buffers of a model: those of its activations, then those of ring attention. */
#define MODEL_BUFFERS (ACTIVATION_BUFFERS + RING_BUFFERS)

/* A plan for batches of some forms. All zero: for none. */
typedef struct ModelMemory {
  int64_t rows;                       /* of the largest batch */
  uint32_t joined;                    /* phases of attention that are as one in some batch */
  ArenaBuffer buffers[MODEL_BUFFERS]; /* each with room for the batch that needs most of it */
  size_t bytes;                       /* of the block of device memory */
  size_t host_bytes;                  /* of that of host memory: a number for each row, on its way */
} ModelMemory;

/* Adds batches of `sequences` sequences cut as `layout`, whoever has which chunk, to the plan; for the
 * operations of one device. Returns whether they need more of any buffer than was planned. */
bool model_memory_add(ModelMemory *memory, const ModelOptions *options, const Ops *ops, int64_t sequences,
                      const Layout *layout);

/* The same for `rows` rows whose attention is the caller's. */
bool model_memory_add_rows(ModelMemory *memory, const ModelOptions *options, const Ops *ops, int64_t rows);

/* The activations of a plan. */
ActivationsPlan model_memory_activations(const ModelMemory *memory, const ModelOptions *options,
                                         const Ops *ops);

/* The blocks. Start with the device and the rest zero. */
struct ModelArena {
  Device *device;
  void *memory; /* (bytes) device memory */
  size_t bytes;
  void *host; /* (host_bytes) */
  size_t host_bytes;
  int64_t version; /* counted up when a block is replaced */
};

/* Makes both blocks at least so large; what they held is lost where one grows. STATUS_SYSTEM. */
Status model_arena_reserve(ModelArena *arena, size_t bytes, size_t host_bytes, Error *error);

void model_arena_release(ModelArena *arena);

#endif
