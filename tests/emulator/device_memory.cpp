/* Device memory: host memory full of 0xFF (NaN) between guard pages. And pinned memory of the host. */
#include "device_memory.h"

#include <iterator>
#include <map>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "report.h"
#include "streams.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace emulator {

static const size_t PAGE = 4096;
static const size_t ALIGNMENT = 256; /* of cudaMalloc */

struct Piece {
  MemoryKind kind;
  size_t bytes;
  int device;
  size_t room; /* bytes rounded up to ALIGNMENT: a guard page follows them */
};

typedef std::map<uintptr_t, Piece> Pieces;

static Pieces *pieces(void) {
  static Pieces *all = new Pieces;
  return all;
}

static size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

static Pieces::iterator find_piece(const void *address) {
  Pieces::iterator piece = pieces()->upper_bound((uintptr_t)address);
  if (piece == pieces()->begin()) return pieces()->end();
  --piece;
  return (uintptr_t)address - piece->first <= piece->second.bytes ? piece : pieces()->end();
}

MemoryPlace find_memory(const void *address, size_t bytes) {
  Lock lock(global_lock());
  const Pieces::iterator piece = find_piece(address);
  if (piece == pieces()->end()) return {MEMORY_PAGEABLE, 0, true};
  const bool whole = (uintptr_t)address - piece->first + bytes <= piece->second.bytes;
  return {piece->second.kind, piece->second.device, whole};
}

void print_nearest_memory(const void *address) {
  const uintptr_t at = (uintptr_t)address;
  const Pieces::iterator next = pieces()->upper_bound(at);
  if (next != pieces()->end() && next->first - at <= PAGE)
    fprintf(stderr, "  %zu bytes before device memory of %zu bytes\n", (size_t)(next->first - at),
            next->second.bytes);
  if (next == pieces()->begin()) return;
  const Pieces::iterator before = std::prev(next);
  fprintf(stderr, "  %zu bytes behind the start of device memory of %zu bytes\n",
          (size_t)(at - before->first), before->second.bytes);
}

void check_argument(const void *pointer, int position) {
  if (!pointer) return;
  const MemoryPlace place = find_memory(pointer, 0);
  if (place.kind == MEMORY_PAGEABLE)
    die("launch: argument %d points to memory that no device can reach", position);
  if (place.kind == MEMORY_DEVICE && !can_reach(current_device(), place.device))
    die("launch: argument %d points to memory of device %d, to which device %d has no access", position,
        place.device, current_device());
}

static size_t used_of(int device) {
  size_t used = 0;
  for (const Pieces::value_type &piece : *pieces())
    if (piece.second.kind == MEMORY_DEVICE && piece.second.device == device) used += piece.second.room;
  return used;
}

/* The memory begins within its first page, so that it ends with its last. */
static unsigned char *map_memory(size_t bytes, size_t room) {
  const size_t pages = round_up(room, PAGE);
  unsigned char *mapping = (unsigned char *)mmap(nullptr, pages + 2 * PAGE, PROT_NONE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  if (mprotect(mapping + PAGE, pages, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping, pages + 2 * PAGE);
    return nullptr;
  }
  unsigned char *memory = mapping + PAGE + pages - room;
  memset(memory, 0xFF, room);
  ASAN_POISON_MEMORY_REGION(mapping + PAGE, pages - room);
  ASAN_POISON_MEMORY_REGION(memory + bytes, room - bytes);
  return memory;
}

static void unmap_memory(unsigned char *memory, const Piece *piece) {
  const size_t pages = round_up(piece->room, PAGE);
  unsigned char *first = memory + piece->room - pages;
  ASAN_UNPOISON_MEMORY_REGION(first, pages);
  for (size_t i = piece->bytes; i < piece->room; i++)
    if (memory[i] != 0xFF) die("device memory of %zu bytes was written to behind its end", piece->bytes);
  munmap(first - PAGE, pages + 2 * PAGE);
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaMalloc(void **memory, size_t bytes) {
  Lock lock(global_lock());
  *memory = nullptr;
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  if (bytes == 0) return cudaSuccess;
  const size_t limit = device_memory_bytes();
  if (bytes > limit || used_of(current_device()) + round_up(bytes, ALIGNMENT) > limit)
    return fail(cudaErrorMemoryAllocation);
  const Piece piece = {MEMORY_DEVICE, bytes, current_device(), round_up(bytes, ALIGNMENT)};
  unsigned char *mapped = map_memory(bytes, piece.room);
  if (!mapped) return fail(cudaErrorMemoryAllocation);
  (*pieces())[(uintptr_t)mapped] = piece;
  *memory = mapped;
  return cudaSuccess;
}

/* As CUDA does, waits for all that is under way on the device. */
cudaError_t cudaFree(void *memory) {
  Lock lock(global_lock());
  if (!memory) return cudaSuccess;
  const Pieces::iterator piece = pieces()->find((uintptr_t)memory);
  if (piece == pieces()->end() || piece->second.kind != MEMORY_DEVICE) return fail(cudaErrorInvalidValue);
  drain_device(piece->second.device);
  unmap_memory((unsigned char *)memory, &piece->second);
  pieces()->erase(piece);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
  Lock lock(global_lock());
  *memory = nullptr;
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  if (bytes == 0) return cudaSuccess;
  if (posix_memalign(memory, PAGE, bytes) != 0) return fail(cudaErrorMemoryAllocation);
  (*pieces())[(uintptr_t)*memory] = {MEMORY_PINNED, bytes, current_device(), bytes};
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory) {
  Lock lock(global_lock());
  if (!memory) return cudaSuccess;
  const Pieces::iterator piece = pieces()->find((uintptr_t)memory);
  if (piece == pieces()->end() || piece->second.kind != MEMORY_PINNED) return fail(cudaErrorInvalidValue);
  drain_device(piece->second.device);
  pieces()->erase(piece);
  free(memory);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  const MemoryPlace place = find_memory(pointer, 0);
  void *address = const_cast<void *>(pointer);
  switch (place.kind) {
  case MEMORY_PAGEABLE:
    *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, address};
    break;
  case MEMORY_PINNED:
    *attributes = {cudaMemoryTypeHost, place.device, address, address};
    break;
  case MEMORY_DEVICE:
    *attributes = {cudaMemoryTypeDevice, place.device, address, nullptr};
    break;
  }
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
  Lock lock(global_lock());
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  const size_t used = used_of(current_device());
  *total = device_memory_bytes();
  *left = used < *total ? *total - used : 0;
  return cudaSuccess;
}
