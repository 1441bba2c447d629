// The table of operating failures: HTTP status, whose fault it is, whether a retry helps, and a help text for people.
// REFERENCE.md prints this table. A broken invariant is an assertion, never a Fault.

interface FaultSpec {
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
    help: 'The request violates HTTP or its path is invalid; correct the field that the message names.',
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
    help: 'The token was not issued with this fleet key, or it is for another role or appliance.',
  },
  not_found: {
    status: 404,
    blame: 'client',
    retry: 'never',
    help: 'Nothing has that name; `larder catalog ls` and `larder appliance ls` list what exists.',
  },
  history_missing: {
    status: 404,
    blame: 'client',
    retry: 'never',
    help: 'Decisions can be explained only within the recorded history; the message names the period that it covers.',
  },
  asset_uncatalogued: {
    status: 404,
    blame: 'client',
    retry: 'never',
    help: 'A fleet serves only assets in its catalog; import the title with `larder catalog import URL`.',
  },
  method_not_allowed: {
    status: 405,
    blame: 'client',
    retry: 'never',
    help: 'Use one of the methods in the Allow header.',
  },
  precondition_failed: {
    status: 412,
    blame: 'client',
    retry: 'never',
    help: 'The current version of the asset does not satisfy If-Match or If-Unmodified-Since.',
  },
  version_gone: {
    status: 412,
    blame: 'origin',
    retry: 'same',
    help: 'The asset changed at the origin; request it again to get the new version.',
  },
  body_too_large: {
    status: 413,
    blame: 'client',
    retry: 'never',
    help: 'Send a smaller body; the message names the limit.',
  },
  range_unsatisfiable: {
    status: 416,
    blame: 'client',
    retry: 'never',
    help: 'The range is outside the asset or malformed.',
  },
  body_invalid: {
    status: 422,
    blame: 'client',
    retry: 'never',
    help: 'A field is invalid; the message names it and its value.',
  },
  manifest_invalid: {
    status: 422,
    blame: 'operator',
    retry: 'never',
    help: 'Correct the manifest at the line that the message names, and import it again.',
  },
  config_invalid: {
    status: 422,
    blame: 'operator',
    retry: 'never',
    help: 'Correct each setting that is listed; `--help` gives formats and units.',
  },
  map_invalid: {
    status: 422,
    blame: 'operator',
    retry: 'never',
    help: 'Correct the prefix map at the zone that the message names.',
  },
  plan_impossible: {
    status: 409,
    blame: 'operator',
    retry: 'never',
    help: 'No plan is possible; the message names the limit.',
  },
  state_conflict: {
    status: 409,
    blame: 'client',
    retry: 'never',
    help: 'The current state does not allow this; the message says why.',
  },
  overloaded: {
    status: 503,
    blame: 'larder',
    retry: 'elsewhere',
    help: 'A limit is reached, which the message names; try the next pathway, or try again later.',
  },
  origin_unreachable: {
    status: 502,
    blame: 'origin',
    retry: 'same',
    help: 'The origin refused or dropped the connection; check --origin with `larder appliance check`.',
  },
  validation_failed: {
    status: 504,
    blame: 'origin',
    retry: 'same',
    help: 'The stored response must be revalidated before it is served, and the origin cannot be reached.',
  },
  request_timeout: {
    status: 408,
    blame: 'client',
    retry: 'same',
    help: 'The request body stalled; send it without long pauses.',
  },
  not_stored: {
    status: 504,
    blame: 'client',
    retry: 'never',
    help: 'The request says `only-if-cached`, and no suitable response is stored.',
  },
  proxy_loop: {
    status: 508,
    blame: 'operator',
    retry: 'never',
    help: 'The request has passed through this appliance before; --origin must not lead back to it.',
  },
  origin_timeout: { status: 504, blame: 'origin', retry: 'same', help: 'The origin did not answer in time.' },
  origin_protocol_error: {
    status: 502,
    blame: 'origin',
    retry: 'same',
    help: 'The response of the origin violates HTTP or contradicts the request; nothing of it was stored.',
  },
  origin_refused: {
    status: 502,
    blame: 'origin',
    retry: 'never',
    help: 'The origin answered with an error; the message names its status.',
  },
  digest_mismatch: {
    status: 502,
    blame: 'origin',
    retry: 'elsewhere',
    help: "Bytes do not match the catalog's digest and were not served. Import the title again; where the origin kept the ETag of other bytes, remove the title first.",
  },
  disk_full: {
    status: 507,
    blame: 'disk',
    retry: 'elsewhere',
    help: 'The volume is full; responses pass through without being stored.',
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
    help: 'The volume returned an error; the log has the path and the cause.',
  },
  store_mismatch: {
    status: 500,
    blame: 'operator',
    retry: 'never',
    help: 'The directory was written with another layout or setting; use an empty one, or the settings that the message names.',
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
    help: 'The service sent an answer that this version does not understand; compare the versions of both.',
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
  /** Fields of the message, as `{ field: 'range', value: 'bytes=x' }`. People see them, so they must not be secret. */
  readonly detail: Readonly<Record<string, string | number>>;
  /** What to do next: the help text of the table, or a more specific one. */
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

/** Matches on name and code, never with `instanceof`: a Fault may come from another copy of the module. */
export function isFault(error: unknown): error is Fault {
  return error instanceof Error && error.name === 'Fault' && 'code' in error && String(error.code) in FAULTS;
}

/** The body of a control service's 4xx and 5xx answers, and the output of a failed verb with `--json`. */
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
