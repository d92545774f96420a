/* The built program, for tests that start it. */
#ifndef RINGGPT_SUPPORT_PROGRAM_H
#define RINGGPT_SUPPORT_PROGRAM_H

#include <limits.h>

/* Writes the program's path: it lies beside the folder of the tests. Ends the test when it is not built. */
void program_path(char path[PATH_MAX]);

#endif
