/* The directory of a run: metrics, log and terminal. */
#include "train/run_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/comm/mpi.h"
#include "train/progress.h"
#include "train/terminal.h"

#define LINE_BYTES 1024
#define ERASE_LINE "\r\033[K"

struct RunLog {
  int64_t every; /* logging.every */
  bool packed;   /* documents are packed on a ring: steps show their balance */
  int64_t steps; /* of the whole run */
  int64_t steps_done;
  int64_t evaluations; /* records of evaluations at the step the run went on from */
  double step_ms;      /* average over the last steps, newer ones weighing more; 0: none yet */
  Terminal terminal;
  bool bar;    /* the terminal shows the bar */
  FILE *text;  /* log.txt, locked */
  int metrics; /* metrics.jsonl, for appending */
  off_t metrics_bytes;
  char metrics_path[PATH_MAX];
};

/* ---------------------------------------------------------------- open */

static Status join(const char *directory, const char *name, char path[PATH_MAX], Error *error) {
  const int length = snprintf(path, PATH_MAX, "%s/%s", directory, name);
  if (length < PATH_MAX) return STATUS_OK;
  return fail(error, STATUS_IO, "%s/%s: the path is too long", directory, name);
}

/* Opens log.txt; its lock is what keeps a second process out. */
static Status open_text(RunLog *log, const char *directory, Error *error) {
  char path[PATH_MAX];
  TRY(join(directory, "log.txt", path, error));
  log->text = fopen(path, "ae");
  if (!log->text) return fail_errno(error, STATUS_IO, errno, "%s: cannot be opened", path);
  /* A file system without locks cannot tell; the run goes on there. */
  if (flock(fileno(log->text), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return fail(error, STATUS_CONFIG, "%s: another process writes this run; wait for it, or set run.dir",
                path);
  return STATUS_OK;
}

static Status write_config(const Config *config, Error *error) {
  char path[PATH_MAX], *text = NULL;
  TRY(join(config->run.dir, "config.yaml", path, error));
  TRY(config_dump(config, &text, error));
  const Status status = file_replace(path, text, strlen(text), error);
  free(text);
  return status;
}

/* Whether a line of metrics.jsonl is a whole record of a step up to steps_done; counts the evaluations of
 * that last step. */
static bool is_kept(RunLog *log, const char *line, size_t length) {
  json_t *record = json_loadb(line, length, 0, NULL);
  const json_t *step = json_object_get(record, "step");
  const bool kept = json_is_integer(step) && json_integer_value(step) <= log->steps_done;
  if (kept && json_integer_value(step) == log->steps_done && json_object_get(record, "eval") != NULL) {
    log->evaluations += 1;
  }
  json_decref(record);
  return kept;
}

/* Copies the lines to keep from `source`. */
static Status copy_lines(RunLog *log, FILE *source, const File *target, Error *error) {
  char *line = NULL;
  size_t capacity = 0;
  ssize_t length;
  Status status = STATUS_OK;
  while ((length = getline(&line, &capacity, source)) >= 0) {
    if (!is_kept(log, line, (size_t)length)) continue;
    /* A crash may have cut off the end of the last line. */
    const bool ended = line[length - 1] == '\n';
    TRY_GOTO(file_write_all(target, line, (size_t)length, error), done);
    if (!ended) TRY_GOTO(file_write_all(target, "\n", 1, error), done);
  }
done:
  free(line);
  return status;
}

/* Writes the file `to` with the lines to keep of the file `from`, which need not be there. */
static Status copy_kept(RunLog *log, const char *from, const char *to, Error *error) {
  FILE *source = fopen(from, "re");
  if (!source && errno != ENOENT) return fail_errno(error, STATUS_IO, errno, "%s: cannot be read", from);
  File target = FILE_CLOSED;
  Status status = STATUS_OK;
  TRY_GOTO(file_create(to, &target, error), done);
  if (source) TRY_GOTO(copy_lines(log, source, &target, error), done);
  if (source && !feof(source))
    TRY_GOTO(fail_errno(error, STATUS_IO, errno, "%s: cannot be read", from), done);
  status = file_sync_close(&target, error);
done:
  file_close(&target);
  if (source) (void)fclose(source);
  return status;
}

/* Drops the records of steps that are done again, in one rename, and opens the file for appending. */
static Status open_metrics(RunLog *log, const char *directory, Error *error) {
  char temporary[PATH_MAX];
  TRY(join(directory, "metrics.jsonl", log->metrics_path, error));
  TRY(join(directory, "metrics.jsonl.tmp", temporary, error));
  TRY(copy_kept(log, log->metrics_path, temporary, error));
  TRY(file_rename(temporary, log->metrics_path, error));
  TRY(file_sync_directory(directory, error));
  log->metrics = open(log->metrics_path, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (log->metrics >= 0) log->metrics_bytes = lseek(log->metrics, 0, SEEK_END);
  if (log->metrics < 0 || log->metrics_bytes < 0)
    return fail_errno(error, STATUS_IO, errno, "%s: cannot be opened", log->metrics_path);
  return STATUS_OK;
}

/* Moves the records of an earlier run out of the way, under the first name that is free. */
static Status set_metrics_aside(const char *directory, Error *error) {
  char path[PATH_MAX];
  struct stat info;
  TRY(join(directory, "metrics.jsonl", path, error));
  if (stat(path, &info) != 0 || info.st_size == 0) return STATUS_OK;
  for (int i = 1;; i++) {
    char name[32];
    char aside[PATH_MAX];
    (void)snprintf(name, sizeof name, "metrics.jsonl.%d", i);
    TRY(join(directory, name, aside, error));
    if (!file_exists(aside)) return file_rename(path, aside, error);
  }
}

Status run_log_open(const Config *config, FILE *terminal, RunLog **out, Error *error) {
  *out = NULL;
  RunLog *log = calloc(1, sizeof *log);
  if (!log) return fail(error, STATUS_SYSTEM, "no memory for the log of the run");
  log->every = config->logging.every;
  log->packed = config->data.document_mask && config->parallelism.ring > 1;
  log->steps = config->train.steps;
  log->terminal = terminal_make(terminal);
  /* Open MPI makes a terminal of what it collects. */
  log->bar = terminal && isatty(fileno(terminal)) && !comm_mpi_launched();
  log->metrics = -1;
  Status status = STATUS_OK;
  TRY_GOTO(file_make_directory(config->run.dir, error), failed);
  TRY_GOTO(open_text(log, config->run.dir, error), failed);
  *out = log;
  return STATUS_OK;

failed:
  run_log_close(log);
  return status;
}

Status run_log_begin(RunLog *log, const Config *config, int64_t steps_done, Error *error) {
  if (!log) return STATUS_OK;
  log->steps_done = steps_done;
  TRY(write_config(config, error));
  if (steps_done == 0) TRY(set_metrics_aside(config->run.dir, error));
  return open_metrics(log, config->run.dir, error);
}

/* ---------------------------------------------------------------- terminal and log.txt */

static void draw_bar(RunLog *log) {
  if (!log->bar || log->steps_done == 0) return;
  char bar[128], text[sizeof bar + sizeof ERASE_LINE];
  const double left = log->step_ms > 0 ? (double)(log->steps - log->steps_done) * log->step_ms / 1000 : -1;
  progress_bar(log->steps_done, log->steps, left, bar, sizeof bar);
  (void)snprintf(text, sizeof text, ERASE_LINE "%s", bar);
  terminal_write(&log->terminal, text);
}

/* A line in log.txt and on the terminal, above the bar. What cannot be written there is not worth a run. */
static void show(RunLog *log, const char *line) {
  char now[32], text[LINE_BYTES + sizeof ERASE_LINE + 1];
  const time_t seconds = time(NULL);
  struct tm utc;
  (void)strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
  (void)fprintf(log->text, "%s  %s\n", now, line);
  (void)fflush(log->text);
  (void)snprintf(text, sizeof text, "%s%s\n", log->bar ? ERASE_LINE : "", line);
  terminal_write(&log->terminal, text);
  draw_bar(log);
}

void run_log_message(RunLog *log, const char *format, ...) {
  if (!log) return;
  char line[LINE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  show(log, line);
}

static void show_step(RunLog *log, const StepRecord *record) {
  char line[LINE_BYTES], length[32], speed[32], balance[32] = "";
  progress_count(record->sequence_length, length, sizeof length);
  progress_count(llround(record->tokens_per_second), speed, sizeof speed);
  if (log->packed) (void)snprintf(balance, sizeof balance, "  balance %.2f", record->balance);
  (void)snprintf(line, sizeof line,
                 "step %" PRId64 "/%" PRId64
                 "  loss %.4f  lr %.2e  norm %.3f  length %s  %s tokens/s  %.0f ms"
                 "  exposed %.1f ms  skew %.1f ms%s%s",
                 record->step, log->steps, record->loss, record->learning_rate, record->grad_norm, length,
                 speed, record->step_ms, record->exposed_comm_ms, record->skew_ms, balance,
                 record->skipped ? "  SKIPPED: loss or norm is not finite" : "");
  show(log, line);
}

/* ---------------------------------------------------------------- metrics.jsonl */

/* Appends one line. After a failure the file ends where it did before. */
static Status append(RunLog *log, const char *line, size_t length, Error *error) {
  size_t written = 0;
  while (written < length) {
    const ssize_t got = write(log->metrics, line + written, length - written);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      const int code = got < 0 ? errno : ENOSPC;
      if (ftruncate(log->metrics, log->metrics_bytes) != 0)
        return fail_errno(error, STATUS_IO, errno, "%s: a record is cut off", log->metrics_path);
      return fail_errno(error, STATUS_IO, code, "%s: cannot be written", log->metrics_path);
    }
    written += (size_t)got;
  }
  log->metrics_bytes += (off_t)length;
  return STATUS_OK;
}

/* JSON has no numbers that are not finite. */
static json_t *number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}

/* Writes a record as one line and releases it. NULL, or a record that lacks a member: no memory. */
static Status append_record(RunLog *log, json_t *record, bool whole, Error *error) {
  char *line = whole ? json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
  json_decref(record);
  if (!line) return fail(error, STATUS_SYSTEM, "%s: no memory for a record", log->metrics_path);
  const size_t length = strlen(line);
  line[length] = '\n'; /* in the place of the terminating zero */
  const Status status = append(log, line, length + 1, error);
  free(line);
  return status;
}

Status run_log_step(RunLog *log, const StepRecord *record, Error *error) {
  if (!log) return STATUS_OK;
  json_t *object = json_object();
  const bool whole =
      json_object_set_new(object, "step", json_integer(record->step)) == 0 &&
      json_object_set_new(object, "loss", number(record->loss)) == 0 &&
      json_object_set_new(object, "lr", number(record->learning_rate)) == 0 &&
      json_object_set_new(object, "grad_norm", number(record->grad_norm)) == 0 &&
      json_object_set_new(object, "tokens", json_integer(record->tokens)) == 0 &&
      json_object_set_new(object, "sequence_length", json_integer(record->sequence_length)) == 0 &&
      json_object_set_new(object, "tokens_per_second", number(record->tokens_per_second)) == 0 &&
      json_object_set_new(object, "step_ms", number(record->step_ms)) == 0 &&
      json_object_set_new(object, "exposed_comm_ms", number(record->exposed_comm_ms)) == 0 &&
      json_object_set_new(object, "skew_ms", number(record->skew_ms)) == 0 &&
      json_object_set_new(object, "balance", number(record->balance)) == 0 &&
      json_object_set_new(object, "skipped", json_boolean(record->skipped)) == 0;
  const Status status = append_record(log, object, whole, error);
  log->steps_done = record->step;
  log->step_ms = log->step_ms > 0 ? 0.9 * log->step_ms + 0.1 * record->step_ms : record->step_ms;
  if (record->step % log->every == 0 || record->step == log->steps || record->skipped)
    show_step(log, record);
  else
    draw_bar(log);
  return status;
}

Status run_log_eval(RunLog *log, const EvalRecord *record, Error *error) {
  if (!log) return STATUS_OK;
  const double perplexity = exp(record->nll);
  json_t *object = json_object(), *eval = json_object();
  bool whole = json_object_set_new(eval, "context", json_integer(record->context)) == 0 &&
               json_object_set_new(eval, "windows", json_integer(record->windows)) == 0 &&
               json_object_set_new(eval, "tokens", json_integer(record->tokens)) == 0 &&
               json_object_set_new(eval, "nll", number(record->nll)) == 0 &&
               json_object_set_new(eval, "standard_error", number(record->standard_error)) == 0 &&
               json_object_set_new(eval, "perplexity", number(perplexity)) == 0 &&
               (record->mode == NULL || json_object_set_new(eval, "mode", json_string(record->mode)) == 0);
  whole = json_object_set_new(object, "step", json_integer(record->step)) == 0 && whole;
  whole = json_object_set_new(object, "eval", eval) == 0 && whole;
  char context[32], tokens[32];
  progress_count(record->context, context, sizeof context);
  progress_count(record->tokens, tokens, sizeof tokens);
  run_log_message(log,
                  "step %" PRId64 "/%" PRId64 "  evaluation at %s tokens: loss %.4f +- %.4f, perplexity %.3f"
                  " over %s tokens",
                  record->step, log->steps, context, record->nll, record->standard_error, perplexity, tokens);
  return append_record(log, object, whole, error);
}

int64_t run_log_evaluations(const RunLog *log) {
  return log ? log->evaluations : 0;
}

void run_log_close(RunLog *log) {
  if (!log) return;
  if (log->bar && log->steps_done > 0) terminal_write(&log->terminal, "\n");
  if (log->text) (void)fclose(log->text);
  if (log->metrics >= 0) (void)close(log->metrics);
  free(log);
}
