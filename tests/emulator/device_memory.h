/* Which memory is whose: what cudaMalloc and cudaMallocHost have given. */
#ifndef RINGGPT_EMULATOR_DEVICE_MEMORY_H
#define RINGGPT_EMULATOR_DEVICE_MEMORY_H

#include <stddef.h>

namespace emulator {

enum MemoryKind { MEMORY_PAGEABLE, MEMORY_PINNED, MEMORY_DEVICE };

struct MemoryPlace {
  MemoryKind kind;
  int device;
  bool whole; /* all of the bytes belong to the piece of memory that the first belongs to */
};

/* What `bytes` bytes at the address are; pageable where nothing is known of them. */
MemoryPlace find_memory(const void *address, size_t bytes);

/* Prints to stderr where the address lies against the device memory before or behind it. */
void print_nearest_memory(const void *address);

} // namespace emulator

#endif
