/* A plan of memory as a table for people: see the header. */
#include "train/memory_table.h"

#include "kernels/base/arena.h"
#include "train/progress.h"

/* A line with the bytes of one rank and of all; nothing where there are none. */
static void print_line(FILE *stream, const char *what, size_t rank, size_t all) {
  char texts[2][32];
  if (all == 0) return;
  memory_size_text(rank, texts[0], sizeof texts[0]);
  memory_size_text(all, texts[1], sizeof texts[1]);
  (void)fprintf(stream, "  %-50s %12s %12s\n", what, rank == 0 ? "-" : texts[0], texts[1]);
}

static void print_part(FILE *stream, const MemoryPlan *plan, const char *what, size_t rank) {
  print_line(stream, what, rank, arena_times(rank, (size_t)plan->run.ranks_here));
}

static void print_head(FILE *stream, const char *what) {
  (void)fprintf(stream, "\n  %-50s %12s %12s\n", what, "one rank", "all here");
}

static void print_device_parts(FILE *stream, const MemoryPlan *plan) {
  const size_t kept = plan->cases > 0 ? plan->cases_of[plan->largest].kept : 0;
  print_part(stream, plan, "weights", plan->weights);
  print_part(stream, plan, "gradients", plan->gradients);
  print_part(stream, plan, "masters of its share of the weights", plan->masters);
  print_part(stream, plan, "optimizer state of its share", plan->moments);
  print_part(stream, plan, "activations that layers keep", kept);
  print_part(stream, plan, "all other activations, attention, logits, by turns", plan->arena - kept);
  print_part(stream, plan, "masters of a layer on their way to a checkpoint", plan->passing);
}

static void print_host_parts(FILE *stream, const MemoryPlan *plan) {
  const size_t processes = plan->run.one_process ? 1 : (size_t)plan->run.ranks_here;
  print_part(stream, plan, "batches of the loader, losses, positions",
             arena_plus(arena_plus(plan->loader, plan->evaluation), plan->positions));
  print_part(stream, plan, "weights drawn or loaded, before the activations", plan->copies);
  print_line(stream, "a checkpoint on its way, on rank 0", 0, plan->saving);
  print_part(stream, plan, "threads and small blocks", plan->scratch);
  print_line(stream, "the program itself", 0, arena_times(plan->program, processes));
}

/* What a form of batches takes by itself: its parts share bytes, so that they add up to more than it. */
static void print_case(FILE *stream, const MemoryCase *at) {
  char length[32];
  char what[80];
  char texts[4][32];
  progress_count(at->length, length, sizeof length);
  (void)snprintf(what, sizeof what, "%s at %s tokens", at->training ? "training" : "evaluation", length);
  memory_size_text(at->arena, texts[0], sizeof texts[0]);
  memory_size_text(at->kept, texts[1], sizeof texts[1]);
  memory_size_text(at->ring, texts[2], sizeof texts[2]);
  memory_size_text(at->logits, texts[3], sizeof texts[3]);
  (void)fprintf(stream, "  %-36s %12s %12s %12s %12s\n", what, texts[0], texts[1], texts[2], texts[3]);
}

static void print_cases(FILE *stream, const MemoryPlan *plan) {
  (void)fprintf(stream, "\n  %-36s %12s %12s %12s %12s\n", "one rank, by turns", "activations", "kept",
                "ring", "logits");
  for (int i = 0; i < plan->cases; i++) print_case(stream, &plan->cases_of[i]);
}

void memory_table_print(const Config *config, const MemoryPlan *plan, FILE *stream) {
  char parameters[32];
  progress_count(plan->parameters, parameters, sizeof parameters);
  (void)fprintf(stream, "%s: %s parameters in %s, ring %lld x data %lld, %d rank%s on this machine\n",
                config->run.name, parameters, config->train.precision == PRECISION_BF16 ? "bf16" : "fp32",
                (long long)config->parallelism.ring, (long long)config->parallelism.data,
                plan->run.ranks_here, plan->run.ranks_here == 1 ? "" : "s");
  print_head(stream, plan->run.cuda ? "memory of the GPUs" : "memory of the machine");
  print_device_parts(stream, plan);
  if (plan->run.cuda) {
    print_part(stream, plan, "peak", plan->rank_device);
    print_head(stream, "memory of the machine");
  }
  print_host_parts(stream, plan);
  print_line(stream, "peak", plan->rank_host, plan->host);
  print_cases(stream, plan);
}

void memory_table_line(const MemoryPlan *plan, char *text, size_t size) {
  const size_t parts[] = {plan->weights,
                          plan->gradients,
                          arena_plus(plan->masters, plan->moments),
                          plan->arena,
                          arena_plus(plan->loader, plan->evaluation),
                          plan->run.cuda ? plan->rank_device : plan->rank_host};
  char texts[6][32];
  char here[32];
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    memory_size_text(parts[i], texts[i], sizeof texts[i]);
  }
  memory_size_text(plan->host, here, sizeof here);
  (void)snprintf(
      text, size,
      "memory of a rank: weights %s, gradients %s, optimizer %s, activations %s, batches %s; at most "
      "%s, and %s for all of this machine",
      texts[0], texts[1], texts[2], texts[3], texts[4], texts[5], here);
}
