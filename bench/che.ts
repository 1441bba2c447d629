// What LRU hits of independent requests, by Che's approximation (Che, Tung, Wang 2002; why it is so good: Fricker, Robert,
// Roberts 2012): an object is there if it was asked for within the characteristic time t, where t is such that the objects
// expected to be there fill the cache: Σ (1 − e^(−pᵢ t)) = capacity.

export function cheHitRatio(shares: Float64Array, capacity: number): number {
  const there = (share: number, time: number): number => -Math.expm1(-share * time);
  const filled = (time: number): number => shares.reduce((sum, share) => sum + there(share, time), 0);
  let [low, high] = [0, 1];
  while (filled(high) < capacity) high *= 2;
  for (let halving = 0; halving < 100; halving += 1) {
    const middle = (low + high) / 2;
    if (filled(middle) < capacity) low = middle;
    else high = middle;
  }
  return shares.reduce((sum, share) => sum + share * there(share, high), 0);
}
