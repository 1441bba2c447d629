// Limits of a connection: what it may hold in memory, how long it may wait, how many there may be; and of what an origin may claim. Every
// bound of the serving path is taken from this table, so that the memory of a slow reader can be added up here (ARCHITECTURE.md, "Memory of a connection").

export const LIMITS = {
  /** Threads of a child's pool. They wait for disks, so that there are more than cores. */
  diskThreads: 32,
  /** Calls under way on one volume: a disk that hangs keeps so many threads, and leaves the others to the other disks. */
  diskCallsPerVolumeMax: 8,

  // Time that a client may take.
  /** From accepting a connection, or finishing its TLS handshake, to the end of its first request head. */
  requestHeadMs: 10_000,
  /** Between two requests of a connection. */
  keepAliveMs: 60_000,
  /** An idle connection gives up its node:http parser, which costs more memory than the connection itself. */
  parserIdleMs: 5_000,
  /** How often connections are looked at for having waited too long. */
  sweepMs: 1_000,
  /** A client that takes no byte of a forwarded response for this long loses its connection. */
  clientStallMs: 30_000,
  /** A request body that pauses for this long is given up. */
  requestBodyIdleMs: 15_000,

  // Memory of a client.
  /** Accepted connections that the supervisor queues while no worker is ready. */
  connectionsQueuedMax: 1_024,
  requestHeadBytesMax: 16 * 1024,
  /** Fields of one HTTP/2 request. */
  headerPairsMax: 100,
  /** Requests that one connection may have waiting behind the one that is being answered. */
  pipelinedMax: 128,
  /** Concurrent streams of one HTTP/2 connection: players ask for a few segments at a time. */
  http2StreamsMax: 32,
  /** HTTP/2 flow control: an upload over a long line goes on without a round trip per frame. */
  http2WindowBytes: 2 ** 20,

  // Memory of a response. A buffer is lent from the read of its bytes until the kernel has taken the last of them
  // (io/buffer-pool.ts lends them, fastpath/send.ts and serve/block-reader.ts acquire them).
  /** One read and one write of a fast reader: 256 KiB lost a third of the rate at 1 MiB. */
  largeBufferBytes: 512 * 1024,
  /** What a slow reader gets: with 64 KiB, 5,000 readers took an eighth more CPU (decisions/0020-gc-cost-of-misses.md). */
  mediumBufferBytes: 128 * 1024,
  /** What everybody gets while the larger buffers are lent out. */
  smallBufferBytes: 64 * 1024,
  /** A client that takes longer than this for a piece is slow, and gets a medium buffer next. */
  slowWriteMs: 200,
  /**
   * Unsent bytes that the kernel may buffer for a slow client (TCP_NOTSENT_LOWAT), which it would let grow to a mebibyte. With
   * the limit an audience of 5,000 took a tenth less CPU. A fast client lost 4 % at 1 MiB and 7 % at 4 MiB, so it is lifted for one.
   */
  unsentBytesMax: 64 * 1024,
  /** 128 MiB per worker. */
  largeBuffersLentMax: 256,
  /** 512 MiB per worker. */
  mediumBuffersLentMax: 4_096,

  // Memory and time of a miss, between a worker and the storekeeper.
  /** Requests of one worker that the storekeeper answers at the same time; others wait. */
  linkRequestsMax: 1_024,
  /** Buffers of one reply that wait for the client; then the worker stops reading from the storekeeper. */
  linkBuffersMax: 2,
  /** The storekeeper closes a reply of which the worker takes nothing for this long, and drops its reference to the block. */
  linkReaderStallMs: 10_000,
  /**
   * The worker closes a reply that it has not read from for this long. A socket that is not read does not report that its peer
   * closed it, so this must be longer than `linkReaderStallMs`.
   */
  linkPausedMs: 15_000,
  /** The worker closes a link connection that is silent for this long. The storekeeper's own origin timeouts are shorter. */
  linkSilenceMs: 60_000,
  /** Blocks of assets that are not admitted are held in memory for their readers up to this; beyond it they are stored. */
  unstoredBytesMax: 256 * 2 ** 20,
  /** Blocks that are being fetched beyond which no reader gets more than one request of them ahead: half a gibibyte. */
  blocksInFlightMax: 512,

  // What an origin may claim and take.
  /** A larger asset is not stored but passed through. */
  assetBytesMax: 2 ** 40,
  /** Blocks of a response that is longer than what was asked for: 16 GiB. The rest is asked for when somebody wants it. */
  openFetchBlocksMax: 16_384,
  /** A response of fewer bytes in so much time is given up: it would hold a connection for nothing. */
  slowOriginMs: 30_000,
  slowOriginBytesMin: 64 * 1024,
  /** A response that ends before what was asked for, and has fewer bytes than this, counts as broken off. */
  shortRangeBytesMin: 64 * 1024,

  // Requests that a worker forwards to the origin itself.
  bypassesMax: 64,
  bypassesWaitingMax: 1_024,
  bypassWaitMs: 15_000,
} as const;
