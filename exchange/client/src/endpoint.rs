//! Where a listener is reached.
//!
//! A value; nothing to lose.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// Where a listener is reached, and the name that its certificate must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    authority: String,
    name: ServerName<'static>,
}

/// Why a text names no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no colon.
    #[error("HOST:PORT is needed")]
    NoPort,
    /// The part behind the last colon is no port.
    #[error("the port is a number up to 65535")]
    Port,
    /// The part before it is neither a name nor an address.
    #[error("not the name of a host")]
    Host,
}

impl Endpoint {
    /// Host and port as they were given.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same host at the port that follows: the public listener of an exchange, unless its configuration says otherwise.
    pub fn next_port(&self) -> Option<Self> {
        let (host, port) = self.authority.rsplit_once(':')?;
        let next = port.parse::<u16>().ok()?.checked_add(1)?;
        Some(Self { authority: format!("{host}:{next}"), name: self.name.clone() })
    }

    pub(crate) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

impl From<SocketAddr> for Endpoint {
    /// A server that listens on all addresses is reached on loopback.
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let authority = SocketAddr::new(ip, address.port()).to_string();
        Self { authority, name: ServerName::IpAddress(ip.into()) }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::NoPort)?;
        port.parse::<u16>().map_err(|_| EndpointError::Port)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| EndpointError::Host)?;
        Ok(Self { authority: text.to_owned(), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_by_the_name_that_its_certificate_holds() {
        for (text, authority, name) in [
            ("0.0.0.0:8443", "127.0.0.1:8443", "127.0.0.1"),
            ("[::]:8443", "[::1]:8443", "::1"),
            ("192.0.2.1:8443", "192.0.2.1:8443", "192.0.2.1"),
            ("exchange.example:443", "exchange.example:443", "exchange.example"),
        ] {
            let endpoint: Endpoint = text.parse().expect("an endpoint");
            assert_eq!((endpoint.authority(), &*endpoint.name().to_str()), (authority, name));
        }
        for bad in ["", "exchange.example", "exchange.example:", "exchange.example:70000", "a b:1", ":443"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_public_listener_follows() {
        let next = |text: &str| text.parse::<Endpoint>().expect("an endpoint").next_port();
        let public = next("exchange.example:8443").expect("a port");
        assert_eq!(
            (public.authority(), &*public.name().to_str()),
            ("exchange.example:8444", "exchange.example")
        );
        assert_eq!(next("[::1]:9").expect("a port").authority(), "[::1]:10");
        assert_eq!(next("exchange.example:65535"), None);
    }
}
