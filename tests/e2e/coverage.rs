//! Every operation, by walking the route table and the contract: no route is named here, so a new one is covered by its
//! fragment of the contract.
//!
//! `exceptions.txt` lists what does not hold, a reason each. It only shrinks: a line that is not needed any more fails.

mod contract;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::Method;
use schemas::codes::{Code, Decision};
use schemas::resource::Resource;
use schemas::routes::{ADMIN, PUBLIC, Route};
use serde_json::{Value, json};
use tests::{Call, Party, Provider, Reply, Server, Setup, eventually};

use contract::{Chain, Contract, Example, Operation, anew};

/// `SUBJECT CHECK: REASON`, a line each; the subject is an operation, an example or a path.
const EXCEPTIONS: &str = include_str!("exceptions.txt");
/// Seeds of what the examples make; no other test uses them.
const SEEDS: u64 = 1 << 40;

/// The server that all checks ask.
struct World {
    server: Server,
    provider: Provider,
    contract: Contract,
    seed: AtomicU64,
}

impl World {
    async fn new() -> Arc<Self> {
        let setup = contract::LACKING.into_iter().fold(Setup::new(), |setup, (name, role)| {
            setup.participant(name, move |participant| participant.roles = vec![role])
        });
        let setup = setup.stranger("stranger").config(|config| {
            config.limits.refusals_a_second = NonZeroU32::MAX;
            config.limits.refusal_burst = NonZeroU32::MAX;
        });
        let server = setup.start().await;
        // The path of an open resource is a path only while there is one.
        let open = Resource::samples().into_iter().find(|one| one.code == "1030010001/000001").unwrap();
        let mut publisher = server.party("provider");
        let step = json!({"resource": open.code, "action": "publish", "reason": "测试"});
        publisher.send(&Call::new(Route::ResourceWrite, &json!({"resource": open}))).await.expect(200);
        publisher.send(&Call::new(Route::ResourceTransition, &step)).await.expect(200);
        let provider = Provider::of(&server);
        Arc::new(Self { server, provider, contract: Contract::new(), seed: AtomicU64::new(SEEDS) })
    }

    fn chain(&self, caller: &str) -> Chain<'_> {
        Chain::new(
            &self.contract,
            &self.server,
            &self.provider,
            caller,
            self.seed.fetch_add(1, Ordering::Relaxed),
        )
    }

    fn operation(&self, id: &str) -> Operation<'_> {
        self.contract.operations().into_iter().find(|operation| operation.id == id).unwrap()
    }

    /// A request of an operation that would be permitted, and who would send it.
    async fn good(&self, operation: &Operation<'_>) -> (Call, Party) {
        let examples = operation.examples();
        let example = examples.first().unwrap();
        let mut chain = self.chain(example.by.first().unwrap());
        (chain.request(example).await, chain.party(example.by.first().unwrap()))
    }

    /// Sends a request, and ties its answer to its entry, which its receipt proves, and to the contract. Entries of the
    /// exchange's own may come between: an approved change of epoch makes them.
    async fn answered(
        &self,
        operation: &Operation<'_>,
        party: &mut Party,
        call: &Call,
        codes: &[Code],
    ) -> Reply {
        let (route, size) = (operation.route, self.server.size().await);
        let reply = party.send(call).await;
        let code = codes.iter().find(|code| code.name() == reply.code());
        let code = *code.unwrap_or_else(|| panic!("not one of {codes:?}: {}", reply.json));
        let status = if code == Code::Ok { route.success_status() } else { code.status() };
        assert_eq!(reply.status, status, "{}", reply.json);
        // Another method is no operation, so no operation lists its answer.
        let described = match code {
            Code::MethodNotAllowed => self.contract.response("MethodNotAllowed"),
            _ => operation.described(status),
        };
        self.contract.check(described, &reply);
        let open = self.server.entry(&reply).await.open;
        let decision = if code == Code::Ok { Decision::Permit } else { Decision::Denial };
        assert_eq!(
            (open.route, open.decision, open.code),
            (route.number(), decision.number(), code.number())
        );
        assert_eq!(open.organisation, *party.organisation.as_bytes());
        assert!(open.index >= size, "the entry of another answer");
        reply
    }
}

/// Checks that hold or are excepted.
struct Checks {
    exceptions: BTreeSet<String>,
    wrong: Vec<String>,
    held: usize,
}

impl Checks {
    fn new(text: &str) -> Self {
        let mut exceptions = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (what, reason) = line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
            assert!(!reason.trim().is_empty() && exceptions.insert(what.to_owned()), "{line}");
        }
        Self { exceptions, wrong: Vec::new(), held: 0 }
    }

    /// Whether a check holds, unless it is excepted; then it must not.
    async fn holds(&mut self, what: &str, check: impl Future<Output = ()> + Send + 'static) {
        let failure = tokio::spawn(check).await.err();
        let excepted = self.exceptions.remove(what);
        match failure {
            None if excepted => self.wrong.push(format!("{what} holds: take it out of exceptions.txt")),
            None => self.held += 1,
            Some(_) if excepted => {}
            Some(failure) => {
                let panic = failure.into_panic();
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
                self.wrong.push(format!("{what}: {text}"));
            }
        }
    }

    /// How many checks held, or a line for each that should have.
    fn end(self) -> Result<usize, String> {
        let unknown = self.exceptions.iter().map(|what| format!("exceptions.txt: {what} is no check"));
        let wrong: Vec<String> = self.wrong.into_iter().chain(unknown).collect();
        if wrong.is_empty() { Ok(self.held) } else { Err(wrong.join("\n")) }
    }
}

#[tokio::test]
async fn an_exception_that_is_not_needed_fails() {
    let mut needed = Checks::new("# reasons\none: it is so\n");
    needed.holds("one", async { panic!("as expected") }).await;
    needed.holds("two", async {}).await;
    assert_eq!(needed.end(), Ok(1));
    for (exceptions, left) in [
        ("", "one: wrong"),
        ("one: so\ntwo: so\n", "two holds"),
        ("one: so\nthree: so\n", "three is no check"),
    ] {
        let mut checks = Checks::new(exceptions);
        checks.holds("one", async { panic!("wrong") }).await;
        checks.holds("two", async {}).await;
        let wrong = checks.end().unwrap_err();
        assert!(wrong.contains(left) && wrong.lines().count() == 1, "{wrong}");
    }
}

/// A caller without a certificate gets no answer, and leaves no entry.
async fn nobody(world: Arc<World>, operation: String) {
    let operation = world.operation(&operation);
    let server = &world.server;
    let labels = [("listener", "data"), ("result", "no-certificate")];
    let (count, size) = (server.metric("miaoxiang_handshakes_total", &labels).await, server.size().await);
    let example = operation.examples().remove(0);
    let answer = server.nobody().try_send(&Call::new(operation.route, example.value)).await;
    assert!(answer.is_err(), "an answer to nobody");
    eventually("the handshake's count", || async {
        (server.metric("miaoxiang_handshakes_total", &labels).await == count + 1).then_some(())
    })
    .await;
    assert_eq!(server.size().await, size, "an entry for nobody");
}

/// An organisation that is not registered is refused with a request that would be good.
async fn stranger(world: Arc<World>, operation: String) {
    let operation = world.operation(&operation);
    let (call, _) = world.good(&operation).await;
    let mut stranger = world.server.party("stranger");
    world.answered(&operation, &mut stranger, &call, &[Code::UnknownParticipant]).await;
}

/// A good request is refused to a role that the contract does not list, and tells it nothing.
async fn other_role(world: Arc<World>, operation: String, role: String) {
    let operation = world.operation(&operation);
    let (call, _) = world.good(&operation).await;
    let mut party = world.chain(&role).party(&role);
    world.answered(&operation, &mut party, &call, &[Code::WrongRole, Code::NotPermitted]).await;
}

async fn wrong_method(world: Arc<World>, operation: String) {
    let operation = world.operation(&operation);
    let mut party = world.server.party("bank");
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let call = Call::raw(operation.route, "").method(method.clone());
        let reply = world.answered(&operation, &mut party, &call, &[Code::MethodNotAllowed]).await;
        let allowed = reply.headers.get("allow").map(|value| value.to_str().unwrap());
        assert_eq!(allowed, Some("POST"), "{method}");
    }
}

async fn too_large(world: Arc<World>, operation: String) {
    let operation = world.operation(&operation);
    let mut party = world.server.party("bank");
    let most = operation.route.contract().body_bytes;
    let call = Call::raw(operation.route, vec![b' '; most + 1]);
    world.answered(&operation, &mut party, &call, &[Code::BodyTooLarge]).await;
    // One byte less is read.
    let call = Call::raw(operation.route, vec![b' '; most]);
    world.answered(&operation, &mut party, &call, &[Code::MalformedRequest]).await;
}

async fn not_json(world: Arc<World>, operation: String) {
    let operation = world.operation(&operation);
    let mut party = world.server.party("bank");
    for body in ["", "{", "[]", "issue"] {
        let call = Call::raw(operation.route, body);
        world.answered(&operation, &mut party, &call, &[Code::MalformedRequest]).await;
    }
}

/// One member more than the contract has makes a good request a bad one.
async fn unknown_member(world: Arc<World>, operation: String) {
    let operation = world.operation(&operation);
    let (call, mut party) = world.good(&operation).await;
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    // The first fault gives the code.
    body.as_object_mut().unwrap().shift_insert(0, "notInTheContract".to_owned(), json!(1));
    let with_more = Call::new(operation.route, &body);
    world.answered(&operation, &mut party, &with_more, &[Code::UnknownField]).await;
    // Without it the same request is permitted: nothing else was wrong.
    world.answered(&operation, &mut party, &anew(&call), &[Code::Ok]).await;
}

/// An example is permitted to its caller, and answered as the contract says.
async fn example(world: Arc<World>, step: String, caller: String) {
    let operation = world.operation(step.split_once('.').unwrap().0);
    let example = operation.examples().into_iter().find(|example| example.step == step).unwrap();
    let mut chain = world.chain(&caller);
    let call = chain.request(&example).await;
    world.answered(&operation, &mut chain.party(&caller), &call, &[Code::Ok]).await;
}

/// A route that anyone or an operator may read is read, and nothing else.
async fn read(world: Arc<World>, path: &'static str, admin: bool) {
    let server = &world.server;
    let filled = world.contract.filled(path);
    let ask = |method: Method| {
        let filled = filled.clone();
        async move {
            if admin {
                server.admin_with(method, &filled).await
            } else {
                server.public_with(method, &filled).await
            }
        }
    };
    let reply = ask(Method::GET).await.expect(200);
    world.contract.check(world.contract.get(path, 200), &reply);
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let reply = ask(method.clone()).await.expect(Code::MethodNotAllowed.status());
        let allowed = reply.headers.get("allow").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(allowed.split(',').any(|allowed| allowed.trim() == "GET"), "{method}: {allowed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_keeps_what_the_contract_says_of_it() {
    let world = World::new().await;
    let contract = Contract::new();
    let mut checks = Checks::new(EXCEPTIONS);
    let roles: BTreeSet<String> = contract::participants().into_iter().map(|(_, role)| role).collect();
    // Before anything is approved: nothing may come into the log meanwhile.
    for Operation { id, .. } in contract.operations() {
        checks.holds(&format!("{id} nobody"), nobody(Arc::clone(&world), id.to_owned())).await;
    }
    for operation in contract.operations() {
        let id = operation.id;
        let (world, of) = (|| Arc::clone(&world), |check: &str| format!("{id} {check}"));
        checks.holds(&of("stranger"), stranger(world(), id.to_owned())).await;
        checks.holds(&of("wrong-method"), wrong_method(world(), id.to_owned())).await;
        checks.holds(&of("too-large"), too_large(world(), id.to_owned())).await;
        checks.holds(&of("not-json"), not_json(world(), id.to_owned())).await;
        checks.holds(&of("unknown-member"), unknown_member(world(), id.to_owned())).await;
        let mut shown = BTreeSet::new();
        for Example { step, by, .. } in operation.examples() {
            for caller in by {
                shown.insert(caller.split(' ').next().unwrap().to_owned());
                let what = format!("{step} by {caller}");
                checks.holds(&what, example(world(), step.clone(), caller)).await;
            }
        }
        // A role is listed where an example shows that it is admitted, and refused where it is not.
        let listed: BTreeSet<String> = operation.roles.iter().cloned().collect();
        assert_eq!(listed, shown, "{id}: x-roles, and the callers of its examples");
        for role in roles.difference(&listed) {
            checks.holds(&of(role), other_role(world(), id.to_owned(), role.clone())).await;
        }
    }
    for (paths, admin) in [(PUBLIC, false), (ADMIN, true)] {
        for path in paths {
            checks.holds(&format!("{path} read"), read(Arc::clone(&world), path, admin)).await;
        }
    }
    let held = checks.end().unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(held > 0);
}
