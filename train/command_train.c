/* ringgpt train: trains a model on the configured grid, and goes on where an earlier run stopped. */
#include <signal.h>

#include "train/commands.h"
#include "train/config.h"
#include "train/grid.h"
#include "train/stop.h"
#include "train/trainer.h"

Status command_train(const CommandLine *line, Error *error) {
  Config config;
  StopWatch *stop = NULL;
  TRY(config_load(line->arguments[0], line->arguments + 1, line->count - 1, &config, error));
  /* A terminal or pipe that goes away is no reason to lose a run. */
  (void)signal(SIGPIPE, SIG_IGN);
  TRY(stop_watch_start(&stop, error));
  TrainerStart start = {.config = &config, .stop = stop};
  const Status status = grid_run(&config, line->processes, trainer_run, &start, error);
  /* A signal that comes, or comes again, when all is saved must not change the exit code: the watch then
   * lasts as long as the program. */
  if (status != STATUS_OK && status != STATUS_STOPPED) stop_watch_end(stop);
  return status;
}
