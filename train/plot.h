/* Pictures of results by gnuplot, where it is installed, and text pictures for a terminal. A picture that
 * cannot be made is a failure to be reported, never one of what it shows. */
#ifndef RINGGPT_TRAIN_PLOT_H
#define RINGGPT_TRAIN_PLOT_H

#include <stdint.h>
#include <stdio.h>

#include "kernels/base/status.h"

/* One line of a diagram, with error bars. */
typedef struct PlotLine {
  const char *name;
  int64_t count;
  const double *x; /* (count) > 0 */
  const double *y; /* (count) */
  const double *e; /* (count) half the length of the bar; NaN: none */
} PlotLine;

/* Means of nll against position: x on a scale of powers of two, y nll in nats with perplexity on the other
 * side. */
typedef struct PlotPositions {
  const char *title;
  int64_t count;
  const PlotLine *lines; /* (count) */
} PlotPositions;

/* Values of a table as colours. */
typedef struct PlotHeatMap {
  const char *title;
  const char *x_title; /* of what the columns are */
  const char *y_title; /* of what the rows are */
  int64_t rows;
  int64_t columns;
  const char *const *row_labels;    /* (rows), from the top */
  const char *const *column_labels; /* (columns) */
  const double *values;             /* (rows, columns); NaN: none */
  double low;                       /* the ends of the scale, low < high */
  double high;
} PlotHeatMap;

/* Writes a picture to `path`, whose name ends in .svg or .png (plot_check_path). STATUS_SYSTEM where gnuplot
 * is not installed or cannot be started, STATUS_IO where it fails. */
Status plot_positions(const char *path, const PlotPositions *positions, Error *error);
Status plot_heat_map(const char *path, const PlotHeatMap *map, Error *error);

/* The same in characters, to standard output, by gnuplot. Fails alike. */
Status plot_print_positions(const PlotPositions *positions, Error *error);

/* Prints a heat map as a table of values with shades; needs no gnuplot. */
void plot_print_heat_map(FILE *stream, const PlotHeatMap *map);

/* STATUS_USAGE unless `path` ends in .svg or .png, naming the flag `flag`. */
Status plot_check_path(const char *flag, const char *path, Error *error);

#endif
