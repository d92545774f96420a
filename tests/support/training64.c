/* Training in float64, written from the equations. */
#include "tests/support/training64.h"

#include <math.h>
#include <stdlib.h>

#include "tests/support/expect.h"
#include "tests/support/gpt_case.h"
#include "tests/support/unit.h"
#include "train/batches.h"

static void *zeros(int64_t count, size_t size) {
  void *memory = calloc((size_t)count, size);
  assert_non_null(memory);
  return memory;
}

void training64_begin(const Config *config, const TensorTable *table, const float *weights, Training64 *run) {
  Error error = {0};
  *run = (Training64){.config = config};
  expect_ok(batches_end_of_document(config, config->data.train, &run->end_of_document, &error), &error);
  const LoaderOptions options = {.pattern = config->data.train,
                                 .vocab_size = config->model.vocab_size,
                                 .end_of_document = run->end_of_document,
                                 .sequence_length = config->train.sequence_length,
                                 .micro_batch = 1,
                                 .ring_size = 1,
                                 .data_size = 1,
                                 .shuffle = config->data.shuffle,
                                 .seed = (uint64_t)config->run.seed,
                                 .read_ahead = 1};
  expect_ok(loader_open(&options, &run->loader, &error), &error);
  run->model = gpt_case_model(&config->model, table, weights);
  assert_non_null(run->model);
  run->m = zeros(table->total, sizeof(double));
  run->v = zeros(table->total, sizeof(double));
}

void training64_end(Training64 *run) {
  free(run->v);
  free(run->m);
  gpt64_free(run->model);
  loader_close(run->loader);
}

/* Loss of the step and its gradient: the mean over all tokens of all its sequences. */
static void differentiate(Training64 *run) {
  const TrainConfig *train = &run->config->train;
  const double tokens = (double)(train->global_batch_size * train->sequence_length);
  int64_t *first_key = zeros(train->sequence_length, sizeof *first_key);
  run->loss = 0;
  gpt64_zero_gradients(run->model);
  for (int64_t i = 0; i < train->global_batch_size; i++) {
    const Batch *batch = NULL;
    Error error = {0};
    expect_ok(loader_next(run->loader, &batch, &error), &error);
    gpt64_document_starts(train->sequence_length, batch->tokens, run->end_of_document, first_key);
    run->loss += gpt64_loss(run->model, batch->tokens, batch->targets,
                            run->config->data.document_mask ? first_key : NULL, train->sequence_length,
                            tokens, NULL, true);
  }
  free(first_key);
}

static double gradient_norm(const Gpt64 *model) {
  double sum = 0;
  for (int64_t t = 0; t < model->count; t++) {
    const Gpt64Tensor *tensor = &model->tensors[t];
    for (int64_t i = 0; i < tensor->rows * tensor->cols; i++) sum += tensor->grad[i] * tensor->grad[i];
  }
  return sqrt(sum);
}

/* The first step has 1 / warmup of the peak, the last of the warm-up all of it; from there to the end of the
 * run the rate goes down to the least. */
static double rate_of(const Config *config, int64_t step) {
  const double peak = config->optimizer.learning_rate;
  const double least = peak * config->scheduler.min_lr_ratio;
  const double warmup = (double)config->scheduler.warmup_steps;
  const double done = ((double)step - warmup) / ((double)config->train.steps - warmup);
  if ((double)step < warmup) return peak / warmup * (double)(step + 1);
  if (config->scheduler.name == SCHEDULER_LINEAR) return (1 - done) * peak + done * least;
  assert_int_equal(config->scheduler.name, SCHEDULER_COSINE);
  return least + (peak - least) * (1 + cos(acos(-1.0) * done)) / 2;
}

/* AdamW (I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 2, with the
 * learning rate in front of the decay as everywhere in practice): `g` times `factor` is the gradient. */
static void adamw(const Training64 *run, double factor, double decay, int64_t count, const double *g,
                  double *w, double *m, double *v) {
  const OptimizerConfig *o = &run->config->optimizer;
  const double t = (double)run->updates;
  for (int64_t i = 0; i < count; i++) {
    m[i] = o->beta1 * m[i] + (1 - o->beta1) * (factor * g[i]);
    v[i] = o->beta2 * v[i] + (1 - o->beta2) * (factor * g[i]) * (factor * g[i]);
    const double mean = m[i] / (1 - pow(o->beta1, t));
    const double square = v[i] / (1 - pow(o->beta2, t));
    w[i] -= run->learning_rate * (mean / (sqrt(square) + o->eps) + decay * w[i]);
  }
}

/* Matrices decay; the scales of norms and biases do not. */
static void update(Training64 *run) {
  const OptimizerConfig *o = &run->config->optimizer;
  const double factor = run->clipped ? o->clip_grad / run->grad_norm : 1;
  int64_t begin = 0;
  for (int64_t t = 0; t < run->model->count; t++) {
    const Gpt64Tensor *tensor = &run->model->tensors[t];
    const int64_t count = tensor->rows * tensor->cols;
    const double decay = tensor->cols > 1 ? o->weight_decay : 0;
    adamw(run, factor, decay, count, tensor->grad, tensor->value, run->m + begin, run->v + begin);
    begin += count;
  }
}

void training64_step(Training64 *run) {
  differentiate(run);
  run->learning_rate = rate_of(run->config, run->step);
  run->grad_norm = gradient_norm(run->model);
  run->clipped = run->grad_norm > run->config->optimizer.clip_grad;
  run->skipped = !isfinite(run->loss) || !isfinite(run->grad_norm);
  run->step++;
  if (run->skipped) return;
  run->updates++;
  update(run);
}
