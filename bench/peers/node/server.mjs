// A credential service as one is put together today: fastify over mTLS, @sd-jwt for the credentials.
//
//   node server.mjs KEY CERTIFICATE CLIENT-CA     PEM files; listens on a port of 127.0.0.1 that the system chooses
//
// POST /issue   {"claims": {...}}        -> {"sdJwt": "..."}       signs, every claim selectively disclosable
// POST /verify  {"sdJwt": "..."}         -> {"verdict": "valid"}   signature, disclosures, and the bit in a status list
//                                                                   that was fetched, verified and decoded before
//
// The first line of standard output is a JSON object: the port, and a credential that /verify finds valid and one that
// it finds revoked. It ends when its standard input does.

import { constants, createHash, generateKeyPairSync, randomBytes, sign, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { SDJwtInstance } from '@sd-jwt/core';
import { StatusList, createHeaderAndPayload, getListFromStatusListJWT } from '@sd-jwt/jwt-status-list';
import fastify from 'fastify';

const [key, certificate, clientCa] = process.argv.slice(2).map((path) => readFileSync(path));
const { publicKey, privateKey } = generateKeyPairSync('ed25519');
const ISSUER = 'https://issuer.bench';
const STATUS_LIST = `${ISSUER}/status/1`;
const STATUSES = 1 << 17;
const REVOKED = 7;

const signer = (data) => sign(null, Buffer.from(data), privateKey).toString('base64url');
const verifier = (data, signature) =>
  verify(null, Buffer.from(data), publicKey, Buffer.from(signature, 'base64url'));

const credentials = new SDJwtInstance({
  signer,
  signAlg: 'EdDSA',
  verifier,
  hasher: (data, algorithm) => createHash(algorithm.replace('-', '')).update(Buffer.from(data)).digest(),
  hashAlg: 'sha-256',
  saltGenerator: (length) => randomBytes(length).toString('base64url').slice(0, length),
});

// The status list as a relying party caches it: one signed JWT, verified and decoded once.
const signedList = (() => {
  const statuses = new Array(STATUSES).fill(0);
  statuses[REVOKED] = 1;
  const now = Math.floor(Date.now() / 1000);
  const { header, payload } = createHeaderAndPayload(
    new StatusList(statuses, 1),
    { iss: ISSUER, sub: STATUS_LIST, iat: now, exp: now + 86_400 },
    { alg: 'EdDSA', typ: 'statuslist+jwt' },
  );
  const text = [header, payload].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${text}.${signer(text)}`;
})();
const cachedList = (() => {
  const at = signedList.lastIndexOf('.');
  if (!verifier(signedList.slice(0, at), signedList.slice(at + 1))) throw new Error('the status list is not signed');
  return getListFromStatusListJWT(signedList);
})();

let nextStatus = 0;
async function issue(claims, status) {
  const now = Math.floor(Date.now() / 1000);
  const payload = {
    iss: ISSUER,
    iat: now,
    exp: now + 86_400,
    vct: `${ISSUER}/license`,
    status: { status_list: { idx: status, uri: STATUS_LIST } },
    ...claims,
  };
  return credentials.issue(payload, { _sd: Object.keys(claims) });
}

async function verdict(sdJwt) {
  let payload;
  try {
    ({ payload } = await credentials.verify(sdJwt));
  } catch {
    return 'invalid';
  }
  const status = payload.status?.status_list;
  if (status?.uri !== STATUS_LIST) return 'unknown';
  return cachedList.getStatus(status.idx) === 0 ? 'valid' : 'invalid';
}

const server = fastify({
  logger: false,
  keepAliveTimeout: 120_000,
  https: {
    key,
    cert: certificate,
    ca: clientCa,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    secureOptions: constants.SSL_OP_NO_TICKET,
  },
});
server.post('/issue', async (request, reply) => {
  nextStatus = (nextStatus + 1) % STATUSES;
  reply.code(201);
  return { sdJwt: await issue(request.body.claims, nextStatus === REVOKED ? 0 : nextStatus) };
});
server.post('/verify', async (request) => ({ verdict: await verdict(request.body.sdJwt) }));

const CLAIMS = {
  name: '测试甲', sex: '女', idNumber: '350102194604220001', profession: '电工', level: '三级/高级工',
  approvalDate: '2026-01-05', institutionName: '示例评价机构',
};
await server.listen({ host: '127.0.0.1', port: 0 });
console.log(JSON.stringify({
  port: server.server.address().port,
  valid: await issue(CLAIMS, 0),
  revoked: await issue(CLAIMS, REVOKED),
}));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
