/* The memory of a whole run, by computation: see the header. */
#include "train/memory_plan.h"

#include "data/loader.h"
#include "kernels/base/arena.h"
#include "kernels/comm/comm.h"
#include "kernels/comm/layout.h"
#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/cpu_device.h"
#include "model/memory.h"
#include "model/params.h"
#include "train/batches.h"
#include "train/perplexity.h"
#include "train/schedule.h"
#include "train/tasks.h"

/* Measured, tests/unit/test_memory_measured.c: of a process that has begun but taken nothing for a run; of
 * each thread, whose stack begins with one huge page; and the small blocks of a rank. */
#define PROGRAM_BYTES ((size_t)15 << 20)
#define THREAD_BYTES ((size_t)2 << 20)
#define RANK_BYTES ((size_t)3 << 19)
/* And of MPI in a process. */
#define MPI_BYTES ((size_t)12 << 20)

static size_t times(size_t a, size_t b) {
  return arena_times(a, b);
}

static size_t plus(size_t a, size_t b) {
  return arena_plus(a, b);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* The operations of the device, for the sizes that they ask for. Those of CUDA lay attention out as the
 * reference does. */
static Status find_operations(const Config *config, bool cuda, Ops *ops, Error *error) {
  const ElementType elements = config->train.precision == PRECISION_BF16 ? ELEMENT_BF16 : ELEMENT_F32;
  if (cuda) {
    *ops = (Ops){.elem_size = elements == ELEMENT_BF16 ? sizeof(uint16_t) : sizeof(float),
                 .attention = elements == ELEMENT_BF16 ? attention_reference_bf16 : attention_reference};
    return STATUS_OK;
  }
  Device *device = NULL;
  TRY(cpu_device_create(1, elements, &device, error));
  *ops = device->ops;
  device_destroy(device);
  return STATUS_OK;
}

size_t memory_plan_scratch(int threads) {
  return plus(times((size_t)threads + 1, THREAD_BYTES), RANK_BYTES);
}

/* ---------------------------------------------------------------- cases */

static ModelOptions model_options(const Config *config, bool training) {
  return (ModelOptions){.config = config->model,
                        .loss_chunk = config->train.loss_chunk,
                        .mlp_chunk = config->train.mlp_chunk,
                        .training = training,
                        .recompute = training && config->train.recompute,
                        .dropout = training ? config->train.dropout : 0.0};
}

Layout memory_case_layout(const Config *config, const MemoryRun *run, int64_t length, int ring_size) {
  return run->purpose == MEMORY_TASKS ? layout_zigzag(length, ring_size)
                                      : batches_layout(config, length, ring_size);
}

/* Bytes of the batches that are read, and of what is kept of them. */
static size_t batch_bytes_of(const Config *config, const MemoryRun *run, bool training, int64_t sequences,
                             int64_t length) {
  const int ring_size = (int)config->parallelism.ring;
  const LoaderOptions options = {.documents = config->data.document_mask,
                                 .sequence_length = length,
                                 .micro_batch = sequences,
                                 .ring_size = ring_size,
                                 .read_ahead = (int)config->data.read_ahead};
  if (training) return loader_bytes(&options);
  return run->purpose == MEMORY_TASKS ? task_bytes(length, ring_size)
                                      : perplexity_bytes(config, length, ring_size);
}

/* Adds a case to the plan and its needs to the memory of the model that computes it. */
static void add_case(const Config *config, const Ops *ops, bool training, int64_t sequences, int64_t length,
                     ModelMemory *all, MemoryPlan *plan) {
  const ModelOptions options = model_options(config, training);
  const Layout layout = memory_case_layout(config, &plan->run, length, (int)config->parallelism.ring);
  ModelMemory own = {0};
  (void)model_memory_add(&own, &options, ops, sequences, &layout);
  (void)model_memory_add(all, &options, ops, sequences, &layout);
  MemoryCase *added = &plan->cases_of[plan->cases++];
  *added = (MemoryCase){.training = training,
                        .sequences = sequences,
                        .length = length,
                        .arena = own.bytes,
                        .kept = own.buffers[BUFFER_KEPT].bytes,
                        .logits = own.buffers[BUFFER_LOGITS].bytes,
                        .batch = batch_bytes_of(config, &plan->run, training, sequences, length)};
  for (int i = 0; i < RING_BUFFERS; i++) {
    added->ring = plus(added->ring, own.buffers[ACTIVATION_BUFFERS + i].bytes);
  }
}

static void add_stages(const Config *config, const Ops *ops, ModelMemory *all, MemoryPlan *plan) {
  for (int64_t step = 0; step < config->train.steps;) {
    const SequenceStage stage = schedule_stage(config, step);
    add_case(config, ops, true, stage.micro_batch_size, stage.sequence_length, all, plan);
    step = stage.end_step;
  }
}

static void add_evaluations(const Config *config, const Ops *ops, ModelMemory *all, MemoryPlan *plan) {
  for (int64_t i = 0; i < config->eval.contexts.count; i++) {
    add_case(config, ops, false, 1, config->eval.contexts.values[i], all, plan);
  }
}

/* All cases, and what they need by turns. */
static void add_cases(const Config *config, const Ops *ops, MemoryPlan *plan) {
  ModelMemory training = {0};
  ModelMemory evaluating = {0};
  const bool trains = plan->run.purpose == MEMORY_TRAINING;
  if (trains) add_stages(config, ops, &training, plan);
  if (!trains || config->eval.every > 0) add_evaluations(config, ops, &evaluating, plan);
  plan->arena = larger(training.bytes, evaluating.bytes);
  plan->positions = larger(training.host_bytes, evaluating.host_bytes);
  for (int i = 0; i < plan->cases; i++) {
    const MemoryCase *at = &plan->cases_of[i];
    if (at->arena > plan->cases_of[plan->largest].arena) plan->largest = i;
    size_t *most = at->training ? &plan->loader : &plan->evaluation;
    *most = larger(*most, at->batch);
  }
}

/* ---------------------------------------------------------------- parameters */

/* The elements of a rank's share of the optimizer, at most, and of the largest group of parameters. */
static void shares(const TensorTable *table, int64_t ranks, int64_t *own, int64_t *largest) {
  int64_t group = 0;
  *own = 0;
  *largest = 0;
  for (int64_t i = 0; i < table->size; i++) {
    group += table->entries[i].count;
    if (i + 1 < table->size && table->entries[i + 1].group == table->entries[i].group) continue;
    *own += (group + ranks - 1) / ranks;
    if (group > *largest) *largest = group;
    group = 0;
  }
}

static Status add_parameters(const Config *config, size_t elem_size, MemoryPlan *plan, Error *error) {
  TensorTable table;
  int64_t own = 0;
  int64_t group = 0;
  TRY(params_build(&config->model, &table, NULL, error));
  shares(&table, config_ranks(config), &own, &group);
  plan->parameters = table.total;
  params_free(&table, NULL);
  const bool rounded = elem_size != sizeof(float);
  const size_t floats = times((size_t)plan->parameters, sizeof(float));
  const size_t share = times((size_t)own, sizeof(float));
  plan->weights = times((size_t)plan->parameters, elem_size);
  /* Weights are drawn, loaded and saved as floats of the host. */
  if (rounded || plan->run.cuda) plan->copies = floats;
  if (plan->run.purpose != MEMORY_TRAINING) return STATUS_OK;
  plan->gradients = floats;
  plan->moments = times(2, share);
  plan->masters = rounded ? share : 0;
  if (plan->run.cuda) plan->copies = plus(plan->copies, plan->moments);
  if (rounded || plan->run.cuda) plan->saving = floats;
  if (rounded) plan->passing = times((size_t)group, sizeof(float));
  return STATUS_OK;
}

/* ---------------------------------------------------------------- peaks */

static void add_peaks(MemoryPlan *plan) {
  const MemoryRun *run = &plan->run;
  const size_t kept = plus(plus(plan->weights, plan->gradients), plus(plan->masters, plan->moments));
  const size_t device = plus(kept, plus(plan->arena, plan->passing));
  const size_t working = plus(plus(plan->positions, plus(plan->loader, plan->evaluation)), plan->scratch);
  if (run->cuda) {
    plan->rank_device = device;
    plan->gpu = times(device, (size_t)run->ranks_a_gpu);
    plan->rank_host = larger(working, plus(plan->copies, plan->scratch));
  } else {
    /* What is drawn or loaded is released before the arena is taken. */
    const size_t start = plus(plus(kept, plan->copies), plan->scratch);
    plan->rank_host = larger(start, plus(device, working));
  }
  const size_t processes = run->one_process ? 1 : (size_t)run->ranks_here;
  plan->host = plus(times(plan->rank_host, (size_t)run->ranks_here),
                    plus(times(plan->program, processes), plan->saving));
}

Status memory_plan(const Config *config, const MemoryRun *run, MemoryPlan *plan, Error *error) {
  Ops ops;
  *plan = (MemoryPlan){.run = *run,
                       .program = PROGRAM_BYTES + (run->one_process ? 0 : MPI_BYTES),
                       .scratch = memory_plan_scratch(run->threads)};
  TRY(find_operations(config, run->cuda, &ops, error));
  TRY(add_parameters(config, ops.elem_size, plan, error));
  add_cases(config, &ops, plan);
  add_peaks(plan);
  return STATUS_OK;
}
