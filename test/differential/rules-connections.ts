// Differences in who hangs up when, and in what comes of requests that are sent without waiting for answers.

import { field } from '../../appliance/test/wire.ts';
import { byNode, hangsUp, staysOpen, type Rule, type View } from './view.ts';

const hasUpgrade = ({ case: { requests } }: View): boolean =>
  requests.some(({ lines }) => lines.some((line) => /^upgrade:/i.test(line)));

/** The connection ended though its last answer did not say so. */
const unannounced = ({ facet, detail, ours }: View): boolean =>
  detail === 'closes without a word' ||
  (facet === 'persistence' &&
    ours.kind === 'answer' &&
    !ours.open &&
    field(ours.answer, 'connection') === 'keep-alive');

export const CONNECTION_RULES: readonly Rule[] = [
  {
    asked: 'what is refused before it is looked for',
    nginx: 'hangs up',
    larder: 'goes on where it knows where the next request begins',
    rfc: '9112 9.3',
    right: 'both',
    explains: (view) => staysOpen(view) && ([400, 414, 501, 505].includes(view.from) || view.method === 'TRACE'),
  },
  {
    asked: 'a condition that fails',
    nginx: 'says 412 and keep-alive, and hangs up',
    larder: 'goes on',
    rfc: '9112 9.3',
    right: 'Larder',
    explains: (view) => staysOpen(view) && view.from === 412,
  },
  {
    asked: 'a body that nothing is made of',
    nginx: 'reads over it and goes on',
    larder: 'hangs up, unless it is a reverse proxy',
    rfc: '9112 9.3',
    right: 'both',
    explains: (view) => hangsUp(view) && view.plain && (view.has('content-length') || view.has('transfer-encoding')),
  },
  {
    asked: 'what Node’s parser refuses',
    nginx: 'may go on',
    larder: 'hangs up',
    rfc: '9112 9.3',
    right: 'both',
    explains: (view) => hangsUp(view) && byNode(view),
  },
  {
    asked: '`Proxy-Connection: close`',
    nginx: 'knows no such field',
    larder: 'Node hangs up',
    rfc: '9112 C.2.2',
    right: 'both',
    explains: (view) => hangsUp(view) && view.has('proxy-connection'),
  },
  {
    asked: 'keep-alive in HTTP/1.0, and the answer has no body',
    nginx: 'goes on',
    larder: 'Node hangs up, for want of a length',
    rfc: '9112 9.3, C.2.2',
    right: 'both',
    explains: (view) =>
      view.request.version === 'HTTP/1.0' &&
      ((hangsUp(view) && [204, 304].includes(view.to)) ||
        (staysOpen(view) && !view.ofNginx && [204, 304].includes(view.from))),
  },
  {
    asked: '`Connection` with close and keep-alive, or with tabs',
    nginx: 'the last counts',
    larder: 'Node takes close for it in 1.1, keep-alive in 1.0, and neither behind tabs',
    rfc: '9112 9.3',
    right: 'neither',
    explains: (view) =>
      view.facet === 'persistence' && /close.*keep-alive|keep-alive.*close|\t/i.test(connectionLines(view)),
  },
  {
    asked: '`Transfer-Encoding` that cannot be read, with a method or an `Expect` that is refused',
    nginx: '501',
    larder: 'says keep-alive, and hangs up',
    rfc: '9112 9.6',
    right: 'nginx',
    explains: (view) => unannounced(view) && view.has('transfer-encoding'),
  },
  {
    asked:
      'bytes right behind a request that ends the connection, or a malformed request or `CONNECT` right behind others',
    nginx: 'answers what came before, in order',
    larder: 'Node refuses what is not answered yet, and the answers under way are lost',
    rfc: '9112 9.3.2, 9.6',
    right: 'nginx',
    explains: (view) =>
      view.case.pipelined &&
      (unannounced(view) ||
        (byNode(view) && ['status', 'persistence'].includes(view.facet)) ||
        (view.facet === 'answer' && (view.ours.kind === 'none' || (!view.ofNginx && view.theirs.kind === 'none')))),
  },
  {
    asked: 'more bytes right behind `Upgrade`, or a malformed request after it',
    nginx: 'does not look at Upgrade',
    larder: 'Node loses them',
    rfc: '7.8',
    right: 'nginx',
    explains: (view) =>
      hasUpgrade(view) && ['truth', 'answer'].includes(view.facet) && (view.ours.kind === 'broken' || view.to === 408),
  },
];

const connectionLines = ({ request: { lines } }: View): string =>
  lines.filter((line) => /^connection:/i.test(line)).join();
