//! Policies in Cedar: read, checked against their schema, and asked. They stand beside the floor, which they never lift: a request
//! needs both.
//!
//! A policy is asked over facts that change slowly, and its answer is kept under these facts. One that reads what is of one request
//! alone is asked each time. Pure but for that memory, which a crash leaves nothing of.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    Policy, PolicySet, Request, ResourceConstraint, RestrictedExpression, Schema, ValidationMode, Validator,
};
use dashmap::DashMap;
use miette::Diagnostic;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::kinds::Scenario;
use schemas::policy::{Class, MAX_BYTES, SCHEMA};
use schemas::roles::Role;
use serde_json::Value;
use verifier::Hash;

use super::floor;

/// Most policies of a set.
const MAX_POLICIES: usize = 1_000;
/// Most brackets that stand within each other, and longest policy, bytes. Cedar's parser goes one call deeper for each bracket and
/// each link of a chain.
const MAX_DEPTH: usize = 32;
const MAX_POLICY_BYTES: usize = 16 * 1024;
/// Stack of the thread that reads policies, bytes: for the deepest text that fits, with room to spare. Only what is used is memory.
const STACK_BYTES: usize = 256 << 20;
/// Most answers that are kept; beyond it all are dropped.
const MAX_KEPT: usize = 10_000;
/// Longest facts that an answer is kept under, bytes; longer ones are asked each time.
const MAX_FACTS: usize = 256;
/// Name of the resource of a request that names no type.
const NO_TYPE: &str = "none";

/// The schema, which comes with the program.
static CHECKED: LazyLock<Schema> = LazyLock::new(|| {
    let read = Schema::from_cedarschema_str(SCHEMA);
    read.expect("the schema that comes with the program is one").0
});
/// Names of the schema's types.
static NAMES: LazyLock<TypeNames> = LazyLock::new(|| {
    let name = |text| EntityTypeName::from_str(text).expect("a name of the schema");
    TypeNames {
        action: name("Action"),
        organisation: name("Organisation"),
        license_type: name("LicenseType"),
        role: name("Role"),
    }
});

struct TypeNames {
    action: EntityTypeName,
    organisation: EntityTypeName,
    license_type: EntityTypeName,
    role: EntityTypeName,
}

/// The part of a question that policies read, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reads(u8);

impl Reads {
    const TYPE: u8 = 1;
    /// The members of the context, from the second bit up.
    const MEMBERS: [&str; 7] = ["purpose", "scenario", "item", "stage", "mode", "caseNumber", "userName"];
    /// Those of one request.
    const OF_REQUEST: [&str; 2] = ["caseNumber", "userName"];

    fn member(name: &str) -> Option<u8> {
        Self::MEMBERS.iter().position(|member| *member == name).map(|place| 2 << place)
    }

    fn has(self, name: &str) -> bool {
        Self::member(name).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The members of one request that are read.
    fn of_request(self) -> impl Iterator<Item = &'static str> {
        Self::OF_REQUEST.into_iter().filter(move |name| self.has(name))
    }

    /// Adds what an expression reads. Whatever is not surely something else is taken for all of the context.
    fn add(&mut self, expression: &Value) {
        match expression {
            Value::Object(members) => {
                for (name, part) in members {
                    let read = (name == "." || name == "has")
                        .then(|| Some((part.get("left")?.get("Var")?.as_str()?, part.get("attr")?.as_str()?)))
                        .flatten();
                    match (name.as_str(), part, read) {
                        (_, _, Some(("context", member))) => self.0 |= Self::member(member).unwrap_or(!0),
                        ("Var", Value::String(var), _) if var == "context" => self.0 = !0,
                        ("Var", Value::String(var), _) if var == "resource" => self.0 |= Self::TYPE,
                        (_, part, _) => self.add(part),
                    }
                }
            }
            Value::Array(parts) => parts.iter().for_each(|part| self.add(part)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The facts that a policy reads; all of them where that cannot be told.
    fn of(policy: &Policy) -> Self {
        let mut reads = Self::default();
        if !matches!(policy.resource_constraint(), ResourceConstraint::Any) {
            reads.0 |= Self::TYPE;
        }
        match policy.to_json() {
            Ok(written) => reads.add(&written["conditions"]),
            Err(_) => reads.0 = !0,
        }
        reads
    }
}

/// A place in a text of policies, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column, characters from 1.
    pub column: usize,
    /// The fault in Cedar's words.
    pub what: String,
}

impl Fault {
    fn at(text: &str, offset: usize, what: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1, what }
    }

    fn of(text: &str, error: &impl Diagnostic) -> Self {
        let offset = error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
        Self::at(text, offset, error.to_string())
    }
}

/// A question to policies. Texts are as the request has them.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The class of the route.
    pub class: Class,
    /// The caller.
    pub organisation: &'a Uscc,
    /// Version of its registration.
    pub registered: u32,
    /// Its roles.
    pub roles: &'a [Role],
    /// The type of the license that is asked about, where one is named.
    pub license_type: Option<LicenseTypeCode>,
    /// Version of the type's definition, and who holds such a license; only read where policies read the type.
    pub published: (u32, &'static str),
    /// Purpose.
    pub purpose: Option<&'a str>,
    /// Field of use.
    pub scenario: Option<Scenario>,
    /// Code of the service item.
    pub item: Option<&'a str>,
    /// Stage of the case.
    pub stage: Option<&'a str>,
    /// How much of a license is asked for.
    pub mode: Option<&'a str>,
    /// Case number.
    pub case_number: Option<&'a str>,
    /// User at the caller.
    pub user_name: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// The members of the context, in the order of [`Reads::MEMBERS`].
    fn members(&self) -> [Option<&'a str>; 7] {
        [
            self.purpose,
            self.scenario.map(Scenario::name),
            self.item,
            self.stage,
            self.mode,
            self.case_number,
            self.user_name,
        ]
    }
}

/// The answer of policies to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// One permits, and none forbids.
    Permits,
    /// None permits, and none forbids.
    Nothing,
    /// One forbids.
    Forbids,
    /// One could not be evaluated, so nobody knows what it would have said.
    Fails,
}

impl Said {
    /// The answer of two sets that are one.
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fails, _) | (_, Self::Fails) => Self::Fails,
            (Self::Forbids, _) | (_, Self::Forbids) => Self::Forbids,
            (Self::Permits, _) | (_, Self::Permits) => Self::Permits,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// The policies that may say something of a class.
#[derive(Default)]
struct OfClass {
    /// Those over slow facts alone, whose answer is kept.
    slow: PolicySet,
    reads: Reads,
    /// Those that read something of one request.
    of_request: PolicySet,
}

/// A policy that is evaluated each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncached {
    /// Its `@id`, or its place in the text.
    pub name: String,
    /// The members of the context that are the cause.
    pub reads: Vec<&'static str>,
}

/// Whether brackets and policies are within their bounds. Text and comments are no brackets.
fn bounded(text: &str) -> Result<(), Fault> {
    let (mut depth, mut begun) = (0_usize, 0);
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'\\' => {
                            let _ = bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'/' if text.as_bytes().get(at + 1) == Some(&b'/') => {
                let _ = bytes.find(|(_, byte)| *byte == b'\n');
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' => begun = at + 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Fault::at(text, at, format!("more than {MAX_DEPTH} brackets within each other")));
        }
        if at.saturating_sub(begun) > MAX_POLICY_BYTES {
            return Err(Fault::at(text, begun, format!("a policy of more than {MAX_POLICY_BYTES} bytes")));
        }
    }
    if text.len().saturating_sub(begun) > MAX_POLICY_BYTES {
        return Err(Fault::at(text, begun, format!("a policy of more than {MAX_POLICY_BYTES} bytes")));
    }
    Ok(())
}

/// A set of policies, read and checked.
pub struct Policies {
    text: String,
    hash: Hash,
    count: usize,
    uncached: Vec<Uncached>,
    warnings: Vec<String>,
    classes: Vec<OfClass>,
    kept: DashMap<Box<[u8]>, Said>,
}

impl Policies {
    /// Reads policies and checks them against the schema.
    ///
    /// # Errors
    /// The first fault.
    pub fn read(text: &str) -> Result<Self, Fault> {
        let at_start = |what: String| Fault::at(text, 0, what);
        if text.len() > MAX_BYTES {
            return Err(at_start(format!("longer than {MAX_BYTES} bytes")));
        }
        bounded(text)?;
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("policies".to_owned()).stack_size(STACK_BYTES);
            let read = reader.spawn_scoped(scope, || Self::read_bounded(text)).map(|thread| thread.join());
            match read {
                Ok(Ok(read)) => read,
                Ok(Err(_)) | Err(_) => Err(at_start("it cannot be read here".to_owned())),
            }
        })
    }

    /// Reads a text that was bounded.
    fn read_bounded(text: &str) -> Result<Self, Fault> {
        let at_start = |what: String| Fault::at(text, 0, what);
        let set = PolicySet::from_str(text).map_err(|errors| {
            errors.iter().next().map_or_else(|| at_start(errors.to_string()), |error| Fault::of(text, error))
        })?;
        if set.templates().next().is_some() {
            return Err(at_start("a template: nothing would link it".to_owned()));
        }
        let mut all: Vec<&Policy> = set.policies().collect();
        if all.len() > MAX_POLICIES {
            return Err(at_start(format!("more than {MAX_POLICIES} policies")));
        }
        let checked = Validator::new(CHECKED.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(Fault::of(text, error));
        }
        let warnings = checked.validation_warnings().map(|warning| Fault::of(text, warning).to_string());
        // Cedar calls them policy0, policy1 and so on.
        all.sort_by_key(|policy| {
            let id: &str = policy.id().as_ref();
            (id.len(), id.to_owned())
        });
        let mut classes: Vec<OfClass> = Class::ALL.iter().map(|_| OfClass::default()).collect();
        let mut uncached = Vec::new();
        for (policy, place) in all.iter().zip(1..) {
            let reads = Reads::of(policy);
            let of_request: Vec<_> = reads.of_request().collect();
            for (class, of_class) in Class::ALL.iter().zip(&mut classes) {
                if !may_say(policy, *class) {
                    continue;
                }
                let into = if of_request.is_empty() { &mut of_class.slow } else { &mut of_class.of_request };
                into.add((*policy).clone()).map_err(|error| at_start(error.to_string()))?;
                of_class.reads.0 |= reads.0;
            }
            if !of_request.is_empty() {
                let name = policy.annotation("id").map_or_else(|| format!("policy {place}"), str::to_owned);
                uncached.push(Uncached { name, reads: of_request });
            }
        }
        Ok(Self {
            text: text.to_owned(),
            hash: hash(text),
            count: all.len(),
            uncached,
            warnings: warnings.collect(),
            classes,
            kept: DashMap::new(),
        })
    }

    /// A set in place of one that cannot be read: whatever it is asked fails.
    pub(super) fn unreadable(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            hash: hash(text),
            count: 0,
            uncached: Vec::new(),
            warnings: Vec::new(),
            classes: Vec::new(),
            kept: DashMap::new(),
        }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The policy hash of entries that are decided by them.
    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Those that are evaluated each time.
    pub fn uncached(&self) -> &[Uncached] {
        &self.uncached
    }

    /// The validator's warnings.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the type of the license matters in a class.
    pub fn read_type(&self, class: Class) -> bool {
        self.of(class).is_some_and(|of_class| of_class.reads.0 & Reads::TYPE != 0)
    }

    /// Whether anything beside the caller and its roles matters in a class.
    pub fn read_request(&self, class: Class) -> bool {
        self.of(class).is_none_or(|of_class| of_class.reads != Reads::default())
    }

    /// Answers a question.
    pub fn ask(&self, question: &Question<'_>) -> Said {
        let Some(of_class) = self.of(question.class) else { return Said::Fails };
        let slow = self.ask_slow(of_class, question);
        // Hardly any class has one.
        if of_class.of_request.is_empty() { slow } else { slow.and(evaluate(&of_class.of_request, question)) }
    }

    fn of(&self, class: Class) -> Option<&OfClass> {
        self.classes.get(usize::from(class.number() - 1))
    }

    /// The same of the policies over slow facts, from memory if the facts were asked about before.
    fn ask_slow(&self, of_class: &OfClass, question: &Question<'_>) -> Said {
        let mut facts = Facts::default();
        facts.of(of_class.reads, question);
        let Some(key) = facts.key() else { return evaluate(&of_class.slow, question) };
        if let Some(said) = self.kept.get(key) {
            return *said;
        }
        let said = evaluate(&of_class.slow, question);
        // Nobody fills the memory by asking.
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        self.kept.insert(key.into(), said);
        said
    }

    /// How many answers are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }
}

/// The slow facts that policies read, one behind the other. The length of a text comes before it.
struct Facts {
    bytes: [u8; MAX_FACTS],
    /// Longer than the bytes when they do not all fit.
    length: usize,
}

impl Default for Facts {
    fn default() -> Self {
        Self { bytes: [0; MAX_FACTS], length: 0 }
    }
}

impl Facts {
    fn of(&mut self, reads: Reads, question: &Question<'_>) {
        self.put(&[question.class.number()]);
        self.put(question.organisation.as_bytes());
        self.put(&question.registered.to_be_bytes());
        if reads.0 & Reads::TYPE != 0 {
            self.text(question.license_type.as_ref().map(LicenseTypeCode::as_str));
            // Whatever the definition says of its holders goes with its version.
            self.put(&question.published.0.to_be_bytes());
        }
        if reads.0 & !Reads::TYPE == 0 {
            return;
        }
        for (name, member) in Reads::MEMBERS.iter().zip(question.members()) {
            if reads.has(name) && !Reads::OF_REQUEST.contains(name) {
                self.text(member);
            }
        }
    }

    fn text(&mut self, text: Option<&str>) {
        match text.map(|text| (u16::try_from(text.len()), text)) {
            None => self.put(&[0]),
            Some((Ok(length), text)) => {
                self.put(&[1]);
                self.put(&length.to_be_bytes());
                self.put(text.as_bytes());
            }
            Some((Err(_), _)) => self.length = usize::MAX,
        }
    }

    fn put(&mut self, more: &[u8]) {
        let end = self.length.saturating_add(more.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(more);
        }
        self.length = end;
    }

    /// `None` if they are too long.
    fn key(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

/// Whether a policy's scope leaves a class.
fn may_say(policy: &Policy, class: Class) -> bool {
    let named = |action: &EntityUid| *action == uid(&NAMES.action, class.name());
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(action) => named(&action),
        ActionConstraint::In(actions) => actions.iter().any(named),
    }
}

fn uid(name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}

/// A question in Cedar's form.
fn request(question: &Question<'_>, schema: Option<&Schema>) -> Option<(Request, Entities)> {
    let names = &*NAMES;
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let principal = uid(&names.organisation, question.organisation.as_str());
    let roles: HashSet<_> = question.roles.iter().map(|role| uid(&names.role, role.name())).collect();
    let code = question.license_type.as_ref().map_or(NO_TYPE, LicenseTypeCode::as_str);
    let resource = uid(&names.license_type, code);
    let holders = if question.license_type.is_some() { question.published.1 } else { NO_TYPE };
    let holders = HashMap::from([("holders".to_owned(), text(holders))]);
    let members = Reads::MEMBERS.iter().zip(question.members());
    let members = members.filter_map(|(name, value)| Some(((*name).to_owned(), text(value?))));
    let context = Context::from_pairs(members).ok()?;
    let entities = [
        Entity::new_no_attrs(principal.clone(), roles),
        Entity::new(resource.clone(), holders, HashSet::new()).ok()?,
    ];
    let entities = Entities::from_entities(entities, schema).ok()?;
    let action = uid(&names.action, question.class.name());
    Some((Request::new(principal, action, resource, context, schema).ok()?, entities))
}

/// Asks policies, whatever was asked before.
fn evaluate(policies: &PolicySet, question: &Question<'_>) -> Said {
    if policies.is_empty() {
        return Said::Nothing;
    }
    let Some((request, entities)) = request(question, None) else { return Said::Fails };
    let response = Authorizer::new().is_authorized(&request, policies, &entities);
    // A policy that errs is skipped by Cedar, also one that would forbid.
    if response.diagnostics().errors().next().is_some() {
        return Said::Fails;
    }
    match response.decision() {
        Decision::Allow => Said::Permits,
        Decision::Deny if response.diagnostics().reason().next().is_some() => Said::Forbids,
        Decision::Deny => Said::Nothing,
    }
}

/// The policy hash of entries: of the floor's text and the policies'.
pub fn hash(text: &str) -> Hash {
    let part = |text: &str| verifier::sha256(&[text.as_bytes()]);
    verifier::sha256(&[&part(floor::POLICY), &part(text)])
}

#[cfg(test)]
mod tests;
