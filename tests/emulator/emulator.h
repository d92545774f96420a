/* The emulator of the CUDA execution model: kernels and the device layer over them, compiled by the host's
 * C++ compiler, run without a GPU, so that their logic is tested everywhere. A test tool: what a kernel does
 * wrong ends the process with a message that says where.
 *
 * How it runs (the files of this folder):
 *  - fiber, block: each CUDA thread runs until it waits; only then another goes on. Blocks, warps and lanes
 *    come in random order, and warps run far ahead of each other. A thread that never waits costs no switch.
 *    Where nothing can go on, that is a deadlock, reported with what each thread waits for; a thread that has
 *    left does not count at a barrier.
 *  - warp, instructions: lanes hand in their arguments, the last computes for all. Bank conflicts of
 *    load_matrices are counted (instruction_counts).
 *  - async_copy: an asynchronous copy lands at the wait that covers it; before, NaN stands in its place.
 *  - shared_memory: full of 0xFF (NaN) at the start of a block. A SHARED variable is aligned to its type and
 *    no more; dynamic shared memory is aligned to 16 and no more, and ends at a guard page.
 *  - device_memory: full of 0xFF when taken, rounded up to 256 bytes, and then a guard page.
 *  - streams, copies: launches, copies and events stand in the queue of their stream until something waits
 *    for them, and are then worked off in random order over all streams, held back by events alone.
 *  - race: compile kernels (nothing else) with -fsanitize=thread and link race.cpp but not the sanitizer's
 *    library, and every access to shared memory is checked: two threads, one of them writing, with neither
 *    barrier nor __syncwarp between, end the process, as do a read of what nothing was written to and a touch
 *    of what an asynchronous copy has not brought yet. Without that flag race.cpp does nothing.
 * Everything works under -fsanitize=address,undefined too, which finds accesses out of bounds. Processors
 * other than x86-64 switch stacks by swapcontext; -DEMULATOR_UCONTEXT tries that way. self_test*.cpp is the
 * emulator's own test.
 *
 * Settings from the environment:
 *   EMULATOR_SEED      of all random order (1)
 *   EMULATED_DEVICES   number of devices (1); 0: as on a machine without a GPU
 *   EMULATED_MEMORY    bytes of each (4 GiB); taking more is cudaErrorMemoryAllocation
 *
 * One lock is held while anything runs, so host threads may use the API side by side as with CUDA. */
#ifndef RINGGPT_EMULATOR_H
#define RINGGPT_EMULATOR_H

#include <cuda_runtime.h>

#include <functional>
#include <tuple>
#include <type_traits>

/* The three words of kernels/cuda/language.h. */
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                                     \
  emulator::prepare_launch(kernel, grid, block, shared, stream)(__VA_ARGS__)

#define SHARED(type, name, ...)                                                                              \
  static emulator::SharedVariable name##_variable;                                                           \
  auto &name = *(type(*) __VA_ARGS__)emulator::shared_variable(&name##_variable, sizeof(type __VA_ARGS__),   \
                                                               alignof(type))

#define EXTERN_SHARED(name) unsigned char *const name = emulator::here.dynamic_shared

namespace emulator {

/* Puts `work` into the queue of the stream, for libraries of operations (cuBLASLt) that have no kernel here.
 */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

/* Starts all random order anew, as EMULATOR_SEED does at the start of the process. */
void set_seed(uint64_t seed);

/* What ran since the last call with `reset`; conflicts are the further passes that load_matrices needs when
 * rows of one matrix lie in the same banks. */
struct InstructionCounts {
  uint64_t mma, load_matrices, conflicts;
};
InstructionCounts instruction_counts(bool reset);

/* Where a SHARED variable is in the block at hand. */
struct SharedVariable {
  uint64_t block_number;
  unsigned char *memory;
};
void place_shared_variable(SharedVariable *variable, size_t bytes, size_t alignment);

inline unsigned char *shared_variable(SharedVariable *variable, size_t bytes, size_t alignment) {
  if (variable->block_number != here.block_number) place_shared_variable(variable, bytes, alignment);
  return variable->memory;
}

/* A launch whose arguments are known: body(context) runs one thread. */
struct Launch {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
  const void *kernel;
};
void enqueue_launch(const Launch &launch, std::function<void()> thread);
/* Ends the process where `pointer`, argument number `position`, is neither NULL nor in memory that a GPU can
 * reach. */
void check_argument(const void *pointer, int position);

template <typename T> inline void check_if_pointer(T argument, int position) {
  if constexpr (std::is_pointer_v<T>) check_argument((const void *)argument, position);
}

template <typename... Parameters> struct PreparedLaunch {
  void (*kernel)(Parameters...);
  Launch launch;

  void operator()(Parameters... arguments) const {
    int position = 0;
    (check_if_pointer(arguments, ++position), ...);
    (void)position;
    enqueue_launch(launch, [kernel = kernel, values = std::tuple<Parameters...>(arguments...)] {
      std::apply(kernel, values);
    });
  }
};

template <typename... Parameters>
inline PreparedLaunch<Parameters...> prepare_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                                    size_t shared, cudaStream_t stream) {
  return {kernel, {grid, block, shared, stream, (const void *)kernel}};
}

} // namespace emulator

#endif
