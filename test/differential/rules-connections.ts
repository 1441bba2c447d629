// Differences in when a connection is closed, and in what happens to pipelined requests.

import { field } from '../../appliance/test/http-client.ts';
import { UNANNOUNCED_CLOSE } from './compare.ts';
import { rejectedByNode, closes, staysOpen, type Rule, type View } from './view.ts';

const hasUpgrade = ({ case: { requests } }: View): boolean =>
  requests.some(({ lines }) => lines.some((line) => /^upgrade:/i.test(line)));

/** The connection was closed although the last response did not announce it. */
const closedUnannounced = ({ aspect, detail, actual }: View): boolean =>
  detail === UNANNOUNCED_CLOSE ||
  (aspect === 'persistence' &&
    actual.kind === 'response' &&
    !actual.open &&
    field(actual.response, 'connection') === 'keep-alive');

export const CONNECTION_RULES: readonly Rule[] = [
  {
    request: 'a request that is refused before its path is looked up',
    nginx: 'closes the connection',
    larder: 'keeps it open if the start of the next request is known',
    rfc: '9112 9.3',
    right: 'both',
    explains: (view) =>
      staysOpen(view) && ([400, 414, 501, 505].includes(view.expectedStatus) || view.method === 'TRACE'),
  },
  {
    request: 'a precondition that fails',
    nginx: 'sends 412 and keep-alive, and closes',
    larder: 'keeps the connection open',
    rfc: '9112 9.3',
    right: 'Larder',
    explains: (view) => staysOpen(view) && view.expectedStatus === 412,
  },
  {
    request: 'a request body that is not used',
    nginx: 'skips the body and keeps the connection open',
    larder: 'closes, unless it is a reverse proxy',
    rfc: '9112 9.3',
    right: 'both',
    explains: (view) => closes(view) && view.plain && (view.has('content-length') || view.has('transfer-encoding')),
  },
  {
    request: 'a request that the parser of Node refuses',
    nginx: 'may keep the connection open',
    larder: 'closes',
    rfc: '9112 9.3',
    right: 'both',
    explains: (view) => closes(view) && rejectedByNode(view),
  },
  {
    request: '`Proxy-Connection: close`',
    nginx: 'ignores it',
    larder: 'Node closes',
    rfc: '9112 C.2.2',
    right: 'both',
    explains: (view) => closes(view) && view.has('proxy-connection'),
  },
  {
    request: 'keep-alive in HTTP/1.0, for a response without a body',
    nginx: 'keeps the connection open',
    larder: 'Node closes, because the response has no length',
    rfc: '9112 9.3, C.2.2',
    right: 'both',
    explains: (view) =>
      view.request.version === 'HTTP/1.0' &&
      ((closes(view) && [204, 304].includes(view.actualStatus)) ||
        (staysOpen(view) && !view.againstNginx && [204, 304].includes(view.expectedStatus))),
  },
  {
    request: '`Connection` with close and keep-alive, or with tabs',
    nginx: 'the last one counts',
    larder: 'Node obeys close in 1.1, keep-alive in 1.0, and neither after a tab',
    rfc: '9112 9.3',
    right: 'neither',
    explains: (view) =>
      view.aspect === 'persistence' && /close.*keep-alive|keep-alive.*close|\t/i.test(connectionLines(view)),
  },
  {
    request: 'an unsupported `Transfer-Encoding`, with a method or an `Expect` that is refused',
    nginx: '501',
    larder: 'sends keep-alive, and closes',
    rfc: '9112 9.6',
    right: 'nginx',
    explains: (view) => closedUnannounced(view) && view.has('transfer-encoding'),
  },
  {
    request:
      'bytes pipelined after a request that ends the connection, or a malformed request or `CONNECT` pipelined after others',
    nginx: 'answers the earlier requests, in order',
    larder: 'Node refuses requests not answered yet, and responses being sent are lost',
    rfc: '9112 9.3.2, 9.6',
    right: 'nginx',
    explains: (view) =>
      view.case.pipelined &&
      (closedUnannounced(view) ||
        (rejectedByNode(view) && ['status', 'persistence'].includes(view.aspect)) ||
        (view.aspect === 'response' &&
          (view.actual.kind === 'closed' || (!view.againstNginx && view.expected.kind === 'closed')))),
  },
  {
    request: 'bytes pipelined after `Upgrade`, or a malformed request after it',
    nginx: 'ignores Upgrade',
    larder: 'Node discards them',
    rfc: '7.8',
    right: 'nginx',
    explains: (view) =>
      hasUpgrade(view) &&
      ['correctness', 'response'].includes(view.aspect) &&
      (view.actual.kind === 'broken' || view.actualStatus === 408),
  },
];

const connectionLines = ({ request: { lines } }: View): string =>
  lines.filter((line) => /^connection:/i.test(line)).join();
