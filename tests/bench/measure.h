/* Timing of what the program does, as shares of peaks that are measured in between: for the parts of bench.
 *
 * A part measures cases one after the other: bench_begin names a case, the part takes memory for it and
 * states its work, and bench_measure times it, prints a line and writes it as JSON. */
#ifndef RINGGPT_BENCH_MEASURE_H
#define RINGGPT_BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/device.h"
#include "train/stop.h"

#define BENCH_MOST_SAMPLES 99
#define BENCH_NAME_BYTES 128

/* What a case is held against: arithmetic in the type of its elements, memory, the same bytes in a plain
 * file. */
typedef enum Limit { LIMIT_F32, LIMIT_BF16, LIMIT_MEMORY, LIMIT_FILE, LIMIT_NONE } Limit;
enum { DEVICE_LIMITS = LIMIT_FILE, LIMITS = LIMIT_NONE + 1 };

/* In which types of elements something is measured. */
typedef enum BenchTypes { F32 = 1, BF16 = 2, BOTH = 3 } BenchTypes;

typedef struct Bench Bench;
typedef struct Peaks Peaks;             /* peaks.h */
typedef struct BenchMemory BenchMemory; /* memory.h */
typedef struct Comm Comm;

/* One call of an operation, which a device may only queue. */
typedef void Call(Device *device, void *context);

/* Seconds of one repetition; where it fails, the reason is in bench->error. */
typedef double Repetition(Bench *bench, void *context);

/* What LIMIT_FILE means for the case at hand. */
typedef struct FilePeak {
  Repetition *repetition;
  void *context;
  double work; /* bytes */
} FilePeak;

struct Bench {
  bool cuda;
  int threads;        /* of the CPU device */
  int index;          /* of the CUDA device */
  Device *devices[2]; /* by ElementType; NULL where this machine has none */
  Device *alone[2];   /* likewise with one thread; NULL also where the others have no more */
  void *words[2];     /* a word of each device, read as synchronisation */
  double polled_at;   /* by the devices' poll hook */
  StopWatch *stop;    /* after a signal no sample begins any more */
  Peaks *peaks;
  FilePeak file;
  Comm *processes;               /* those that an MPI launcher started; NULL: none */
  BenchMemory *memory;           /* what memory.h gave since bench_release */
  Error error;                   /* of the first of them that failed */
  bool quick;                    /* tiny sizes: shows that everything runs, measures nothing */
  bool all;                      /* also what takes many minutes */
  FILE *json;                    /* a JSON object a line goes there too, where it is not NULL */
  const char *only;              /* cases without this in their name are left out; NULL: none */
  int samples;                   /* 1 to BENCH_MOST_SAMPLES */
  int retries;                   /* how often a case waits at most where something else uses the cores */
  double sample;                 /* seconds that one takes at least */
  double part_end;               /* on clock_seconds(); cases that would begin later are left out */
  double pace[LIMITS];           /* the most work a second that a case of this part has reached */
  const char *part;              /* its name */
  int measured, broken, invalid; /* cases so far; left out ones are none of it */
};

/* One thing to measure. */
typedef struct Case {
  char name[BENCH_NAME_BYTES];
  ElementType type; /* the device that it runs on */
  bool alone;       /* on one thread, held against the peak of one */
  bool clock;       /* shares are of what the clock allows instead */
  Limit limit;
  double work;   /* of one repetition: floating-point operations, or bytes read and written */
  double tokens; /* of one repetition, where they are of interest; else 0 */
} Case;

/* What the samples of a case said. */
typedef struct Results {
  int count;
  int disturbed; /* measurements that were made again */
  int64_t calls; /* of one sample */
  double seconds[BENCH_MOST_SAMPLES];
  double shares[BENCH_MOST_SAMPLES];   /* of the peak */
  double pairs[BENCH_MOST_SAMPLES];    /* PeakSample.pair in between */
  double of_clock[BENCH_MOST_SAMPLES]; /* likewise */
} Results;

/* Starts a case: its name by a printf format. False where the device has no such type, where the case is not
 * wanted and, said in a line, where the part has no time left. */
bool bench_begin(Bench *bench, Case *c, ElementType type, Limit limit, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Measures calls of one case, repeated so that a sample takes bench->sample, and prints a line: the time of a
 * call, work / time and that as a share of the peak, each the median and the range of the samples. Says why,
 * where memory for it failed. */
void bench_measure(Bench *bench, const Case *c, Call *call, void *context);

/* The same for what is no call of a device; one repetition warms up. */
void bench_repeat(Bench *bench, const Case *c, Repetition *repetition, void *context);

/* Prints the line of a case whose samples were taken elsewhere, and writes it as JSON. Sorts the results. */
void bench_report(Bench *bench, const Case *c, Results *results);

/* Says that a case was not measured, and why; `broken`: it should have been. */
void bench_leave_out(Bench *bench, const char *name, bool broken, const char *why);

/* Seconds of `calls` calls, from an idle device to an idle device. */
double bench_time_calls(const Bench *bench, Device *device, Call *call, void *context, int64_t calls);

/* Warms up, and finds how many calls take `seconds`. */
int64_t bench_find_calls(const Bench *bench, Device *device, Call *call, void *context, double seconds);

/* The limit of arithmetic in elements of the type, and the type's name. */
Limit bench_limit(ElementType type);
const char *bench_type_name(ElementType type);

/* The parts. */
void bench_attention(Bench *bench);
void bench_products(Bench *bench);
void bench_rows(Bench *bench);
void bench_steps(Bench *bench);
void bench_comm(Bench *bench);
void bench_files(Bench *bench);

#endif
