//! Everything that ends by itself, and how an operator learns of it in time: certificates, revocation lists, signing keys, the trust
//! bundle.
//!
//! The reload asks for it. It is memory: a start says each ending anew.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use metrics::gauge;
use schemas::date::rfc3339;
use schemas::identifier::Uscc;
use verifier::trust::Trust;

use crate::certificates::TlsFiles;

/// Gauge of the seconds until the first of a kind ends, negative when it has ended; label `what` ([`Kind::label`]).
pub const EXPIRES: &str = "miaoxiang_expires_seconds";

const DAY: u64 = 86_400;

/// The kind of thing that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A certificate of the server's chain: past it clients refuse the server.
    ServerCertificate,
    /// An authority of client certificates: past it its clients are refused.
    ClientCa,
    /// A revocation list, which ends when the next one is due: past it its authority's clients are refused.
    RevocationList,
    /// The last key that an authority can sign with: past it nothing is issued for it.
    SigningKey,
    /// The trust bundle: past it no checker can tell anything by it.
    TrustBundle,
    /// A certificate of the chain for calls to data providers: past it they refuse the exchange.
    OutgoingCertificate,
}

impl Kind {
    /// Its name in metrics and states.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ServerCertificate => "server-certificate",
            Self::ClientCa => "client-ca",
            Self::RevocationList => "revocation-list",
            Self::SigningKey => "signing-key",
            Self::TrustBundle => "trust-bundle",
            Self::OutgoingCertificate => "outgoing-certificate",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::ServerCertificate => "server certificate",
            Self::ClientCa => "client CA",
            Self::RevocationList => "revocation list of",
            Self::SigningKey => "signing keys of",
            Self::TrustBundle => "trust bundle",
            Self::OutgoingCertificate => "certificate for calls",
        }
    }

    /// The consequence when it is over.
    const fn follows(self) -> &'static str {
        match self {
            Self::ServerCertificate => "clients refuse this server",
            Self::ClientCa | Self::RevocationList => "new connections of its clients are refused",
            Self::SigningKey => "nothing can be issued for it",
            Self::TrustBundle => "checkers cannot tell anything by it",
            Self::OutgoingCertificate => "data providers refuse the exchange",
        }
    }
}

/// How near an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// More than 30 days away.
    Far,
    /// Within 30 days.
    Month,
    /// Within 7 days.
    Week,
    /// Within a day.
    Day,
    /// Over.
    Over,
}

/// One thing that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its kind.
    pub kind: Kind,
    /// Which of its kind.
    pub name: String,
    /// First second at which it is over, since 1970.
    pub at: u64,
    /// How long it is still taken after that, seconds.
    pub grace: u64,
}

impl Ending {
    /// How near its end is at a moment, seconds since 1970.
    pub fn nearness(&self, now: u64) -> Nearness {
        match self.at.saturating_sub(now) {
            0 => Nearness::Over,
            left if left <= DAY => Nearness::Day,
            left if left <= 7 * DAY => Nearness::Week,
            left if left <= 30 * DAY => Nearness::Month,
            _ => Nearness::Far,
        }
    }

    /// In words, without what follows.
    pub fn words(&self, now: u64) -> String {
        let Self { kind, name, at, grace } = self;
        let (title, until) = (kind.title(), rfc3339(at.saturating_mul(1_000)));
        let mut words = match at.checked_sub(now).filter(|left| *left > 0) {
            Some(left) => format!("{title} {name}: until {until} ({})", span(left)),
            None if at.saturating_add(*grace) > now => {
                let last = rfc3339(at.saturating_add(*grace).saturating_mul(1_000));
                return format!("{title} {name}: over since {until}, taken until {last} by its grace");
            }
            None => format!("{title} {name}: over since {until}: {}", kind.follows()),
        };
        if *grace > 0 {
            words.push_str(&format!(", {} of grace", span(*grace)));
        }
        words
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / DAY),
    }
}

/// Everything that ends. `signing` are the authorities whose keys this exchange holds.
pub fn endings<'a>(
    tls: &TlsFiles,
    trust: &Trust,
    signing: impl IntoIterator<Item = &'a Uscc>,
    now: u64,
) -> Vec<Ending> {
    let ending = |kind, name: &str, at| Ending { kind, name: name.to_owned(), at, grace: 0 };
    let mut all = Vec::new();
    all.extend(
        tls.identity.described.iter().map(|one| ending(Kind::ServerCertificate, &one.name, one.until)),
    );
    let outgoing = tls.outgoing_described.iter();
    all.extend(outgoing.map(|one| ending(Kind::OutgoingCertificate, &one.name, one.until)));
    all.extend(tls.authorities.roots().map(|one| ending(Kind::ClientCa, &one.name, one.until)));
    let lists = tls.authorities.lists().map(|(one, ..)| ending(Kind::RevocationList, &one.name, one.until));
    all.extend(lists.map(|one| Ending { grace: tls.authorities.grace(), ..one }));
    for organisation in signing {
        if let Some(at) = last_signature(trust, organisation, now) {
            all.push(ending(Kind::SigningKey, organisation.as_str(), at));
        }
    }
    all.push(ending(Kind::TrustBundle, &trust.sequence.to_string(), trust.expires));
    all
}

/// The second from which on an authority can sign nothing that a checker takes: when the first of its required suites
/// has no key left.
fn last_signature(trust: &Trust, organisation: &Uscc, now: u64) -> Option<u64> {
    let issuer = trust.issuer(organisation)?;
    let usable = || issuer.keys.iter().filter(|key| key.compromised_at_size.is_none());
    let last = |suite: Option<u8>| {
        let of_suite = usable().filter(|key| suite.is_none_or(|suite| key.suite == suite));
        of_suite.map(|key| key.until).max().unwrap_or(0)
    };
    let required = issuer.required_suites.iter().filter(|required| required.from <= now);
    Some(required.map(|required| last(Some(required.suite))).min().unwrap_or_else(|| last(None)))
}

/// Steps that were said of each ending so far, so that each step nearer is said once.
#[derive(Default)]
pub struct Told(BTreeMap<(Kind, String), Nearness>);

impl Told {
    /// Sets the metrics, and logs what has come nearer since the last call.
    pub fn tell(&mut self, endings: &[Ending], now: u64) {
        let mut first: BTreeMap<Kind, u64> = BTreeMap::new();
        for ending in endings {
            let known = first.entry(ending.kind).or_insert(u64::MAX);
            *known = ending.at.min(*known);
            let nearness = ending.nearness(now);
            let told = self.0.insert((ending.kind, ending.name.clone()), nearness);
            if nearness > told.unwrap_or(Nearness::Far) {
                match nearness {
                    Nearness::Over => tracing::error!(what = ending.kind.label(), "{}", ending.words(now)),
                    _ => tracing::warn!(what = ending.kind.label(), "{}", ending.words(now)),
                }
            }
        }
        // A replaced one is told anew should it come again.
        self.0.retain(|(kind, name), _| endings.iter().any(|one| one.kind == *kind && one.name == *name));
        for (kind, at) in first {
            gauge!(EXPIRES, "what" => kind.label()).set(at as f64 - now as f64);
        }
    }
}

/// The lines of `check-config`: everything that ends, the next one first.
pub fn lines(mut endings: Vec<Ending>, now: u64) -> Vec<String> {
    endings.sort_by_key(|ending| (Reverse(ending.nearness(now)), ending.kind, ending.at));
    endings.iter().map(|ending| ending.words(now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_told_in_words_and_by_steps() {
        let at = schemas::date::parse_rfc3339("2026-12-01T00:00:00Z").unwrap() / 1_000;
        let ending = Ending { kind: Kind::RevocationList, name: "CN=a".to_owned(), at, grace: 0 };
        for (left, nearness, word) in [
            (31 * DAY, Nearness::Far, "(31 days)"),
            (30 * DAY, Nearness::Month, "(30 days)"),
            (7 * DAY, Nearness::Week, "(7 days)"),
            (DAY, Nearness::Day, "(24 h)"),
            (1, Nearness::Day, "(0 min)"),
        ] {
            assert_eq!(ending.nearness(at - left), nearness);
            let words = ending.words(at - left);
            assert!(words.contains(word) && words.contains("CN=a: until 2026-12-01T00:00:00"), "{words}");
        }
        assert_eq!(ending.nearness(at), Nearness::Over);
        assert!(ending.words(at).contains("over since") && ending.words(at).contains("refused"));
        let graced = Ending { grace: 3_600, ..ending };
        assert!(graced.words(at).contains("taken until") && !graced.words(at).contains("refused"));
        assert!(graced.words(at + 3_600).contains("refused"));
    }
}
