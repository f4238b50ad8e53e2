//! Random histories of links, grants and uses, each decision compared with [`super::reference`]: what is permitted there is permitted here,
//! and a refusal here has one of the causes found there.
//!
//! Tests alone have this file. Nothing is written; a seed that fails is printed, and gives the same history again.

use std::collections::BTreeSet;

use ledger::record::CounterUse;
use ledger::{DocumentKind, Grant, GrantLink, Head, Holder, Key, Label, License, Position};
use schemas::codes::Reason;
use schemas::date::{Date, rfc3339};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::kinds::{LinkKind, Scenario};
use schemas::license_type::LicenseType;
use schemas::routes::Form;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use verifier::trace::Label as PageLabel;

use super::reference::{
    By, Event, FIELDS, GRANTEES, GrantTerms, LICENSES, LinkTerms, Much, Narrower, Of, Reference, Step,
    UseTerms,
};
use super::{NOW_MS, World, document, known};
use crate::capability::Capability;
use crate::capability::grants::{change::Change, create::Create, revoke::Revoke};
use crate::capability::licenses::retrieve::Retrieve;
use crate::capability::links::{end::End, make::Make};
use crate::capability::verify::Verify;
use crate::gateway::case::{Case, Known};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::floor::{self, GRANT_ACTIVE, GRANT_PAUSED, GRANT_REVOKED};
use crate::rights::link::{Above, Link, chain};
use crate::rights::mode::Mode;
use crate::wire::read::Body;
use crate::wire::refusal::Refusal;

/// Histories of a usual run. `MIAOXIANG_HISTORIES` asks for more.
const HISTORIES: u64 = 100_000;
/// Histories that are run side by side.
const THREADS: u64 = 2;
const AGENTS: usize = 3;
const NAMES: [&str; FIELDS] = ["certificateNumber", "holderName", "validUntil"];
const SCENARIOS: [Scenario; 2] = [Scenario::Finance, Scenario::Bidding];

/// A sequence that a seed alone decides (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below the bound")
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn some<T>(&mut self, times: usize, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.once_in(times).then(|| draw(self))
    }

    /// One of the agents, the first of them mostly.
    fn agent(&mut self) -> usize {
        if self.once_in(2) { 0 } else { self.below(AGENTS) }
    }

    fn modes(&mut self) -> BTreeSet<Much> {
        let mut modes: BTreeSet<Much> = Much::ALL.into_iter().filter(|_| self.once_in(3)).collect();
        if modes.is_empty() {
            modes.insert(Much::ALL[self.below(Much::ALL.len())]);
        }
        modes
    }

    fn fields(&mut self) -> BTreeSet<usize> {
        (0..FIELDS).filter(|_| self.once_in(2)).collect()
    }
}

/// A world with an organisation that grants, agents, four licenses of two types, and a history.
struct Stage {
    world: World,
    known: Known,
    dice: Dice,
    now_ms: u64,
    reference: Reference,
    holder: HolderRef,
    agents: Vec<HolderRef>,
    types: Vec<LicenseType>,
    licenses: Vec<CertificateIdentifier>,
    /// Ids of the grants, in the order in which they were made.
    grants: Vec<Key>,
    /// The terms that each was made with, so that most uses are such as it is for.
    terms: Vec<GrantTerms>,
}

const HOLDER: Label = [50; 16];

impl Stage {
    fn new() -> Self {
        let mut world = World::new();
        let mut synthetic = Synthetic::new(2);
        let today = Date::at(i64::try_from(NOW_MS / 1_000).expect("seconds"));
        let builtin = LicenseType::builtin();
        let other = builtin.iter().find(|one| !one.is_natural_person()).expect("built in").clone();
        let types = vec![world.license_type.clone(), other];
        let holder = synthetic.license(&types[1], today).holders.swap_remove(0).1;
        let agents: Vec<HolderRef> =
            (0..AGENTS).map(|_| synthetic.license(&types[0], today).holders.swap_remove(0).1).collect();
        world.table.holders.clear();
        world.table.licenses.clear();
        for (person, label) in [&holder].into_iter().chain(&agents).zip((50..).map(|number| [number; 16])) {
            let key = keyed::holder_key(&world.table.keyed, person);
            let known = Holder { version: 1, key, label, erased: false, ended_ms: 0, head: Head::default() };
            world.table.holders.insert(key, known);
        }
        for license_type in &types {
            let key = keyed::type_key(&world.table.keyed, &license_type.code);
            world.table.documents.insert((DocumentKind::LicenseType.number(), key), document(license_type));
        }
        let issuer = world.issuer.organisation;
        let licenses: Vec<_> = LICENSES
            .iter()
            .map(|(_, of)| {
                CertificateIdentifier::new(types[*of].code, issuer, synthetic.serial(), 1).expect("good")
            })
            .collect();
        for (identifier, (holder, _)) in licenses.iter().zip(LICENSES) {
            let holders = vec![if holder == 0 { HOLDER } else { [60; 16] }];
            let license = License {
                version: 1,
                state: schemas::state::LicenseState::Valid.number(),
                certificate_version: 1,
                valid_from_day: 0,
                valid_until_day: i32::MAX,
                taken_over: false,
                written_by_04: false,
                number_tag: 5,
                holders,
                body: Position(1),
            };
            world.table.licenses.insert(keyed::license_key(&world.table.keyed, identifier), license);
        }
        Self {
            world,
            known: known(),
            dice: Dice(0),
            now_ms: NOW_MS,
            reference: Reference::default(),
            holder,
            agents,
            types,
            licenses,
            grants: Vec::new(),
            terms: Vec::new(),
        }
    }

    /// Forgets the history before.
    fn begin(&mut self, seed: u64) {
        let table = &mut self.world.table;
        table.grants.clear();
        table.counters.clear();
        table.documents.retain(|(kind, _), _| *kind != DocumentKind::Link.number());
        (self.dice, self.reference) = (Dice(seed), Reference::default());
        self.grants.clear();
        self.terms.clear();
        self.portal_vouches(true);
    }

    fn portal_vouches(&mut self, vouches: bool) {
        let portal = Participant { suspended: !vouches, ..self.world.portal.clone() };
        let key = keyed::participant_key(&self.world.table.keyed, &portal.organisation);
        let before = &self.world.table.documents[&(DocumentKind::Participant.number(), key)];
        let next = ledger::Document { version: before.version + 1, ..document(&portal) };
        self.world.table.documents.insert((DocumentKind::Participant.number(), key), next);
    }

    /// A decision, with the counters that it raises.
    fn decided<'r, C: Capability<'r>>(
        &self,
        caller: &Participant,
        body: &'r str,
    ) -> Result<Vec<CounterUse>, Refusal> {
        let mut case = Case::open(&self.world.table, &self.known, self.now_ms);
        let asked = C::read(Body { form: Form::Json, bytes: body.as_bytes() })?;
        let ruling = C::decide(&mut case, caller, &asked)?;
        ruling.counters(&mut case, &caller.organisation)
    }

    fn party(&self, number: usize) -> &Participant {
        [&self.world.bank, &self.world.approval, &self.world.portal][number]
    }

    fn end(&mut self) -> u64 {
        // Some are past, many pass on the way.
        self.now_ms
            + [0, 300, 2_000, 100_000, 100_000, 100_000][self.dice.below(6)]
            + self.dice.below(100) as u64
    }

    /// One thing that somebody asks for.
    fn step(&mut self) -> Result<(), String> {
        self.now_ms += 1 + self.dice.below(200) as u64;
        match self.dice.below(20) {
            0..=2 => self.make_link(),
            3..=4 => {
                self.end_link()?;
                // Made anew it is another one.
                if self.dice.once_in(2) { self.make_link() } else { Ok(()) }
            }
            5..=8 => self.make_grant(),
            9..=10 => self.step_grant(),
            11 => {
                let vouches = !self.dice.once_in(3);
                self.portal_vouches(vouches);
                self.reference.happened(self.now_ms, Event::Portal(vouches));
                Ok(())
            }
            _ => self.use_grant(),
        }
    }

    fn make_link(&mut self) -> Result<(), String> {
        let dice = &mut self.dice;
        let agent = dice.agent();
        let others: Vec<usize> = (0..AGENTS).filter(|other| *other != agent).collect();
        let via = dice.some(2, |dice| others[dice.below(others.len())]);
        let by = match via {
            None if dice.once_in(6) => [By::Agent, By::Relative, By::Manager][dice.below(3)],
            None => By::Representative,
            Some(_) => [By::Manager, By::Clerk, By::Clerk][dice.below(3)],
        };
        let modes = if dice.once_in(2) { Much::ALL.into_iter().collect() } else { dice.modes() };
        let types = dice.some(3, |dice| dice.below(2)).into_iter().collect();
        let until = self.end();
        let terms = LinkTerms { agent, via, by, modes, types, until };
        let kind = match by {
            By::Agent => LinkKind::Agent,
            By::Relative => LinkKind::Relative,
            By::Representative => LinkKind::LegalRepresentative,
            By::Manager => LinkKind::Manager,
            By::Clerk => LinkKind::Clerk,
        };
        let mut body = json!({"holder": person(&self.holder), "agent": person(&self.agents[agent]), "kind": kind,
            "until": rfc3339(until), "modes": words(&terms.modes),
            "typeCodes": terms.types.iter().map(|of| self.types[*of].code.as_str()).collect::<Vec<_>>()});
        if let Some(via) = via {
            body["via"] = person(&self.agents[via]);
        }
        let found = self.decided::<Make>(&self.world.portal, &body.to_string());
        if !same(found.map(drop), &self.reference.refuses_link(&terms, self.now_ms), &terms)? {
            return Ok(());
        }
        let mut case = Case::open(&self.world.table, &self.known, self.now_ms);
        let portal = self.world.portal.organisation;
        let key = keyed::link_key(&self.world.table.keyed, &portal, &self.holder, &self.agents[agent]);
        let (place, before) = case.document::<Link>(key);
        let above = via.map(|via| chain(&mut case, &portal, &self.holder, &self.agents[via]));
        let above = above.transpose().expect("permitted");
        let under: Option<Above> = above.as_ref().and_then(|above| above.nearest()).map(|(above, _)| above);
        let goes_on = before.as_ref().filter(|before| {
            !before.ended && self.now_ms <= before.until_ms && before.kind == kind && before.under == under
        });
        let link = Link {
            holder: PageLabel(HOLDER),
            agent: PageLabel(label(agent)),
            kind,
            until_ms: until,
            ended: false,
            since_ms: goes_on.map_or(self.now_ms, |before| before.since_ms),
            modes: bits(&terms.modes),
            types: terms.types.iter().map(|of| self.types[*of].code).collect(),
            under,
            basis: None,
            assurance: 0,
        };
        self.put_link(key, place.version() + 1, &link);
        self.reference.happened(self.now_ms, Event::Link(terms));
        Ok(())
    }

    fn put_link(&mut self, key: Key, version: u32, link: &Link) {
        let link = ledger::Document { version, ..document(link) };
        self.world.table.documents.insert((DocumentKind::Link.number(), key), link);
    }

    fn end_link(&mut self) -> Result<(), String> {
        let agent = self.dice.agent();
        let body =
            json!({"holder": person(&self.holder), "agent": person(&self.agents[agent]), "reason": "测试"});
        let found = self.decided::<End>(&self.world.portal, &body.to_string());
        if !same(found.map(drop), &self.reference.refuses_end(agent), &agent)? {
            return Ok(());
        }
        let portal = self.world.portal.organisation;
        let key = keyed::link_key(&self.world.table.keyed, &portal, &self.holder, &self.agents[agent]);
        let (place, link) = Case::open(&self.world.table, &self.known, self.now_ms).document::<Link>(key);
        self.put_link(key, place.version() + 1, &Link { ended: true, ..link.expect("permitted") });
        self.reference.happened(self.now_ms, Event::EndLink(agent));
        Ok(())
    }

    fn make_grant(&mut self) -> Result<(), String> {
        let until = self.end();
        let dice = &mut self.dice;
        let (modes, mut fields) = (dice.modes(), dice.fields());
        let names_fields =
            modes.contains(&Much::Fields) && !modes.contains(&Much::Face) && !modes.contains(&Much::Copy);
        if names_fields && fields.is_empty() {
            fields.insert(dice.below(FIELDS));
        }
        let of =
            if dice.once_in(2) { Of::Type(dice.below(2)) } else { Of::License(dice.below(LICENSES.len())) };
        let terms = GrantTerms {
            by: dice.some(2, Dice::agent),
            grantee: if dice.once_in(12) { GRANTEES } else { dice.below(GRANTEES) },
            of,
            modes,
            fields,
            item: dice.some(4, |dice| dice.below(2)),
            purpose: dice.some(4, |dice| dice.below(2)),
            scenario: dice.some(4, |dice| dice.below(2)),
            user: dice.some(4, |dice| dice.below(2)),
            until,
            most: dice.some(2, |dice| 1 + dice.below(2) as u32),
        };
        let mut body = json!({"holder": person(&self.holder), "grantee": self.party(terms.grantee).organisation,
            "modes": words(&terms.modes), "fields": names(&terms.fields), "until": rfc3339(until)});
        match of {
            Of::License(license) => body["identifier"] = json!(self.licenses[license].to_string()),
            Of::Type(of) => body["typeCode"] = json!(self.types[of].code.as_str()),
        }
        if let Some(agent) = terms.by {
            body["agent"] = person(&self.agents[agent]);
        }
        limits(&mut body, terms.item, terms.purpose, terms.scenario, terms.user);
        if let Some(most) = terms.most {
            body["maxUses"] = json!(most);
        }
        let found = self.decided::<Create>(&self.world.portal, &body.to_string());
        if !same(found.map(drop), &self.reference.refuses_grant(&terms, self.now_ms), &terms)? {
            return Ok(());
        }
        let number = u8::try_from(self.grants.len() + 1).expect("few");
        let grant = self.entered(&terms, [number; 16]);
        let id = [200 - number; 16];
        self.world.table.grants.insert(id, grant);
        self.grants.push(id);
        self.terms.push(terms.clone());
        self.reference.happened(self.now_ms, Event::Grant(terms));
        Ok(())
    }

    /// The grant as its entry would say it.
    fn entered(&self, terms: &GrantTerms, key: Key) -> Grant {
        let keyed = &self.world.table.keyed;
        let mut case = Case::open(&self.world.table, &self.known, self.now_ms);
        let portal = self.world.portal.organisation;
        let links: Vec<GrantLink> = terms.by.map_or_else(Vec::new, |agent| {
            chain(&mut case, &portal, &self.holder, &self.agents[agent]).expect("permitted").entered()
        });
        let (target, license_type) = match terms.of {
            Of::License(license) => {
                (keyed::license_key(keyed, &self.licenses[license]), &self.types[LICENSES[license].1])
            }
            Of::Type(of) => (keyed::type_key(keyed, &self.types[of].code), &self.types[of]),
        };
        let gives_all = terms.fields.is_empty()
            && (terms.modes.contains(&Much::Face) || terms.modes.contains(&Much::Copy));
        let mask = floor::field_mask(Some(license_type), names(&terms.fields)).expect("base fields");
        let grantee = self.party(terms.grantee).organisation;
        Grant {
            key,
            version: 1,
            state: GRANT_ACTIVE,
            holder: HOLDER,
            grantee: *grantee.as_bytes(),
            target,
            target_is_type: matches!(terms.of, Of::Type(_)),
            modes: bits(&terms.modes),
            fields: if gives_all { u64::MAX } else { mask },
            item_tag: terms.item.map_or(0, |item| keyed::item_tag(keyed, &item_name(item))),
            until_ms: terms.until,
            max_uses: terms.most.unwrap_or(0),
            portal: *portal.as_bytes(),
            purpose: terms.purpose.map(|purpose| purpose_name(purpose).into()),
            scenario: terms.scenario.map_or(0, |scenario| SCENARIOS[scenario].number()),
            user_tag: terms.user.map_or(0, |user| keyed::user_tag(keyed, &grantee, &user_name(user))),
            assurance: 0,
            chain: links,
            more_targets: Vec::new(),
        }
    }

    /// A grant of those there are, or one that there is not.
    fn some_grant(&mut self) -> (usize, Key) {
        let beyond = self.grants.is_empty() || self.dice.once_in(9);
        let number = self.dice.below(self.grants.len() + usize::from(beyond));
        (number, self.grants.get(number).copied().unwrap_or([255; 16]))
    }

    fn step_grant(&mut self) -> Result<(), String> {
        let (number, id) = self.some_grant();
        let until = self.end();
        let dice = &mut self.dice;
        let by = dice.some(3, Dice::agent);
        let step = match dice.below(5) {
            0 => Step::Pause,
            1 => Step::Resume,
            2 => Step::Revoke,
            _ => {
                let modes = dice.some(2, Dice::modes);
                Step::Narrow(Narrower {
                    modes,
                    item: dice.some(4, |dice| dice.below(2)),
                    purpose: dice.some(4, |dice| dice.below(2)),
                    scenario: dice.some(4, |dice| dice.below(2)),
                    user: dice.some(4, |dice| dice.below(2)),
                    until: Some(until),
                    most: dice.some(2, |dice| 1 + dice.below(2) as u32),
                })
            }
        };
        let mut body = json!({"grant": hex::encode(id), "holder": person(&self.holder), "reason": "测试"});
        if let Some(agent) = by {
            body["agent"] = person(&self.agents[agent]);
        }
        match &step {
            Step::Pause => body["action"] = json!("pause"),
            Step::Resume => body["action"] = json!("resume"),
            Step::Revoke => {}
            Step::Narrow(less) => {
                body["action"] = json!("narrow");
                body["until"] = json!(less.until.map(rfc3339));
                if let Some(modes) = &less.modes {
                    body["modes"] = json!(words(modes));
                }
                if let Some(most) = less.most {
                    body["maxUses"] = json!(most);
                }
                limits(&mut body, less.item, less.purpose, less.scenario, less.user);
            }
        }
        let (portal, body) = (&self.world.portal, body.to_string());
        let found = match &step {
            Step::Revoke => self.decided::<Revoke>(portal, &body),
            Step::Pause | Step::Resume | Step::Narrow(_) => self.decided::<Change>(portal, &body),
        };
        let causes = self.reference.refuses_step(number, &step, by, self.now_ms);
        if !same(found.map(drop), &causes, &(number, &step, by))? {
            return Ok(());
        }
        let keyed = &self.world.table.keyed;
        let grant = self.world.table.grants.get_mut(&id).expect("permitted");
        grant.version += 1;
        match &step {
            Step::Pause => grant.state = GRANT_PAUSED,
            Step::Resume => grant.state = GRANT_ACTIVE,
            Step::Revoke => grant.state = GRANT_REVOKED,
            Step::Narrow(less) => {
                grant.modes = less.modes.as_ref().map_or(grant.modes, bits);
                grant.item_tag =
                    less.item.map_or(grant.item_tag, |item| keyed::item_tag(keyed, &item_name(item)));
                grant.purpose = less
                    .purpose
                    .map(|purpose| purpose_name(purpose).into())
                    .or_else(|| grant.purpose.clone());
                grant.scenario =
                    less.scenario.map_or(grant.scenario, |scenario| SCENARIOS[scenario].number());
                let grantee: Uscc =
                    std::str::from_utf8(&grant.grantee).expect("a code").parse().expect("a code");
                grant.user_tag = less
                    .user
                    .map_or(grant.user_tag, |user| keyed::user_tag(keyed, &grantee, &user_name(user)));
                grant.until_ms = less.until.unwrap_or(grant.until_ms);
                grant.max_uses = less.most.unwrap_or(grant.max_uses);
            }
        }
        self.reference.happened(self.now_ms, Event::Step(number, step));
        Ok(())
    }

    fn use_grant(&mut self) -> Result<(), String> {
        let (number, id) = self.some_grant();
        let dice = &mut self.dice;
        let fits = self.terms.get(number).filter(|_| !dice.once_in(4));
        let mode = match fits {
            Some(terms) => *terms.modes.iter().nth(dice.below(terms.modes.len())).expect("some"),
            None => Much::ALL[dice.below(Much::ALL.len())],
        };
        let mut fields =
            if matches!(mode, Much::Fields | Much::Verify) { dice.fields() } else { BTreeSet::new() };
        if mode == Much::Fields && fields.is_empty() {
            fields.insert(dice.below(FIELDS));
        }
        if let Some(terms) = fits.filter(|terms| !terms.fields.is_empty()) {
            fields.retain(|field| terms.fields.contains(field));
            if mode == Much::Fields && fields.is_empty() {
                fields.extend(terms.fields.first());
            }
        }
        let mut asked = UseTerms {
            caller: if dice.once_in(8) { 1 } else { 0 },
            grant: number,
            license: dice.below(LICENSES.len()),
            mode,
            fields,
            item: dice.below(2),
            case: dice.below(3),
            purpose: dice.some(2, |dice| dice.below(2)),
            scenario: dice.some(2, |dice| dice.below(2)),
            user: dice.below(2),
        };
        if let Some(terms) = fits {
            asked.caller = terms.grantee;
            asked.license = match terms.of {
                Of::License(license) => license,
                Of::Type(of) => LICENSES.iter().position(|license| *license == (0, of)).expect("one of each"),
            };
            asked.item = terms.item.unwrap_or(asked.item);
            asked.purpose = terms.purpose.or(asked.purpose);
            asked.scenario = terms.scenario.or(asked.scenario);
            asked.user = terms.user.unwrap_or(asked.user);
        }
        let mut context = json!({"userName": user_name(asked.user), "itemCode": item_name(asked.item), "itemName": "测试事项",
            "businessCode": format!("CS{}", asked.case), "cause": "测试", "stage": "受理"});
        if let Some(purpose) = asked.purpose {
            context["purpose"] = json!(purpose_name(purpose));
        }
        if let Some(scenario) = asked.scenario {
            context["scenario"] = json!(SCENARIOS[scenario].name());
        }
        let mut body = json!({"license": {"identifier": self.licenses[asked.license].to_string()}, "grant": hex::encode(id),
            "use": context});
        let caller = self.party(asked.caller).clone();
        let found = if mode == Much::Verify {
            if !asked.fields.is_empty() {
                let expected = names(&asked.fields).into_iter().map(|name| (name.to_owned(), json!("x")));
                body["expect"] = Value::Object(expected.collect());
            }
            self.decided::<Verify>(&caller, &body.to_string())
        } else {
            body["mode"] = json!(mode.word());
            if mode == Much::Fields {
                body["fields"] = json!(names(&asked.fields));
            }
            self.decided::<Retrieve>(&caller, &body.to_string())
        };
        let causes = self.reference.refuses_use(&asked, self.now_ms);
        let raised = found.as_ref().ok().cloned();
        if !same(found.map(drop), &causes, &asked)? {
            return Ok(());
        }
        for CounterUse { key, day, amount, limit } in raised.into_iter().flatten() {
            let value = self.world.table.counters.entry((key, day)).or_default();
            *value += amount;
            if *value > limit {
                return Err(format!("{value} uses of {limit}: {asked:?}"));
            }
        }
        self.reference.happened(self.now_ms, Event::Use(asked));
        Ok(())
    }

    /// Plays a history; a word about the decision that differs.
    fn play(&mut self, seed: u64) -> Result<(), String> {
        self.begin(seed);
        if self.dice.once_in(2) {
            self.make_link()?;
        }
        for step in 0..6 + self.dice.below(8) {
            self.step().map_err(|difference| format!("seed {seed}, step {step}: {difference}"))?;
        }
        for (number, id) in self.grants.iter().enumerate() {
            let grant = &self.world.table.grants[id];
            let counted =
                self.world.table.counters.get(&(grant.key, 0)).copied().unwrap_or_default() as usize;
            if counted != self.reference.cases(number).len() {
                return Err(format!("seed {seed}: {counted} uses of grant {number} are counted"));
            }
        }
        assert_eq!(self.grants.len(), self.reference.grants());
        Ok(())
    }
}

fn label(agent: usize) -> Label {
    [51 + u8::try_from(agent).expect("few"); 16]
}

fn person(person: &HolderRef) -> Value {
    json!({"typeCode": person.type_code().as_str(), "number": person.number()})
}

fn item_name(item: usize) -> String {
    format!("1100000000000{item}")
}

fn purpose_name(purpose: usize) -> &'static str {
    ["贷款", "保险"][purpose]
}

fn user_name(user: usize) -> String {
    format!("测试{user}")
}

fn words(modes: &BTreeSet<Much>) -> Vec<&'static str> {
    modes.iter().map(|mode| mode.word()).collect()
}

fn names(fields: &BTreeSet<usize>) -> Vec<&'static str> {
    fields.iter().map(|field| NAMES[*field]).collect()
}

fn bits(modes: &BTreeSet<Much>) -> u8 {
    let bit = |mode: &Much| match mode {
        Much::Verify => Mode::Verify.bit(),
        Much::Fields => Mode::Fields.bit(),
        Much::Face => Mode::Face.bit(),
        Much::Copy => Mode::Copy.bit(),
        Much::Envelope => Mode::Envelope.bit(),
    };
    modes.iter().map(bit).fold(0, |all, bit| all | bit)
}

fn limits(
    body: &mut Value,
    item: Option<usize>,
    purpose: Option<usize>,
    scenario: Option<usize>,
    user: Option<usize>,
) {
    if let Some(item) = item {
        body["itemCode"] = json!(item_name(item));
    }
    if let Some(purpose) = purpose {
        body["purpose"] = json!(purpose_name(purpose));
    }
    if let Some(scenario) = scenario {
        body["scenario"] = json!(SCENARIOS[scenario].name());
    }
    if let Some(user) = user {
        body["userName"] = json!(user_name(user));
    }
}

/// Whether a decision permits, if it is the reference's: it refuses for a cause of these, and permits where there is none.
fn same(found: Result<(), Refusal>, causes: &[&str], asked: &dyn std::fmt::Debug) -> Result<bool, String> {
    let refused = found.err().map(|refusal| match refusal.reason {
        Reason::None => refusal.code.name(),
        reason => reason.name(),
    });
    match refused {
        None if causes.is_empty() => Ok(true),
        Some(cause) if causes.contains(&cause) => Ok(false),
        found => Err(format!("{found:?} here, {causes:?} in the reference: {asked:?}")),
    }
}

/// Every decision of random histories is the one that the slow reference takes.
#[test]
fn decisions_are_those_of_a_slow_reference() {
    let histories = std::env::var("MIAOXIANG_HISTORIES").ok().and_then(|text| text.parse().ok());
    let histories: u64 = histories.unwrap_or(HISTORIES);
    let found: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut stage = Stage::new();
                    (thread..histories).step_by(THREADS as usize).try_for_each(|seed| stage.play(seed))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for found in found {
        found.expect("the same decisions");
    }
}
