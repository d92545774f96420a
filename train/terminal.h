/* Lines on the terminal, or on the pipe or file that stands in for it, which never hold up the caller for
 * long: a terminal that is stopped, or a launcher that has ceased to read, costs lines and no time. */
#ifndef RINGGPT_TRAIN_TERMINAL_H
#define RINGGPT_TRAIN_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

typedef struct Terminal {
  int descriptor; /* -1: none */
  bool held_up;   /* took nothing for a second when it was last tried */
  bool cut;       /* shows the beginning of a text, whose rest was left out */
} Terminal;

/* Writes go to the descriptor of `stream`, which stays the caller's and is not to be used meanwhile; NULL:
 * they go nowhere. */
Terminal terminal_make(FILE *stream);

/* Writes a text. One that is not taken within a second is left out, and so are those behind it, without
 * waiting, until there is room again. Failures are ignored. */
void terminal_write(Terminal *terminal, const char *text);

#endif
