/* Speed of the CUDA device, as shares of peaks that are measured in the same run.
 *
 *   bench_gpu [-p part]... [-j file] [-q] [-s samples] [-t seconds of a part] [-i CUDA device]
 *
 * Parts: peak, attention, products, rows; all by default. The peaks are a product of 8,192 x 8,192 matrices
 * in fp32 and in bf16 and a copy of 1 GiB, whose bytes count once for reading and once for writing; each
 * sample of a case stands between two samples of its peak. Times are those of many calls, from an idle device
 * to an idle device, divided by their number: the median of the samples, and their range. All calls of a case
 * work on the same arrays, of which small ones stay in the caches.
 *
 * The device is found as by the program: ringgpt-cuda.so in the folder of this program, or what RINGGPT_CUDA
 * names. -j writes a JSON object for each line there, too. -q takes tiny sizes, to see everything run on the
 * emulated device; its figures mean nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench_gpu_measure.h"

typedef struct Part {
  const char *name;
  void (*run)(GpuBench *bench);
} Part;

static const Part parts[] = {{"peak", gpu_measure_peaks},
                             {"attention", gpu_bench_attention},
                             {"products", gpu_bench_products},
                             {"rows", gpu_bench_rows}};
enum { PARTS = sizeof parts / sizeof parts[0] };

typedef struct Options {
  bool chosen[PARTS];
  const char *json; /* a path, or NULL */
  int index;
} Options;

static bool choose(Options *options, const char *name) {
  for (int i = 0; i < PARTS; i++) {
    if (strcmp(parts[i].name, name) != 0) continue;
    options->chosen[i] = true;
    return true;
  }
  return false;
}

static bool parse(int argc, char **argv, GpuBench *bench, Options *options) {
  bool some = false;
  *bench = (GpuBench){.samples = 5, .sample = 0.02, .part_seconds = 60};
  *options = (Options){.index = 0};
  for (int option = getopt(argc, argv, "p:j:qs:t:i:"); option != -1;
       option = getopt(argc, argv, "p:j:qs:t:i:")) {
    if (option == '?') return false;
    if (option == 'p' && !choose(options, optarg)) return false;
    if (option == 'p') some = true;
    if (option == 'j') options->json = optarg;
    if (option == 'q') bench->quick = true;
    if (option == 's') bench->samples = atoi(optarg);
    if (option == 't') bench->part_seconds = atof(optarg);
    if (option == 'i') options->index = atoi(optarg);
  }
  for (int i = 0; i < PARTS && !some; i++) options->chosen[i] = true;
  if (bench->quick) bench->sample = 0;
  return optind == argc && bench->samples >= 1 && bench->samples <= GPU_MOST_SAMPLES;
}

static Status run(GpuBench *bench, const Options *options) {
  Error error = {0};
  if (gpu_open(bench, options->index, &error) != STATUS_OK) {
    (void)fprintf(stderr, "bench_gpu: %s\n", error.text);
    return error.status;
  }
  printf("%s%s\n", bench->devices[ELEMENT_BF16]->summary,
         bench->quick ? "; tiny sizes: the figures mean nothing" : "");
  for (int i = 0; i < PARTS; i++) {
    if (!options->chosen[i]) continue;
    bench->part = parts[i].name;
    bench->part_end = gpu_now() + bench->part_seconds;
    parts[i].run(bench);
  }
  gpu_close(bench);
  return bench->broken == 0 && bench->measured > 0 ? STATUS_OK : STATUS_INTERNAL;
}

static int write_failed(const Options *options) {
  (void)fprintf(stderr, "bench_gpu: %s: cannot be written\n", options->json);
  return STATUS_IO;
}

int main(int argc, char **argv) {
  GpuBench bench;
  Options options;
  if (!parse(argc, argv, &bench, &options)) {
    (void)fprintf(stderr, "usage: bench_gpu [-p peak|attention|products|rows]... [-j file] [-q] [-s samples] "
                          "[-t seconds of a part] [-i CUDA device]\n");
    return STATUS_USAGE;
  }
  if (options.json != NULL) {
    bench.json = fopen(options.json, "w");
    if (bench.json == NULL) return write_failed(&options);
  }
  const Status status = run(&bench, &options);
  if (bench.json != NULL && fclose(bench.json) != 0 && status == STATUS_OK) return write_failed(&options);
  return (int)status;
}
