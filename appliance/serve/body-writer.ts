// Writing a response with a body: its head, framed as one range or as multipart/byteranges, and its bytes with back-pressure.

import type { ServerResponse } from 'node:http';
import { waitWritable } from '../../runtime/backpressure.ts';
import type { AssetView } from '../http/asset.ts';
import { frameMultipart, newBoundary, type Multipart } from '../http/multipart.ts';
import type { ResponseHeaders } from '../http/response-headers.ts';
import type { ByteSlice } from '../io/byte-stream.ts';
import type { RangeBody } from './range-body.ts';
import type { ResponsePlan } from './response-plan.ts';

export interface BodyResponse {
  readonly asset: AssetView;
  readonly plan: ResponsePlan & { readonly kind: 'body' };
  /** Fields that do not depend on the ranges. */
  readonly fields: ResponseHeaders;
  /** One per range. */
  readonly bodies: readonly RangeBody[];
  /** The first bytes of the first range; null when it is empty. */
  readonly firstSlice: ByteSlice | null;
}

/** `sent` counts the bytes written, also when the body throws. False when the client has gone. */
export async function sendBody(
  response: ServerResponse,
  { asset, plan, fields, bodies, firstSlice }: BodyResponse,
  sent: { bodyBytes: number },
): Promise<boolean> {
  const multipart = plan.ranges.length > 1 ? frameParts(plan, asset) : null;
  // Head and first bytes leave in one write.
  response.cork();
  response.writeHead(plan.status, { ...fields, ...rangeFields(plan, asset, multipart) });
  for (const [at, body] of bodies.entries()) {
    if (multipart !== null) response.write(multipart.heads[at]!);
    let slice = at === 0 ? firstSlice : await body.next();
    while (slice !== null) {
      sent.bodyBytes += slice.bytes.length;
      response.write(slice.bytes, slice.release);
      if (response.writableCorked > 0) response.uncork();
      const writable = waitWritable(response);
      if (writable === false || (writable !== true && !(await writable))) {
        body.close();
        return false;
      }
      slice = await body.next();
    }
  }
  response.end(multipart?.tail);
  return true;
}

const frameParts = ({ ranges }: BodyResponse['plan'], asset: AssetView): Multipart =>
  frameMultipart(ranges, asset.bytes, asset.headers['content-type'] ?? null, newBoundary());

function rangeFields(
  { status, ranges }: BodyResponse['plan'],
  asset: AssetView,
  multipart: Multipart | null,
): ResponseHeaders {
  if (multipart !== null) return { 'content-type': multipart.contentType, 'content-length': multipart.contentLength };
  const { first, last } = ranges[0]!;
  const length = { 'content-length': last - first + 1 };
  return status === 200 ? length : { ...length, 'content-range': `bytes ${first}-${last}/${asset.bytes}` };
}
