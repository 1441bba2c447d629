// Every operating failure Larder knows, in one table: HTTP status, whose fault it is, whether a retry helps, and what a
// person should read. ARCHITECTURE.md prints this table. A broken invariant is an assert, never a Fault.

export interface FaultSpec {
  readonly status: number;
  readonly blame: 'client' | 'origin' | 'disk' | 'network' | 'peer' | 'operator' | 'larder';
  readonly retry: 'never' | 'same' | 'elsewhere';
  readonly help: string;
}

export const FAULTS = {
  request_malformed: {
    status: 400,
    blame: 'client',
    retry: 'never',
    help: 'The request breaks HTTP or names no valid path; correct the named field.',
  },
  token_missing: {
    status: 401,
    blame: 'client',
    retry: 'never',
    help: 'Send `Authorization: Bearer TOKEN`; `larder keys issue` prints one.',
  },
  token_forged: {
    status: 403,
    blame: 'client',
    retry: 'never',
    help: 'The token was not made with this fleet key, or is for another role or appliance.',
  },
  not_found: {
    status: 404,
    blame: 'client',
    retry: 'never',
    help: 'Nothing is known by that name; list what exists with `larder catalog ls` or `larder appliance ls`.',
  },
  history_missing: {
    status: 404,
    blame: 'client',
    retry: 'never',
    help: 'Steering can tell only of times of which it kept a history; the message says which.',
  },
  asset_uncatalogued: {
    status: 404,
    blame: 'client',
    retry: 'never',
    help: 'In a fleet only catalogued assets are served; import the title with `larder catalog import URL`.',
  },
  method_not_allowed: {
    status: 405,
    blame: 'client',
    retry: 'never',
    help: 'Use a method that the Allow header names.',
  },
  precondition_failed: {
    status: 412,
    blame: 'client',
    retry: 'never',
    help: 'The asset is not the version that If-Match or If-Unmodified-Since names.',
  },
  version_gone: {
    status: 412,
    blame: 'origin',
    retry: 'same',
    help: 'The asset changed at the origin; ask again for the new version.',
  },
  body_too_large: {
    status: 413,
    blame: 'client',
    retry: 'never',
    help: 'Send a smaller body; the limit is named in the message.',
  },
  range_unsatisfiable: {
    status: 416,
    blame: 'client',
    retry: 'never',
    help: 'The range lies outside the asset or is malformed.',
  },
  body_invalid: {
    status: 422,
    blame: 'client',
    retry: 'never',
    help: 'A field has the wrong shape; the message names it and the value.',
  },
  manifest_invalid: {
    status: 422,
    blame: 'operator',
    retry: 'never',
    help: 'Correct the manifest at the named line and import again.',
  },
  config_invalid: {
    status: 422,
    blame: 'operator',
    retry: 'never',
    help: 'Correct each listed setting; `--help` gives shapes and units.',
  },
  map_invalid: { status: 422, blame: 'operator', retry: 'never', help: 'Correct the prefix map at the named zone.' },
  plan_impossible: {
    status: 409,
    blame: 'operator',
    retry: 'never',
    help: 'No plan fits; the message names the limit that it breaks.',
  },
  state_conflict: {
    status: 409,
    blame: 'client',
    retry: 'never',
    help: 'The thing is not in a state that allows this.',
  },
  overloaded: {
    status: 503,
    blame: 'larder',
    retry: 'elsewhere',
    help: 'A named limit is reached; try the next pathway, or later.',
  },
  origin_unreachable: {
    status: 502,
    blame: 'origin',
    retry: 'same',
    help: 'The origin refused the connection or broke it off; check --origin with `larder appliance check`.',
  },
  validation_failed: {
    status: 504,
    blame: 'origin',
    retry: 'same',
    help: "What is stored may not be served without the origin's word, and the origin is away.",
  },
  request_timeout: {
    status: 408,
    blame: 'client',
    retry: 'same',
    help: 'The body of the request stopped coming; send it without such a pause.',
  },
  not_stored: {
    status: 504,
    blame: 'client',
    retry: 'never',
    help: 'The request says `only-if-cached`, and no answer that it would take is stored.',
  },
  proxy_loop: {
    status: 508,
    blame: 'operator',
    retry: 'never',
    help: 'The request has passed this appliance before; --origin must not lead back to it.',
  },
  origin_timeout: { status: 504, blame: 'origin', retry: 'same', help: 'The origin did not answer in time.' },
  origin_protocol_error: {
    status: 502,
    blame: 'origin',
    retry: 'same',
    help: 'The answer of the origin breaks HTTP or contradicts the request; nothing of it was stored.',
  },
  origin_refused: {
    status: 502,
    blame: 'origin',
    retry: 'never',
    help: 'The origin answered with an error; the message carries its status.',
  },
  digest_mismatch: {
    status: 502,
    blame: 'origin',
    retry: 'elsewhere',
    help: "Bytes differ from the catalog's digest; nothing of them was stored. Import the title again if the origin changed.",
  },
  disk_full: {
    status: 507,
    blame: 'disk',
    retry: 'elsewhere',
    help: 'The volume has no room; answers pass through without being stored.',
  },
  disk_corrupt: {
    status: 500,
    blame: 'disk',
    retry: 'same',
    help: 'A stored block failed its checksum and was discarded.',
  },
  disk_failed: {
    status: 500,
    blame: 'disk',
    retry: 'elsewhere',
    help: 'The volume returned an error; see the log for the path and cause.',
  },
  store_mismatch: {
    status: 500,
    blame: 'operator',
    retry: 'never',
    help: 'The store was written with another layout or setting; use an empty --store directory or the settings named.',
  },
  store_locked: {
    status: 500,
    blame: 'operator',
    retry: 'same',
    help: 'Another process has the directory open; stop it or choose another directory.',
  },
  unreachable: {
    status: 503,
    blame: 'network',
    retry: 'same',
    help: 'The service did not answer; check its address and that it runs.',
  },
  peer_invalid: {
    status: 502,
    blame: 'peer',
    retry: 'never',
    help: 'The service answered something this version does not understand; compare the versions of both.',
  },
  internal: {
    status: 500,
    blame: 'larder',
    retry: 'same',
    help: 'A defect in Larder; the log has the stack. Please report it.',
  },
} as const satisfies Record<string, FaultSpec>;

export type FaultCode = keyof typeof FAULTS;

export class Fault extends Error {
  readonly code: FaultCode;
  /** For a message that needs fields: `{ field: 'range', value: 'bytes=x' }`. Shown to people, never secrets. */
  readonly detail: Readonly<Record<string, string | number>>;
  /** What to do next: the table's words, or closer ones where the place of the failure knows them. */
  readonly help: string;

  constructor(
    code: FaultCode,
    message: string,
    options: { cause?: unknown; detail?: Record<string, string | number>; help?: string } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'Fault';
    this.code = code;
    this.detail = options.detail ?? {};
    this.help = options.help ?? FAULTS[code].help;
  }

  get spec(): FaultSpec {
    return FAULTS[this.code];
  }
}

/** Matched on `code`, never `instanceof`: a Fault may come from another copy of the module or over the wire. */
export function isFault(error: unknown): error is Fault {
  return error instanceof Error && error.name === 'Fault' && 'code' in error && String(error.code) in FAULTS;
}

/** What a control service answers with a 4xx or 5xx, and a verb prints with `--json` where it fails. */
export interface FaultBody {
  readonly error: {
    readonly code: FaultCode;
    readonly message: string;
    readonly help: string;
    readonly detail: Readonly<Record<string, string | number>>;
  };
}

export function faultBody(fault: Fault): FaultBody {
  return { error: { code: fault.code, message: fault.message, help: fault.help, detail: fault.detail } };
}
