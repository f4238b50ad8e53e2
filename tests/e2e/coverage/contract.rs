//! The contract as a test reads it: operations, their examples, how an example is run, and what an answer has to be.
//!
//! `schemas/README.md` describes `x-roles` and `x-run`.

use std::collections::BTreeMap;

use exchange::init::PARTICIPANTS;
use exchange::participant::Role;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tests::{Call, Party, Provider, Reply, Server, key};

/// The participants that a development folder lacks.
pub(super) const LACKING: [(&str, Role); 3] =
    [("peer", Role::Peer), ("kiosk", Role::Kiosk), ("inspector", Role::Inspector)];

/// The name of a role in requests and in `x-roles`.
fn name_of(role: Role) -> String {
    json!(role).as_str().unwrap().to_owned()
}

/// Every participant with its only role.
pub(super) fn participants() -> Vec<(&'static str, String)> {
    let mut all: Vec<_> = PARTICIPANTS.iter().map(|one| (one.name, name_of(one.role))).collect();
    all.extend(LACKING.map(|(name, role)| (name, name_of(role))));
    all
}

/// The certificate of `ROLE`, the first with that role, or of `ROLE N`.
fn certificate(caller: &str) -> &'static str {
    let (role, number) = caller.split_once(' ').unwrap_or((caller, "1"));
    let number: usize = number.parse().unwrap();
    let found = participants().into_iter().filter(|(_, have)| have == role).nth(number - 1);
    found.unwrap_or_else(|| panic!("nobody is {caller}")).0
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The document.
pub(super) struct Contract(Value);

/// One operation of the data listener.
pub(super) struct Operation<'a> {
    pub(super) route: Route,
    pub(super) id: &'a str,
    /// The roles that may be permitted.
    pub(super) roles: Vec<String>,
    node: &'a Value,
}

/// An example of a request.
pub(super) struct Example<'a> {
    /// `OPERATION.NAME`.
    pub(super) step: String,
    /// The callers that run it: `ROLE` or `ROLE N`.
    pub(super) by: Vec<String>,
    /// Examples that are run before.
    after: Vec<String>,
    /// Sources of values for places of the request, by pointer.
    put: BTreeMap<&'a str, &'a str>,
    pub(super) value: &'a Value,
    route: Route,
}

impl Contract {
    pub(super) fn new() -> Self {
        Self(serde_json::from_str(schemas::OPENAPI).unwrap())
    }

    /// The operations of every route of the data listener.
    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        let routed = Route::ALL.iter().filter_map(|route| Some((*route, route.path()?)));
        routed
            .map(|(route, path)| {
                let node = &self.0["paths"][path]["post"];
                let id = node["operationId"].as_str().unwrap_or_else(|| panic!("{path} is not described"));
                Operation { route, id, roles: texts(&node["x-roles"]), node }
            })
            .collect()
    }

    /// A path with the examples of its parameters in their places.
    pub(super) fn filled(&self, path: &str) -> String {
        let parameters = self.0["paths"][path]["get"]["parameters"].as_array().into_iter().flatten();
        parameters.fold(path.to_owned(), |path, parameter| {
            let example = &parameter["example"];
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), &text)
        })
    }

    /// The response that the document describes for a status of a GET.
    pub(super) fn get(&self, path: &str, status: u16) -> &Value {
        &self.0["paths"][path]["get"]["responses"][status.to_string()]
    }

    /// A response that operations share.
    pub(super) fn response(&self, name: &str) -> &Value {
        &self.0["components"]["responses"][name]
    }

    /// The answer is one that the document describes: its status, its media type, its body.
    pub(super) fn check(&self, described: &Value, reply: &Reply) {
        let described = match described["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => described,
        };
        let content = described["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("status {} is not described", reply.status));
        let content = content.get(&reply.content_type);
        let content = content.unwrap_or_else(|| panic!("{} is not described", reply.content_type));
        if !reply.content_type.ends_with("json") {
            return;
        }
        let mut schema = content["schema"].clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let wrong: Vec<String> = validator
            .iter_errors(&reply.json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "the answer is not as described: {wrong:?}: {}", reply.json);
    }

    fn example(&self, step: &str) -> Example<'_> {
        let all = self.operations();
        let found = all.iter().flat_map(Operation::examples).find(|example| example.step == step);
        found.unwrap_or_else(|| panic!("there is no example {step}"))
    }
}

impl<'a> Operation<'a> {
    pub(super) fn examples(&self) -> Vec<Example<'a>> {
        let node: &'a Value = self.node;
        let examples = node["requestBody"]["content"]["application/json"]["examples"].as_object().unwrap();
        examples
            .iter()
            .map(|(name, example)| {
                let run = &example["x-run"];
                let by = if run.get("by").is_some() { texts(&run["by"]) } else { self.roles.clone() };
                let put = run["put"].as_object().into_iter().flatten();
                Example {
                    step: format!("{}.{name}", self.id),
                    by,
                    after: texts(&run["after"]),
                    put: put.map(|(place, from)| (place.as_str(), from.as_str().unwrap())).collect(),
                    value: &example["value"],
                    route: self.route,
                }
            })
            .collect()
    }

    /// The response that the document describes for a status.
    pub(super) fn described(&self, status: u16) -> &'a Value {
        &self.node["responses"][status.to_string()]
    }
}

/// Runs one example behind those that it needs, each of them once.
pub(super) struct Chain<'a> {
    contract: &'a Contract,
    server: &'a Server,
    /// The interface that resources are called at.
    provider: &'a Provider,
    /// The organisation that grants are made for: the caller of the last example, if it may hold one.
    grantee: String,
    synthetic: Synthetic,
    /// Request and answer of each example that was run.
    done: BTreeMap<String, Value>,
}

impl<'a> Chain<'a> {
    /// A chain whose last example is sent by `caller`. Whatever is made in it differs from what another `seed` makes.
    pub(super) fn new(
        contract: &'a Contract,
        server: &'a Server,
        provider: &'a Provider,
        caller: &str,
        seed: u64,
    ) -> Self {
        let holds = [Role::Relying, Role::Peer].into_iter().any(|role| caller == name_of(role));
        let grantee = if holds { caller.to_owned() } else { name_of(Role::Relying) };
        let grantee = server.organisation(certificate(&grantee)).as_str().to_owned();
        Self { contract, server, provider, grantee, synthetic: Synthetic::new(seed), done: BTreeMap::new() }
    }

    /// The request of an example, with everything done that it needs.
    pub(super) async fn request(&mut self, example: &Example<'_>) -> Call {
        for step in &example.after {
            self.run(step).await;
        }
        let mut body = example.value.clone();
        for (place, from) in &example.put {
            let value = match *from {
                "$serial" => json!(self.synthetic.serial().as_str()),
                "$organisation" => json!(self.synthetic.uscc().as_str()),
                "$resource" => json!(self.resource()),
                "$item" => json!(format!("{}4400100000001", self.synthetic.uscc())),
                "$grantee" => json!(self.grantee),
                "$provider" => {
                    json!(self.server.organisation(certificate(&name_of(Role::Provider))).as_str())
                }
                "$port" => json!(self.provider.port),
                "$authorities" => json!(self.provider.authorities),
                "$interface" => json!(self.provider.url()),
                from => {
                    let (step, part) = from.split_once(" $").unwrap_or_else(|| panic!("no source: {from}"));
                    self.run(step).await;
                    let (part, pointer) = part.split_once(".body#").unwrap();
                    let found = self.done[step][part].pointer(pointer);
                    found.unwrap_or_else(|| panic!("{from}: {}", self.done[step])).clone()
                }
            };
            let target = body.pointer_mut(place);
            *target.unwrap_or_else(|| panic!("{}: there is no {place}", example.step)) = value;
        }
        Call::new(example.route, &body)
    }

    async fn run(&mut self, step: &str) {
        if self.done.contains_key(step) {
            return;
        }
        let example = self.contract.example(step);
        let call = Box::pin(self.request(&example)).await;
        let caller = example.by.first().unwrap();
        let reply = self.party(caller).send(&call).await.expect(example.route.success_status());
        let request: Value = serde_json::from_slice(&call.body).unwrap();
        self.done.insert(step.to_owned(), json!({"request": request, "response": reply.json}));
    }

    /// A fresh code of a resource.
    fn resource(&mut self) -> String {
        let serial = self.synthetic.serial();
        let digit = |byte: &u8| char::from(b'0' + byte % 10);
        let digits: String = serial.as_str().as_bytes().iter().map(digit).collect();
        format!("399{}/{}", &digits[..14], &digits[14..20])
    }

    /// A caller by its role.
    pub(super) fn party(&self, caller: &str) -> Party {
        self.server.party(certificate(caller))
    }
}

/// The same request with another idempotency key, where it has one: what was refused before is decided again.
pub(super) fn anew(call: &Call) -> Call {
    if call.route.changes_state() { call.clone().key(&key()) } else { call.clone() }
}
