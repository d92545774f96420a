/* The emulator's own test: its main function and what the parts share. Build it plain, with
 * -fsanitize=address,undefined, and with -fsanitize=thread for the self_test*.cpp alone (emulator.h). */
#include "self_test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void read_all(int descriptor, char *out, size_t bytes) {
  size_t used = 0;
  for (;;) {
    char dropped[256];
    const bool full = used + 1 >= bytes;
    const ssize_t got =
        read(descriptor, full ? dropped : out + used, full ? sizeof dropped : bytes - 1 - used);
    if (got <= 0) break;
    if (!full) used += (size_t)got;
  }
  out[used] = '\0';
}

Ending run_child(int (*body)(int argument), int argument) {
  int ends[2];
  fflush(nullptr);
  if (pipe(ends) != 0) fail_msg("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);
    signal(SIGSEGV, SIG_DFL);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    _exit(body(argument));
  }
  close(ends[1]);
  Ending ending = {};
  read_all(ends[0], ending.errors, sizeof ending.errors);
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) fail_msg("no child process");
  /* The address sanitizer ends a process by an exit with a report. */
  ending.aborted = WIFSIGNALED(status) || strstr(ending.errors, "Sanitizer") != nullptr;
  ending.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ending;
}

void expect_end(int (*body)(int argument), int argument, const char *text) {
  const Ending ending = run_child(body, argument);
  if (!ending.aborted) fail_msg("case %d was to end the process, with: %s", argument, text);
  if (!strstr(ending.errors, text))
    fail_msg("case %d was to say: %s\nbut said: %s", argument, text, ending.errors);
}

void expect_cuda(cudaError_t code, int line) {
  if (code != cudaSuccess) fail_msg("line %d: %s", line, cudaGetErrorString(code));
}

int main(void) {
  return test_arithmetic() + test_instructions() + test_threads() + test_defects() + test_memory() +
                     test_streams() >
                 0
             ? EXIT_FAILURE
             : EXIT_SUCCESS;
}
