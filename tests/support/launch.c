/* Training runs as processes of their own. */
#include "tests/support/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/program.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

enum { MOST_ARGUMENTS = 48 };

typedef struct Arguments {
  char *list[MOST_ARGUMENTS];
  int count;
} Arguments;

static void add(Arguments *arguments, const char *text) {
  assert_true(arguments->count < MOST_ARGUMENTS - 1);
  arguments->list[arguments->count] = strdup(text);
  assert_non_null(arguments->list[arguments->count++]);
}

static void add_option(Arguments *arguments, const char *name, const char *value) {
  char text[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(text, sizeof text, "%s=%s", name, value);
  add(arguments, text);
}

void launch_prepare_mpirun(const char *network) {
  (void)setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  (void)setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  (void)setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
  (void)setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
  (void)setenv("OMPI_MCA_pml", "ob1", 1);
  (void)setenv("OMPI_MCA_btl", network, 1);
  /* Open MPI keeps some of its memory to the end. */
  (void)setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
}

static void add_mpirun(Arguments *arguments, const Launch *launch) {
  char number[16];
  char script[2 * CONFIG_TEXT_BYTES + 96];
  (void)snprintf(number, sizeof number, "%d", launch->processes);
  const int length =
      snprintf(script, sizeof script, "echo $$ >'%s.pid.'$OMPI_COMM_WORLD_RANK; %s\nexec \"$@\"",
               launch->config->run.dir, launch->before == NULL ? "" : launch->before);
  assert_in_range(length, 1, sizeof script - 1);
  const char *const words[] = {"mpirun", "-n", number, "sh", "-c", script, "sh"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) add(arguments, words[i]);
}

static void become(const Launch *launch, const Arguments *arguments) {
  const int nowhere = open("/dev/null", O_WRONLY);
  const int errors =
      launch->errors == NULL ? nowhere : open(launch->errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  (void)dup2(launch->output == 0 ? nowhere : launch->output, STDOUT_FILENO);
  (void)dup2(errors, STDERR_FILENO);
  if (launch->processes > 0) launch_prepare_mpirun("self,vader,tcp");
  (void)execvp(arguments->list[0], arguments->list);
  _exit(127);
}

pid_t launch_start(const Launch *launch) {
  Arguments arguments = {.count = 0};
  char program[PATH_MAX];
  char *yaml = realpath("configs/tiny.yaml", NULL);
  assert_non_null(yaml);
  program_path(program);
  if (launch->processes > 0) add_mpirun(&arguments, launch);
  add(&arguments, program);
  add(&arguments, launch->command == NULL ? "train" : launch->command);
  add(&arguments, yaml);
  add_option(&arguments, "run.dir", launch->config->run.dir);
  add_option(&arguments, "data.train", launch->config->data.train);
  add_option(&arguments, "data.val", launch->config->data.val);
  for (int i = 0; launch->overrides[i] != NULL; i++) add(&arguments, launch->overrides[i]);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) become(launch, &arguments);
  for (int i = 0; i < arguments.count; i++) free(arguments.list[i]);
  free(yaml);
  return child;
}

int launch_finish(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) assert_int_equal(errno, EINTR);
  return WIFEXITED(status) ? WEXITSTATUS(status) : LAUNCH_KILLED;
}

pid_t launch_rank_pid(const Config *config, int rank) {
  char name[CONFIG_TEXT_BYTES + 32];
  (void)snprintf(name, sizeof name, "%s.pid.%d", config->run.dir, rank);
  for (int i = 0; i < 4000; i++) {
    launch_sleep_ms(5);
    if (access(name, R_OK) != 0) continue;
    char *text = temp_file_read_text(name);
    const bool whole = strchr(text, '\n') != NULL;
    const pid_t pid = (pid_t)strtol(text, NULL, 10);
    free(text);
    if (whole) return pid;
  }
  fail_msg("%s: rank %d was not started", name, rank);
  return -1;
}

static bool alive(pid_t pid) {
  char path[64];
  char text[512] = "";
  (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  (void)fgets(text, sizeof text, file);
  (void)fclose(file);
  const char *behind_name = strrchr(text, ')');
  return behind_name != NULL && behind_name[2] != 'Z' && behind_name[2] != 'X';
}

bool launch_gone(pid_t pid) {
  for (int i = 0; i < 1000 && alive(pid); i++) launch_sleep_ms(10);
  return !alive(pid);
}

int64_t launch_recorded_steps(const Config *config) {
  char *path = training_path(config->run.dir, "metrics.jsonl");
  const int64_t count = access(path, R_OK) == 0 ? training_read_metrics(config).count : 0;
  free(path);
  return count;
}

void launch_wait_for_steps(const Config *config, pid_t child, int64_t steps) {
  for (int i = 0; i < 6000 && launch_recorded_steps(config) < steps; i++) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child) break;
    launch_sleep_ms(5);
  }
}

void launch_sleep_ms(int64_t ms) {
  const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  (void)nanosleep(&time, NULL);
}
