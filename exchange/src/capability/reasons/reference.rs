//! Rights once more, written apart from the gateway's: a plain list of what happened, read from its beginning for every question. Slow, and
//! obvious instead. The model test compares decisions with it.
//!
//! Tests alone have this file. It shares no code with what it is compared with. Nothing is written.

use std::collections::BTreeSet;

/// How much is asked for or granted, least first; the signed bytes stand apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Much {
    Verify,
    Fields,
    Face,
    Copy,
    Envelope,
}

impl Much {
    pub(super) const ALL: [Self; 5] = [Self::Verify, Self::Fields, Self::Face, Self::Copy, Self::Envelope];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Fields => "fields",
            Self::Face => "face",
            Self::Copy => "copy",
            Self::Envelope => "envelope",
        }
    }

    /// Whether who has this may have the other.
    fn gives(self, other: Self) -> bool {
        if self == Self::Envelope || other == Self::Envelope { self == other } else { other <= self }
    }
}

/// Whether each of some modes is given by one of others.
fn within(inner: &BTreeSet<Much>, outer: &BTreeSet<Much>) -> bool {
    inner.iter().all(|wanted| outer.iter().any(|had| had.gives(*wanted)))
}

/// By what an agent acts for the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Agent,
    Relative,
    Representative,
    Manager,
    Clerk,
}

impl By {
    fn rank(self) -> Option<u8> {
        match self {
            Self::Representative => Some(1),
            Self::Manager => Some(2),
            Self::Clerk => Some(3),
            Self::Agent | Self::Relative => None,
        }
    }
}

/// Terms of a link.
#[derive(Clone, Debug)]
pub(super) struct LinkTerms {
    pub(super) agent: usize,
    pub(super) via: Option<usize>,
    pub(super) by: By,
    pub(super) modes: BTreeSet<Much>,
    /// Types of licenses; empty: all.
    pub(super) types: BTreeSet<usize>,
    pub(super) until: u64,
}

/// The licenses of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    License(usize),
    Type(usize),
}

/// Terms of a grant.
#[derive(Clone, Debug)]
pub(super) struct GrantTerms {
    pub(super) by: Option<usize>,
    pub(super) grantee: usize,
    pub(super) of: Of,
    pub(super) modes: BTreeSet<Much>,
    /// Fields by number; empty: none, or all where the face is given.
    pub(super) fields: BTreeSet<usize>,
    pub(super) item: Option<usize>,
    pub(super) purpose: Option<usize>,
    pub(super) scenario: Option<usize>,
    pub(super) user: Option<usize>,
    pub(super) until: u64,
    pub(super) most: Option<u32>,
}

/// Narrower terms of a grant.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrower {
    pub(super) modes: Option<BTreeSet<Much>>,
    pub(super) item: Option<usize>,
    pub(super) purpose: Option<usize>,
    pub(super) scenario: Option<usize>,
    pub(super) user: Option<usize>,
    pub(super) until: Option<u64>,
    pub(super) most: Option<u32>,
}

/// A use of a license.
#[derive(Clone, Debug)]
pub(super) struct UseTerms {
    pub(super) caller: usize,
    pub(super) grant: usize,
    pub(super) license: usize,
    pub(super) mode: Much,
    pub(super) fields: BTreeSet<usize>,
    pub(super) item: usize,
    pub(super) case: usize,
    pub(super) purpose: Option<usize>,
    pub(super) scenario: Option<usize>,
    pub(super) user: usize,
}

/// A step of a grant's life.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Pause,
    Resume,
    Narrow(Narrower),
    Revoke,
}

/// A thing that happened, because it was permitted.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Link(LinkTerms),
    EndLink(usize),
    Grant(GrantTerms),
    Step(usize, Step),
    Use(UseTerms),
    /// The portal vouches from now on, or no longer.
    Portal(bool),
}

/// The licenses there are: whose each is, and its type. Number 0 of the holders is the organisation that grants.
pub(super) const LICENSES: [(usize, usize); 4] = [(0, 0), (0, 0), (0, 1), (1, 0)];
/// Numbers of the parties that may hold a grant; behind them stands one that may not.
pub(super) const GRANTEES: usize = 2;

/// All that happened, with its moment.
#[derive(Default)]
pub(super) struct Reference {
    log: Vec<(u64, Event)>,
}

/// A link as the list leaves it.
#[derive(Clone, Debug)]
struct LinkNow {
    /// Place in the list at which it became this link.
    since: usize,
    under: Option<(usize, usize)>,
    terms: LinkTerms,
    ended: bool,
}

impl LinkNow {
    fn lives(&self, now: u64) -> bool {
        !self.ended && now <= self.terms.until
    }
}

/// A grant as the list leaves it.
#[derive(Clone, Debug)]
struct GrantNow {
    terms: GrantTerms,
    /// The links by which it was made, the holder's own first.
    chain: Vec<(usize, usize)>,
    paused: bool,
    revoked: bool,
}

impl GrantNow {
    fn allows_field(&self, field: usize) -> bool {
        let shows_all = self.terms.modes.contains(&Much::Face) || self.terms.modes.contains(&Much::Copy);
        self.terms.fields.contains(&field) || self.terms.fields.is_empty() && shows_all
    }
}

impl Reference {
    pub(super) fn happened(&mut self, at: u64, event: Event) {
        self.log.push((at, event));
    }

    fn link(&self, agent: usize, upto: usize) -> Option<LinkNow> {
        let mut now: Option<LinkNow> = None;
        for (place, (at, event)) in self.log[..upto].iter().enumerate() {
            match event {
                Event::Link(terms) if terms.agent == agent => {
                    let under = terms
                        .via
                        .map(|via| (via, self.link(via, place).map_or(usize::MAX, |above| above.since)));
                    let goes_on = now.as_ref().filter(|before| {
                        before.lives(*at) && before.terms.by == terms.by && before.under == under
                    });
                    let since = goes_on.map_or(place, |before| before.since);
                    now = Some(LinkNow { since, under, terms: terms.clone(), ended: false });
                }
                Event::EndLink(ended) if *ended == agent => {
                    if let Some(now) = &mut now {
                        now.ended = true;
                    }
                }
                _ => {}
            }
        }
        now
    }

    /// The links by which an agent acts at a moment, the holder's own first.
    fn chain(&self, agent: usize, now: u64, upto: usize) -> Option<Vec<LinkNow>> {
        let mut links: Vec<LinkNow> = Vec::new();
        let mut wanted = (agent, None);
        loop {
            let link = self.link(wanted.0, upto)?;
            if !link.lives(now) || wanted.1.is_some_and(|since| since != link.since) || links.len() == 3 {
                return None;
            }
            if let Some(below) = links.last() {
                let types = link.terms.types.is_empty()
                    || !below.terms.types.is_empty() && below.terms.types.is_subset(&link.terms.types);
                let ranks = link.terms.by.rank() < below.terms.by.rank() && link.terms.by.rank().is_some();
                if !types
                    || !ranks
                    || below.terms.until > link.terms.until
                    || !within(&below.terms.modes, &link.terms.modes)
                {
                    return None;
                }
            }
            let under = link.under;
            links.push(link);
            match under {
                Some((above, since)) => wanted = (above, Some(since)),
                None => {
                    links.reverse();
                    return Some(links);
                }
            }
        }
    }

    fn grant(&self, number: usize) -> Option<GrantNow> {
        let mut met = 0;
        let mut now: Option<GrantNow> = None;
        for (place, (at, event)) in self.log.iter().enumerate() {
            match event {
                Event::Grant(terms) => {
                    if met == number {
                        let chain = terms.by.and_then(|agent| self.chain(agent, *at, place));
                        let chain = chain.into_iter().flatten().map(|link| (link.terms.agent, link.since));
                        let (terms, chain) = (terms.clone(), chain.collect());
                        now = Some(GrantNow { terms, chain, paused: false, revoked: false });
                    }
                    met += 1;
                }
                Event::Step(of, step) if *of == number => {
                    let Some(grant) = &mut now else { continue };
                    match step {
                        Step::Pause => grant.paused = true,
                        Step::Resume => grant.paused = false,
                        Step::Revoke => grant.revoked = true,
                        Step::Narrow(less) => {
                            let terms = &mut grant.terms;
                            // What fields there were stays, also where they were all of them.
                            let all = terms.fields.is_empty()
                                && (terms.modes.contains(&Much::Face) || terms.modes.contains(&Much::Copy));
                            if all {
                                terms.fields = (0..FIELDS).collect();
                            }
                            terms.modes = less.modes.clone().unwrap_or_else(|| terms.modes.clone());
                            terms.item = less.item.or(terms.item);
                            terms.purpose = less.purpose.or(terms.purpose);
                            terms.scenario = less.scenario.or(terms.scenario);
                            terms.user = less.user.or(terms.user);
                            terms.until = less.until.unwrap_or(terms.until);
                            terms.most = less.most.or(terms.most);
                        }
                    }
                }
                _ => {}
            }
        }
        now
    }

    fn vouches(&self) -> bool {
        let last = self.log.iter().rev().find_map(|(_, event)| match event {
            Event::Portal(vouches) => Some(*vouches),
            _ => None,
        });
        last.unwrap_or(true)
    }

    /// The cases in which a grant was used while it had a limit: without one nothing is counted.
    pub(super) fn cases(&self, grant: usize) -> BTreeSet<(usize, usize, usize)> {
        let (mut met, mut limited, mut cases) = (0, false, BTreeSet::new());
        for (_, event) in &self.log {
            match event {
                Event::Grant(terms) => {
                    limited |= met == grant && terms.most.is_some();
                    met += 1;
                }
                Event::Step(of, Step::Narrow(less)) if *of == grant => limited |= less.most.is_some(),
                Event::Use(used) if used.grant == grant && limited => {
                    cases.insert((used.license, used.item, used.case));
                }
                _ => {}
            }
        }
        cases
    }

    /// How many grants were made.
    pub(super) fn grants(&self) -> usize {
        self.log.iter().filter(|(_, event)| matches!(event, Event::Grant(_))).count()
    }

    /// Every cause for which a use is refused; none: it is permitted.
    pub(super) fn refuses_use(&self, asked: &UseTerms, now: u64) -> Vec<&'static str> {
        let mut causes = Vec::new();
        let Some(grant) = self.grant(asked.grant) else { return vec!["no-such-grant"] };
        let (holder, license_type) = LICENSES[asked.license];
        let mut unless = |holds: bool, cause| {
            if !holds {
                causes.push(cause);
            }
        };
        let terms = &grant.terms;
        unless(terms.grantee == asked.caller, "other-grantee");
        unless(holder == 0, "other-holder");
        unless(!grant.revoked, "grant-revoked");
        unless(!grant.paused, "grant-paused");
        unless(now <= terms.until, "grant-expired");
        unless(self.vouches(), "portal-inactive");
        unless(
            match terms.of {
                Of::License(license) => license == asked.license,
                Of::Type(of) => of == license_type,
            },
            "grant-other-target",
        );
        let linked = grant.chain.iter().all(|(agent, since)| {
            self.link(*agent, self.log.len()).is_some_and(|link| {
                let of_type = link.terms.types.is_empty() || link.terms.types.contains(&license_type);
                link.since == *since && link.lives(now) && of_type && within(&terms.modes, &link.terms.modes)
            })
        });
        unless(linked, "grant-link-ended");
        unless(terms.modes.iter().any(|had| had.gives(asked.mode)), "grant-other-mode");
        unless(asked.fields.iter().all(|field| grant.allows_field(*field)), "grant-other-fields");
        unless(terms.item.is_none_or(|item| item == asked.item), "grant-other-item");
        unless(terms.purpose.is_none() || terms.purpose == asked.purpose, "grant-other-purpose");
        unless(terms.scenario.is_none() || terms.scenario == asked.scenario, "grant-other-scenario");
        unless(terms.user.is_none_or(|user| user == asked.user), "grant-other-user");
        let cases = self.cases(asked.grant);
        let goes_on = cases.contains(&(asked.license, asked.item, asked.case));
        let has_room = terms.most.is_none_or(|most| (cases.len() as u32) < most);
        unless(goes_on || has_room, "grant-used-up");
        causes
    }

    /// The same for a new grant.
    pub(super) fn refuses_grant(&self, asked: &GrantTerms, now: u64) -> Vec<&'static str> {
        let mut causes = Vec::new();
        let license_type = match asked.of {
            Of::License(license) => {
                if LICENSES[license].0 != 0 {
                    causes.push("other-holder");
                }
                LICENSES[license].1
            }
            Of::Type(of) => of,
        };
        if let Some(agent) = asked.by {
            match self.chain(agent, now, self.log.len()) {
                None => causes.push("no-link"),
                Some(chain) => {
                    let may = chain.iter().all(|link| {
                        let of_type = link.terms.types.is_empty() || link.terms.types.contains(&license_type);
                        of_type && within(&asked.modes, &link.terms.modes) && asked.until <= link.terms.until
                    });
                    if !may {
                        causes.push("beyond-link");
                    }
                }
            }
        }
        if asked.until <= now || asked.grantee >= GRANTEES {
            causes.push("bad-grant");
        }
        causes
    }

    /// The same for a step of a grant's life, asked for by the holder or an agent.
    pub(super) fn refuses_step(
        &self,
        number: usize,
        step: &Step,
        by: Option<usize>,
        now: u64,
    ) -> Vec<&'static str> {
        let mut causes = Vec::new();
        let chain = by.map(|agent| self.chain(agent, now, self.log.len()));
        if chain.as_ref().is_some_and(Option::is_none) {
            causes.push("no-link");
        }
        let Some(grant) = self.grant(number) else {
            causes.push("no-such-grant");
            return causes;
        };
        if let Some(Some(chain)) = chain {
            let own: Vec<_> = chain.iter().map(|link| (link.terms.agent, link.since)).collect();
            if own != grant.chain {
                causes.push("beyond-link");
            }
        }
        let fits = match step {
            Step::Pause => !grant.paused,
            Step::Resume => grant.paused,
            Step::Revoke => true,
            Step::Narrow(less) => {
                let terms = &grant.terms;
                let same =
                    |old: Option<usize>, new: Option<usize>| old.is_none() || new.is_none() || old == new;
                less.modes.as_ref().is_none_or(|modes| within(modes, &terms.modes))
                    && same(terms.item, less.item)
                    && same(terms.purpose, less.purpose)
                    && same(terms.scenario, less.scenario)
                    && same(terms.user, less.user)
                    && less.until.is_none_or(|until| until <= terms.until)
                    && less.most.is_none_or(|most| terms.most.is_none_or(|had| most <= had))
            }
        };
        if grant.revoked || !fits {
            causes.push("bad-grant");
        }
        causes
    }

    /// The same for a link.
    pub(super) fn refuses_link(&self, asked: &LinkTerms, now: u64) -> Vec<&'static str> {
        let mut causes = Vec::new();
        let mut fits = asked.until > now && asked.by != By::Relative;
        match asked.via {
            None => fits &= !matches!(asked.by, By::Manager | By::Clerk),
            Some(via) => match self.chain(via, now, self.log.len()) {
                None => causes.push("no-link"),
                Some(chain) => {
                    let nearest = &chain[chain.len() - 1].terms;
                    fits &= nearest.by.rank().is_some() && nearest.by.rank() < asked.by.rank();
                    fits &= chain.iter().all(|link| link.terms.agent != asked.agent);
                    fits &= within(&asked.modes, &nearest.modes);
                    fits &= nearest.types.is_empty()
                        || !asked.types.is_empty() && asked.types.is_subset(&nearest.types);
                    fits &= chain.iter().all(|link| asked.until <= link.terms.until);
                }
            },
        }
        if !fits {
            causes.push("bad-link");
        }
        causes
    }

    /// The same for the end of a link.
    pub(super) fn refuses_end(&self, agent: usize) -> Vec<&'static str> {
        if self.link(agent, self.log.len()).is_some_and(|link| !link.ended) {
            vec![]
        } else {
            vec!["bad-link"]
        }
    }
}

/// Fields that are granted and asked for.
pub(super) const FIELDS: usize = 3;
