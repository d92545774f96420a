/* Numbers in little-endian byte order, as every file format of this folder holds them. */
#ifndef RINGGPT_DATA_LITTLE_ENDIAN_H
#define RINGGPT_DATA_LITTLE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load_u16(const uint8_t *from) {
  uint16_t value;
  memcpy(&value, from, sizeof value);
  return le16toh(value);
}

static inline uint32_t load_u32(const uint8_t *from) {
  uint32_t value;
  memcpy(&value, from, sizeof value);
  return le32toh(value);
}

static inline uint64_t load_u64(const uint8_t *from) {
  uint64_t value;
  memcpy(&value, from, sizeof value);
  return le64toh(value);
}

static inline void store_u16(uint8_t *to, uint16_t value) {
  value = htole16(value);
  memcpy(to, &value, sizeof value);
}

static inline void store_u32(uint8_t *to, uint32_t value) {
  value = htole32(value);
  memcpy(to, &value, sizeof value);
}

static inline void store_u64(uint8_t *to, uint64_t value) {
  value = htole64(value);
  memcpy(to, &value, sizeof value);
}

#endif
