/* Self test: where threads are, barriers, shuffles, votes, atomic operations. */
#include <string.h>

#include "kernels/cuda/language.h"
#include "self_test.h"

/* Each thread marks its own place. */
static __global__ void place_kernel(int *marks) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  atomicAdd(&marks[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
}

static void every_thread_runs_once(void **) {
  const int count = 2 * 3 * 4 * 5 * 6 * 7;
  int marks[count];
  int *device = new_on_device<int>((size_t)count);
  CUDA(cudaMemset(device, 0, sizeof marks));
  LAUNCH(place_kernel, dim3(2, 3, 4), dim3(5, 6, 7), 0, nullptr, device);
  to_host(marks, device, (size_t)count);
  for (int i = 0; i < count; i++) assert_int_equal(marks[i], 1);
  CUDA(cudaFree(device));
}

static __global__ void order_kernel(int *order, int *next) {
  order[atomicAdd(next, 1)] = (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

static void record_order(int seed, int order[256]) {
  emulator::set_seed((uint64_t)seed);
  int *device = new_on_device<int>(256 + 1);
  CUDA(cudaMemset(device, 0, 257 * sizeof(int)));
  LAUNCH(order_kernel, 4, 64, 0, nullptr, device, device + 256);
  to_host(order, device, 256);
  CUDA(cudaFree(device));
}

static void the_seed_gives_the_order(void **) {
  int first[256], again[256], other[256];
  record_order(1, first);
  record_order(1, again);
  record_order(2, other);
  assert_memory_equal(first, again, sizeof first);
  assert_true(memcmp(first, other, sizeof first) != 0);
}

/* Over seeds, other blocks, warps and lanes come first. */
static void any_thread_may_come_first(void **) {
  unsigned blocks = 0, warps = 0, lanes = 0;
  for (int seed = 0; seed < SEEDS; seed++) {
    int order[256];
    record_order(seed, order);
    blocks |= 1u << (order[0] / 64);
    warps |= 1u << (order[0] % 64 / 32);
    lanes |= 1u << (order[0] % 32);
  }
  assert_true(blocks == 0xf && warps == 0x3 && __popc(lanes) > 4);
}

/* Turns the order of 256 values around, through shared memory of both kinds. */
static __global__ void reverse_kernel(float *values, int *votes) {
  SHARED(float, there, [256]);
  EXTERN_SHARED(memory);
  float *back = (float *)memory;
  const int i = (int)threadIdx.x;
  there[i] = values[i];
  __syncthreads();
  back[i] = there[255 - i] + 1.0f;
  const int odd = __syncthreads_count(i % 2);
  const int any = __syncthreads_or(i == 77);
  const int none = __syncthreads_or(i == 256);
  const int all = __syncthreads_and(i < 256);
  const int most = __syncthreads_and(i != 77);
  values[255 - i] = back[255 - i];
  if (i == 0) *votes = odd * 10000 + any * 1000 + none * 100 + all * 10 + most;
}

static void barriers_hold(void **) {
  for (int seed = 0; seed < SEEDS; seed++) {
    emulator::set_seed((uint64_t)seed);
    float values[256];
    int votes = 0;
    for (int i = 0; i < 256; i++) values[i] = (float)i;
    float *device = to_device(values, 256);
    int *device_votes = to_device(&votes, 1);
    LAUNCH(reverse_kernel, 1, 256, 256 * sizeof(float), nullptr, device, device_votes);
    to_host(values, device, 256);
    to_host(&votes, device_votes, 1);
    for (int i = 0; i < 256; i++) assert_true(values[i] == (float)(255 - i) + 1.0f);
    assert_int_equal(votes, 128 * 10000 + 1000 + 10);
    CUDA(cudaFree(device));
    CUDA(cudaFree(device_votes));
  }
}

/* All shuffles of values of one type; row k of out is the k-th, in columns by thread. */
template <typename T> static __global__ void shuffle_kernel(T *out, int width) {
  const int lane = (int)threadIdx.x;
  const T own = (T)(lane + 1) * (T)1000003;
  out[lane] = __shfl_sync(0xffffffffu, own, lane * 7 + 3, width);
  out[32 + lane] = __shfl_xor_sync(0xffffffffu, own, 5, width);
  out[64 + lane] = __shfl_up_sync(0xffffffffu, own, 3, width);
  out[96 + lane] = __shfl_down_sync(0xffffffffu, own, 3, width);
}

template <typename T> static void check_shuffles(int width) {
  T out[128];
  T *device = new_on_device<T>(128);
  LAUNCH(shuffle_kernel<T>, 1, 32, 0, nullptr, device, width);
  to_host(out, device, 128);
  for (int lane = 0; lane < 32; lane++) {
    const int first = lane / width * width;
    const int sources[4] = {first + (lane * 7 + 3) % width, lane ^ 5, lane - 3, lane + 3};
    for (int k = 0; k < 4; k++) {
      const bool inside = k == 2 ? sources[k] >= first : sources[k] < first + width;
      const int source = inside ? sources[k] : lane;
      assert_true(out[32 * k + lane] == (T)(source + 1) * (T)1000003);
    }
  }
  CUDA(cudaFree(device));
}

static void shuffles_move_values(void **) {
  for (int width = 1; width <= 32; width *= 2) {
    check_shuffles<int>(width);
    check_shuffles<unsigned>(width);
    check_shuffles<float>(width);
    check_shuffles<double>(width);
    check_shuffles<int64_t>(width);
  }
}

/* Halves of a warp vote and shuffle apart. */
static __global__ void vote_kernel(unsigned *out) {
  const int lane = (int)threadIdx.x % 32;
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  unsigned *to = out + threadIdx.x * 5;
  to[0] = __ballot_sync(mask, lane % 3 == 0);
  to[1] = (unsigned)__any_sync(mask, lane == 20);
  to[2] = (unsigned)__all_sync(mask, lane < 20);
  to[3] = __shfl_xor_sync(mask, (unsigned)threadIdx.x, 1);
  to[4] = __shfl_xor_sync(mask, 1u, 16); /* of a lane that takes no part: undefined */
}

static void votes_are_of_the_mask(void **) {
  unsigned out[64 * 5];
  unsigned thirds = 0;
  for (int lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  unsigned *device = new_on_device<unsigned>(64 * 5);
  LAUNCH(vote_kernel, 1, 64, 0, nullptr, device);
  to_host(out, device, 64 * 5);
  for (unsigned i = 0; i < 64; i++) {
    const bool low = i % 32 < 16;
    assert_true(out[i * 5] == (thirds & (low ? 0x0000ffffu : 0xffff0000u)));
    assert_int_equal(out[i * 5 + 1], !low);
    assert_int_equal(out[i * 5 + 2], low);
    assert_int_equal(out[i * 5 + 3], i ^ 1);
    assert_true(out[i * 5 + 4] == ~0u);
  }
  CUDA(cudaFree(device));
}

static __global__ void atomic_kernel(unsigned long long *sum, int *most, unsigned *bits) {
  const int i = (int)threadIdx.x;
  atomicAdd(sum, (unsigned long long)i << 32);
  atomicMax(most, i * 37 % 101);
  atomicOr(bits, 1u << (i % 32));
}

static void atomic_operations_add_up(void **) {
  unsigned long long sum = 5;
  int most = -1;
  unsigned bits = 0;
  unsigned long long *device_sum = to_device(&sum, 1);
  int *device_most = to_device(&most, 1);
  unsigned *device_bits = to_device(&bits, 1);
  LAUNCH(atomic_kernel, 1, 101, 0, nullptr, device_sum, device_most, device_bits);
  to_host(&sum, device_sum, 1);
  to_host(&most, device_most, 1);
  to_host(&bits, device_bits, 1);
  assert_true(sum == (5050ull << 32) + 5);
  assert_int_equal(most, 100);
  assert_true(bits == ~0u);
  CUDA(cudaFree(device_sum));
  CUDA(cudaFree(device_most));
  CUDA(cudaFree(device_bits));
}

int test_threads(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_thread_runs_once),    cmocka_unit_test(the_seed_gives_the_order),
      cmocka_unit_test(any_thread_may_come_first), cmocka_unit_test(barriers_hold),
      cmocka_unit_test(shuffles_move_values),      cmocka_unit_test(votes_are_of_the_mask),
      cmocka_unit_test(atomic_operations_add_up),
  };
  return cmocka_run_group_tests_name("threads", tests, nullptr, nullptr);
}
