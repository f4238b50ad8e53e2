// Signs a request with npm's http-message-signatures. Standard input: JSON of the request, the key in PEM and the parameters.
// Standard output: JSON of the headers.

import { httpbis, createSigner } from "http-message-signatures";
import { readFileSync } from "node:fs";

const { url, headers, key, algorithm, keyId, nonce, fields } = JSON.parse(readFileSync(0, "utf8"));
const signed = await httpbis.signMessage(
  {
    key: createSigner(key, algorithm, keyId),
    name: "sig",
    fields,
    params: ["created", "keyid", "nonce", "alg"],
    paramValues: { nonce },
  },
  { method: "POST", url, headers },
);
process.stdout.write(JSON.stringify(signed.headers));
