/* Pictures of results: a script for gnuplot, data and all, is its standard input. */
#include "train/plot.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---------------------------------------------------------------- gnuplot */

/* Runs gnuplot on a script; its own messages go nowhere, and without `prints` its output too. The script is a
 * file rather than a pipe: a gnuplot that ends early then does no harm. */
static Status run_gnuplot(FILE *script, bool prints, Error *error) {
  char program[] = "gnuplot";
  char *arguments[] = {program, NULL};
  posix_spawn_file_actions_t actions;
  pid_t child = 0;
  int status = 0;
  if (fflush(script) != 0 || fseek(script, 0, SEEK_SET) != 0) {
    return fail_errno(error, STATUS_IO, errno, "the script for gnuplot cannot be written");
  }
  (void)fflush(stdout); /* gnuplot may print, too */
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO);
  (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  if (!prints) (void)posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  const int code = posix_spawnp(&child, program, &actions, NULL, arguments, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  if (code == ENOENT) return fail(error, STATUS_SYSTEM, "gnuplot is not installed");
  if (code != 0) return fail_errno(error, STATUS_SYSTEM, code, "gnuplot cannot be started");
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(error, STATUS_SYSTEM, errno, "gnuplot is lost");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return STATUS_OK;
  return fail(error, STATUS_IO, "gnuplot refused the picture");
}

/* Writes a text between quotation marks, without what gnuplot would read as more than text. */
static void write_text(FILE *script, const char *text) {
  (void)fputc('\'', script);
  for (; *text != '\0'; text++) {
    if (*text == '\'') (void)fputc('\'', script);
    (void)fputc(*text == '\n' ? ' ' : *text, script);
  }
  (void)fputc('\'', script);
}

static void set_text(FILE *script, const char *what, const char *text) {
  (void)fprintf(script, "set %s ", what);
  write_text(script, text);
  (void)fputs(" noenhanced\n", script);
}

static bool is_png(const char *path) {
  const size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, ".png") == 0;
}

static bool is_svg(const char *path) {
  const size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, ".svg") == 0;
}

Status plot_check_path(const char *flag, const char *path, Error *error) {
  if (is_png(path) || is_svg(path)) return STATUS_OK;
  return fail(error, STATUS_USAGE, "--%s %s: the name of a picture ends in .svg or .png", flag, path);
}

/* Where a picture goes: a file, or with NULL the terminal. */
static void begin_picture(FILE *script, const char *path) {
  if (path == NULL) {
    (void)fputs("set terminal dumb noenhanced 79 24\n", script);
    return;
  }
  (void)fprintf(script, "set terminal %s size 900,600 noenhanced background '#ffffff'\nset output ",
                is_png(path) ? "pngcairo" : "svg");
  write_text(script, path);
  (void)fputc('\n', script);
}

/* gnuplot's own word for a missing value. */
static void write_number(FILE *script, double value) {
  if (isfinite(value)) {
    (void)fprintf(script, " %.9g", value);
  } else {
    (void)fputs(" NaN", script);
  }
}

/* What writes the script of one kind of picture behind begin_picture. */
typedef void (*WriteScript)(FILE *script, const void *picture, bool text);

static Status make_picture(const char *path, WriteScript write, const void *picture, Error *error) {
  FILE *script = tmpfile();
  if (script == NULL) return fail_errno(error, STATUS_IO, errno, "no file for the script of gnuplot");
  begin_picture(script, path);
  write(script, picture, path == NULL);
  const Status status = run_gnuplot(script, path == NULL, error);
  (void)fclose(script);
  return status;
}

/* ---------------------------------------------------------------- lines */

static void write_line(FILE *script, const PlotLine *line, int64_t number) {
  (void)fprintf(script, "$line%lld << END\n", (long long)number);
  for (int64_t i = 0; i < line->count; i++) {
    write_number(script, line->x[i]);
    write_number(script, line->y[i]);
    write_number(script, isfinite(line->e[i]) ? line->e[i] : 0.0);
    (void)fputc('\n', script);
  }
  (void)fputs("END\n", script);
}

/* Perplexity, on the right, is the exponential of what is on the left. */
static void write_positions(FILE *script, const void *picture, bool text) {
  const PlotPositions *positions = picture;
  set_text(script, "title", positions->title);
  (void)fputs("set logscale x 2\nset xlabel 'position'\nset ylabel 'nll per token'\n"
              "set format x '%.0f'\nset key top right noenhanced\n",
              script);
  if (!text) {
    (void)fputs("set grid\nset xtics rotate by -35\nset ytics nomirror\nset y2tics format '%.3g'\n"
                "set y2label 'perplexity'\nset link y2 via exp(y) inverse log(y)\n",
                script);
  }
  for (int64_t i = 0; i < positions->count; i++) write_line(script, &positions->lines[i], i);
  for (int64_t i = 0; i < positions->count; i++) {
    (void)fprintf(script, "%s $line%lld using 1:2%s title ", i == 0 ? "plot" : ",", (long long)i,
                  text ? " with linespoints" : ":3 with yerrorlines pointtype 7 pointsize 0.6");
    write_text(script, positions->lines[i].name);
  }
  (void)fputc('\n', script);
}

Status plot_positions(const char *path, const PlotPositions *positions, Error *error) {
  return make_picture(path, write_positions, positions, error);
}

Status plot_print_positions(const PlotPositions *positions, Error *error) {
  return make_picture(NULL, write_positions, positions, error);
}

/* ---------------------------------------------------------------- heat maps */

static void write_tics(FILE *script, const char *axis, const char *const *labels, int64_t count) {
  (void)fprintf(script, "set %stics noenhanced (", axis);
  for (int64_t i = 0; i < count; i++) {
    if (i > 0) (void)fputs(", ", script);
    write_text(script, labels[i]);
    (void)fprintf(script, " %lld", (long long)i);
  }
  (void)fputs(")\n", script);
}

static void write_heat_map(FILE *script, const void *picture, bool text) {
  const PlotHeatMap *map = picture;
  (void)text;
  set_text(script, "title", map->title);
  set_text(script, "xlabel", map->x_title);
  set_text(script, "ylabel", map->y_title);
  write_tics(script, "x", map->column_labels, map->columns);
  write_tics(script, "y", map->row_labels, map->rows);
  (void)fprintf(script,
                "set xrange [-0.5:%.1f]\nset yrange [%.1f:-0.5]\nset cbrange [%.9g:%.9g]\nunset key\n"
                "set palette defined (0 '#b2182b', 1 '#ffffbf', 2 '#1a9850')\n$map << END\n",
                (double)map->columns - 0.5, (double)map->rows - 0.5, map->low, map->high);
  for (int64_t i = 0; i < map->rows; i++) {
    for (int64_t j = 0; j < map->columns; j++) write_number(script, map->values[i * map->columns + j]);
    (void)fputc('\n', script);
  }
  (void)fputs("END\nplot $map matrix with image\n", script);
}

Status plot_heat_map(const char *path, const PlotHeatMap *map, Error *error) {
  return make_picture(path, write_heat_map, map, error);
}

/* Four characters of shade for a value: from nothing at the low end to a full block at the high one. */
static const char *shade_of(const PlotHeatMap *map, double value) {
  static const char *const shades[] = {" ", "\u2591", "\u2592", "\u2593", "\u2588"};
  const double share = (value - map->low) / (map->high - map->low);
  if (!isfinite(share) || share <= 0.0) return shades[0];
  return shades[share >= 1.0 ? 4 : (int)(share * 4.0)];
}

static void print_cell(FILE *stream, const PlotHeatMap *map, double value) {
  const char *shade = shade_of(map, value);
  if (isfinite(value)) {
    (void)fprintf(stream, "  %6.3g %s%s%s", value, shade, shade, shade);
  } else {
    (void)fprintf(stream, "  %6s    ", "-");
  }
}

void plot_print_heat_map(FILE *stream, const PlotHeatMap *map) {
  int width = (int)strlen(map->y_title);
  for (int64_t i = 0; i < map->rows; i++) {
    const int length = (int)strlen(map->row_labels[i]);
    if (length > width) width = length;
  }
  (void)fprintf(stream, "%s (columns: %s)\n%*s", map->title, map->x_title, width, map->y_title);
  for (int64_t j = 0; j < map->columns; j++) (void)fprintf(stream, "  %10s", map->column_labels[j]);
  (void)fputc('\n', stream);
  for (int64_t i = 0; i < map->rows; i++) {
    (void)fprintf(stream, "%*s", width, map->row_labels[i]);
    for (int64_t j = 0; j < map->columns; j++) print_cell(stream, map, map->values[i * map->columns + j]);
    (void)fputc('\n', stream);
  }
}
