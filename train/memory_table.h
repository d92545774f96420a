/* A plan of memory as a table for people. */
#ifndef RINGGPT_TRAIN_MEMORY_TABLE_H
#define RINGGPT_TRAIN_MEMORY_TABLE_H

#include <stdio.h>

#include "train/memory_advice.h"

/* Prints what takes how much, for one rank and for all ranks of this machine, and each stage and evaluation.
 */
void memory_table_print(const Config *config, const MemoryPlan *plan, FILE *stream);

/* One line for the log of a run: "weights 0.5 MiB, gradients ...". */
void memory_table_line(const MemoryPlan *plan, char *text, size_t size);

#endif
