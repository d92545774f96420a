/* Lines on the terminal that never hold up the caller for long. */
#include "train/terminal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* The longest wait for room. */
#define PATIENCE_MS 1000

/* A pipe that is ready takes PIPE_BUF bytes (pipe(7)), a pseudo-terminal of Linux at least the 256 of one of
 * its buffers, with every line feed counted as two: a write of so many does not block. */
#define PIECE_BYTES 128

Terminal terminal_make(FILE *stream) {
  if (stream == NULL) return (Terminal){.descriptor = -1};
  /* What the stream holds comes first. */
  (void)fflush(stream);
  return (Terminal){.descriptor = fileno(stream)};
}

/* Whether a write will return at once: there is room, or an error to be told. */
static bool ready(Terminal *terminal) {
  struct pollfd room = {.fd = terminal->descriptor, .events = POLLOUT};
  int found;
  do {
    found = poll(&room, 1, terminal->held_up ? 0 : PATIENCE_MS);
  } while (found < 0 && errno == EINTR);
  terminal->held_up = found == 0;
  return !terminal->held_up;
}

/* Returns how many of the bytes were written before the terminal was held up or failed. */
static size_t write_pieces(Terminal *terminal, const char *text, size_t bytes) {
  size_t written = 0;
  while (written < bytes && ready(terminal)) {
    const size_t left = bytes - written;
    const ssize_t got = write(terminal->descriptor, text + written, left < PIECE_BYTES ? left : PIECE_BYTES);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    written += (size_t)got;
  }
  return written;
}

void terminal_write(Terminal *terminal, const char *text) {
  const size_t bytes = strlen(text);
  if (terminal->descriptor < 0) return;
  if (terminal->cut && write_pieces(terminal, "\n", 1) == 0) return;
  const size_t written = write_pieces(terminal, text, bytes);
  terminal->cut = written > 0 && written < bytes;
}
