//! The path of a relayed call: intent entry, call, outcome entry. A crash between the two leaves an intent without an
//! outcome, and so does a client that disconnects, unless its route runs this in a task of its own. Such an intent says
//! that a call may have left; asked again under the same idempotency key, the call is made again. No route makes either
//! entry by itself.

use schemas::codes::{Code, Reason};
use verifier::leaf::Stage;

use super::answer::Answer;
use super::case::Case;
use super::change::{Change, Effect};
use super::permit::{Denial, Terms};
use super::received::Received;
use super::tools::Entry;
use super::{ATTEMPTS, Boxed, Gateway, Request, Ruled, carry_out};
use crate::capability::Relayed;
use crate::participant::Certified;

impl Gateway {
    /// The path of one relayed capability.
    #[cfg_attr(not(test), expect(dead_code, reason = "shared records and federation stand on it"))]
    pub(super) async fn relayed<'r, C: Relayed<'r>>(
        &self,
        caller: &Certified,
        received: &'r Received,
    ) -> Result<Answer, Code> {
        let request = Request::<'r, C>::read(received);
        let tools = self.tools();
        for _ in 0..ATTEMPTS {
            let (mut case, mut entry) = self.open(C::ROUTE, caller, received);
            // 2 to 5, as on every path
            let ruled = self.rule(&tools, &mut case, &mut entry, caller, &request).await;
            let ruled = match ruled {
                Ok(Ruled::Again(answer)) => return Ok(answer),
                Ok(Ruled::Changed) => continue,
                Ok(Ruled::Ruling(caller, names, ruling)) => {
                    let counters = ruling.counters(&case, entry.organisation);
                    counters.map(|counters| (caller, names, ruling.into_parts(counters)))
                }
                Err(refusal) => Err(refusal),
            };
            let (identified, names, (mut permit, terms)) = match ruled {
                Ok(ruled) => ruled,
                Err(refusal) => {
                    let reason = refusal.reason;
                    let effect = self.deny(&tools, &mut case, &entry, &request, refusal)?;
                    match self.commit(&entry, received, case, effect, reason).await? {
                        Some(answer) => return Ok(answer),
                        None => continue,
                    }
                }
            };
            // The intent: it holds the facts and counts the use. It binds no key, because it answers nothing.
            let participant = identified.participant();
            let unbound = Entry { idempotency: None, ..entry };
            let change = Change::begin(&tools, &unbound, participant, names, terms.clone());
            let Effect { prepared, .. } = change.map_err(|refusal| refusal.code)?.intent();
            let Some(intent) = self.durable(case, prepared, false).await? else { continue };
            let asked = request.asked.as_ref().map_err(|refusal| refusal.code)?;
            let called: Boxed<'_, ()> = Box::pin(C::call(asked, permit.granted_mut()));
            let called = called.await;
            let stage = Stage::Outcome { intent: intent.index };
            let names = || C::names(asked, entry.organisation);
            let terms = Terms { counters: Vec::new(), ..terms };
            let begun =
                called.and_then(|()| Change::begin(&tools, &entry, participant, names(), terms.clone()));
            let carried = match begun {
                Ok(change) => carry_out::<C>(change.at(stage), asked, permit).await,
                Err(refusal) => Err(refusal),
            };
            let (effect, reason) = match carried {
                Ok(effect) => (effect, Reason::None),
                Err(refusal) => {
                    let reason = refusal.reason;
                    let denial = Denial { refusal, concerned: terms.concerned };
                    let effect = Effect::denied(&tools, &entry, Some(names()), &denial, stage);
                    (effect.map_err(|refusal| refusal.code)?, reason)
                }
            };
            // The outcome rests on no fact: what was permitted has happened.
            let case = Case::open(&self.ledger, &self.known, entry.now_ms);
            let answer = self.commit(&entry, received, case, effect, reason).await?;
            return answer.ok_or(Code::FactsChanged);
        }
        Err(Code::FactsChanged)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http_body_util::Full;
    use ledger::Ledger;
    use schemas::identifier::Uscc;
    use schemas::routes::Route;
    use serde::Deserialize;
    use verifier::leaf::Open;
    use verifier::receipt::Receipt;

    use super::*;
    use crate::capability::Capability;
    use crate::gateway::names::Names;
    use crate::gateway::permit::{Permit, Ruling};
    use crate::gateway::received::receive;
    use crate::init;
    use crate::opening::{self, Trusted};
    use crate::participant::Participant;
    use crate::shed::Shed;
    use crate::wire::read::{Body, json};
    use crate::wire::refusal::Language;
    use crate::wire::refusal::Refusal;

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    /// Has a number doubled elsewhere. 13 cannot be.
    struct Double;

    #[derive(Deserialize)]
    struct Asked {
        number: u64,
    }

    impl Capability<'_> for Double {
        const ROUTE: Route = Route::IssuedList;
        type Asked = Asked;
        type Granted = Option<u64>;

        fn read(body: Body<'_>) -> Result<Asked, Refusal> {
            json(body.bytes)
        }

        fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
            Names::default()
        }

        fn decide(
            _case: &mut Case<'_>,
            _caller: &Participant,
            _asked: &Asked,
        ) -> Result<Ruling<Option<u64>>, Refusal> {
            Ok(Ruling::plain(None, Vec::new()))
        }

        async fn carry_out(
            _change: &mut Change<'_>,
            _asked: &Asked,
            permit: Permit<Option<u64>>,
        ) -> Result<Vec<u8>, Refusal> {
            let doubled = permit.into_granted().ok_or_else(|| Refusal::new(Code::Internal))?;
            Ok(format!("{{\"doubled\":{doubled}}}").into_bytes())
        }
    }

    impl Relayed<'_> for Double {
        async fn call(asked: &Asked, granted: &mut Option<u64>) -> Result<(), Refusal> {
            CALLS.fetch_add(1, Ordering::Relaxed);
            if asked.number == 13 {
                return Err(Refusal::new(Code::RecordUnavailable));
            }
            *granted = Some(2 * asked.number);
            Ok(())
        }
    }

    async fn sent(gateway: &Gateway, by: &Certified, key: &str, body: &str) -> (Vec<u8>, Receipt) {
        let request = hyper::Request::post("/")
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("a request");
        let room = crate::room::Room::new(64, 1 << 20);
        let mut held = room.enter(by.organisation);
        let contract = Route::IssuedList.contract();
        let received = receive(request, None, Language::English, contract, &mut held).await.expect("read");
        let answer = gateway.relayed::<Double>(by, &received).await.expect("an answer");
        verifier::receipt::cut(&answer.body).expect("a receipt")
    }

    #[tokio::test]
    async fn a_relayed_call_has_an_intent_before_it_and_an_outcome_that_closes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = init::development(folder.path(), None).expect("made");
        let keys = opening::ledger_keys(&opening::key_folder(&config).expect("keys")).expect("keys");
        let (ledger, _) = Ledger::open(opening::ledger_options(&config), keys).expect("opened");
        init::register_development(&ledger, &init::development_register()).await.expect("registered");
        let Trusted { trust, signers, .. } = Trusted::load(&config, 0).expect("trusted");
        let many = NonZeroU32::new(1_000).expect("a number");
        let gateway = Gateway::new(ledger.clone(), signers, trust, Shed::new(many, many), 0);
        let organisation = init::development_organisations()[0];
        let issuer = Certified { organisation, ends_at_ms: u64::MAX };
        let bank = Certified { organisation: init::development_organisations()[2], ..issuer };
        let open =
            |index: u64| Open::parse(&ledger.entry(index).expect("there").committed.open).expect("open");

        let (answer, receipt) = sent(&gateway, &issuer, "relayed-call-0001", "{\"number\":4}").await;
        assert_eq!((answer.as_slice(), CALLS.load(Ordering::Relaxed)), (&b"{\"doubled\":8}"[..], 1));
        let intent = receipt.index - 1;
        assert_eq!((open(intent).stage, open(intent).answer_digest), (Stage::Intent, [0; 32]));
        assert_eq!(Open::parse(&receipt.open).expect("open").stage, Stage::Outcome { intent });

        // The same request again: the answer from the journal, and no second call.
        let size = ledger.size();
        let (again, same) = sent(&gateway, &issuer, "relayed-call-0001", "{\"number\":4}").await;
        assert_eq!((again, same.index, ledger.size()), (answer, receipt.index, size));
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);

        // A call that fails is an outcome, too.
        let (problem, receipt) = sent(&gateway, &issuer, "relayed-call-0002", "{\"number\":13}").await;
        assert!(String::from_utf8_lossy(&problem).contains("record-unavailable"));
        let closes = Stage::Outcome { intent: receipt.index - 1 };
        assert_eq!(Open::parse(&receipt.open).expect("open").stage, closes);
        assert_eq!(CALLS.load(Ordering::Relaxed), 2);

        // Nobody calls for who may not ask: a refusal alone.
        let size = ledger.size();
        let (problem, receipt) = sent(&gateway, &bank, "relayed-call-0003", "{\"number\":4}").await;
        assert!(String::from_utf8_lossy(&problem).contains("wrong-role"));
        assert_eq!((receipt.index, open(size).stage), (size, Stage::Whole));
        assert_eq!(CALLS.load(Ordering::Relaxed), 2);
        drop(gateway);
        tokio::task::spawn_blocking(move || ledger.close()).await.expect("closed");
    }
}
