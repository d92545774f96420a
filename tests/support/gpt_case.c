/* A small model and a batch for tests of the whole model. */
#include "tests/support/gpt_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/comm/layout.h"
#include "kernels/ops.h"
#include "model/model.h"
#include "model/params.h"
#include "tests/support/compare.h"
#include "tests/support/elements.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/scatter.h"
#include "train/host_weights.h"

enum { WEIGHT_SEED = 7, TOKEN_SEED = 11, END_OF_DOCUMENT = 3 };

ModelConfig gpt2_config(int64_t layers, int64_t heads, int64_t head_dim) {
  return (ModelConfig){.vocab_size = 61,
                       .hidden_size = heads * head_dim,
                       .num_hidden_layers = layers,
                       .num_attention_heads = heads,
                       .num_key_value_heads = heads,
                       .intermediate_size = 4 * heads * head_dim,
                       .max_position_embeddings = 400,
                       .norm_eps = 1e-5,
                       .initializer_range = 0.05,
                       .position = POSITION_LEARNED,
                       .norm = NORM_LAYERNORM,
                       .activation = ACTIVATION_GELU,
                       .bias = true,
                       .tie_word_embeddings = true};
}

ModelConfig llama_config(int64_t layers, int64_t heads, int64_t kv_heads, int64_t head_dim, bool tied) {
  return (ModelConfig){.vocab_size = 61,
                       .hidden_size = heads * head_dim,
                       .num_hidden_layers = layers,
                       .num_attention_heads = heads,
                       .num_key_value_heads = kv_heads,
                       .intermediate_size = 2 * heads * head_dim + 8,
                       .max_position_embeddings = 400,
                       .rope_theta = 10000.0,
                       .norm_eps = 1e-6,
                       .initializer_range = 0.05,
                       .position = POSITION_ROPE,
                       .norm = NORM_RMSNORM,
                       .activation = ACTIVATION_SWIGLU,
                       .tie_word_embeddings = tied};
}

void gpt_result_free(GptResult *result) {
  free(result->gradient);
  free(result->nll);
  params_free(&result->table, NULL);
}

/* ---------------------------------------------------------------- the same weights and tokens for both */

void gpt_case_weights(const TensorTable *table, float *weights) {
  Random random = {WEIGHT_SEED};
  params_init(table, WEIGHT_SEED, weights);
  for (int64_t t = 0; t < table->size; t++) {
    const TensorEntry *entry = &table->entries[t];
    if (entry->init_std > 0.0) continue;
    for (int64_t i = 0; i < entry->count; i++) {
      weights[entry->offset + i] += (float)(0.1 * random_normal(&random));
    }
  }
}

/* tokens and targets (sequences, T): the target of a position is the next token. */
static void draw_tokens(const GptCase *test, int32_t *tokens, int32_t *targets) {
  Random random = {TOKEN_SEED};
  for (int64_t b = 0; b < test->sequences; b++) {
    int32_t next = (int32_t)random_below(&random, test->config.vocab_size);
    for (int64_t p = 0; p < test->sequence_length; p++) {
      const int64_t i = b * test->sequence_length + p;
      tokens[i] = next;
      next = (int32_t)random_below(&random, test->config.vocab_size);
      if (random_below(&random, 17) == 0) next = END_OF_DOCUMENT;
      targets[i] = test->ignore_every > 0 && i % test->ignore_every == 0 ? IGNORED_TARGET : next;
    }
  }
}

/* ---------------------------------------------------------------- our model */

typedef struct Shared {
  const GptCase *test;
  int data;
  const int32_t *tokens;  /* (sequences, T) */
  const int32_t *targets; /* (sequences, T) */
  double *nll;            /* (sequences, T), each position written by the rank that has it */
  double *gradient;       /* (total) sums, written by world rank 0 */
  LossSum loss;           /* of all ranks, written by world rank 0 */
} Shared;

/* This rank's cut of the batch. */
typedef struct Cut {
  int64_t sequences;
  int64_t first; /* number of the first sequence */
  Layout layout;
  int rank; /* in the ring */
  int32_t *chunks;
  int32_t *tokens;
  int32_t *targets;
  Documents documents;
  uint64_t *marks; /* of them */
} Cut;

static void free_cut(Cut *cut) {
  free(cut->chunks);
  free(cut->tokens);
  free(cut->targets);
  free(cut->marks);
}

static Status cut_sequences(const GptCase *test, int ring_size, Cut *cut, Error *error) {
  void *memory = NULL;
  cut->layout = layout_zigzag(test->sequence_length, ring_size);
  if (test->rank_chunks == 0 || ring_size == 1) return STATUS_OK;
  cut->layout = layout_cut(test->sequence_length, ring_size, test->rank_chunks);
  const size_t count = (size_t)(cut->sequences * ring_size * test->rank_chunks);
  TRY(memory_alloc(count, sizeof(int32_t), "chunks", &memory, error));
  cut->chunks = memory;
  cut->layout.chunks = memory;
  scatter_chunks(&cut->layout, cut->sequences, 3, cut->chunks);
  return STATUS_OK;
}

/* The cut of `sequences` sequences from number `first` on. */
static Status allocate_cut(const TestRank *rank, const Shared *shared, int64_t first, int64_t sequences,
                           Cut *cut, Error *error) {
  const GptCase *test = shared->test;
  void *memory[3] = {NULL};
  cut->sequences = sequences;
  cut->first = first;
  cut->rank = rank->ring->rank;
  TRY(cut_sequences(test, rank->ring->size, cut, error));
  const size_t rows = (size_t)(cut->sequences * cut->layout.local_length);
  TRY(memory_alloc(rows, sizeof(int32_t), "tokens", &memory[0], error));
  cut->tokens = memory[0];
  TRY(memory_alloc(rows, sizeof(int32_t), "targets", &memory[1], error));
  cut->targets = memory[1];
  cut->documents.words = documents_words(test->sequence_length);
  const size_t words = (size_t)(cut->sequences * cut->documents.words);
  TRY(memory_alloc(words, sizeof(uint64_t), "marks", &memory[2], error));
  cut->marks = memory[2];
  cut->documents.marks = cut->marks;
  return STATUS_OK;
}

/* Global index of row `row` of a cut, or -1 in the padding. */
static int64_t global_index(const GptCase *test, const Cut *cut, int64_t row) {
  const int64_t position = scatter_position(&cut->layout, cut->rank, row);
  const int64_t sequence = cut->first + row / cut->layout.local_length;
  return position < test->sequence_length ? sequence * test->sequence_length + position : -1;
}

static void fill_cut(const GptCase *test, const Shared *shared, Cut *cut) {
  const int64_t length = test->sequence_length;
  for (int64_t row = 0; row < cut->sequences * cut->layout.local_length; row++) {
    const int64_t i = global_index(test, cut, row);
    cut->tokens[row] = i < 0 ? 0 : shared->tokens[i];
    cut->targets[row] = i < 0 ? IGNORED_TARGET : shared->targets[i];
  }
  for (int64_t i = 0; i < cut->sequences * length; i++) {
    if (i % length > 0 && shared->tokens[cut->first * length + i - 1] == END_OF_DOCUMENT) {
      documents_mark(cut->marks + i / length * cut->documents.words, i % length);
    }
  }
}

static Status collect(TestRank *rank, Model *model, Shared *shared, LossSum loss, Error *error) {
  const int64_t total = model_table(model)->total;
  double sums[2] = {loss.nll, (double)loss.targets};
  DeviceMapping mapping;
  TRY(device_map(rank->device, model_gradients(model), (size_t)total * sizeof(float), "gradients", &mapping,
                 error));
  float *gradients = mapping.host;
  Status status = STATUS_OK;
  TRY_GOTO(comm_all_reduce(rank->world, COMM_F32, COMM_SUM, gradients, total, error), done);
  TRY_GOTO(comm_all_reduce(rank->world, COMM_F64, COMM_SUM, sums, 2, error), done);
  if (rank->world->rank == 0) {
    shared->loss = (LossSum){.nll = sums[0], .targets = (int64_t)sums[1]};
    for (int64_t i = 0; i < total; i++) shared->gradient[i] = (double)gradients[i] / sums[1];
  }
done:
  device_unmap(&mapping, false);
  return status;
}

/* The weights of all cases, to a model. */
static Status set_weights(Device *device, Model *model, Error *error) {
  HostWeights weights;
  TRY(host_weights_open(device, model, &weights, error));
  gpt_case_weights(model_table(model), weights.floats);
  return host_weights_close(&weights, true, error);
}

static Status evaluate(Model *model, const GptCase *test, const ModelBatch *batch, const Cut *cut,
                       Shared *shared, Error *error) {
  void *memory = NULL;
  const int64_t rows = cut->sequences * cut->layout.local_length;
  TRY(memory_alloc((size_t)rows, sizeof(float), "nll", &memory, error));
  const float *nll = memory;
  const Status status = model_evaluate(model, batch, memory, error);
  for (int64_t row = 0; row < rows && status == STATUS_OK; row++) {
    const int64_t i = global_index(test, cut, row);
    if (i >= 0) shared->nll[i] = (double)nll[row];
  }
  free(memory);
  return status;
}

/* Forward, backward and evaluation of one micro-batch. */
static Status run_cut(TestRank *rank, Model *model, Model *evaluator, Shared *shared, int64_t first,
                      int64_t sequences, Error *error) {
  const GptCase *test = shared->test;
  Cut cut = {0};
  Status status = STATUS_OK;
  TRY_GOTO(allocate_cut(rank, shared, first, sequences, &cut, error), done);
  fill_cut(test, shared, &cut);
  ModelBatch batch = {.sequences = cut.sequences,
                      .sequence_length = test->sequence_length,
                      .layout = &cut.layout,
                      .first_draw = test->first_draw + first,
                      .tokens = cut.tokens,
                      .targets = cut.targets};
  if (test->document_mask) batch.documents = &cut.documents;
  TRY_GOTO(model_forward_backward(model, &batch, NULL, error), done);
  status = evaluate(evaluator, test, &batch, &cut, shared, error);
done:
  free_cut(&cut);
  return status;
}

static Status run_rank(TestRank *rank, void *context, Error *error) {
  Shared *shared = context;
  const GptCase *test = shared->test;
  const int64_t sequences = test->sequences / shared->data;
  const int64_t at_once = test->micro_batch > 0 ? test->micro_batch : sequences;
  ModelOptions options = {.config = test->config,
                          .loss_chunk = test->loss_chunk,
                          .mlp_chunk = test->mlp_chunk,
                          .training = true,
                          .recompute = test->recompute,
                          .dropout = test->dropout,
                          .seed = test->seed};
  Model *model = NULL;
  Model *evaluator = NULL;
  LossSum loss = {0};
  Status status = STATUS_OK;
  TRY_GOTO(model_create(rank->device, rank->ring, &options, &model, error), done);
  TRY_GOTO(set_weights(rank->device, model, error), done);
  options.training = false;
  options.recompute = false;
  options.weights = model_weights(model);
  TRY_GOTO(model_create(rank->device, rank->ring, &options, &evaluator, error), done);
  for (int64_t b = 0; b < sequences; b += at_once) {
    const int64_t first = rank->data_rank * sequences + b;
    TRY_GOTO(run_cut(rank, model, evaluator, shared, first, at_once, error), done);
  }
  TRY_GOTO(model_take_loss(model, &loss, error), done);
  status = collect(rank, model, shared, loss, error);
done:
  if (status != STATUS_OK) comm_abort(rank->world, error);
  model_destroy(evaluator);
  model_destroy(model);
  return status;
}

/* ---------------------------------------------------------------- both */

static Status allocate_result(const GptCase *test, GptResult *result, int32_t **tokens, int32_t **targets,
                              Error *error) {
  const size_t positions = (size_t)(test->sequences * test->sequence_length);
  void *memory[4] = {NULL};
  *result = (GptResult){0};
  TRY(params_build(&test->config, &result->table, NULL, error));
  TRY(memory_alloc((size_t)result->table.total, sizeof(double), "gradient", &memory[0], error));
  TRY(memory_alloc(positions, sizeof(double), "nll", &memory[1], error));
  TRY(memory_alloc(positions, sizeof(int32_t), "tokens", &memory[2], error));
  TRY(memory_alloc(positions, sizeof(int32_t), "targets", &memory[3], error));
  result->gradient = memory[0];
  result->nll = memory[1];
  *tokens = memory[2];
  *targets = memory[3];
  draw_tokens(test, *tokens, *targets);
  return STATUS_OK;
}

Status gpt_case_run(const GptCase *test, int ring, int data, GptResult *result, Error *error) {
  int32_t *tokens = NULL;
  int32_t *targets = NULL;
  TRY(allocate_result(test, result, &tokens, &targets, error));
  Shared shared = {.test = test,
                   .data = data,
                   .tokens = tokens,
                   .targets = targets,
                   .nll = result->nll,
                   .gradient = result->gradient};
  const Status status = run_ranks_on(test->device, ring, data, test->threads, run_rank, &shared, error);
  result->loss = shared.loss.nll / (double)shared.loss.targets;
  free(targets);
  free(tokens);
  return status;
}

Rope64 gpt_case_rope(const ModelConfig *c) {
  const RopeScaling *scaling = &c->rope_scaling;
  const bool llama3 = scaling->rope_type == ROPE_LLAMA3;
  const Rope64Scaling kinds[] = {[ROPE_DEFAULT] = ROPE64_PLAIN,
                                 [ROPE_LINEAR] = ROPE64_LINEAR,
                                 [ROPE_DYNAMIC] = ROPE64_DYNAMIC,
                                 [ROPE_YARN] = ROPE64_YARN,
                                 [ROPE_LLAMA3] = ROPE64_LLAMA3};
  return (Rope64){.scaling = kinds[scaling->rope_type],
                  .factor = scaling->factor,
                  .trained = scaling->rope_type == ROPE_DYNAMIC ? c->max_position_embeddings
                                                                : scaling->original_max_position_embeddings,
                  .many_turns = llama3 ? scaling->high_freq_factor : scaling->beta_fast,
                  .few_turns = llama3 ? scaling->low_freq_factor : scaling->beta_slow,
                  .magnitude = scaling->attention_factor,
                  .truncate = scaling->truncate};
}

Gpt64 *gpt_case_model(const ModelConfig *c, const TensorTable *table, const float *weights) {
  const Gpt64Config config = {.vocab = c->vocab_size,
                              .hidden = c->hidden_size,
                              .layers = c->num_hidden_layers,
                              .heads = c->num_attention_heads,
                              .kv_heads = c->num_key_value_heads,
                              .intermediate = c->intermediate_size,
                              .max_positions = c->max_position_embeddings,
                              .rope_theta = c->rope_theta,
                              .norm_eps = c->norm_eps,
                              .gpt2 = c->position == POSITION_LEARNED,
                              .tied = c->tie_word_embeddings,
                              .window = c->sliding_window,
                              .rope = gpt_case_rope(c)};
  Gpt64 *model = gpt64_create(&config);
  for (int64_t t = 0; model != NULL && t < table->size; t++) {
    const TensorEntry *entry = &table->entries[t];
    gpt64_set_value(gpt64_find(model, entry->name), weights + entry->offset, entry->transposed);
  }
  return model;
}

static Gpt64 *reference_model(const GptCase *test, const TensorTable *table, Error *error) {
  void *weights = NULL;
  if (memory_alloc((size_t)table->total, sizeof(float), "weights", &weights, error) != STATUS_OK) return NULL;
  gpt_case_weights(table, weights);
  const bool bf16 = test_device_elements(test->device) == ELEMENT_BF16;
  float *rounded = weights;
  for (int64_t i = 0; bf16 && i < table->total; i++) {
    rounded[i] = element_round(ELEMENT_BF16, rounded[i]);
  }
  Gpt64 *model = gpt_case_model(&test->config, table, weights);
  free(weights);
  return model;
}

static void reference_losses(const GptCase *test, Gpt64 *model, const int32_t *tokens, const int32_t *targets,
                             int64_t *first_key, GptResult *result) {
  double valid = 0.0;
  const int64_t length = test->sequence_length;
  for (int64_t i = 0; i < test->sequences * length; i++) valid += targets[i] != IGNORED_TARGET;
  for (int64_t b = 0; b < test->sequences; b++) {
    const int64_t at = b * length;
    gpt64_document_starts(length, tokens + at, END_OF_DOCUMENT, first_key);
    const int64_t *first = test->document_mask ? first_key : NULL;
    const RefDropout dropout = {
        .p = test->dropout, .seed = test->seed, .first_token = (test->first_draw + b) * length};
    model->dropout = test->dropout > 0 ? &dropout : NULL;
    result->loss +=
        gpt64_loss(model, tokens + at, targets + at, first, length, valid, result->nll + at, true);
    model->dropout = NULL;
    if (test->dropout > 0) {
      (void)gpt64_loss(model, tokens + at, targets + at, first, length, valid, result->nll + at, false);
    }
  }
}

Status gpt_case_reference(const GptCase *test, GptResult *result, Error *error) {
  int32_t *tokens = NULL;
  int32_t *targets = NULL;
  void *first_key = NULL;
  TRY(allocate_result(test, result, &tokens, &targets, error));
  TRY(memory_alloc((size_t)test->sequence_length, sizeof(int64_t), "first keys", &first_key, error));
  Gpt64 *model = reference_model(test, &result->table, error);
  if (model == NULL) return fail(error, STATUS_SYSTEM, "no reference model");
  reference_losses(test, model, tokens, targets, first_key, result);
  for (int64_t t = 0; t < result->table.size; t++) {
    const TensorEntry *entry = &result->table.entries[t];
    gpt64_get_gradient(gpt64_find(model, entry->name), result->gradient + entry->offset, entry->transposed);
  }
  gpt64_free(model);
  free(first_key);
  free(targets);
  free(tokens);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- one against the other */

/* Query and key gradients pass through two softmax-scaled products and lose a little more. In bf16 every
 * activation carries up to 2^-9 of its size, and a gradient gathers that of all layers. */
static double bound_of(const GptCase *test, const char *name) {
  if (test_device_elements(test->device) == ELEMENT_BF16) return 3e-2;
  const bool query_or_key = strstr(name, "q_proj") != NULL || strstr(name, "k_proj") != NULL ||
                            strstr(name, "c_attn.weight") != NULL;
  return query_or_key ? 1e-5 : 3e-6;
}

static void compare(const char *what, const GptCase *test, const GptResult *got, const GptResult *expected) {
  char name[256];
  const bool bf16 = test_device_elements(test->device) == ELEMENT_BF16;
  (void)snprintf(name, sizeof name, "%s: loss", what);
  check_within(name, fabs(got->loss - expected->loss) / expected->loss, bf16 ? 2e-3 : 1e-7);
  (void)snprintf(name, sizeof name, "%s: nll of the tokens", what);
  check_within(name, relative_error64(test->sequences * test->sequence_length, got->nll, expected->nll),
               bf16 ? 1e-2 : 1e-6);
  for (int64_t t = 0; t < expected->table.size; t++) {
    const TensorEntry *entry = &expected->table.entries[t];
    (void)snprintf(name, sizeof name, "%s: gradient of %s", what, entry->name);
    check_within(
        name,
        relative_error64(entry->count, got->gradient + entry->offset, expected->gradient + entry->offset),
        bound_of(test, entry->name));
  }
}

void gpt_case_check(const char *what, const GptCase *test, const int (*grids)[2], int count) {
  Error error = {0};
  GptResult expected;
  expect_ok(gpt_case_reference(test, &expected, &error), &error);
  for (int i = 0; i < count; i++) {
    GptResult got;
    char name[128];
    (void)snprintf(name, sizeof name, "%s, %s, ring %d x data %d", what, test_device_name(test->device),
                   grids[i][0], grids[i][1]);
    expect_ok(gpt_case_run(test, grids[i][0], grids[i][1], &got, &error), &error);
    compare(name, test, &got, &expected);
    gpt_result_free(&got);
  }
  gpt_result_free(&expected);
}
