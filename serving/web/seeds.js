/** Random numbers that a seed repeats, so that a link can replay an episode. */

export const SEEDS = 2 ** 32;

export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** Numbers from 0 to 1 (excluded): mulberry32, a public-domain generator by Tommy Ettinger. */
export function randomNumbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / SEEDS;
  };
}

/** The seed of the request for one step of an episode; below 2^53, which the service accepts. */
export function requestSeed(seed, step) {
  return seed * 2 ** 20 + step;
}
