/* Self test: mistakes planted into kernels are found, each under every seed, and the same kernels without
 * them pass. */
#include <string.h>

#include "kernels/cuda/instructions.h"
#include "self_test.h"

enum { THREADS = 128, STAGES = 6, STAGE_FLOATS = THREADS * 4, STAGE_BYTES = STAGE_FLOATS * 4 };

enum Defect {
  NO_DEFECT,
  NO_COPY_WAIT,
  WAIT_LEAVES_TOO_MANY,
  NO_BARRIER_BEFORE_READING,
  NO_BARRIER_AFTER_READING,
  NO_SYNCWARP,
  NO_SYNCWARP_AFTER_READING,
  DEFECTS
};

/* Sums over stages what another warp has copied into one of two buffers, the next stage being under way. */
template <int DEFECT> static __global__ void pipeline_kernel(float *sums, const float *stages) {
  EXTERN_SHARED(memory);
  float *buffers = (float *)memory;
  const int thread = (int)threadIdx.x;
  const int other = THREADS - 1 - thread;
  float sum = 0.0f;
  copy_async_16(buffers + thread * 4, stages + thread * 4, true);
  copy_async_commit();
  for (int stage = 0; stage < STAGES; stage++) {
    const int next = stage + 1;
    if (next < STAGES)
      copy_async_16(buffers + next % 2 * STAGE_FLOATS + thread * 4, stages + next * STAGE_FLOATS + thread * 4,
                    true);
    copy_async_commit();
    if (DEFECT == WAIT_LEAVES_TOO_MANY)
      copy_async_wait<2>();
    else if (DEFECT != NO_COPY_WAIT)
      copy_async_wait<1>();
    if (DEFECT != NO_BARRIER_BEFORE_READING) __syncthreads();
    for (int i = 0; i < 4; i++) sum += buffers[stage % 2 * STAGE_FLOATS + other * 4 + i];
    if (DEFECT != NO_BARRIER_AFTER_READING) __syncthreads();
  }
  sums[thread] = sum;
}

/* Each lane hands its value on to its neighbour, several times over. */
template <int DEFECT> static __global__ void neighbour_kernel(float *sums, const float *values) {
  SHARED(float, places, [THREADS]);
  const int thread = (int)threadIdx.x;
  const int neighbour = thread / 32 * 32 + (thread + 1) % 32;
  float value = values[thread];
  for (int i = 0; i < STAGES; i++) {
    places[thread] = value;
    if (DEFECT != NO_SYNCWARP) __syncwarp();
    value = places[neighbour];
    if (DEFECT != NO_SYNCWARP_AFTER_READING) __syncwarp();
  }
  sums[thread] = value;
}

static bool pipeline_is_right(const float *sums, const float *stages) {
  for (int thread = 0; thread < THREADS; thread++) {
    float sum = 0.0f;
    for (int stage = 0; stage < STAGES; stage++)
      for (int i = 0; i < 4; i++) sum += stages[stage * STAGE_FLOATS + (THREADS - 1 - thread) * 4 + i];
    if (sums[thread] != sum) return false;
  }
  return true;
}

static bool neighbours_are_right(const float *sums, const float *values) {
  for (int thread = 0; thread < THREADS; thread++)
    if (sums[thread] != values[thread / 32 * 32 + (thread + STAGES) % 32]) return false;
  return true;
}

typedef void Kernel(float *, const float *);

static Kernel *const KERNELS[DEFECTS] = {
    pipeline_kernel<NO_DEFECT>,
    pipeline_kernel<NO_COPY_WAIT>,
    pipeline_kernel<WAIT_LEAVES_TOO_MANY>,
    pipeline_kernel<NO_BARRIER_BEFORE_READING>,
    pipeline_kernel<NO_BARRIER_AFTER_READING>,
    neighbour_kernel<NO_SYNCWARP>,
    neighbour_kernel<NO_SYNCWARP_AFTER_READING>,
};

/* 0 where the numbers are right. */
static int run_kernel(Kernel *kernel, bool neighbours, int seed) {
  static float stages[STAGES * STAGE_FLOATS];
  float sums[THREADS];
  emulator::set_seed((uint64_t)seed);
  for (int i = 0; i < STAGES * STAGE_FLOATS; i++) stages[i] = (float)(i % 1009);
  float *from = to_device(stages, STAGES * STAGE_FLOATS);
  float *to = new_on_device<float>(THREADS);
  LAUNCH(kernel, 1, THREADS, 2 * STAGE_BYTES, nullptr, to, from);
  to_host(sums, to, THREADS);
  CUDA(cudaFree(from));
  CUDA(cudaFree(to));
  return !(neighbours ? neighbours_are_right(sums, stages) : pipeline_is_right(sums, stages));
}

static int run_defect(int argument) {
  const int defect = argument % DEFECTS;
  const bool neighbours = defect == NO_SYNCWARP || defect == NO_SYNCWARP_AFTER_READING;
  return run_kernel(KERNELS[defect], neighbours, argument / DEFECTS);
}

static void right_kernels_pass(void **) {
  for (int seed = 0; seed < SEEDS; seed++) {
    assert_int_equal(run_kernel(pipeline_kernel<NO_DEFECT>, false, seed), 0);
    assert_int_equal(run_kernel(neighbour_kernel<NO_DEFECT>, true, seed), 0);
  }
}

static void planted_mistakes_are_found(void **) {
  for (int defect = NO_DEFECT + 1; defect < DEFECTS; defect++)
    for (int seed = 0; seed < SEEDS; seed++) {
      const Ending ending = run_child(run_defect, seed * DEFECTS + defect);
      if (!ending.aborted && ending.status == 0) fail_msg("mistake %d is not found by seed %d", defect, seed);
    }
}

#if defined(__SANITIZE_THREAD__)
/* Here the race check sees them, whatever the numbers are. */
static void races_are_named(void **) {
  for (int defect = NO_DEFECT + 1; defect < DEFECTS; defect++) {
    const bool of_copies = defect == NO_COPY_WAIT || defect == WAIT_LEAVES_TOO_MANY;
    for (int seed = 0; seed < SEEDS; seed++)
      expect_end(run_defect, seed * DEFECTS + defect, of_copies ? "wait for an asynchronous copy" : "race: ");
  }
}

/* Both write the same value: the numbers are right, and yet it is a race. */
static __global__ void same_value_kernel(int *out) {
  SHARED(int, place, [1]);
  place[0] = 7;
  __syncthreads();
  if (threadIdx.x == 0) *out = place[0];
}

static __global__ void unwritten_kernel(int *out) {
  SHARED(int, place, [2]);
  place[0] = 7;
  out[0] = place[1];
}

static __global__ void read_in_flight_kernel(int *out) {
  EXTERN_SHARED(memory);
  copy_async_16(memory, out, true);
  out[0] = *(int *)memory;
}

/* One reads, one writes, and which comes first is open. */
static __global__ void read_and_write_kernel(int *out) {
  SHARED(int, place, [1]);
  if (threadIdx.x == 0) place[0] = 7;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = place[0];
  if (threadIdx.x == 32) place[0] = 8;
}

static int run_race(int argument) {
  emulator::set_seed((uint64_t)argument / 4);
  int *out = new_on_device<int>(4);
  switch (argument % 4) {
  case 0:
    LAUNCH(same_value_kernel, 1, 2, 0, nullptr, out);
    break;
  case 1:
    LAUNCH(unwritten_kernel, 1, 1, 0, nullptr, out);
    break;
  case 2:
    LAUNCH(read_in_flight_kernel, 1, 1, 16, nullptr, out);
    break;
  case 3:
    LAUNCH(read_and_write_kernel, 1, 64, 0, nullptr, out);
    break;
  }
  CUDA(cudaDeviceSynchronize());
  return 0;
}

static void races_that_numbers_hide_are_found(void **) {
  const char *const texts[] = {"race: write, then write", "race: read of what nothing was written to",
                               "race: read before the wait", "race: "};
  for (int i = 0; i < 4 * SEEDS; i++) expect_end(run_race, i, texts[i % 4]);
}
#endif

/* ---- what ends the process with a message ---- */

static __global__ void half_barrier_kernel(void) {
  if (threadIdx.x < 32) __syncthreads();
}
static __global__ void different_meetings_kernel(int *out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
  else
    out[threadIdx.x] = (int)__ballot_sync(0xffffffffu, 1);
}
static __global__ void different_masks_kernel(void) {
  __syncwarp(threadIdx.x == 0 ? 0x3u : 0xffffffffu);
}
static __global__ void early_exit_kernel(int *out) {
  if (threadIdx.x == 3) return;
  __syncwarp(0xfffffff7u);
  out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}
static __global__ void foreign_mask_kernel(void) {
  __syncwarp(threadIdx.x < 16 ? 0xffff0000u : 0x0000ffffu);
}
static __global__ void misaligned_copy_kernel(const float *from) {
  SHARED(float, to, [8]);
  copy_async_16(to, from, true);
}
static __global__ void copy_to_global_kernel(float *to, const float *from) {
  copy_async_16(to, from, true);
}
static __global__ void partial_warp_kernel(void) {
  float d[4] = {};
  const unsigned a[4] = {}, b[2] = {};
  mma_bf16(d, a, b);
}
static __global__ void nothing_kernel(const int *) {
}

static int run_mistake(int number) {
  int *out = new_on_device<int>(256);
  float *values = (float *)new_on_device<float4>(16);
  switch (number) {
  case 0:
    LAUNCH(half_barrier_kernel, 1, 64, 0, nullptr, );
    break;
  case 1:
    LAUNCH(different_meetings_kernel, 1, 32, 0, nullptr, out);
    break;
  case 2:
    LAUNCH(different_masks_kernel, 1, 32, 0, nullptr, );
    break;
  case 3:
    LAUNCH(early_exit_kernel, 1, 32, 0, nullptr, out);
    break;
  case 4:
    LAUNCH(foreign_mask_kernel, 1, 32, 0, nullptr, );
    break;
  case 5:
    LAUNCH(misaligned_copy_kernel, 1, 1, 0, nullptr, values);
    break;
  case 6:
    LAUNCH(copy_to_global_kernel, 1, 1, 0, nullptr, values, values + 4);
    break;
  case 7:
    LAUNCH(partial_warp_kernel, 1, 16, 0, nullptr, );
    break;
  case 8:
    LAUNCH(nothing_kernel, 1, 1, 0, nullptr, &number);
    break;
  default:
    return 0;
  }
  CUDA(cudaDeviceSynchronize());
  return 0;
}

static void mistakes_end_the_process(void **) {
  const char *const texts[] = {
      "deadlock",
      "lanes of one warp meet at",
      "disagree on the mask",
      "lanes that have ended",
      "not in its own mask",
      "not aligned to 16",
      "not in shared memory",
      "has not 32 lanes",
      "no device can reach",
  };
  for (int seed = 0; seed < 3; seed++) {
    emulator::set_seed((uint64_t)seed);
    for (int i = 0; i < (int)(sizeof texts / sizeof *texts); i++) expect_end(run_mistake, i, texts[i]);
  }
}

static void a_deadlock_names_the_waits(void **) {
  const Ending ending = run_child(run_mistake, 0);
  assert_non_null(strstr(ending.errors, "threads 0 to 31 waits: __syncthreads"));
  assert_non_null(strstr(ending.errors, "threads 32 to 63 ended"));
}

int test_defects(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(right_kernels_pass),
    cmocka_unit_test(planted_mistakes_are_found),
#if defined(__SANITIZE_THREAD__)
    cmocka_unit_test(races_are_named),
    cmocka_unit_test(races_that_numbers_hide_are_found),
#endif
    cmocka_unit_test(mistakes_end_the_process),
    cmocka_unit_test(a_deadlock_names_the_waits),
  };
  return cmocka_run_group_tests_name("defects", tests, nullptr, nullptr);
}
