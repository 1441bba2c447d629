import { describe, expect, it } from 'vitest';
import { healthUrl } from '../health.ts';

const urlFor = (line: string, env: Record<string, string> = {}, yaml = ''): string | null =>
  healthUrl({ argv: line.split(' '), env, readFile: () => yaml });

describe('the health check of the container image', () => {
  it.each([
    ['node larder.js appliance run --origin http://o', 'http://127.0.0.1:8081/readyz'],
    ['node larder.js appliance run --admin 0.0.0.0:9000', 'http://127.0.0.1:9000/readyz'],
    ['node larder.js appliance run --admin=10.0.0.7:9000', 'http://10.0.0.7:9000/readyz'],
    ['node larder.js appliance run --admin [::1]:9000', 'http://[::1]:9000/readyz'],
    ['node larder.js steering run', 'http://127.0.0.1:8400/healthz'],
    ['node larder.js steering run --listen [::]:80', 'http://127.0.0.1:80/healthz'],
    ['docker-init -- node larder.js fill serve --listen :8500', 'http://127.0.0.1:8500/healthz'],
    ['node larder.js demo --port 9100', 'http://127.0.0.1:9100/healthz'],
  ])('%s is checked at its health endpoint', (line, url) => {
    expect(urlFor(line)).toBe(url);
  });

  it('a flag overrides the environment, which overrides the file', () => {
    const env = { LARDER_ADMIN: '127.0.0.1:2' };
    const yaml = 'admin: 127.0.0.1:3';
    expect(urlFor('appliance run -c f --admin 127.0.0.1:1', env, yaml)).toContain(':1/');
    expect(urlFor('appliance run -c f', env, yaml)).toContain(':2/');
    expect(urlFor('appliance run --config f', {}, yaml)).toContain(':3/');
    expect(urlFor('appliance run', { LARDER_CONFIG: 'f' }, yaml)).toContain(':3/');
  });

  it('there is no endpoint to check if the container runs no service', () => {
    expect(urlFor('node larder.js catalog ls')).toBeNull();
  });
});
