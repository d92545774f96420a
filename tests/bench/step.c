/* Steps of training: the trainer's own, on made-up tokens, one sequence a step. Floating-point operations of
 * a token: 6 N + 6 L T d for causal attention, with N the weights of products, the head's included, and d the
 * width of attention; what recomputation computes again does not count. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "model/params.h"
#include "tests/bench/memory.h"
#include "tests/bench/scratch.h"
#include "train/host_weights.h"
#include "train/trainer.h"

typedef struct Workload {
  const char *name;
  const char *path; /* of its configuration, from the root of the source */
  int64_t tokens;   /* T */
  int samples;      /* at most */
  bool slow;        /* takes minutes on a CPU */
} Workload;

static const Workload models[] = {
    {"gpt2-124m", "configs/gpt2-124m.yaml", 1024, BENCH_MOST_SAMPLES, false},
    {"gpt2-124m", "configs/gpt2-124m.yaml", 16384, 3, true},
    {"llama-160m", "configs/llama-160m-64k.yaml", 65536, 2, true},
};

enum { OVERRIDES = 32, OVERRIDE_BYTES = 384, QUICK_TOKENS = 64 };

/* One rank, whose device is the bench's. */
typedef struct Training {
  Scratch scratch;
  Config config;
  Rank rank;
  Trainer trainer;
} Training;

/* ---------------------------------------------------------------- the configuration */

/* What a benchmark changes in any configuration. */
static const char *const settings[] = {
    "data.val=",
    "data.document_mask=false",
    "parallelism.ring=1",
    "parallelism.data=1",
    "train.micro_batch_size=1",
    "train.global_batch_size=1",
    "train.steps=1000000",
    "train.sequence_schedule={}",
    "scheduler.name=constant",
    "scheduler.warmup_steps=0",
    "scheduler.decay_steps=0",
    "eval.every=0",
};

/* Settings that make any model tiny. */
static const char *const tiny[] = {
    "model.vocab_size=257",        "model.hidden_size=32",        "model.num_hidden_layers=1",
    "model.num_attention_heads=2", "model.num_key_value_heads=2", "model.intermediate_size=64",
};

static void add_all(char texts[OVERRIDES][OVERRIDE_BYTES], int *count, const char *const *list,
                    size_t length) {
  for (size_t i = 0; i < length; i++) (void)snprintf(texts[(*count)++], OVERRIDE_BYTES, "%s", list[i]);
}

static Status load_config(const Bench *bench, const Workload *model, ElementType type, Training *training,
                          Error *error) {
  char texts[OVERRIDES][OVERRIDE_BYTES];
  char *overrides[OVERRIDES];
  int count = 0;
  const long long tokens = bench->quick ? QUICK_TOKENS : model->tokens;
  add_all(texts, &count, settings, sizeof settings / sizeof settings[0]);
  if (bench->quick) add_all(texts, &count, tiny, sizeof tiny / sizeof tiny[0]);
  (void)snprintf(texts[count++], OVERRIDE_BYTES, "run.dir=%s/run", training->scratch.path);
  (void)snprintf(texts[count++], OVERRIDE_BYTES, "data.train=%s/train_*.bin.gz", training->scratch.path);
  (void)snprintf(texts[count++], OVERRIDE_BYTES, "train.sequence_length=%lld", tokens);
  (void)snprintf(texts[count++], OVERRIDE_BYTES, "model.max_position_embeddings=%lld", tokens);
  (void)snprintf(texts[count++], OVERRIDE_BYTES, "train.precision=%s", bench_type_name(type));
  for (int i = 0; i < count; i++) overrides[i] = texts[i];
  return config_load(model->path, overrides, count, &training->config, error);
}

/* 6 N + 6 L T d, times T. */
static double step_work(const Config *config) {
  const ModelConfig *m = &config->model;
  const double hidden = (double)m->hidden_size;
  const double layers = (double)m->num_hidden_layers;
  const double tokens = (double)config->train.sequence_length;
  const double keys = hidden * (double)m->num_key_value_heads / (double)m->num_attention_heads;
  const double mlp = (m->activation == ACTIVATION_SWIGLU ? 3 : 2) * (double)m->intermediate_size;
  const double weights = layers * hidden * (2 * hidden + 2 * keys + mlp) + (double)m->vocab_size * hidden;
  return tokens * (6 * weights + 6 * layers * tokens * hidden);
}

/* ---------------------------------------------------------------- the trainer */

static Status draw_weights(Trainer *trainer, Error *error) {
  HostWeights weights;
  TRY(host_weights_open(trainer->rank->device, trainer->model, &weights, error));
  params_init(model_table(trainer->model), 1, weights.floats);
  optimizer_set_masters(&trainer->optimizer, weights.floats);
  return host_weights_close(&weights, true, error);
}

static Status create_model(Training *training, Error *error) {
  const Config *config = &training->config;
  Trainer *trainer = &training->trainer;
  Device *device = training->rank.device;
  const ModelOptions options = {.config = config->model,
                                .loss_chunk = config->train.loss_chunk,
                                .mlp_chunk = config->train.mlp_chunk,
                                .training = true,
                                .recompute = config->train.recompute};
  TRY(model_create(device, training->rank.ring, &options, &trainer->model, error));
  TRY(sharding_create(training->rank.world, model_table(trainer->model), model_weights(trainer->model),
                      device->ops.elem_size, model_gradients(trainer->model), &trainer->sharding, error));
  TRY(optimizer_create(device, model_table(trainer->model), &trainer->sharding, &config->optimizer,
                       &trainer->optimizer, error));
  return draw_weights(trainer, error);
}

static Status create(Bench *bench, const Workload *model, ElementType type, Training *training,
                     Error *error) {
  Rank *rank = &training->rank;
  *rank = (Rank){.data_size = 1, .device = bench->devices[type]};
  training->trainer =
      (Trainer){.config = &training->config, .rank = rank, .stop = bench->stop, .end_of_document = -1};
  TRY(scratch_create(&training->scratch, error));
  TRY(load_config(bench, model, type, training, error));
  TRY(scratch_shards(&training->scratch, 8 * training->config.train.sequence_length + 1,
                     training->config.model.vocab_size, error));
  TRY(comm_local_create(1, &rank->world, error));
  TRY(comm_use_device(rank->world, rank->device, error));
  TRY(comm_split(rank->world, 0, &rank->ring, error));
  TRY(comm_use_device(rank->ring, rank->device, error));
  TRY(create_model(training, error));
  return trainer_enter_stage(&training->trainer, error);
}

static void destroy(Training *training) {
  Trainer *trainer = &training->trainer;
  loader_close(trainer->loader);
  optimizer_destroy(&trainer->optimizer);
  sharding_destroy(&trainer->sharding);
  model_destroy(trainer->model);
  comm_destroy(training->rank.ring);
  comm_destroy(training->rank.world);
  scratch_remove(&training->scratch);
}

static double one_step(Bench *bench, void *context) {
  Training *training = context;
  const double start = clock_seconds();
  (void)trainer_step(&training->trainer, &bench->error);
  return clock_seconds() - start;
}

/* ---------------------------------------------------------------- the part */

static void measure(Bench *bench, const Workload *model, ElementType type) {
  Case c;
  Training training = {0};
  const int samples = bench->samples;
  if (!bench_begin(bench, &c, type, bench_limit(type), "training %s %s T %lld", model->name,
                   bench_type_name(type), (long long)(bench->quick ? QUICK_TOKENS : model->tokens))) {
    return;
  }
  if (create(bench, model, type, &training, &bench->error) == STATUS_OK) {
    c.work = step_work(&training.config);
    c.tokens = (double)training.config.train.sequence_length;
    if (bench->samples > model->samples) bench->samples = model->samples;
  }
  bench_repeat(bench, &c, one_step, &training);
  bench->samples = samples;
  destroy(&training);
  bench_release(bench);
}

void bench_steps(Bench *bench) {
  printf("%-10s floating-point operations of a token: 6 N + 6 L T d, N the weights of products\n",
         bench->part);
  for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
    if (models[i].slow && !bench->all && !bench->quick) continue;
    measure(bench, &models[i], ELEMENT_F32);
    measure(bench, &models[i], ELEMENT_BF16);
  }
}
