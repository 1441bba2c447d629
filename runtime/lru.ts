// Options of an LRU cache that is bounded by its number of entries. With `max` lru-cache allocates its tables for that many at once, which
// takes 7 ms for 100,000 and delays the start of a process.

export const entriesAtMost = (max: number) => ({ maxSize: max, sizeCalculation: (): number => 1 }) as const;
