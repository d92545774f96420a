/* Saving a run to a checkpoint and restoring it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "model/params.h"
#include "train/hf_model.h"
#include "train/host_weights.h"
#include "train/trainer.h"

/* Warnings of the checkpoints go to the log. */
static void warn(void *context, const char *text) {
  const Trainer *trainer = context;
  run_log_message(trainer->log, "warning: %s", text);
}

static void checkpoint_directory(const Config *config, char *path, size_t bytes) {
  (void)snprintf(path, bytes, "%s/checkpoints", config->run.dir);
}

/* ---------------------------------------------------------------- saving */

/* Weights and moments of a rank as host memory. */
typedef struct HostState {
  HostWeights weights;
  DeviceMapping m, v;
} HostState;

static Status close_state(HostState *state, bool changed, Error *error) {
  device_unmap(&state->v, changed);
  device_unmap(&state->m, changed);
  return host_weights_close(&state->weights, changed, error);
}

/* Without `weights` only the moments. */
static Status open_state(const Trainer *trainer, bool weights, HostState *state, Error *error) {
  Device *device = trainer->rank->device;
  const size_t own = (size_t)trainer->sharding.own_elements * sizeof(float);
  Status status = STATUS_OK;
  *state = (HostState){0};
  if (weights) TRY_GOTO(host_weights_open(device, trainer->model, &state->weights, error), failed);
  TRY_GOTO(device_map(device, trainer->optimizer.m, own, "optimizer state", &state->m, error), failed);
  TRY_GOTO(device_map(device, trainer->optimizer.v, own, "optimizer state", &state->v, error), failed);
  return STATUS_OK;
failed:
  (void)close_state(state, false, error);
  return status;
}

static Status save(Trainer *trainer, const HostState *host, const char *model_config, const char *run_config,
                   Error *error) {
  const Config *config = trainer->config;
  const Progress *progress = &trainer->progress;
  const TensorTable *table = model_table(trainer->model);
  Comm *world = trainer->rank->world;
  CheckpointManifest manifest = {.step = progress->step,
                                 .tokens = progress->tokens,
                                 .skipped_steps = progress->skipped,
                                 .skipped_in_a_row = progress->skipped_in_a_row,
                                 .ring = config->parallelism.ring,
                                 .data = config->parallelism.data,
                                 .threads = trainer->rank->device->threads};
  (void)snprintf(manifest.transport, sizeof manifest.transport, "%s", world->table->name);
  const CheckpointState state = {.table = table,
                                 .weights = host->weights.floats,
                                 .ranges = trainer->sharding.own,
                                 .range_count = trainer->sharding.groups,
                                 .extra = trainer->tokenizer.files,
                                 .extra_count = trainer->tokenizer.count,
                                 .m = host->m.host,
                                 .v = host->v.host,
                                 .model_config = model_config,
                                 .run_config = run_config};
  char directory[CONFIG_TEXT_BYTES + 32];
  checkpoint_directory(config, directory, sizeof directory);
  const CheckpointLog log = {.warn = warn, .context = trainer};
  return checkpoint_save(directory, config->checkpoint.keep, &manifest, &state, &log, world, error);
}

Status trainer_save(Trainer *trainer, Error *error) {
  Status status = STATUS_OK;
  char *model_config = NULL;
  char *run_config = NULL;
  HostState host = {0};
  TRY_GOTO(hf_model_text(&trainer->config->model, trainer->end_of_document, &model_config, error), done);
  TRY_GOTO(config_dump(trainer->config, &run_config, error), done);
  TRY_GOTO(open_state(trainer, trainer->rank->world->rank == 0, &host, error), done);
  TRY_GOTO(optimizer_collect_masters(&trainer->optimizer, host.weights.floats, error), done);
  TRY_GOTO(save(trainer, &host, model_config, run_config, error), done);
  run_log_message(trainer->log, "saved checkpoint step_%08lld", (long long)trainer->progress.step);
done:
  (void)close_state(&host, false, error);
  free(run_config);
  free(model_config);
  return status;
}

/* ---------------------------------------------------------------- restoring */

/* A run that starts before a checkpoint of its own directory would be overtaken by it: the next start would
 * go on from there. What is there belongs to the user, so the run is refused. */
static Status refuse_later_ones(Trainer *trainer, const Checkpoint *chosen, Error *error) {
  char directory[CONFIG_TEXT_BYTES + 32];
  Checkpoint newest;
  const CheckpointLog log = {.warn = warn, .context = trainer};
  checkpoint_directory(trainer->config, directory, sizeof directory);
  TRY(checkpoint_find(directory, &log, trainer->rank->world, &newest, error));
  if (newest.path[0] == '\0') return STATUS_OK;
  if (chosen->path[0] != '\0' && newest.manifest.step <= chosen->manifest.step) return STATUS_OK;
  return fail(
      error, STATUS_CONFIG,
      "checkpoint.resume=%s: the run directory holds %s, from which the next start would go on: move it "
      "away or choose another run.dir",
      trainer->config->checkpoint.resume, newest.path);
}

/* The checkpoint to go on from; an empty path: none. */
static Status choose(Trainer *trainer, Checkpoint *found, Error *error) {
  const Config *config = trainer->config;
  Comm *world = trainer->rank->world;
  *found = (Checkpoint){0};
  if (strcmp(config->checkpoint.resume, "auto") != 0) {
    if (strcmp(config->checkpoint.resume, "never") != 0) {
      TRY(checkpoint_open(config->checkpoint.resume, world, found, error));
    }
    return refuse_later_ones(trainer, found, error);
  }
  char directory[CONFIG_TEXT_BYTES + 32];
  checkpoint_directory(config, directory, sizeof directory);
  const CheckpointLog log = {.warn = warn, .context = trainer};
  return checkpoint_find(directory, &log, world, found, error);
}

static Status load_state(Trainer *trainer, const Checkpoint *checkpoint, Error *error) {
  HostState host;
  TRY(open_state(trainer, true, &host, error));
  const CheckpointTarget target = {.table = model_table(trainer->model),
                                   .weights = host.weights.floats,
                                   .ranges = trainer->sharding.own,
                                   .range_count = trainer->sharding.groups,
                                   .m = host.m.host,
                                   .v = host.v.host};
  const Status loaded = checkpoint_load(checkpoint, &target, trainer->rank->world, error);
  if (loaded == STATUS_OK) optimizer_set_masters(&trainer->optimizer, host.weights.floats);
  const Status closed = close_state(&host, loaded == STATUS_OK, error);
  return loaded != STATUS_OK ? loaded : closed;
}

/* New weights for a run that starts. */
static Status draw_weights(Trainer *trainer, Error *error) {
  HostWeights weights;
  TRY(host_weights_open(trainer->rank->device, trainer->model, &weights, error));
  params_init(model_table(trainer->model), (uint64_t)trainer->config->run.seed, weights.floats);
  optimizer_set_masters(&trainer->optimizer, weights.floats);
  return host_weights_close(&weights, true, error);
}

static Status load(Trainer *trainer, const Checkpoint *checkpoint, Error *error) {
  char warning[1024];
  TRY(hf_model_check(&trainer->config->model, checkpoint->path, warning, sizeof warning, error));
  if (warning[0] != '\0') warn(trainer, warning);
  TRY(load_state(trainer, checkpoint, error));
  trainer->progress = (Progress){.step = checkpoint->manifest.step,
                                 .tokens = checkpoint->manifest.tokens,
                                 .skipped = checkpoint->manifest.skipped_steps,
                                 .skipped_in_a_row = checkpoint->manifest.skipped_in_a_row};
  return STATUS_OK;
}

/* Says what a resumed run may expect: the same bits on the same grid, whatever the threads and the transport.
 */
static void report(const Trainer *trainer, const Checkpoint *checkpoint) {
  const CheckpointManifest *manifest = &checkpoint->manifest;
  const ParallelismConfig *now = &trainer->config->parallelism;
  const bool same = manifest->ring == now->ring && manifest->data == now->data;
  run_log_message(trainer->log, "resumed from %s: step %lld, token %lld", checkpoint->path,
                  (long long)manifest->step, (long long)manifest->tokens);
  if (same) return;
  run_log_message(trainer->log,
                  "the checkpoint is from another grid (ring %lld, data %lld): the run goes on at the exact "
                  "next sample, but not bit for bit",
                  (long long)manifest->ring, (long long)manifest->data);
}

Status trainer_restore(Trainer *trainer, Error *error) {
  Checkpoint checkpoint;
  Comm *world = trainer->rank->world;
  if (world->rank == 0) {
    TRY(run_log_open(trainer->config, stdout, &trainer->log, error));
    if (trainer->config->data.generate == GENERATE_NONE) {
      TRY(tokenizer_files_collect(trainer->config->data.train, &trainer->tokenizer, error));
    }
    if (trainer->tokenizer.missing != NULL) warn(trainer, trainer->tokenizer.missing);
  }
  TRY(choose(trainer, &checkpoint, error));
  if (checkpoint.path[0] != '\0') {
    TRY(load(trainer, &checkpoint, error));
  } else {
    TRY(draw_weights(trainer, error));
  }
  TRY(run_log_begin(trainer->log, trainer->config, trainer->progress.step, error));
  if (trainer->log != NULL && checkpoint.path[0] != '\0') report(trainer, &checkpoint);
  trainer->evaluated = run_log_evaluations(trainer->log);
  return comm_broadcast(world, 0, &trainer->evaluated, sizeof trainer->evaluated, error);
}
