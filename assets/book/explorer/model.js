/* The course's GPT-2 in plain JavaScript: the same steps as utils/gpt.py and utils/attention.py, in float64.
 *
 * Legend: T tokens, d channels of a token, H heads, D head size (d = H*D), V vocabulary size.
 * Tables are flat Float64Arrays, row after row: entry (i, j) of a (T, d) table lies at i * d + j.
 * Uses: nothing.
 */
"use strict";

(function () {
  // Weights

  /** The bits of a half-precision number -> its value. */
  function fromHalf(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24; // too small for a leading one
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  /** What export.py's pack wrote -> {shape, values}. */
  function unpack({ shape, dtype, base64 }) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const width = dtype === "float16" ? 2 : 4;
    const values = new Float64Array(bytes.length / width);
    for (let n = 0; n < values.length; n++) {
      values[n] = width === 2 ? fromHalf(view.getUint16(2 * n, true)) : view.getFloat32(4 * n, true);
    }
    return { shape, values };
  }

  // Layers

  /** x @ weight.T + bias, as nn.Linear stores it: (T, in), weight (out, in) -> (T, out). The bias may be missing. */
  function linear(x, weight, bias) {
    const [outputs, inputs] = weight.shape;
    const numTokens = x.length / inputs;
    const W = weight.values;
    const y = new Float64Array(numTokens * outputs);
    for (let o = 0; o < outputs; o++) {
      const row = W.subarray(o * inputs, (o + 1) * inputs); // (in,)
      const start = bias ? bias.values[o] : 0;
      for (let t = 0; t < numTokens; t++) {
        // two sums that take turns: one alone would wait for each addition to end
        let even = start;
        let odd = 0;
        const at = t * inputs;
        let i = 0;
        for (; i + 1 < inputs; i += 2) {
          even += x[at + i] * row[i];
          odd += x[at + i + 1] * row[i + 1];
        }
        if (i < inputs) even += x[at + i] * row[i];
        y[t * outputs + o] = even + odd;
      }
    }
    return y;
  }

  /** Each token by itself: mean 0, variance 1 (divided by d), then scale and shift. (T, d) -> (T, d) */
  function layerNorm(x, scale, shift, epsilon) {
    const d = scale.values.length;
    const y = new Float64Array(x.length);
    for (let start = 0; start < x.length; start += d) {
      let mean = 0;
      for (let c = 0; c < d; c++) mean += x[start + c] / d;
      let variance = 0;
      for (let c = 0; c < d; c++) variance += ((x[start + c] - mean) * (x[start + c] - mean)) / d;
      const root = Math.sqrt(variance + epsilon);
      for (let c = 0; c < d; c++) y[start + c] = (scale.values[c] * (x[start + c] - mean)) / root + shift.values[c];
    }
    return y;
  }

  /** GPT-2's activation, the tanh form; entry by entry. */
  function gelu(x) {
    return x.map((v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v))));
  }

  /** Scores -> positive numbers that add to one. The maximum is taken off first, so that nothing overflows. */
  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = scores.map((v) => Math.exp(v - largest));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((v) => v / total);
  }

  function add(x, y) {
    return x.map((v, n) => v + y[n]);
  }

  // Attention

  /** (T, H*D) -> H tables of (T, D): head h gets the channels h*D to (h+1)*D. */
  function splitHeads(x, numTokens, numHeads) {
    const d = x.length / numTokens;
    const D = d / numHeads;
    return Array.from({ length: numHeads }, (_, h) => {
      const head = new Float64Array(numTokens * D);
      for (let t = 0; t < numTokens; t++) head.set(x.subarray(t * d + h * D, t * d + (h + 1) * D), t * D);
      return head;
    });
  }

  /** H tables of (T, D) -> (T, H*D): undoes splitHeads. */
  function mergeHeads(heads, numTokens) {
    const D = heads[0].length / numTokens;
    const d = heads.length * D;
    const x = new Float64Array(numTokens * d);
    heads.forEach((head, h) => {
      for (let t = 0; t < numTokens; t++) x.set(head.subarray(t * D, (t + 1) * D), t * d + h * D);
    });
    return x;
  }

  /** One head's four tables, row = query, column = key. queries, keys (T, D) -> four times (T, T) */
  function attentionTables(queries, keys, numTokens) {
    const D = queries.length / numTokens;
    const scores = new Float64Array(numTokens * numTokens);
    for (let i = 0; i < numTokens; i++) {
      for (let j = 0; j < numTokens; j++) {
        let sum = 0;
        for (let c = 0; c < D; c++) sum += queries[i * D + c] * keys[j * D + c];
        scores[i * numTokens + j] = sum;
      }
    }
    const scaled = scores.map((v) => v / Math.sqrt(D));
    // n = i*T + j: hidden where the key lies after the query
    const masked = scaled.map((v, n) => (n % numTokens > Math.floor(n / numTokens) ? -Infinity : v));
    const weights = new Float64Array(numTokens * numTokens);
    for (let i = 0; i < numTokens; i++) {
      const row = masked.subarray(i * numTokens, (i + 1) * numTokens); // (T,)
      weights.set(softmax(row), i * numTokens);
    }
    return { scores, scaled, masked, weights };
  }

  /** Context vectors: every row a weighted sum of the values. weights (T, T), values (T, D) -> (T, D) */
  function mix(weights, values, numTokens) {
    const D = values.length / numTokens;
    const contexts = new Float64Array(values.length);
    for (let i = 0; i < numTokens; i++) {
      for (let j = 0; j <= i; j++) {
        const weight = weights[i * numTokens + j];
        for (let c = 0; c < D; c++) contexts[i * D + c] += weight * values[j * D + c];
      }
    }
    return contexts;
  }

  // The model

  class Model {
    constructor(data) {
      this.cfg = data.config;
      this.vocabulary = data.vocabulary;
      this.ids = new Map(data.vocabulary.map((character, id) => [character, id]));
      this.weights = Object.fromEntries(Object.entries(data.weights).map(([name, packed]) => [name, unpack(packed)]));
    }

    /** Text -> {ids, characters, unknown, surplus}: what the model can read of it, and what it can't. */
    encode(text) {
      const all = Array.from(text); // by characters: an emoji is one, not two
      const unknown = [];
      const known = [];
      all.forEach((character, position) => {
        if (this.ids.has(character)) known.push(character);
        else unknown.push({ character, position });
      });
      const characters = known.slice(0, this.cfg.contextLength);
      return {
        ids: characters.map((character) => this.ids.get(character)),
        characters,
        unknown,
        surplus: known.length - characters.length,
      };
    }

    /** A token's vector plus its position's. ids (T,) -> (T, d) */
    embed(ids) {
      const d = this.cfg.embDim;
      const tokens = this.weights["tok_emb.weight"].values;
      const positions = this.weights["pos_emb.weight"].values;
      const x = new Float64Array(ids.length * d);
      ids.forEach((id, t) => {
        for (let c = 0; c < d; c++) x[t * d + c] = tokens[id * d + c] + positions[t * d + c];
      });
      return x;
    }

    /** The full pass over one line.
     *
     * silenced: null, or {layer, head} whose result is set to zero, as chapter 8 does.
     * Returns {logits (T, V), tables}: tables[layer][head] holds scores, scaled, masked and weights, (T, T) each.
     */
    forward(ids, silenced = null) {
      const { numHeads, numLayers, epsilon } = this.cfg;
      const numTokens = ids.length;
      if (numTokens < 1 || numTokens > this.cfg.contextLength) {
        throw new RangeError(`the line has ${numTokens} tokens, the model takes 1 to ${this.cfg.contextLength}`);
      }
      const tables = [];
      let x = this.embed(ids); // (T, d)
      for (let layer = 0; layer < numLayers; layer++) {
        const weight = (name) => this.weights[`trf_blocks.${layer}.${name}`];
        const dense = (input, name) => linear(input, weight(`${name}.weight`), weight(`${name}.bias`));
        const norm = (input, name) => layerNorm(input, weight(`${name}.scale`), weight(`${name}.shift`), epsilon);

        const normed = norm(x, "norm1"); // (T, d)
        const [queries, keys, values] = ["W_query", "W_key", "W_value"].map(
          (name) => splitHeads(dense(normed, `att.${name}`), numTokens, numHeads), // (T, H*D) -> H times (T, D)
        );
        tables[layer] = queries.map((_, head) => attentionTables(queries[head], keys[head], numTokens));
        const contexts = values.map((v, head) => mix(tables[layer][head].weights, v, numTokens)); // H times (T, D)
        if (silenced !== null && silenced.layer === layer) contexts[silenced.head].fill(0);
        x = add(x, dense(mergeHeads(contexts, numTokens), "att.out_proj")); // (T, d)

        const wide = gelu(dense(norm(x, "norm2"), "ff.layers.0")); // (T, 4d)
        x = add(x, dense(wide, "ff.layers.2")); // (T, d)
      }
      const final = layerNorm(x, this.weights["final_norm.scale"], this.weights["final_norm.shift"], epsilon);
      const head = this.weights["out_head.weight"] || this.weights["tok_emb.weight"]; // tied: the embedding itself
      return { logits: linear(final, head, this.weights["out_head.bias"]), tables };
    }

    /** Chances of every next character after a position. logits (T, V) -> (V,) */
    chances(logits, position, temperature = 1) {
      const V = this.cfg.vocabSize;
      return softmax(logits.subarray(position * V, (position + 1) * V).map((v) => v / temperature));
    }

    /** Mean cross-entropy in nats. logits (T, V), targets (T,) -> a number */
    loss(logits, targets) {
      const terms = targets.map((target, t) => -Math.log(this.chances(logits, t)[target]));
      return terms.reduce((a, b) => a + b, 0) / terms.length;
    }
  }

  // Reading a row

  function indexOfLargest(values) {
    let best = 0;
    values.forEach((v, n) => {
      if (v > values[best]) best = n;
    });
    return best;
  }

  window.AttentionModel = { Model, indexOfLargest };
})();
