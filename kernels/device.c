/* What all kinds of devices share: the calls of a device's table, the poll hook and the first failure. */
#include "kernels/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"

void device_destroy(Device *device) {
  if (device != NULL) device->table->destroy(device);
}

Status device_alloc(Device *device, size_t bytes, const char *what, void **out, Error *error) {
  return device->table->alloc(device, bytes, what, out, error);
}

void device_free(Device *device, void *memory) {
  device->table->free(device, memory);
}

size_t device_left(Device *device) {
  return device->table->left(device);
}

void device_zero(Device *device, void *memory, size_t bytes) {
  device->table->zero(device, memory, bytes);
}

void device_write(Device *device, void *memory, const void *host, size_t bytes) {
  device->table->write(device, memory, host, bytes);
}

void device_read(Device *device, void *host, const void *memory, size_t bytes) {
  device->table->read(device, host, memory, bytes);
}

void device_copy_rows(Device *device, void *to, size_t to_stride, const void *from, size_t from_stride,
                      size_t row_bytes, int64_t rows) {
  device->table->copy_rows(device, to, to_stride, from, from_stride, row_bytes, rows);
}

double device_waited(Device *device) {
  return device->table->queues == NULL ? 0.0 : device->table->queues->waited(device);
}

Status device_map(Device *device, void *memory, size_t bytes, const char *what, DeviceMapping *mapping,
                  Error *error) {
  *mapping = (DeviceMapping){.device = device, .memory = memory, .host = memory, .bytes = bytes};
  if (device->table->queues == NULL) return STATUS_OK;
  const Status status = memory_alloc(bytes, 1, what, &mapping->host, error);
  if (status != STATUS_OK) {
    *mapping = (DeviceMapping){0};
    return status;
  }
  device_read(device, mapping->host, memory, bytes);
  const Status read = device_check(device, error);
  if (read != STATUS_OK) device_unmap(mapping, false);
  return read;
}

void device_unmap(DeviceMapping *mapping, bool changed) {
  if (mapping->host != mapping->memory) {
    if (changed) device_write(mapping->device, mapping->memory, mapping->host, mapping->bytes);
    free(mapping->host);
  }
  *mapping = (DeviceMapping){0};
}

void device_poll(const Device *device) {
  if (device->poll == NULL || !pthread_equal(pthread_self(), device->owner)) return;
  device->poll(device->poll_context);
}

Status device_check(const Device *device, Error *error) {
  if (device->failure.status == STATUS_OK) return STATUS_OK;
  return fail(error, device->failure.status, "%s", device->failure.text);
}

bool device_failed(const Device *device) {
  return __atomic_load_n(&device->failure.status, __ATOMIC_RELAXED) != STATUS_OK;
}

void device_count_pairs(const Device *device, int64_t pairs) {
  if (device->pairs != NULL) (void)__atomic_fetch_add(device->pairs, pairs, __ATOMIC_RELAXED);
}

void device_fail(Device *device, Status status, const char *format, ...) {
  char text[sizeof device->failure.text];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (device->failure.status != STATUS_OK) return;
  memcpy(device->failure.text, text, sizeof text);
  __atomic_store_n(&device->failure.status, status, __ATOMIC_RELAXED);
}
