/* ringgpt generate: continues a prompt by a trained model, on stdout as it comes. */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/commands.h"
#include "train/config.h"
#include "train/generate.h"
#include "train/grid.h"
#include "train/progress.h"

#define DEFAULT_TEMPERATURE 1.0
#define DEFAULT_TOP_P 1.0
#define DEFAULT_SEED 1
#define DEFAULT_CHUNK 512
#define MOST_TEMPERATURE 1000.0
#define MOST_CHUNK 1048576

/* A prompt is read in such pieces; one of more than the most bytes is a mistake. */
#define PIECE_BYTES ((size_t)1 << 20)
#define PROMPT_BYTES_MAX ((size_t)1 << 30)

/* What the rank is given, and what it gives back. */
typedef struct Task {
  GenerateOptions options;
  GenerateReport report;
  char *prompt;   /* what a file held; NULL: the prompt is an argument */
  bool line_open; /* the text so far does not end in a line end */
  bool terminal;  /* which control characters must not reach */
} Task;

/* ---------------------------------------------------------------- the prompt */

static Status read_stream(FILE *stream, const char *name, char **out, size_t *bytes, Error *error) {
  size_t capacity = 0;
  for (size_t got = 1; got > 0; *bytes += got) {
    if (capacity - *bytes < PIECE_BYTES) {
      capacity = 2 * capacity + PIECE_BYTES;
      char *larger = realloc(*out, capacity);
      if (larger == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for the prompt", name);
      *out = larger;
    }
    if (*bytes > PROMPT_BYTES_MAX) {
      return fail(error, STATUS_USAGE, "%s: has more than the %zu bytes that a prompt may have", name,
                  PROMPT_BYTES_MAX);
    }
    got = fread(*out + *bytes, 1, capacity - *bytes, stream);
  }
  if (ferror(stream) == 0) return STATUS_OK;
  return fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be read", name);
}

/* Reads a file, which may be a pipe, or standard input for "-". */
static Status read_prompt(const char *path, Task *task, Error *error) {
  const bool standard_input = strcmp(path, "-") == 0;
  const char *name = standard_input ? "standard input" : path;
  FILE *stream = standard_input ? stdin : fopen(path, "rb");
  if (stream == NULL) return fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be opened", path);
  const Status status = read_stream(stream, name, &task->prompt, &task->options.prompt_bytes, error);
  if (!standard_input) (void)fclose(stream);
  task->options.prompt = task->prompt;
  return status;
}

static Status find_prompt(const CommandLine *line, Task *task, Error *error) {
  const char *text = command_line_flag(line, "prompt");
  const char *file = command_line_flag(line, "prompt-file");
  if ((text == NULL) == (file == NULL)) {
    return fail(error, STATUS_USAGE, "generate: give either --prompt TEXT or --prompt-file FILE");
  }
  if (file != NULL) return read_prompt(file, task, error);
  task->options.prompt = text;
  task->options.prompt_bytes = strlen(text);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- flags */

/* Parses a flag where it was given; *out keeps its value where not. */
static Status take_integer(const CommandLine *line, const char *name, const char *shown, int64_t minimum,
                           int64_t maximum, int64_t *out, Error *error) {
  const char *text = command_line_flag(line, name);
  return text == NULL ? STATUS_OK : command_line_integer(shown, text, minimum, maximum, out, error);
}

static Status take_real(const CommandLine *line, const char *name, const char *shown, double maximum,
                        double *out, Error *error) {
  const char *text = command_line_flag(line, name);
  return text == NULL ? STATUS_OK : command_line_real(shown, text, 0.0, maximum, out, error);
}

/* OpenMP would end the program where more threads cannot be started. */
static Status check_threads(int64_t threads, Error *error) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0 || threads <= CPU_COUNT(&cores)) return STATUS_OK;
  return fail(error, STATUS_USAGE, "--threads is '%lld'; this process may use %d core%s", (long long)threads,
              CPU_COUNT(&cores), CPU_COUNT(&cores) == 1 ? "" : "s");
}

static Status take_device(const CommandLine *line, DeviceKind *out, Error *error) {
  static const char *const names[] = {
      [DEVICE_KIND_AUTO] = "auto", [DEVICE_KIND_CPU] = "cpu", [DEVICE_KIND_CUDA] = "cuda"};
  const char *text = command_line_flag(line, "device");
  for (int kind = DEVICE_KIND_AUTO; text != NULL && kind <= DEVICE_KIND_CUDA; kind++) {
    if (strcmp(text, names[kind]) != 0) continue;
    *out = (DeviceKind)kind;
    return STATUS_OK;
  }
  return text == NULL ? STATUS_OK
                      : fail(error, STATUS_USAGE, "--device is '%s'; it must be auto, cpu or cuda", text);
}

static Status read_flags(const CommandLine *line, GenerateOptions *options, int64_t *threads, Error *error) {
  int64_t seed = DEFAULT_SEED;
  options->checkpoint = command_line_flag(line, "checkpoint");
  options->tokenizer = command_line_flag(line, "tokenizer");
  if (*options->checkpoint == '\0') {
    return fail(error, STATUS_USAGE, "--checkpoint is ''; it must name a directory");
  }
  options->chunk = DEFAULT_CHUNK;
  options->sampler = (SamplerOptions){.temperature = DEFAULT_TEMPERATURE, .top_p = DEFAULT_TOP_P};
  TRY(take_integer(line, "tokens", "--tokens", 1, INT32_MAX, &options->tokens, error));
  TRY(take_integer(line, "chunk", "--chunk", 1, MOST_CHUNK, &options->chunk, error));
  TRY(take_integer(line, "top-k", "--top-k", 0, INT32_MAX, &options->sampler.top_k, error));
  TRY(take_integer(line, "seed", "--seed", 0, INT64_MAX, &seed, error));
  TRY(take_integer(line, "threads", "--threads", 1, INT32_MAX, threads, error));
  TRY(check_threads(*threads, error));
  TRY(take_real(line, "temperature", "--temperature", MOST_TEMPERATURE, &options->sampler.temperature,
                error));
  TRY(take_real(line, "top-p", "--top-p", 1.0, &options->sampler.top_p, error));
  options->sampler.seed = (uint64_t)seed;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- output */

/* Whether a terminal would take a byte for a command rather than for text. */
static bool is_control(char byte) {
  return ((unsigned char)byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
}

/* A pipe that nobody reads ends the program by SIGPIPE, as it does with other commands. */
static Status write_text(void *context, const char *text, size_t bytes, Error *error) {
  Task *task = context;
  bool written = true;
  if (bytes == 0) return STATUS_OK;
  task->line_open = text[bytes - 1] != '\n';
  for (size_t i = 0; i < bytes && written; i++) {
    written = putc(task->terminal && is_control(text[i]) ? '?' : text[i], stdout) != EOF;
  }
  if (written && fflush(stdout) == 0) return STATUS_OK;
  return fail_errno(error, STATUS_IO, errno, "standard output cannot be written");
}

/* Shown for a prompt that takes a while: of more than one chunk. */
static void show_progress(void *context, int64_t done, int64_t total) {
  const Task *task = context;
  char bar[128];
  if (total <= task->options.chunk) return;
  progress_bar(done, total, -1.0, bar, sizeof bar);
  (void)fprintf(stderr, "\r%s prompt ", bar);
  if (done == total) (void)fputs("\r\033[K", stderr);
}

static double rate(int64_t tokens, double seconds) {
  return seconds > 0.0 ? (double)tokens / seconds : 0.0;
}

static void tell_end(const Task *task) {
  const GenerateReport *report = &task->report;
  if (task->line_open && task->terminal) (void)putchar('\n');
  (void)fflush(stdout);
  if (report->end == GENERATE_END_POSITIONS) {
    (void)fprintf(stderr,
                  "ringgpt: the model has no learned position for a further token: ended after %lld\n",
                  (long long)report->tokens);
  }
  if (isatty(STDERR_FILENO) == 0) return;
  (void)fprintf(stderr,
                "ringgpt: prompt of %lld tokens at %.4g tokens/s; %lld generated at %.4g tokens/s%s\n",
                (long long)report->prompt_tokens, rate(report->prompt_tokens, report->prompt_seconds),
                (long long)report->tokens, rate(report->tokens, report->seconds),
                report->end == GENERATE_END_DOCUMENT ? "; the document ended" : "");
}

/* ---------------------------------------------------------------- the command */

static Status run_rank(Rank *rank, void *context, Error *error) {
  Task *task = context;
  return generate(rank, &task->options, &task->report, error);
}

Status command_generate(const CommandLine *line, Error *error) {
  Task task = {.terminal = isatty(STDOUT_FILENO) != 0};
  Config config = {.parallelism = {.ring = 1, .data = 1, .transport = TRANSPORT_LOCAL}};
  Status status = STATUS_OK;
  TRY(take_device(line, &config.device, error));
  TRY(read_flags(line, &task.options, &config.parallelism.threads, error));
  TRY_GOTO(find_prompt(line, &task, error), done);
  task.options.write = write_text;
  task.options.progress = isatty(STDERR_FILENO) != 0 ? show_progress : NULL;
  task.options.context = &task;
  TRY_GOTO(grid_run(&config, NULL, run_rank, &task, error), done);
  tell_end(&task);
done:
  free(task.prompt);
  return status;
}
