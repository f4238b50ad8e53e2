//! Signing of license bodies, before the sequencer: one thread and one queue per issuing authority, so a slow key
//! holds up nobody else. Whatever is queued when the previous signature is done is signed as one tree.
//!
//! Each thread alone signs with its authority's keys. Queues are memory: a crash loses signatures that nobody was
//! given.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use certs::keys::IssuerKey;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use schemas::codes::Code;
use schemas::identifier::{LicenseTypeCode, Uscc};
use tokio::sync::oneshot;
use verifier::license::SignatureParts;
use verifier::merkle::{self, BatchTree};
use verifier::signature::{Suite, message, normalise, suites};
use verifier::trust::{RequiredSuite, Trust};

use crate::wire::refusal::Refusal;

/// Most bodies in one tree.
const MAX_BATCH: usize = 512;
/// Bodies waiting for one authority's key; more are refused with 503.
const QUEUE: usize = 4_096;
/// Longest wait for a signature.
const DEADLINE: Duration = Duration::from_secs(2);

/// One body to be signed.
struct Job {
    leaf: verifier::Hash,
    /// Seconds since 1970: a key past its end signs nothing.
    issued_at: u64,
    reply: oneshot::Sender<Option<Vec<SignatureParts>>>,
}

/// One key of an authority, ready to sign.
struct Key {
    suite: Suite,
    key_id: [u8; 16],
    from: u64,
    until: u64,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Es256(EcdsaKeyPair, ring::rand::SystemRandom),
}

/// When a key of a suite signs, seconds since 1970.
#[derive(Clone, Copy)]
struct Term {
    suite: u8,
    from: u64,
    until: u64,
}

/// One authority: its queue, when its keys sign, and what the trust bundle asks of it.
struct Authority {
    queue: Sender<Job>,
    terms: Vec<Term>,
    required: Vec<RequiredSuite>,
    types: Vec<LicenseTypeCode>,
}

/// The signing queues of all authorities.
pub struct Signers {
    queues: HashMap<Uscc, Authority>,
}

impl Signers {
    /// Starts a thread per authority. A key that the trust bundle does not list for its authority is passed over, and said:
    /// nothing it signs could be verified. It waits for the bundle that lists it.
    pub fn start(keys: Vec<IssuerKey>, trust: &Trust) -> Result<Self, String> {
        let mut by_authority: HashMap<Uscc, Vec<Key>> = HashMap::new();
        for key in keys {
            let organisation = key.organisation;
            let listed = trust.key(&key.key_id).filter(|listed| listed.organisation == organisation);
            let Some(listed) = listed else {
                let key = hex::encode(key.key_id);
                tracing::warn!(%organisation, key, "a signing key is not in the trust bundle and signs nothing");
                continue;
            };
            // A signature that a compromised key makes from now on is taken by nobody.
            let until = if listed.compromised_at_size.is_some() { listed.from } else { listed.until };
            let ready = Key::ready(&key, listed.from, until)
                .ok_or_else(|| format!("a signing key of {organisation} cannot be used"))?;
            by_authority.entry(organisation).or_default().push(ready);
        }
        let mut queues = HashMap::new();
        for (organisation, keys) in by_authority {
            let (sender, receiver) = bounded(QUEUE);
            let term = |key: &Key| Term { suite: key.suite.number(), from: key.from, until: key.until };
            let terms = keys.iter().map(term).collect();
            thread::Builder::new()
                .name(format!("sign-{organisation}"))
                .spawn(move || run(&keys, &receiver))
                .map_err(|error| format!("a signing thread cannot start: {error}"))?;
            let listed = trust
                .issuer(&organisation)
                .ok_or_else(|| format!("{organisation} is not in the trust bundle"))?;
            let required = listed.required_suites.clone();
            let types = listed.types.clone();
            queues.insert(organisation, Authority { queue: sender, terms, required, types });
        }
        Ok(Self { queues })
    }

    /// The authorities whose keys are here.
    pub fn organisations(&self) -> impl Iterator<Item = &Uscc> {
        self.queues.keys()
    }

    /// Signs a body with every key of the authority that is valid at `issued_at`. It signs nothing that no verifier
    /// would accept: a type that the trust bundle does not list for the authority, or fewer suites than it requires.
    pub async fn sign(
        &self,
        authority: &Uscc,
        type_code: &LicenseTypeCode,
        body: &[u8],
        issued_at: u64,
    ) -> Result<Vec<SignatureParts>, Refusal> {
        let unavailable = || Refusal::new(Code::SignerUnavailable);
        // No waiting makes a key: that is for the operator to do.
        let no_key = || Refusal::new(Code::NoSigningKey);
        let authority = self.queues.get(authority).ok_or_else(no_key)?;
        if !authority.types.contains(type_code) {
            return Err(Refusal::new(Code::WrongRole));
        }
        let in_force: Vec<_> =
            authority.terms.iter().filter(|term| term.from <= issued_at && issued_at < term.until).collect();
        let mut due = authority.required.iter().filter(|required| required.from <= issued_at);
        if in_force.is_empty() || !due.all(|due| in_force.iter().any(|term| term.suite == due.suite)) {
            return Err(no_key());
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { leaf: merkle::leaf_hash(body), issued_at, reply };
        match authority.queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(unavailable()),
        }
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(Some(signatures))) => {
                let mut due = authority.required.iter().filter(|required| required.from <= issued_at);
                let complete = due.all(|due| signatures.iter().any(|signature| signature.suite == due.suite));
                if complete { Ok(signatures) } else { Err(unavailable()) }
            }
            _ => Err(unavailable()),
        }
    }
}

impl Key {
    fn ready(key: &IssuerKey, from: u64, until: u64) -> Option<Self> {
        let suite = Suite::from_number(key.suite)?;
        let pair = match suite {
            Suite::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(&key.pkcs8).ok()?),
            Suite::Es256 => {
                let random = ring::rand::SystemRandom::new();
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.pkcs8, &random).ok()?;
                Pair::Es256(pair, random)
            }
            Suite::Sm2Sm3 => return None,
        };
        Some(Self { suite, key_id: key.key_id, from, until, pair })
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.pair {
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::Es256(pair, random) => {
                let mut value = pair.sign(random, message).ok()?.as_ref().to_vec();
                normalise(Suite::Es256, &mut value);
                Some(value)
            }
        }
    }
}

/// The keys that sign at a moment: of each suite the one that began last, in the order of the suites.
fn due(keys: &[Key], issued_at: u64) -> Vec<&Key> {
    let mut due: Vec<&Key> =
        keys.iter().filter(|key| key.from <= issued_at && issued_at < key.until).collect();
    due.sort_by_key(|key| (key.suite, std::cmp::Reverse(key.from), key.key_id));
    due.dedup_by_key(|key| key.suite);
    due
}

fn run(keys: &[Key], queue: &Receiver<Job>) {
    // Ends when the gateway drops its side of the queue.
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(MAX_BATCH - 1));
        while let Some(first) = jobs.first() {
            // The signed message names all suites of an envelope, so those of one tree have the same keys.
            let due = due(keys, first.issued_at);
            let ids = |keys: &[&Key]| keys.iter().map(|key| key.key_id).collect::<Vec<_>>();
            let wanted = ids(&due);
            let same = jobs.iter().take_while(|job| {
                job.issued_at == first.issued_at || ids(&self::due(keys, job.issued_at)) == wanted
            });
            let rest = jobs.split_off(same.count());
            sign_tree(&due, std::mem::replace(&mut jobs, rest));
        }
    }
}

/// Signs the bodies as one tree, with each key, and answers each job.
fn sign_tree(keys: &[&Key], jobs: Vec<Job>) {
    let tree = BatchTree::new(jobs.iter().map(|job| job.leaf).collect());
    let (root, size) = (tree.root(), jobs.len() as u64);
    let suites = suites(keys.iter().map(|key| key.suite.number()));
    // All keys sign or none does: every signature names all suites.
    let signed: Option<Vec<Vec<u8>>> = suites.filter(|_| !keys.is_empty()).and_then(|suites| {
        keys.iter().map(|key| key.sign(&message(key.suite, &suites, size, &root))).collect()
    });
    for (index, job) in jobs.into_iter().enumerate() {
        let path = tree.path(index);
        let signatures = signed.as_ref().map(|values| {
            let parts = |(key, value): (&&Key, &Vec<u8>)| SignatureParts {
                suite: key.suite.number(),
                key_id: key.key_id,
                size,
                index: index as u64,
                path: path.clone(),
                value: value.clone(),
            };
            keys.iter().zip(values).map(parts).collect()
        });
        // The caller may have gone away; its request then commits nothing.
        let _ = job.reply.send(signatures);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use certs::keys::{ED25519, ES256, create_issuer_key};
    use certs::sealed::{Kek, KeyFolder};
    use schemas::identifier::CertificateIdentifier;
    use verifier::license::{LicenseContent, RootCache, encode_body, encode_envelope, verify};
    use verifier::report::Verdict;
    use verifier::trust::{TrustBundle, TrustIssuer, TrustKey};

    const ISSUER: &str = "11100000MB03271699";
    const TYPE: &str = "11100000MB03271699001";
    const NOW: u64 = 1_790_000_000;

    fn body(number: u64, issued_at: u64) -> Vec<u8> {
        let serial = format!("SIGN{number}").parse().unwrap();
        let (kind, issuer): (LicenseTypeCode, Uscc) = (TYPE.parse().unwrap(), ISSUER.parse().unwrap());
        let content = LicenseContent {
            identifier: CertificateIdentifier::new(kind, issuer, serial, 1).unwrap(),
            certificate_number: "1".to_owned(),
            issuer_name: "测试机关".to_owned(),
            holders: Vec::new(),
            issue_date: "2026-09-01".parse().unwrap(),
            valid_from: "2026-09-01".parse().unwrap(),
            valid_until: None,
            issued_at,
            fields: Vec::new(),
        };
        encode_body(&content, &[5; 16])
    }

    /// While a key is followed by another both are in their time. Bodies of before and after lie in one queue.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_each_suite_one_key_signs_and_every_envelope_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(dir.path().join("keys"), Kek::create(&dir.path().join("kek")).unwrap());
        let organisation: Uscc = ISSUER.parse().unwrap();
        let keys =
            [ES256, ED25519, ED25519].map(|suite| create_issuer_key(&folder, organisation, suite).unwrap());
        let listed = |key: &IssuerKey, from| TrustKey {
            suite: key.suite,
            key_id: key.key_id,
            spki: key.spki.clone(),
            from,
            until: NOW + 1_000,
            compromised_at_size: None,
        };
        let trust = Trust::new(TrustBundle {
            version: 1,
            sequence: 1,
            issued_at: NOW,
            expires: NOW + 1_000,
            journal_index: 0,
            issuers: vec![TrustIssuer {
                organisation,
                name: "测试机关".to_owned(),
                types: vec![TYPE.parse().unwrap()],
                required_suites: vec![RequiredSuite { suite: ED25519, from: 0 }],
                keys: keys.iter().zip([NOW + 10, 0, NOW + 10]).map(|(key, from)| listed(key, from)).collect(),
            }],
            logs: Vec::new(),
            witnesses: Vec::new(),
            mirrors: Vec::new(),
            peers: Vec::new(),
            authority: None,
        })
        .unwrap();
        let [es, old, new] = [0, 1, 2].map(|at: usize| keys[at].key_id);
        let signers = Signers::start(keys.into(), &trust).unwrap();
        let signed = (0..200u64).map(|number| {
            let issued_at = if number % 3 == 0 { NOW } else { NOW + 10 };
            let (signers, body) = (&signers, body(number, issued_at));
            async move {
                let signatures = signers.sign(&organisation, &TYPE.parse().unwrap(), &body, issued_at).await;
                (issued_at, body, signatures.unwrap())
            }
        });
        let signed = futures_in_order(signed).await;
        let mut warm = RootCache::new();
        for (issued_at, body, signatures) in signed {
            let wanted = if issued_at == NOW { vec![old] } else { vec![new, es] };
            assert_eq!(signatures.iter().map(|one| one.key_id).collect::<Vec<_>>(), wanted);
            let report = verify(&encode_envelope(&body, &signatures), &trust, NOW + 20, &mut warm);
            assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
        }
    }

    /// Runs all at once.
    async fn futures_in_order<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
        let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
        std::future::poll_fn(move |context| {
            for (one, done) in all.iter_mut().filter(|(_, done)| done.is_none()) {
                if let std::task::Poll::Ready(value) = one.as_mut().poll(context) {
                    *done = Some(value);
                }
            }
            if all.iter().all(|(_, done)| done.is_some()) {
                std::task::Poll::Ready(all.drain(..).filter_map(|(_, done)| done).collect())
            } else {
                std::task::Poll::Pending
            }
        })
        .await
    }
}
