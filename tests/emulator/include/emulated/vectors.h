/* The vector types of CUDA C with their alignments, and dim3. */
#ifndef RINGGPT_EMULATED_VECTORS_H
#define RINGGPT_EMULATED_VECTORS_H

#define EMULATED_VECTOR2(element, name, alignment)                                                           \
  struct alignas(alignment) name##2 {                                                                        \
    element x, y;                                                                                            \
  };                                                                                                         \
  static inline name##2 make_##name##2(element x, element y) {                                               \
    return {x, y};                                                                                           \
  }

#define EMULATED_VECTOR3(element, name)                                                                      \
  struct name##3 {                                                                                           \
    element x, y, z;                                                                                         \
  };                                                                                                         \
  static inline name##3 make_##name##3(element x, element y, element z) {                                    \
    return {x, y, z};                                                                                        \
  }

#define EMULATED_VECTOR4(element, name, alignment)                                                           \
  struct alignas(alignment) name##4 {                                                                        \
    element x, y, z, w;                                                                                      \
  };                                                                                                         \
  static inline name##4 make_##name##4(element x, element y, element z, element w) {                         \
    return {x, y, z, w};                                                                                     \
  }

EMULATED_VECTOR2(int, int, 8)
EMULATED_VECTOR2(unsigned, uint, 8)
EMULATED_VECTOR2(unsigned short, ushort, 4)
EMULATED_VECTOR2(float, float, 8)
EMULATED_VECTOR2(double, double, 16)
EMULATED_VECTOR2(long long, longlong, 16)
EMULATED_VECTOR2(unsigned long long, ulonglong, 16)
EMULATED_VECTOR3(int, int)
EMULATED_VECTOR3(unsigned, uint)
EMULATED_VECTOR3(float, float)
EMULATED_VECTOR4(int, int, 16)
EMULATED_VECTOR4(unsigned, uint, 16)
EMULATED_VECTOR4(unsigned short, ushort, 8)
EMULATED_VECTOR4(float, float, 16)

#undef EMULATED_VECTOR2
#undef EMULATED_VECTOR3
#undef EMULATED_VECTOR4

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned columns = 1, unsigned rows = 1, unsigned layers = 1)
      : x(columns), y(rows), z(layers) {
  }
  constexpr dim3(uint3 extent) : x(extent.x), y(extent.y), z(extent.z) {
  }
};

#endif
