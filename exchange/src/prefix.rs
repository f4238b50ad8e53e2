//! The address of a witness, as it is configured.
//!
//! The configuration and the witnesses' tasks read by it. Pure functions; nothing to lose.

/// Where a witness takes submissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Prefix {
    /// Reads `http://host:port`, perhaps with a path; `None` for anything else.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: hyper::Uri = url.parse().ok()?;
        let plain = uri.scheme_str() == Some("http") && uri.query().is_none();
        let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path().trim_end_matches('/').to_owned();
        Some(Self { host, port: authority.port_u16()?, path })
    }
}
