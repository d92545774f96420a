/* Whether a plan fits this machine, and what would make it fit: see the header. */
#include "train/memory_advice.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/arena.h"

/* Chunks that cost little time and little memory; and the largest ring that is looked at. */
#define SMALL_MLP_CHUNK 4096
#define SMALL_LOSS_CHUNK 256
#define LARGEST_RING (INT64_C(1) << 20)

bool memory_fits(const MemoryPlan *plan, const MemoryMachine *machine) {
  return plan->host <= machine->host && plan->gpu <= machine->gpu;
}

size_t memory_deciding(const MemoryPlan *plan, const MemoryMachine *machine) {
  return plan->run.cuda && (plan->gpu > machine->gpu || plan->host <= machine->host) ? plan->gpu : plan->host;
}

void memory_size_text(size_t bytes, char *text, size_t size) {
  static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = (double)bytes / 1024.0;
  size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < sizeof units / sizeof units[0]; unit++) value /= 1024.0;
  const char *bound = bytes == ARENA_TOO_LARGE ? "more than " : "";
  (void)snprintf(text, size, "%s%.*f %s", bound, value < 10.0 ? 2 : 1, value, units[unit]);
}

/* ---------------------------------------------------------------- changes */

/* Changes the configuration and names the change; false where it is so already. */
typedef bool (*Change)(Config *config, const MemoryRun *run, char *text, size_t size);

static bool to_bf16(Config *config, const MemoryRun *run, char *text, size_t size) {
  (void)run;
  if (config->train.precision == PRECISION_BF16) return false;
  config->train.precision = PRECISION_BF16;
  (void)snprintf(text, size, "train.precision=bf16");
  return true;
}

static bool to_recompute(Config *config, const MemoryRun *run, char *text, size_t size) {
  if (run->purpose != MEMORY_TRAINING || config->train.recompute) return false;
  config->train.recompute = true;
  (void)snprintf(text, size, "train.recompute=true");
  return true;
}

static bool to_mlp_chunk(Config *config, const MemoryRun *run, char *text, size_t size) {
  (void)run;
  if (config->train.mlp_chunk > 0 && config->train.mlp_chunk <= SMALL_MLP_CHUNK) return false;
  config->train.mlp_chunk = SMALL_MLP_CHUNK;
  (void)snprintf(text, size, "train.mlp_chunk=%d", SMALL_MLP_CHUNK);
  return true;
}

static bool to_loss_chunk(Config *config, const MemoryRun *run, char *text, size_t size) {
  (void)run;
  if (config->train.loss_chunk <= SMALL_LOSS_CHUNK) return false;
  config->train.loss_chunk = SMALL_LOSS_CHUNK;
  (void)snprintf(text, size, "train.loss_chunk=%d", SMALL_LOSS_CHUNK);
  return true;
}

static const Change single[] = {to_bf16, to_recompute, to_mlp_chunk, to_loss_chunk};
#define SINGLE_CHANGES (sizeof single / sizeof single[0])

/* Enters a change if it saves something. */
static Status enter(const Config *changed, const MemoryRun *run, const MemoryMachine *machine, size_t before,
                    MemoryChange *change, bool *helps, Error *error) {
  MemoryPlan plan;
  TRY(memory_plan(changed, run, &plan, error));
  change->bytes = memory_deciding(&plan, machine);
  change->fits = memory_fits(&plan, machine);
  *helps = change->bytes < before;
  return STATUS_OK;
}

/* The smallest ring, doubled again and again over as many times more machines, that fits. */
static Status try_rings(const Config *config, const MemoryRun *run, const MemoryMachine *machine,
                        const char *with, MemoryChange *change, bool *found, Error *error) {
  Config changed = *config;
  const int64_t machines = (config_ranks(config) + run->ranks_here - 1) / run->ranks_here;
  *found = false;
  for (int64_t factor = 2; !*found && config->parallelism.ring * factor <= LARGEST_RING; factor *= 2) {
    bool helps = false;
    changed.parallelism.ring = config->parallelism.ring * factor;
    TRY(enter(&changed, run, machine, SIZE_MAX, change, &helps, error));
    *found = change->fits;
    (void)snprintf(change->text, sizeof change->text,
                   "parallelism.ring=%" PRId64 " over %" PRId64 " machines%s", changed.parallelism.ring,
                   machines * factor, with);
  }
  return STATUS_OK;
}

Status memory_advice(const Config *config, const MemoryRun *run, const MemoryMachine *machine,
                     MemoryChange *changes, int *count, Error *error) {
  Config all = *config;
  MemoryPlan plan;
  bool helps = false;
  TRY(memory_plan(config, run, &plan, error));
  const size_t before = memory_deciding(&plan, machine);
  *count = 0;
  for (size_t i = 0; i < SINGLE_CHANGES; i++) {
    Config changed = *config;
    MemoryChange *change = &changes[*count];
    if (!single[i](&changed, run, change->text, sizeof change->text)) continue;
    TRY(enter(&changed, run, machine, before, change, &helps, error));
    if (!helps) continue;
    (void)single[i](&all, run, change->text, sizeof change->text);
    *count += 1;
  }
  const int singles = *count;
  if (singles > 1) {
    MemoryChange *change = &changes[(*count)++];
    (void)snprintf(change->text, sizeof change->text, "all of these");
    TRY(enter(&all, run, machine, before, change, &helps, error));
  }
  TRY(try_rings(config, run, machine, "", &changes[*count], &helps, error));
  if (helps) *count += 1;
  if (singles == 0) return STATUS_OK;
  TRY(try_rings(&all, run, machine, singles > 1 ? " and all of these" : " and that", &changes[*count], &helps,
                error));
  if (helps) *count += 1;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- a refusal */

/* Appends as much as there is room for. */
static void append(char *text, size_t size, const char *part) {
  (void)strncat(text, part, size - strlen(text) - 1);
}

/* What a plan computes that needs most: "training at 65536 tokens". */
static void largest_case(const MemoryPlan *plan, char *text, size_t size) {
  const MemoryCase *at = &plan->cases_of[plan->largest];
  (void)snprintf(text, size, "%s at %" PRId64 " tokens", at->training ? "training" : "evaluation",
                 at->length);
}

Status memory_refuse(const Config *config, const MemoryPlan *plan, const MemoryMachine *machine,
                     Error *error) {
  MemoryChange changes[MEMORY_CHANGES];
  int count = 0;
  char what[64];
  char needed[32];
  char there[32];
  char ways[640] = "";
  const bool gpu = plan->run.cuda && plan->gpu > machine->gpu;
  TRY(memory_advice(config, &plan->run, machine, changes, &count, error));
  largest_case(plan, what, sizeof what);
  memory_size_text(gpu ? plan->gpu : plan->host, needed, sizeof needed);
  memory_size_text(gpu ? machine->gpu : machine->host, there, sizeof there);
  for (int i = 0; i < count; i++) {
    char bytes[32];
    memory_size_text(changes[i].bytes, bytes, sizeof bytes);
    append(ways, sizeof ways, i == 0 ? "" : ", ");
    append(ways, sizeof ways, changes[i].text);
    append(ways, sizeof ways, " ");
    append(ways, sizeof ways, bytes);
    append(ways, sizeof ways, changes[i].fits ? " (fits)" : "");
  }
  return fail(error, STATUS_SYSTEM,
              "no memory for %s: %s needs %s for %d rank%s, %s are free; with %s; 'ringgpt plan' says more",
              what, gpu ? "a GPU" : "this machine", needed,
              gpu ? plan->run.ranks_a_gpu : plan->run.ranks_here,
              (gpu ? plan->run.ranks_a_gpu : plan->run.ranks_here) == 1 ? "" : "s", there,
              count > 0 ? ways : "fewer tokens or a smaller model it would be less");
}
