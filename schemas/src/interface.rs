//! Interfaces of data providers: where the exchange calls them, and the address that two operators allow for it.
//!
//! Values that requests and journaled documents hold. Pure functions; nothing to lose.

use serde::{Deserialize, Serialize};

use crate::codes::Rule;
use crate::identifier::Uscc;
use crate::resource::Fault;

/// Most characters of a URL.
pub const MAX_URL_CHARS: usize = 500;
/// Most characters of the certificates of an address.
pub const MAX_AUTHORITIES_CHARS: usize = 16 * 1024;
/// Least and most time of a call, ms.
pub const DEADLINE_MS: std::ops::RangeInclusive<u32> = 100..=10_000;

const HTTPS: &str = "https://";
/// Port of a URL that names none.
const HTTPS_PORT: u16 = 443;
const URL_FORM: &str = "https://host[:port]/path, the host in small letters, without user, query or fragment";
const HOST_FORM: &str = "a host name in small letters, or an IPv4 address";

/// The interface that a resource is supplied by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Interface {
    /// Where it is called, by POST. Example: `https://data.example:8443/records`.
    pub url: String,
    /// How long a whole call may take, ms.
    pub deadline_ms: u32,
}

impl Interface {
    /// Host, port and path; `None` where the URL is none that is called.
    pub fn parts(&self) -> Option<(&str, u16, &str)> {
        let rest = self.url.strip_prefix(HTTPS)?;
        let slash = rest.find('/')?;
        let (authority, path) = rest.split_at_checked(slash)?;
        let (host, port) = match authority.split_once(':') {
            None => (authority, HTTPS_PORT),
            // No sign and no leading zero: one address has one spelling.
            Some((host, digits)) => {
                let port: u16 = digits.parse().ok()?;
                (host, Some(port).filter(|port| port.to_string() == digits)?)
            }
        };
        let is_path = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
        let fits = is_host(host) && port != 0 && path.bytes().all(is_path) && self.url.len() <= MAX_URL_CHARS;
        fits.then_some((host, port, path))
    }

    /// Everything that is wrong with it, under the resource's definition.
    pub(crate) fn faults(&self, faults: &mut Vec<Fault>) {
        if self.parts().is_none() {
            faults.push(fault("/interface/url", Rule::Pattern, URL_FORM));
        }
        if !DEADLINE_MS.contains(&self.deadline_ms) {
            let form = format!("{} to {}", DEADLINE_MS.start(), DEADLINE_MS.end());
            faults.push(fault("/interface/deadlineMs", Rule::Range, form));
        }
    }
}

/// An address of a provider's: calls to it are allowed by two operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Address {
    /// The provider.
    pub organisation: Uscc,
    /// Host, as the interface's URL has it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Certificates in PEM, one of which the provider's must chain to. Without them the address is no longer allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

impl Address {
    /// Everything that is wrong with it, but for what stands in the certificates.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !is_host(&self.host) {
            faults.push(fault("/host", Rule::Pattern, HOST_FORM));
        }
        if self.port == 0 {
            faults.push(fault("/port", Rule::Range, "1 to 65535"));
        }
        if self.authorities.as_ref().is_some_and(|text| text.len() > MAX_AUTHORITIES_CHARS) {
            let form = format!("at most {MAX_AUTHORITIES_CHARS} characters");
            faults.push(fault("/authorities", Rule::Length, form));
        }
        faults
    }
}

/// Whether a text is a host name in small letters (RFC 1123), or an IPv4 address.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn fault(pointer: &str, rule: Rule, form: impl Into<String>) -> Fault {
    Fault { pointer: pointer.to_owned(), rule, form: form.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_spelling() {
        let parts = |url: &str| {
            let interface = Interface { url: url.to_owned(), deadline_ms: 1_000 };
            interface.parts().map(|(host, port, path)| (host.to_owned(), port, path.to_owned()))
        };
        let at = |host: &str, port, path: &str| Some((host.to_owned(), port, path.to_owned()));
        assert_eq!(parts("https://data.example:8443/v1/rows"), at("data.example", 8443, "/v1/rows"));
        assert_eq!(parts("https://data.example/"), at("data.example", 443, "/"));
        assert_eq!(parts("https://192.0.2.1:1/"), at("192.0.2.1", 1, "/"));
        for wrong in [
            "http://data.example/",
            "https://data.example",
            "https://Data.example/",
            "https://user@data.example/",
            "https://data.example:0/",
            "https://data.example:+1/",
            "https://data.example:08443/",
            "https://data.example:99999/",
            "https://data.example/?id=1",
            "https://data.example/#a",
            "https://data.example/a b",
            "https://data.example/\r\nHost: other",
            "https://[::1]/",
            "https:///",
            "https://a..b/",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
