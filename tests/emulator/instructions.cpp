/* The tensor core's product and the loading of its operands, by the layouts that
 * kernels/cuda/instructions.h states. The order in which a GPU adds up the 16 products is not documented. */
#include <string.h>

#include "emulated_instructions.h"
#include "meeting.h"
#include "race.h"
#include "report.h"
#include "shared_memory.h"

namespace emulator {

static InstructionCounts counts;

InstructionCounts instruction_counts(bool reset) {
  const InstructionCounts now = counts;
  if (reset) counts = {};
  return now;
}

static void need_whole_warp(const char *name) {
  if (warps[current->warp].exist != ~0u) die("%s: the warp has not 32 lanes", name);
}

struct MmaArgument {
  float *d;
  const unsigned *a, *b;
};

struct MmaMatrices {
  float a[16][16], b[16][8], c[16][8];
};

static float bf16_half(unsigned pair, int half) {
  return emulated_bits<float>(half ? pair & 0xFFFF0000u : pair << 16);
}

static void gather(MmaMatrices *m, const MmaArgument *const *lanes) {
  for (int lane = 0; lane < WARP_LANES; lane++) {
    const int g = lane / 4;
    const int t = 2 * (lane % 4);
    for (int h = 0; h < 2; h++) {
      for (int r = 0; r < 4; r++)
        m->a[g + 8 * (r % 2)][t + 8 * (r / 2) + h] = bf16_half(lanes[lane]->a[r], h);
      for (int r = 0; r < 2; r++) m->b[t + 8 * r + h][g] = bf16_half(lanes[lane]->b[r], h);
      for (int r = 0; r < 2; r++) m->c[g + 8 * r][t + h] = lanes[lane]->d[2 * r + h];
    }
  }
}

static void multiply(MmaMatrices *m) {
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 16; k++)
      for (int j = 0; j < 8; j++) m->c[i][j] += m->a[i][k] * m->b[k][j];
}

static void scatter(const MmaMatrices *m, const MmaArgument *const *lanes) {
  for (int lane = 0; lane < WARP_LANES; lane++)
    for (int e = 0; e < 4; e++) lanes[lane]->d[e] = m->c[lane / 4 + 8 * (e / 2)][2 * (lane % 4) + e % 2];
}

/* Rows in the same 16 of the 128 bytes that all banks have together are read one after the other. */
static uint64_t conflicts(const void *const rows[8]) {
  int uses[8] = {};
  int most = 0;
  for (int i = 0; i < 8; i++) {
    const int now = ++uses[(uintptr_t)rows[i] / 16 % 8];
    if (now > most) most = now;
  }
  return (uint64_t)(most - 1);
}

struct LoadArgument {
  unsigned *r;
  const void *row;
};

static void load_matrix(int number, bool transposed, const LoadArgument *const *lanes) {
  uint16_t matrix[8][8];
  const void *rows[8];
  for (int i = 0; i < 8; i++) {
    rows[i] = lanes[8 * number + i]->row;
    memcpy(matrix[i], rows[i], sizeof matrix[i]);
  }
  counts.conflicts += conflicts(rows);
  for (int lane = 0; lane < WARP_LANES; lane++) {
    const int g = lane / 4;
    const int t = 2 * (lane % 4);
    const unsigned low = transposed ? matrix[t][g] : matrix[g][t];
    const unsigned high = transposed ? matrix[t + 1][g] : matrix[g][t + 1];
    lanes[lane]->r[number] = low | high << 16;
  }
}

static void load(const char *name, unsigned *r, const void *row, bool transposed, const void *caller) {
  need_whole_warp(name);
  if ((uintptr_t)row % 16 != 0) die("%s: the row is not aligned to 16 bytes", name);
  if (!find_shared(row, 16).area) die("%s: the row is not in shared memory", name);
  if (race_checking) race_access(row, 16, ACCESS_READ, caller);
  LoadArgument own = {r, row};
  Meeting *meeting;
  const bool last = join_meeting(name, ~0u, &own, &meeting);
  if (last) {
    for (int m = 0; m < 4; m++) load_matrix(m, transposed, (const LoadArgument *const *)meeting->arguments);
    counts.load_matrices++;
  }
  end_meeting(meeting, last, caller);
}

} // namespace emulator

void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  using namespace emulator;
  need_whole_warp("mma_bf16");
  MmaArgument own = {d, a, b};
  Meeting *meeting;
  const bool last = join_meeting("mma_bf16", ~0u, &own, &meeting);
  if (last) {
    MmaMatrices matrices;
    const MmaArgument *const *lanes = (const MmaArgument *const *)meeting->arguments;
    gather(&matrices, lanes);
    multiply(&matrices);
    scatter(&matrices, lanes);
    counts.mma++;
  }
  end_meeting(meeting, last, __builtin_return_address(0));
}

void load_matrices(unsigned (&r)[4], const void *row) {
  emulator::load("load_matrices", r, row, false, __builtin_return_address(0));
}

void load_matrices_transposed(unsigned (&r)[4], const void *row) {
  emulator::load("load_matrices_transposed", r, row, true, __builtin_return_address(0));
}
