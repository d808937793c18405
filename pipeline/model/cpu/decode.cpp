/* One decoding step of a GPT in float32 on a CPU: one new token a row, rows of different lengths.

   The same formulas as gpt.py. Every sum runs in an order that the row alone decides: a product adds its inputs in 16
   lanes, whatever the number of rows, and attention reads exactly the row's own keys. So a row has the same bits alone
   and among others. Compiled and called by native.py; weights stay where torch has them.

   Shapes: N rows, D d_model, H query heads, G key-value heads, K head_dim, F d_ff, V vocabulary, S keys of a row. */

#include <cmath>
#include <cstdint>
#include <cstring>

typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(64), aligned(4), may_alias));
typedef float half __attribute__((vector_size(32)));
typedef float quarter __attribute__((vector_size(16)));
#define LANES 16
#define BLOCK 32 /* positions whose values are read for all heads before the next ones */
#ifdef __AVX512F__ /* a load for each product, as the compiler prefers, is the limit of a tile */
#define IN_REGISTER(x) asm("" : "+v"(x))
#else
#define IN_REGISTER(x)
#endif
#define INLINE static inline __attribute__((always_inline))

typedef struct {
  const float *norm1, *norm1_bias, *q, *k, *v, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *out, *out_bias;
  const float *norm2, *norm2_bias, *gate, *gate_bias, *up, *up_bias, *down, *down_bias;
  float *keys, *values; /* [places, G, K] */
} Layer;

typedef struct {
  const Layer *layers;
  const float *final_norm, *final_norm_bias, *head;
  int64_t n_layers, D, H, G, K, F, V;
  int64_t layer_norm, rotary, norms_heads, rotates_first, activation; /* 0 SwiGLU, 1 GELU, 2 ReLU squared */
  float epsilon;
} Model;

INLINE lanes load(const float *x) { return *(const lanes *)x; }
INLINE void store(float *x, lanes y) { *(lanes *)x = y; }

INLINE float added(lanes a) {
  struct { half low, high; } x;
  memcpy(&x, &a, sizeof a);
  const half b = x.low + x.high;
  struct { quarter low, high; } y;
  memcpy(&y, &b, sizeof b);
  const quarter c = y.low + y.high;
  return (c[0] + c[2]) + (c[1] + c[3]);
}

INLINE float dot(const float *x, const float *y, int64_t n) {
  lanes sum = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sum += load(x + i) * load(y + i);
  float rest = 0;
  for (; i < n; i++) rest += x[i] * y[i];
  return added(sum) + rest;
}

/* e^x by Cephes' polynomial, to 2 units in the last place; inputs are held within float32's range. */
INLINE lanes exponential(lanes x) {
  const lanes least = lanes{} - 87.0f, most = lanes{} + 88.0f;
  x = x < least ? least : x;
  x = x > most ? most : x;
  lanes n = x * 1.44269504f + 12582912.0f; /* rounds to a whole number */
  n -= 12582912.0f;
  lanes r = x - n * 0.693359375f;
  r += n * 2.12194440e-4f;
  lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  bits power = (__builtin_convertvector(n, bits) + 127) << 23;
  return p * (lanes)power;
}

/* y[row, o] = bias[o] + sum of x[row, i] weight[o, i] for a tile of rows and outputs that stays in registers. */
template <int ROWS, int OUTS>
INLINE void tile(const float *x, int64_t I, const float *weight, const float *bias, float *y, int64_t stride, int adds) {
  lanes sums[ROWS][OUTS] = {};
  int64_t i = 0;
  for (; i + LANES <= I; i += LANES) {
    lanes w[OUTS];
#pragma GCC unroll 8
    for (int o = 0; o < OUTS; o++) {
      w[o] = load(weight + o * I + i);
      IN_REGISTER(w[o]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      lanes one = load(x + r * I + i);
      IN_REGISTER(one);
#pragma GCC unroll 8
      for (int o = 0; o < OUTS; o++) sums[r][o] += one * w[o];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
    for (int o = 0; o < OUTS; o++) {
      float rest = 0;
      for (int64_t j = i; j < I; j++) rest += x[r * I + j] * weight[o * I + j];
      float *to = y + r * stride + o;
      const float value = added(sums[r][o]) + rest + (bias ? bias[o] : 0.0f);
      *to = adds ? *to + value : value;
    }
}

/* [N, I] -> [N, O]; `adds` adds to what is there. A weight is read once for all rows. */
static void product(int64_t N, const float *x, int64_t I, const float *weight, const float *bias, int64_t O, float *y,
                    int64_t stride, int adds) {
  int64_t o = 0;
  for (; o + 4 <= O; o += 4) {
    const float *w = weight + o * I, *b = bias ? bias + o : nullptr;
    int64_t n = 0;
    for (; n + 4 <= N; n += 4) tile<4, 4>(x + n * I, I, w, b, y + n * stride + o, stride, adds);
    for (; n < N; n++) tile<1, 4>(x + n * I, I, w, b, y + n * stride + o, stride, adds);
  }
  for (; o < O; o++)
    for (int64_t n = 0; n < N; n++)
      tile<1, 1>(x + n * I, I, weight + o * I, bias ? bias + o : nullptr, y + n * stride + o, stride, adds);
}

static void rms(const float *x, const float *weight, int64_t n, float epsilon, float *y) {
  const float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + epsilon);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * (weight ? weight[i] : 1.0f);
}

static void normed(const Model *m, int64_t N, const float *x, const float *weight, const float *bias, float *y) {
  for (int64_t row = 0; row < N; row++, x += m->D, y += m->D) {
    if (!m->layer_norm) {
      rms(x, weight, m->D, m->epsilon, y);
      continue;
    }
    lanes sums = {};
    int64_t i = 0;
    for (; i + LANES <= m->D; i += LANES) sums += load(x + i);
    float mean = added(sums);
    for (; i < m->D; i++) mean += x[i];
    mean /= (float)m->D;
    for (i = 0; i < m->D; i++) y[i] = x[i] - mean;
    const float scale = 1.0f / sqrtf(dot(y, y, m->D) / (float)m->D + m->epsilon);
    for (i = 0; i < m->D; i++) y[i] = y[i] * scale * (weight ? weight[i] : 1.0f) + (bias ? bias[i] : 0.0f);
  }
}

static void rotated(float *x, const float *cos, const float *sin, int64_t K) {
  for (int64_t i = 0; i < K / 2; i++) {
    const float a = x[i], b = x[i + K / 2];
    x[i] = b * sin[i] + a * cos[i];
    x[i + K / 2] = a * sin[i + K / 2] + b * cos[i + K / 2];
  }
}

/* Norms and rotates heads in place, in the order of the family. */
static void placed(const Model *m, float *x, int64_t heads, const float *weight, const float *cos, const float *sin) {
  for (int64_t h = 0; h < heads; h++, x += m->K) {
    if (m->rotates_first && m->rotary) rotated(x, cos, sin, m->K);
    if (m->norms_heads) rms(x, weight, m->K, m->epsilon, x);
    if (!m->rotates_first && m->rotary) rotated(x, cos, sin, m->K);
  }
}

/* softmax(q k / sqrt(K)) v of all heads over S keys, which are read once, in order.
   q, y: [H, K]; keys, values: [S, G, K]; scores: room for H rows of S numbers, rounded up to LANES. */
static void attended(const Model *m, const float *q, const float *keys, const float *values, int64_t S, float *scores,
                     float *y) {
  const int64_t H = m->H, K = m->K, shared = m->H / m->G, step = m->G * K, row = (S + LANES - 1) / LANES * LANES;
  const float scale = 1.0f / sqrtf((float)K);
  for (int64_t s = 0; s < S; s++)
    for (int64_t h = 0; h < H; h++) scores[h * row + s] = dot(q + h * K, keys + s * step + h / shared * K, K) * scale;
  for (int64_t h = 0; h < H; h++) {
    float *p = scores + h * row, most = -INFINITY;
    for (int64_t s = 0; s < S; s++) most = p[s] > most ? p[s] : most;
    for (int64_t s = S; s < row; s++) p[s] = most;
    lanes sums = {};
    for (int64_t s = 0; s < row; s += LANES) {
      store(p + s, exponential(load(p + s) - most));
      for (int64_t j = S; j < s + LANES; j++) p[j] = 0;
      sums += load(p + s);
    }
    const float share = 1.0f / added(sums);
    for (int64_t s = 0; s < S; s++) p[s] *= share;
  }
  memset(y, 0, sizeof(float) * H * K);
  for (int64_t begin = 0; begin < S; begin += BLOCK) {
    const int64_t end = begin + BLOCK < S ? begin + BLOCK : S;
    for (int64_t h = 0; h < H; h++) {
      const float *v = values + h / shared * K, *p = scores + h * row;
      float *to = y + h * K;
      int64_t i = 0;
      for (; i + 2 * LANES <= K; i += 2 * LANES) {
        lanes a = load(to + i), b = load(to + i + LANES);
        for (int64_t s = begin; s < end; s++) {
          a += p[s] * load(v + s * step + i);
          b += p[s] * load(v + s * step + i + LANES);
        }
        store(to + i, a);
        store(to + i + LANES, b);
      }
      for (; i < K; i++)
        for (int64_t s = begin; s < end; s++) to[i] += p[s] * v[s * step + i];
    }
  }
}

/* act(up) or silu(gate) up in place of `up`, [n] numbers; both have room for LANES more. */
static void activated(const Model *m, const float *gate, float *up, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const lanes x = load(up + i);
    lanes y;
    if (m->activation == 0) {
      const lanes g = load(gate + i);
      y = g / (exponential(-g) + 1.0f) * x;
    } else if (m->activation == 1) { /* tanh form: x sigmoid(sqrt(8 / pi) (x + 0.044715 x^3)) */
      y = x / (exponential(-1.5957691216f * (x + 0.044715f * x * x * x)) + 1.0f);
    } else {
      const lanes zero = {};
      const lanes positive = x > zero ? x : zero;
      y = positive * positive;
    }
    store(up + i, y);
  }
}

extern "C" {

/* Numbers of scratch memory that `step` needs. */
int64_t scratch(const Model *m, int64_t N, int64_t longest) {
  return N * (m->D + (2 * m->H + 2 * m->G) * m->K + 2 * m->F) + m->H * (longest + LANES) + 8 * LANES;
}

/* Keys and values of N tokens go into the cache, logits [N, V] come out.
   rows: [N, 3], first place of the row's slot, position of its new token, first position that it attends to.
   x: [N, D], embedded tokens, overwritten; cos, sin: [N, K]. */
void step(const Model *m, int64_t N, const int64_t *rows, float *x, const float *cos, const float *sin, float *memory,
          float *logits) {
  const int64_t D = m->D, H = m->H, G = m->G, K = m->K, F = m->F;
  float *h = memory, *q = h + N * D, *k = q + N * H * K, *v = k + N * G * K, *y = v + N * G * K;
  float *up = y + N * H * K, *gate = up + N * F + LANES, *scores = gate + N * F + LANES;
  for (int64_t number = 0; number < m->n_layers; number++) {
    const Layer *l = m->layers + number;
    normed(m, N, x, l->norm1, l->norm1_bias, h);
    product(N, h, D, l->q, l->q_bias, H * K, q, H * K, 0);
    product(N, h, D, l->k, l->k_bias, G * K, k, G * K, 0);
    product(N, h, D, l->v, l->v_bias, G * K, v, G * K, 0);
    for (int64_t n = 0; n < N; n++) {
      const int64_t place = rows[3 * n], position = rows[3 * n + 1], first = rows[3 * n + 2];
      float *q_n = q + n * H * K, *k_n = k + n * G * K;
      placed(m, q_n, H, l->q_norm, cos + n * K, sin + n * K);
      placed(m, k_n, G, l->k_norm, cos + n * K, sin + n * K);
      float *keys = l->keys + place * G * K, *values = l->values + place * G * K;
      memcpy(keys + position * G * K, k_n, sizeof(float) * G * K);
      memcpy(values + position * G * K, v + n * G * K, sizeof(float) * G * K);
      const int64_t at = first * G * K;
      attended(m, q_n, keys + at, values + at, position + 1 - first, scores, y + n * H * K);
    }
    product(N, y, H * K, l->out, l->out_bias, D, x, D, 1);
    normed(m, N, x, l->norm2, l->norm2_bias, h);
    if (m->activation == 0) product(N, h, D, l->gate, l->gate_bias, F, gate, F, 0);
    product(N, h, D, l->up, l->up_bias, F, up, F, 0);
    activated(m, gate, up, N * F);
    product(N, up, F, l->down, l->down_bias, D, x, D, 1);
  }
  normed(m, N, x, m->final_norm, m->final_norm_bias, h);
  product(N, h, D, m->head, nullptr, m->V, logits, m->V, 0);
}

}
