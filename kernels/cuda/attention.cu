/* The attention blocks of the CUDA device but for the blocks' own kernels: sizes of buffers, packing, and the
 * begin and the end of both passes. kernels/cuda/attention_work.h gives the layouts. */
#include "kernels/cuda/attention_work.h"
#include "kernels/cuda/reduce.h"

enum { UNIT_THREADS = 256, UNIT_WARPS = UNIT_THREADS / WARP_THREADS };

int attention_width_index(Device *device, int head_dim) {
  static const int widths[HEAD_WIDTHS] = {32, 64, 96, 128, 256};
  for (int i = 0; i < HEAD_WIDTHS; i++) {
    if (head_dim <= widths[i]) return i;
  }
  device_fail(device, STATUS_CONFIG, "attention on CUDA: heads of %d elements; %d are the most", head_dim,
              widths[HEAD_WIDTHS - 1]);
  return -1;
}

/* ---------------------------------------------------------------- sizes */

template <typename T> static size_t kv_bytes(const AttentionDims *dims, int64_t length) {
  return (size_t)(dims->kv_heads * 2 * length * dims->head_dim) * sizeof(T);
}

static size_t dkv_bytes(const AttentionDims *dims, int64_t length) {
  return kv_bytes<float>(dims, length);
}

template <typename T> static size_t forward_bytes(const AttentionDims *dims, int64_t length) {
  const size_t rows = (size_t)(dims->heads * length);
  return rows * ((size_t)dims->head_dim * (sizeof(T) + sizeof(float)) + 2 * sizeof(float));
}

template <typename T> static size_t backward_bytes(const AttentionDims *dims, int64_t length) {
  const size_t rows = (size_t)(dims->heads * length);
  return rows * ((size_t)dims->head_dim * (2 * sizeof(T) + sizeof(float)) + 2 * sizeof(float));
}

/* ---------------------------------------------------------------- units */

/* The kernels of this file take one row of one head, a unit, with each warp. */
struct Units {
  int64_t length;
  int64_t heads;
  int head_dim;
};

/* One unit, and the place of this lane in its warp. */
struct Unit {
  int64_t row;
  int64_t head;
  int64_t inner; /* row in (heads, length) */
  int lane;
};

__device__ __forceinline__ int64_t first_unit(void) {
  return (int64_t)blockIdx.x * UNIT_WARPS + threadIdx.x / WARP_THREADS;
}

__device__ __forceinline__ int64_t unit_step(void) {
  return (int64_t)gridDim.x * UNIT_WARPS;
}

__device__ __forceinline__ int64_t unit_count(const Units *units) {
  return units->length * units->heads;
}

__device__ __forceinline__ Unit unit_at(const Units *units, int64_t index) {
  Unit u;
  u.row = index / units->heads;
  u.head = index % units->heads;
  u.inner = u.head * units->length + u.row;
  u.lane = (int)threadIdx.x % WARP_THREADS;
  return u;
}

/* Where the unit's row begins in rows of all heads that lie `stride` elements apart. */
__device__ __forceinline__ int64_t strided(const Units *units, const Unit *u, int64_t stride) {
  return u->row * stride + u->head * units->head_dim;
}

/* Where the row of a key head begins in kv and dkv; its value lies length * head_dim behind. */
__device__ __forceinline__ int64_t packed_key(const Units *units, const Unit *u) {
  return (u->head * 2 * units->length + u->row) * units->head_dim;
}

static Units units_of(int64_t length, int64_t heads, const AttentionDims *dims) {
  const Units units = {length, heads, (int)dims->head_dim};
  return units;
}

/* False where there is nothing to do. */
static bool has_work(const Device *device, const Units *units) {
  return cuda_usable(device) && units->length > 0 && units->heads > 0;
}

/* Starts a kernel over units. */
#define LAUNCH_UNITS(kernel, device, what, units, ...)                                                       \
  do {                                                                                                       \
    const dim3 unit_grid(cuda_blocks(device, (units).length *(units).heads, UNIT_WARPS));                    \
    LAUNCH(kernel, unit_grid, dim3(UNIT_THREADS), 0, cuda_stream(device), units, __VA_ARGS__);               \
    cuda_launched(device, what);                                                                             \
  } while (0)

/* ---------------------------------------------------------------- keys and values */

template <typename T>
__global__ void pack_kv_kernel(const Units units, const T *k, const T *v, int64_t stride, T *kv) {
  for (int64_t i = first_unit(); i < unit_count(&units); i += unit_step()) {
    const Unit u = unit_at(&units, i);
    const int64_t from = strided(&units, &u, stride);
    T *key = kv + packed_key(&units, &u);
    T *value = key + units.length * units.head_dim;
    for (int j = u.lane; j < units.head_dim; j += WARP_THREADS) {
      key[j] = k[from + j];
      value[j] = v[from + j];
    }
  }
}

template <typename T>
static void pack_kv(Device *device, const AttentionDims *dims, int64_t length, const elem *k, const elem *v,
                    int64_t stride, void *kv) {
  const Units units = units_of(length, dims->kv_heads, dims);
  if (!has_work(device, &units)) return;
  LAUNCH_UNITS(pack_kv_kernel<T>, device, "attention pack_kv", units, (const T *)k, (const T *)v, stride,
               (T *)kv);
}

template <typename T>
__global__ void unpack_dkv_kernel(const Units units, const float *dkv, T *dk, T *dv, int64_t stride) {
  for (int64_t i = first_unit(); i < unit_count(&units); i += unit_step()) {
    const Unit u = unit_at(&units, i);
    const int64_t to = strided(&units, &u, stride);
    const float *key = dkv + packed_key(&units, &u);
    const float *value = key + units.length * units.head_dim;
    for (int j = u.lane; j < units.head_dim; j += WARP_THREADS) {
      dk[to + j] = from_float<T>(key[j]);
      dv[to + j] = from_float<T>(value[j]);
    }
  }
}

template <typename T>
static void unpack_dkv(Device *device, const AttentionDims *dims, int64_t length, const void *dkv, elem *dk,
                       elem *dv, int64_t stride) {
  const Units units = units_of(length, dims->kv_heads, dims);
  if (!has_work(device, &units)) return;
  LAUNCH_UNITS(unpack_dkv_kernel<T>, device, "attention unpack_dkv", units, (const float *)dkv, (T *)dk,
               (T *)dv, stride);
}

/* ---------------------------------------------------------------- forward */

template <typename T>
__global__ void forward_begin_kernel(const Units units, const T *q, int64_t stride,
                                     const ForwardState<T> state) {
  for (int64_t i = first_unit(); i < unit_count(&units); i += unit_step()) {
    const Unit u = unit_at(&units, i);
    const int64_t from = strided(&units, &u, stride);
    const int64_t to = u.inner * units.head_dim;
    for (int j = u.lane; j < units.head_dim; j += WARP_THREADS) {
      state.q[to + j] = q[from + j];
      state.values[to + j] = 0.0F;
    }
    if (u.lane != 0) continue;
    state.maximum[u.inner] = -INFINITY;
    state.sum[u.inner] = 0.0F;
  }
}

template <typename T>
static void forward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                          int64_t stride, void *state) {
  const Units units = units_of(length, dims->heads, dims);
  if (!has_work(device, &units)) return;
  LAUNCH_UNITS(forward_begin_kernel<T>, device, "attention forward_begin", units, (const T *)q, stride,
               forward_state<T>(dims, length, state));
}

static AttentionBlock attention_block(const AttentionDims *dims, int64_t query_length, int64_t query_start,
                                      const int64_t *first_key, int64_t key_length, int64_t key_start) {
  AttentionBlock b;
  b.query_length = query_length;
  b.query_start = query_start;
  b.key_length = key_length;
  b.key_start = key_start;
  b.first_key = first_key;
  b.kv_heads = (int)dims->kv_heads;
  b.group = (int)(dims->heads / dims->kv_heads);
  b.head_dim = (int)dims->head_dim;
  b.scale = dims->scale;
  b.scale_log2_e = (float)(dims->scale * LOG2_E);
  return b;
}

template <typename T>
static void forward_block(Device *device, const AttentionDims *dims, int64_t query_length,
                          int64_t query_start, const int64_t *first_key, void *state, int64_t key_length,
                          int64_t key_start, const void *kv) {
  if (!cuda_usable(device) || query_length == 0 || key_length == 0) return;
  ForwardWork<T> work;
  work.block = attention_block(dims, query_length, query_start, first_key, key_length, key_start);
  work.state = forward_state<T>(dims, query_length, state);
  work.kv = (const T *)kv;
  attention_forward_launch<T>(device, &work);
}

/* A query that saw no key has the sum 0: a seen key leaves at least exp(0). */
template <typename T>
__global__ void forward_end_kernel(const Units units, const ForwardState<T> state, T *out, int64_t stride,
                                   float *lse) {
  for (int64_t i = first_unit(); i < unit_count(&units); i += unit_step()) {
    const Unit u = unit_at(&units, i);
    const float sum = state.sum[u.inner];
    const float factor = sum == 0.0F ? 0.0F : 1.0F / sum;
    const float *values = state.values + u.inner * units.head_dim;
    T *to = out + strided(&units, &u, stride);
    for (int j = u.lane; j < units.head_dim; j += WARP_THREADS) to[j] = from_float<T>(factor * values[j]);
    if (u.lane != 0) continue;
    lse[u.inner] = sum == 0.0F ? -INFINITY : (float)LN_2 * state.maximum[u.inner] + logf(sum);
  }
}

template <typename T>
static void forward_end(Device *device, const AttentionDims *dims, int64_t length, const void *state,
                        elem *out, int64_t stride, float *lse) {
  const Units units = units_of(length, dims->heads, dims);
  if (!has_work(device, &units)) return;
  LAUNCH_UNITS(forward_end_kernel<T>, device, "attention forward_end", units,
               forward_state<T>(dims, length, (void *)state), (T *)out, stride, lse);
}

/* ---------------------------------------------------------------- backward */

template <typename T>
__global__ void backward_begin_kernel(const Units units, const T *q, int64_t stride, const T *out,
                                      const T *dout, int64_t out_stride, const float *lse,
                                      const BackwardState<T> state) {
  for (int64_t i = first_unit(); i < unit_count(&units); i += unit_step()) {
    const Unit u = unit_at(&units, i);
    const int64_t from = strided(&units, &u, stride);
    const int64_t from_out = strided(&units, &u, out_stride);
    const int64_t to = u.inner * units.head_dim;
    float delta = 0.0F;
    for (int j = u.lane; j < units.head_dim; j += WARP_THREADS) {
      state.q[to + j] = q[from + j];
      state.dout[to + j] = dout[from_out + j];
      state.dq[to + j] = 0.0F;
      delta += to_float(dout[from_out + j]) * to_float(out[from_out + j]);
    }
    delta = warp_sum(delta);
    if (u.lane != 0) continue;
    state.lse[u.inner] = (float)LOG2_E * lse[u.inner];
    state.delta[u.inner] = delta;
  }
}

template <typename T>
static void backward_begin(Device *device, const AttentionDims *dims, int64_t length, const elem *q,
                           int64_t stride, const elem *out, const elem *dout, int64_t out_stride,
                           const float *lse, void *state) {
  const Units units = units_of(length, dims->heads, dims);
  if (!has_work(device, &units)) return;
  LAUNCH_UNITS(backward_begin_kernel<T>, device, "attention backward_begin", units, (const T *)q, stride,
               (const T *)out, (const T *)dout, out_stride, lse, backward_state<T>(dims, length, state));
}

template <typename T>
static void backward_block(Device *device, const AttentionDims *dims, int64_t query_length,
                           int64_t query_start, const int64_t *first_key, void *state, int64_t key_length,
                           int64_t key_start, const void *kv, void *dkv) {
  if (!cuda_usable(device) || query_length == 0 || key_length == 0) return;
  BackwardWork<T> work;
  work.block = attention_block(dims, query_length, query_start, first_key, key_length, key_start);
  work.state = backward_state<T>(dims, query_length, state);
  work.kv = (const T *)kv;
  work.dkv = (float *)dkv;
  attention_backward_launch<T>(device, &work);
}

template <typename T>
__global__ void backward_end_kernel(const Units units, float scale, const float *sum, T *dq, int64_t stride) {
  for (int64_t i = first_unit(); i < unit_count(&units); i += unit_step()) {
    const Unit u = unit_at(&units, i);
    const int64_t to = strided(&units, &u, stride);
    const float *row = sum + u.inner * units.head_dim;
    for (int j = u.lane; j < units.head_dim; j += WARP_THREADS) dq[to + j] = from_float<T>(scale * row[j]);
  }
}

template <typename T>
static void backward_end(Device *device, const AttentionDims *dims, int64_t length, const void *state,
                         elem *dq, int64_t stride) {
  const Units units = units_of(length, dims->heads, dims);
  if (!has_work(device, &units)) return;
  LAUNCH_UNITS(backward_end_kernel<T>, device, "attention backward_end", units, dims->scale,
               (const float *)backward_state<T>(dims, length, (void *)state).dq, (T *)dq, stride);
}

/* ---------------------------------------------------------------- the table */

/* All: few heads would leave most of the GPU idle. */
static int64_t heads_at_once(const AttentionDims *dims, int64_t length) {
  (void)length;
  return dims->kv_heads;
}

template <typename T> void cuda_attention_fill(Ops *ops) {
  AttentionOps *a = &ops->attention;
  a->name = "cuda";
  a->kv_bytes = kv_bytes<T>;
  a->dkv_bytes = dkv_bytes;
  a->heads_at_once = heads_at_once;
  a->forward_bytes = forward_bytes<T>;
  a->backward_bytes = backward_bytes<T>;
  a->pack_kv = pack_kv<T>;
  a->unpack_dkv = unpack_dkv<T>;
  a->forward_begin = forward_begin<T>;
  a->forward_block = forward_block<T>;
  a->forward_end = forward_end<T>;
  a->backward_begin = backward_begin<T>;
  a->backward_block = backward_block<T>;
  a->backward_end = backward_end<T>;
}

template void cuda_attention_fill<float>(Ops *ops);
template void cuda_attention_fill<bf16>(Ops *ops);
