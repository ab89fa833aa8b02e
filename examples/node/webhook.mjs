// Verifies a message from Tallylight, signed by the Standard Webhooks specification. No packages.
//
//     node webhook.mjs < request.json
//
// The request is an object of `secret`, `headers` (names in lower case) and `body`, the text as it
// came. Prints the message's type and id; a message that is not genuine ends with an error.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';

export function verify(secret, headers, body, now) {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const [id, at] = [headers['webhook-id'], headers['webhook-timestamp']];
  if (Math.abs(now - Number(at)) > 300) throw new Error('too old, or from the future');
  const expected = Buffer.from('v1,' + createHmac('sha256', key).update(`${id}.${at}.`).update(body).digest('base64'));
  const isExpected = (given) => given.length === expected.length && timingSafeEqual(Buffer.from(given), expected);
  if (!headers['webhook-signature'].split(' ').some(isExpected)) throw new Error('the signature is wrong');
  return JSON.parse(body);
}

const request = JSON.parse(readFileSync(0, 'utf8'));
const message = verify(request.secret, request.headers, request.body, Date.now() / 1000);
console.log(JSON.stringify({ type: message.type, id: message.id }));
