/* ringgpt plan: the memory of a run before it is started, and what would make it fit. */
#include <stdio.h>
#include <unistd.h>

#include "kernels/base/memory.h"
#include "kernels/cuda/load.h"
#include "train/command_config.h"
#include "train/commands.h"
#include "train/memory_advice.h"
#include "train/memory_table.h"

/* Compute threads of a rank, without asking the ranks: its even share of the cores. */
static int threads_of(const Config *config, int ranks_here) {
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (config->parallelism.threads > 0) return (int)config->parallelism.threads;
  return cores > ranks_here ? (int)(cores / ranks_here) : 1;
}

/* Whether the run would be on GPUs, and how many there are here: 1 where that cannot be found out. */
static bool on_gpus(const Config *config, int *devices) {
  Error ignored = {0};
  *devices = 1;
  if (config->device == DEVICE_KIND_CPU) return false;
  if (cuda_device_count(devices, &ignored) == STATUS_OK) return true;
  *devices = 1;
  return config->device == DEVICE_KIND_CUDA;
}

static Status describe_run(const CommandLine *line, const Config *config, MemoryRun *run, int *devices,
                           Error *error) {
  const char *given = command_line_flag(line, "ranks");
  int64_t ranks = config_ranks(config);
  if (given != NULL) TRY(command_line_integer("--ranks", given, 1, ranks, &ranks, error));
  *run = (MemoryRun){
      .purpose = command_line_flag(line, "context") == NULL ? MEMORY_TRAINING : MEMORY_EVALUATION,
      .cuda = on_gpus(config, devices),
      .ranks_here = (int)ranks,
      .threads = threads_of(config, (int)ranks),
      .one_process = config->parallelism.transport != TRANSPORT_MPI && ranks == config_ranks(config)};
  run->ranks_a_gpu = run->cuda ? (run->ranks_here + *devices - 1) / *devices : 0;
  return STATUS_OK;
}

/* What is there; of a GPU only where one can be asked. */
static MemoryMachine find_machine(const MemoryRun *run) {
  MemoryMachine machine = {.host = memory_available(), .gpu = SIZE_MAX};
  Device *device = NULL;
  Error ignored = {0};
  if (run->cuda && cuda_device_create(0, ELEMENT_F32, &device, &ignored) == STATUS_OK) {
    machine.gpu = device_left(device);
    device_destroy(device);
  }
  return machine;
}

static void print_machine(const MemoryRun *run, const MemoryMachine *machine, int devices) {
  char text[32];
  (void)printf("\n");
  if (machine->host != SIZE_MAX) {
    memory_size_text(machine->host, text, sizeof text);
    (void)printf("free on this machine: %s\n", text);
  }
  if (!run->cuda) return;
  if (machine->gpu == SIZE_MAX) {
    (void)printf("no GPU can be asked here: its memory is not compared\n");
    return;
  }
  memory_size_text(machine->gpu, text, sizeof text);
  (void)printf("free on a GPU: %s, for %d rank%s on each of %d\n", text, run->ranks_a_gpu,
               run->ranks_a_gpu == 1 ? "" : "s", devices);
}

static Status print_advice(const Config *config, const MemoryRun *run, const MemoryMachine *machine,
                           Error *error) {
  MemoryChange changes[MEMORY_CHANGES];
  int count = 0;
  TRY(memory_advice(config, run, machine, changes, &count, error));
  (void)printf(count > 0 ? "what would need less:\n" : "a smaller model or other machines would fit\n");
  for (int i = 0; i < count; i++) {
    char text[32];
    memory_size_text(changes[i].bytes, text, sizeof text);
    (void)printf("  %-66s %12s%s\n", changes[i].text, text, changes[i].fits ? "  fits" : "");
  }
  return STATUS_OK;
}

Status command_plan(const CommandLine *line, Error *error) {
  Config config;
  MemoryRun run;
  MemoryPlan plan;
  int devices = 0;
  TRY(command_config_load(line, &config, error));
  TRY(describe_run(line, &config, &run, &devices, error));
  TRY(memory_plan(&config, &run, &plan, error));
  const MemoryMachine machine = find_machine(&run);
  memory_table_print(&config, &plan, stdout);
  print_machine(&run, &machine, devices);
  if (memory_fits(&plan, &machine)) {
    (void)printf("it fits\n");
    return STATUS_OK;
  }
  (void)printf("it does not fit\n");
  TRY(print_advice(&config, &run, &machine, error));
  (void)fflush(stdout);
  return fail(error, STATUS_SYSTEM, "%s: the run does not fit this machine", line->arguments[0]);
}
