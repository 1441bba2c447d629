// Tokens prove a name under the fleet key and nothing else. The key is created once and is readable by its owner alone.

import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ensureFleetKey, issueToken, readFleetKey, verifyToken, type Caller } from '../auth.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-auth-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const codeOf = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'accepted';
};

test('the first start creates a key that only its owner can read, and later starts use it', () => {
  const file = join(directory, 'sub', 'fleet.key');
  const key = ensureFleetKey(file);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(ensureFleetKey(file).equals(key)).toBe(true);
  expect(readdirSync(join(directory, 'sub'))).toEqual(['fleet.key']);
});

test('a key that others may read is refused with the command that corrects its mode', () => {
  const file = join(directory, 'fleet.key');
  ensureFleetKey(file);
  chmodSync(file, 0o644);
  expect(() => readFleetKey(file)).toThrow(/chmod 600/);
});

test('a file without a valid key is refused, and a missing file means no key', () => {
  const file = join(directory, 'fleet.key');
  expect(readFleetKey(file)).toBeNull();
  expect(existsSync(file)).toBe(false);
  writeFileSync(file, 'hello\n', { mode: 0o600 });
  expect(() => readFleetKey(file)).toThrow(/64 hexadecimal digits/);
});

test('a token proves its role and id under its own key alone', () => {
  const key = ensureFleetKey(join(directory, 'a.key'));
  const other = ensureFleetKey(join(directory, 'b.key'));
  const caller: Caller = { role: 'appliance', id: 'box_1.a-b' };
  const token = issueToken(key, caller);
  expect(verifyToken(key, `Bearer ${token}`)).toEqual(caller);
  expect(codeOf(() => verifyToken(other, `Bearer ${token}`))).toBe('token_forged');
  expect(codeOf(() => verifyToken(key, `Bearer ${token.replace('appliance', 'operator')}`))).toBe('token_forged');
  expect(codeOf(() => verifyToken(key, `Bearer ${token.replace('box_1', 'box_2')}`))).toBe('token_forged');
  expect(codeOf(() => verifyToken(key, undefined))).toBe('token_missing');
  expect(codeOf(() => verifyToken(key, 'Basic abc'))).toBe('token_missing');
});

test('property: no text but the token itself is accepted', () => {
  const key = ensureFleetKey(join(directory, 'a.key'));
  const token = issueToken(key, { role: 'operator', id: 'operator' });
  fc.assert(
    fc.property(fc.nat(token.length - 1), fc.constantFrom(...'0123456789abcdef_x'), (at, char) => {
      const changed = token.slice(0, at) + char + token.slice(at + 1);
      expect(codeOf(() => verifyToken(key, `Bearer ${changed}`))).toBe(changed === token ? 'accepted' : 'token_forged');
    }),
  );
});
