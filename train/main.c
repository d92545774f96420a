/* The program: finds the command, runs it, prints its error and returns its status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/status.h"
#include "kernels/comm/mpi.h"
#include "train/commands.h"
#include "train/config.h"
#include "train/names.h"
#include "train/options.h"
#include "train/threads.h"

static void print_help(void) {
  int64_t count;
  const Command *table = commands_table(&count);
  (void)printf("ringgpt %s trains GPT language models over a ring of devices that share each sequence.\n\n"
               "usage: ringgpt COMMAND ...\n\n",
               RINGGPT_VERSION);
  for (int64_t i = 0; i < count; i++) (void)printf("  %-9s %s\n", table[i].name, table[i].summary);
  (void)printf("\n  ringgpt COMMAND --help   what a command takes\n"
               "  ringgpt help config      the options of a configuration\n"
               "  ringgpt --version        the version\n\n"
               "exit status: 0 done, 64 usage, 65 damaged data, 66 missing input, 70 internal fault,\n"
               "71 memory or threads refused, 74 input or output, 75 stopped by a signal and resumable,\n"
               "78 configuration\n");
}

static Status find_command(const char *name, const Command **out, Error *error) {
  int64_t count, least = INT64_MAX;
  const Command *table = commands_table(&count), *nearest = table;
  for (int64_t i = 0; i < count; i++) {
    const int64_t distance = names_distance(name, table[i].name);
    if (distance >= least) continue;
    least = distance;
    nearest = &table[i];
  }
  *out = nearest;
  if (strcmp(name, nearest->name) == 0) return STATUS_OK;
  if (names_near(name, least))
    return fail(error, STATUS_USAGE, "unknown command '%.60s'; did you mean '%s'?", name, nearest->name);
  return fail(error, STATUS_USAGE, "unknown command '%.60s'; 'ringgpt --help' lists them", name);
}

/* ringgpt help [COMMAND | config] */
static Status help(int argc, char **argv, Error *error) {
  const Command *command = NULL;
  if (argc == 0) {
    print_help();
  } else if (strcmp(argv[0], "config") == 0) {
    options_print_help(stdout);
  } else {
    TRY(find_command(argv[0], &command, error));
    command_line_print_help(command, stdout);
  }
  return STATUS_OK;
}

/* Whether a launcher has started this process as one of several. A batch script of Slurm, whose environment
 * holds SLURM_NTASKS too, is one. */
static bool one_of_several(void) {
  static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const char *text = getenv(sizes[i]);
    if (text != NULL && strtol(text, NULL, 10) > 1) return true;
  }
  return false;
}

/* Joins the other processes where an MPI launcher has started this one and the command is for several.
 * `given` are the arguments of main. */
static Status join(CommandLine *line, char *const given[], Comm **processes, Error *error) {
  Config config;
  Error ignored = {0};
  if (!line->command->parallel || !comm_mpi_launched()) return STATUS_OK;
  /* A configuration that is wrong is reported by the command, when one process can speak for all. */
  if (config_load(line->arguments[0], line->arguments + 1, line->count - 1, &config, &ignored) == STATUS_OK)
    threads_wait_passively(config.parallelism.threads, given);
  TRY(comm_mpi_start(processes, error));
  line->processes = *processes;
  return STATUS_OK;
}

/* Runs what the command line asks for; *processes: those that an MPI launcher started, if the command is for
 * several. */
static Status run(int argc, char **argv, char *const given[], Comm **processes, Error *error) {
  if (argc < 2) return fail(error, STATUS_USAGE, "no command; 'ringgpt --help' lists them");
  const char *name = argv[1];
  const Command *command = NULL;
  CommandLine line;
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
    return help(argc - 2, argv + 2, error);
  if (strcmp(name, "--version") == 0) {
    (void)printf("ringgpt %s\n", RINGGPT_VERSION);
    return STATUS_OK;
  }
  TRY(find_command(name, &command, error));
  TRY(command_line_parse(command, argc - 2, argv + 2, &line, error));
  if (line.help) {
    command_line_print_help(command, stdout);
    return STATUS_OK;
  }
  if (!command->parallel && one_of_several())
    return fail(error, STATUS_USAGE, "%s runs as one process: start it without mpirun", command->name);
  TRY(join(&line, given, processes, error));
  return command->run(&line, error);
}

/* One message for all processes; a failure ends them all. */
static void end(Comm *processes, Status status, const Error *error) {
  /* What stopped at once has left the others where they were, as a failure does. */
  const bool ended = status == STATUS_STOPPED && processes != NULL && comm_ended(processes);
  const bool failed = ended || (status != STATUS_OK && status != STATUS_STOPPED);
  bool speaks = processes == NULL || processes->rank == 0;
  if (failed && processes != NULL) speaks = comm_mpi_speaks(processes);
  /* Before MPI has started all fail alike; what the system refuses, it may refuse one of them. */
  if (failed && processes == NULL && status != STATUS_SYSTEM) speaks = comm_mpi_launch_speaks();
  if (status != STATUS_OK && speaks) (void)fprintf(stderr, "ringgpt: %s\n", error->text);
  if (failed && processes != NULL) comm_mpi_kill(processes, status);
  comm_mpi_end(processes);
}

int main(int argc, char **argv) {
  Error error = {0};
  Comm *processes = NULL;
  /* Commands put their arguments in order. */
  char **given = malloc(((size_t)argc + 1) * sizeof *given);
  if (given == NULL) return (int)STATUS_SYSTEM;
  memcpy(given, argv, ((size_t)argc + 1) * sizeof *given);
  Status status = run(argc, argv, given, &processes, &error);
  free(given);
  if ((fflush(stdout) != 0 || ferror(stdout)) && status == STATUS_OK)
    status = fail(&error, STATUS_IO, "standard output cannot be written");
  end(processes, status, &error);
  return (int)status;
}
