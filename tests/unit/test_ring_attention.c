/* Ring attention by itself: what it sends, which hops it skips, and that the result is that of one rank. The
 * values are proved against float64 in test_model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "model/ring_attention.h"
#include "tests/support/compare.h"
#include "tests/support/ranks.h"
#include "tests/support/scatter.h"
#include "tests/support/unit.h"

enum {
  SEQUENCES = 2,
  HEADS = 4,
  KV_HEADS = 2,
  DIM = 16,
  MOST_CHUNKS = 64,
  COLUMNS = (HEADS + 2 * KV_HEADS) * DIM,
  OUT = HEADS * DIM
};

/* One attention over whole sequences, and what is expected of its communication. */
typedef struct Case {
  int64_t length;
  int64_t window;
  const int64_t *starts; /* document starts of both sequences, ended by -1; NULL: no document mask */
  int64_t rank_chunks;   /* of each sequence, given to the ranks of a ring by chance; 0: zigzag */
  bool head_by_head;     /* one rank computes one key head at a time, */
  bool by_operations;    /* and not a sequence at once */
  int hops;              /* hops that remain */
  float *out;            /* (SEQUENCES, length, OUT) gathered from all ranks */
  float *dqkv;           /* (SEQUENCES, length, COLUMNS) */
} Case;

#define REQUIRE(condition, what)                                                                             \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      (void)fail(error, STATUS_INTERNAL, "%s (line %d)", what, __LINE__);                                    \
      return error->status;                                                                                  \
    }                                                                                                        \
  } while (0)

/* A repeatable number for an element of a global tensor. */
static float element(uint64_t tensor, int64_t index) {
  Random random = {tensor * 1000003U + (uint64_t)index};
  return (float)random_normal(&random);
}

/* Row of a whole sequence that a local row holds, or -1 in the padding. */
static int64_t global_row(const Case *test, const Layout *layout, int rank, int64_t row) {
  const int64_t position = scatter_position(layout, rank, row);
  return position < test->length ? row / layout->local_length * test->length + position : -1;
}

typedef struct Tensors {
  float *qkv, *out, *lse, *dout, *dqkv;
} Tensors;

static Status fill(const Case *test, const Layout *layout, int rank, Tensors *t, Error *error) {
  const int64_t rows = SEQUENCES * layout->local_length;
  void *memory[5] = {NULL};
  const int64_t columns[5] = {COLUMNS, OUT, HEADS, OUT, COLUMNS};
  for (int i = 0; i < 5; i++) {
    TRY(memory_alloc((size_t)(rows * columns[i]), sizeof(float), "tensors of a test", &memory[i], error));
  }
  *t = (Tensors){memory[0], memory[1], memory[2], memory[3], memory[4]};
  for (int64_t row = 0; row < rows; row++) {
    const int64_t global = global_row(test, layout, rank, row);
    for (int64_t c = 0; c < COLUMNS && global >= 0; c++)
      t->qkv[row * COLUMNS + c] = element(1, global * COLUMNS + c);
    for (int64_t c = 0; c < OUT && global >= 0; c++) t->dout[row * OUT + c] = element(2, global * OUT + c);
  }
  return STATUS_OK;
}

/* Each rank writes its own rows. */
static void gather(Case *test, const Layout *layout, int rank, const Tensors *t) {
  for (int64_t row = 0; row < SEQUENCES * layout->local_length; row++) {
    const int64_t global = global_row(test, layout, rank, row);
    if (global < 0) continue;
    memcpy(test->out + global * OUT, t->out + row * OUT, OUT * sizeof(float));
    memcpy(test->dqkv + global * COLUMNS, t->dqkv + row * COLUMNS, COLUMNS * sizeof(float));
  }
}

/* n hops, the own block among them: n - 1 transfers of K/V in each direction, and as many of dK/dV. */
static Status check_traffic(const TestRank *rank, const AttentionDims *dims, const Layout *layout, int hops,
                            int passes, Error *error) {
  const AttentionOps *ops = &rank->device->ops.attention;
  const int64_t chunks = SEQUENCES * layout_rank_chunks(layout);
  const int64_t kv = chunks * (int64_t)ops->kv_bytes(dims, layout->chunk_length);
  const int64_t dkv = chunks * (int64_t)ops->dkv_bytes(dims, layout->chunk_length);
  const CommCounter *keys = &rank->ring->counters[COMM_KEYS_VALUES];
  const CommCounter *gradients = &rank->ring->counters[COMM_KEY_VALUE_GRADIENTS];
  const int64_t returns = passes > 1 ? hops - 1 : 0;
  REQUIRE(keys->messages == passes * (hops - 1), "transfers of keys and values");
  REQUIRE(keys->bytes == passes * (hops - 1) * kv, "bytes of keys and values");
  REQUIRE(gradients->messages == returns, "transfers of their gradient");
  REQUIRE(gradients->bytes == returns * dkv, "bytes of their gradient");
  return STATUS_OK;
}

enum { MOST_WORDS = 4 };

/* The same starts for both sequences. */
static Documents mark_documents(const Case *test, uint64_t marks[SEQUENCES * MOST_WORDS]) {
  const int64_t words = documents_words(test->length);
  memset(marks, 0, SEQUENCES * MOST_WORDS * sizeof *marks);
  for (int64_t b = 0; b < SEQUENCES; b++) {
    for (int64_t i = 0; test->starts != NULL && test->starts[i] >= 0; i++) {
      documents_mark(marks + b * words, test->starts[i]);
    }
  }
  return (Documents){.words = words, .marks = marks};
}

/* How the ranks cut the sequences; the chunks, where they are scattered, go to `chunks`. */
static Layout layout_of(const Case *test, int ring_size, int32_t *chunks) {
  if (test->rank_chunks == 0 || ring_size == 1) return layout_zigzag(test->length, ring_size);
  Layout layout = layout_cut(test->length, ring_size, test->rank_chunks);
  scatter_chunks(&layout, SEQUENCES, 5, chunks);
  layout.chunks = chunks;
  return layout;
}

static int64_t one_head(const AttentionDims *dims, int64_t length) {
  (void)dims;
  (void)length;
  return 1;
}

static Status run_rank(TestRank *rank, void *context, Error *error) {
  Case *test = context;
  const AttentionDims dims = {.heads = HEADS, .kv_heads = KV_HEADS, .head_dim = DIM, .scale = 0.25F};
  int32_t chunks[SEQUENCES * MOST_CHUNKS];
  uint64_t marks[SEQUENCES * MOST_WORDS];
  const Layout layout = layout_of(test, rank->ring->size, chunks);
  const Documents documents = mark_documents(test, marks);
  RingAttention *attention = NULL;
  Tensors t = {NULL};
  Status status = STATUS_OK;
  if (test->head_by_head) rank->device->ops.attention.heads_at_once = one_head;
  if (test->by_operations) {
    rank->device->ops.attention.forward_alone = NULL;
    rank->device->ops.attention.backward_alone = NULL;
  }
  TRY_GOTO(fill(test, &layout, rank->ring->rank, &t, error), done);
  TRY_GOTO(ring_attention_create(rank->device, rank->ring, &dims, &attention, error), done);
  TRY_GOTO(ring_attention_prepare(attention, SEQUENCES, &layout, test->starts == NULL ? NULL : &documents,
                                  test->window, true, error),
           done);
  if (ring_attention_hops(attention) != test->hops) {
    status = fail(error, STATUS_INTERNAL, "%d hops, expected %d", ring_attention_hops(attention), test->hops);
    goto done;
  }
  TRY_GOTO(ring_attention_forward(attention, t.qkv, t.out, t.lse, error), done);
  TRY_GOTO(check_traffic(rank, &dims, &layout, test->hops, 1, error), done);
  TRY_GOTO(ring_attention_backward(attention, t.qkv, t.out, t.lse, t.dout, t.dqkv, error), done);
  TRY_GOTO(check_traffic(rank, &dims, &layout, test->hops, 2, error), done);
  gather(test, &layout, rank->ring->rank, &t);
done:
  if (status != STATUS_OK) comm_abort(rank->world, error);
  ring_attention_destroy(attention);
  free(t.qkv);
  free(t.out);
  free(t.lse);
  free(t.dout);
  free(t.dqkv);
  return status;
}

/* Runs a case on one rank and on a ring, with all heads at a time, and compares. */
static void check(Case test, int ring) {
  const int64_t rows = SEQUENCES * test.length;
  const bool head_by_head = test.head_by_head;
  float *results[4];
  Error error = {0};
  for (int i = 0; i < 4; i++) {
    results[i] = calloc((size_t)(rows * (i % 2 == 0 ? OUT : COLUMNS)), sizeof(float));
    assert_non_null(results[i]);
  }
  test.out = results[0];
  test.dqkv = results[1];
  test.head_by_head = false;
  if (run_ranks(ring, 1, 1, run_rank, &test, &error) != STATUS_OK) fail_msg("ring %d: %s", ring, error.text);
  test.out = results[2];
  test.dqkv = results[3];
  test.hops = 1;
  test.head_by_head = head_by_head;
  if (run_ranks(1, 1, 1, run_rank, &test, &error) != STATUS_OK) fail_msg("one rank: %s", error.text);
  double worst = 0.0;
  for (int64_t i = 0; i < rows * OUT; i++)
    worst = fmax(worst, fabs((double)results[0][i] - (double)results[2][i]));
  check_within("output of the ring", worst, 2e-6);
  for (int64_t i = 0; i < rows * COLUMNS; i++) {
    worst = fmax(worst, fabs((double)results[1][i] - (double)results[3][i]));
  }
  check_within("gradient of the ring", worst, 2e-5);
  for (int i = 0; i < 4; i++) free(results[i]);
}

static void test_all_hops(void **state) {
  (void)state;
  for (int ring = 1; ring <= 8; ring++) check((Case){.length = 131, .hops = ring}, ring);
}

/* A window shorter than a chunk reaches only the chunk before: the ranks next to each other in either
 * direction. */
static void test_window_skips_hops(void **state) {
  (void)state;
  check((Case){.length = 160, .window = 8, .hops = 3}, 8);
  check((Case){.length = 160, .window = 8, .hops = 3}, 4);
  check((Case){.length = 160, .window = 160, .hops = 8}, 8);
}

/* Documents that are exactly the chunks need no other rank; one that spans the first half needs some. */
static void test_documents_skip_hops(void **state) {
  (void)state;
  const int64_t chunks[] = {20, 40, 60, 80, 100, 120, 140, -1};
  check((Case){.length = 160, .starts = chunks, .hops = 1}, 4);
  const int64_t pairs[] = {40, 80, 120, -1};
  check((Case){.length = 160, .starts = pairs, .hops = 3}, 4);
  const int64_t none[] = {-1};
  check((Case){.length = 160, .starts = none, .hops = 4}, 4);
}

/* Chunks that lie anywhere, next to each other or not, differently in each sequence. */
static void test_scattered_chunks(void **state) {
  (void)state;
  const int64_t starts[] = {7, 40, 41, 100, 130, -1};
  for (int ring = 2; ring <= 8; ring++) {
    check((Case){.length = 131, .rank_chunks = 8, .hops = ring}, ring);
    check((Case){.length = 150, .rank_chunks = 4, .starts = starts, .hops = ring}, ring);
    check((Case){.length = 150, .rank_chunks = 8, .window = 20, .starts = starts, .hops = ring}, ring);
  }
}

/* The heads that one rank computes at a time change nothing. */
static void test_head_by_head(void **state) {
  (void)state;
  const int64_t starts[] = {7, 40, 41, 100, 130, -1};
  check((Case){.length = 131, .hops = 1, .head_by_head = true}, 1);
  check((Case){.length = 131, .hops = 1, .head_by_head = true, .by_operations = true}, 1);
  check((Case){.length = 131, .hops = 1, .by_operations = true}, 1);
  check((Case){.length = 150, .starts = starts, .window = 20, .hops = 1, .head_by_head = true}, 1);
  check((Case){.length = 150, .starts = starts, .hops = 4, .head_by_head = true}, 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all_hops),
      cmocka_unit_test(test_window_skips_hops),
      cmocka_unit_test(test_documents_skip_hops),
      cmocka_unit_test(test_scattered_chunks),
      cmocka_unit_test(test_head_by_head),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
