//! Limits of a participant: what it is admitted to, how often, with which fields, from where. A line each for a class of routes and a
//! license type, or all types.
//!
//! Values of the register, which an operator writes. A limit is in the frame of its registration: a crash leaves both or neither.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemas::codes::{Code, Rule};
use schemas::identifier::LicenseTypeCode;
use schemas::kinds::Facility;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_CONTEXT_CHARS, MAX_FIELDS, owned_words, type_code};

/// Most lines of one participant.
const MAX_LIMITS: usize = 64;
/// Most networks of a line.
const MAX_SOURCES: usize = 32;
/// Longest period of a rate, seconds.
const MAX_PERIOD_SECONDS: u32 = 3_600;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limit {
    /// The class of routes.
    #[serde(rename = "interface")]
    pub facility: Facility,
    /// The license type; `None` = all for which no other line stands, counted together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// Most permitted uses a day (China Standard Time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Most permitted uses in a shorter period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Fields that may be asked for; `None` = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// Networks that its connections come from; empty = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Network>,
}

/// Uses in a period. Periods follow each other from 1970 on, so a restart changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rate {
    /// Most permitted uses.
    pub uses: u32,
    /// Length of the period, seconds.
    pub seconds: u32,
}

impl Rate {
    /// The period of a moment, and its end, ms since 1970.
    pub(crate) fn period(self, now_ms: u64) -> (u64, u64) {
        let length = u64::from(self.seconds.max(1)).saturating_mul(1_000);
        let number = now_ms / length;
        (number, (number + 1).saturating_mul(length))
    }
}

/// A network by its first address and the length of its prefix, as `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// The address as a number of 128 bits, and how many bits of that are its own.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The first `prefix` bits.
fn front(bits: u128, prefix: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl Network {
    /// Whether an address is in it. An IPv4 address that a socket of IPv6 shows is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, length), (other, of)) = (bits(self.first), bits(address.to_canonical()));
        length == of && own == front(other, self.prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "no network as 192.0.2.0/24 or 2001:db8::/32";
        let (address, prefix) = text.split_once('/').ok_or(wrong)?;
        let first: IpAddr = address.parse().map_err(|_| wrong)?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong)?;
        let (own, length) = bits(first);
        let network = Self { first, prefix };
        // The one form of each: no bit behind the prefix, no IPv4 in IPv6, no sign and no zero before a number.
        let is_one_form = prefix <= length
            && front(own, prefix) == own
            && first == first.to_canonical()
            && network.to_string() == text;
        if is_one_form { Ok(network) } else { Err(wrong) }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A line as it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WireLimit {
    interface: Facility,
    type_code: Option<String>,
    daily: Option<u32>,
    rate: Option<Rate>,
    fields: Option<Vec<String>>,
    sources: Option<Vec<String>>,
}

/// The lines of a registration.
pub(crate) fn typed(lines: Vec<WireLimit>) -> Result<Vec<Limit>, Refusal> {
    const BAD: Code = Code::BadParticipant;
    let mut wrong = Gather::new();
    if lines.len() > MAX_LIMITS {
        let fault = Fault::at("", Rule::Count).bounds(0, MAX_LIMITS).got(lines.len());
        return Err(Refusal::of(BAD, fault));
    }
    let mut limits: Vec<Limit> = Vec::with_capacity(lines.len());
    for (line, place) in lines.into_iter().zip(0..) {
        let Some(limit) = wrong.take(line.typed().under(place)) else { continue };
        let same = |other: &&Limit| (other.facility, other.type_code) == (limit.facility, limit.type_code);
        if limits.iter().find(same).is_some() {
            wrong.note(Refusal::of(BAD, Fault::at(format!("/{place}"), Rule::Distinct)));
        }
        limits.push(limit);
    }
    wrong.all(Some(limits))
}

impl WireLimit {
    fn typed(self) -> Result<Limit, Refusal> {
        const BAD: Code = Code::BadParticipant;
        let mut wrong = Gather::new();
        let type_code = wrong.take(self.type_code.as_deref().map(type_code).transpose().under("typeCode"));
        if let Some(rate) = self.rate {
            let most = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
            if !(1..=MAX_PERIOD_SECONDS).contains(&rate.seconds) {
                let fault = Fault::at("/rate/seconds", Rule::Range).bounds(1, most(MAX_PERIOD_SECONDS));
                wrong.note(Refusal::of(BAD, fault));
            }
            if rate.uses == 0 {
                wrong.note(Refusal::of(BAD, Fault::at("/rate/uses", Rule::Range).bounds(1, most(u32::MAX))));
            }
        }
        let fields = self.fields.map(|fields| {
            if fields.len() > MAX_FIELDS {
                let fault = Fault::at("", Rule::Count).bounds(0, MAX_FIELDS).got(fields.len());
                return Err(Refusal::of(BAD, fault));
            }
            let fields = fields.into_iter().zip(0..);
            fields.map(|(name, place)| owned_words(BAD, name, MAX_CONTEXT_CHARS).under(place)).collect()
        });
        let fields = wrong.take(fields.transpose().under("fields"));
        let sources = self.sources.unwrap_or_default();
        if sources.len() > MAX_SOURCES {
            let fault = Fault::at("/sources", Rule::Count).bounds(0, MAX_SOURCES).got(sources.len());
            return Err(Refusal::of(BAD, fault));
        }
        let sources = sources.iter().zip(0..).map(|(text, place)| {
            text.parse::<Network>().map_err(|form| {
                let at = format!("/sources/{place}");
                Refusal::of(BAD, Fault::at(at, Rule::Pattern).form(form).got(text.chars().count()))
            })
        });
        let sources = wrong.take(sources.collect::<Result<Vec<_>, _>>());
        let typed = || {
            Some(Limit {
                facility: self.interface,
                type_code: type_code?,
                daily: self.daily,
                rate: self.rate,
                fields: fields?,
                sources: sources?,
            })
        };
        wrong.all(typed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_form_and_holds_its_addresses() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("127.0.0.1/32", "::ffff:127.0.0.1", "127.0.0.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("::1/128", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.contains(inside.parse().expect("an address")), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().expect("an address")), "{network} {outside}");
        }
        for wrong in [
            "",
            "192.0.2.0",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "192.0.2.0/+24",
            "192.0.2.0/024",
            "::ffff:192.0.2.0/120",
            "2001:DB8::/32",
            "x/8",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn periods_follow_each_other() {
        let rate = Rate { uses: 1, seconds: 60 };
        assert_eq!(
            (rate.period(0), rate.period(59_999), rate.period(60_000)),
            ((0, 60_000), (0, 60_000), (1, 120_000))
        );
    }
}
