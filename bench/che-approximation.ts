// The hit ratio of LRU for independent requests by Che's approximation (Che, Tung, Wang 2002; its accuracy is explained by Fricker,
// Robert, Roberts 2012): an object is cached if it was requested within the characteristic time t, which is chosen such that the
// expected number of cached objects fills the cache: Σ (1 − e^(−pᵢ t)) = capacity.

/** `shares` are the request probabilities of the objects; `capacity` is a number of objects. */
export function cheHitRatio(shares: Float64Array, capacity: number): number {
  const cachedProbability = (share: number, time: number): number => -Math.expm1(-share * time);
  const expectedObjects = (time: number): number =>
    shares.reduce((sum, share) => sum + cachedProbability(share, time), 0);
  let [low, high] = [0, 1];
  while (expectedObjects(high) < capacity) high *= 2;
  for (let halving = 0; halving < 100; halving += 1) {
    const middle = (low + high) / 2;
    if (expectedObjects(middle) < capacity) low = middle;
    else high = middle;
  }
  return shares.reduce((sum, share) => sum + share * cachedProbability(share, high), 0);
}
