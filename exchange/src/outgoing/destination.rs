//! Where a call may be connected to: no address of this machine or its link, and none that reaches our own listeners.
//!
//! Asked of each address that a host name stands for, at the moment of the connection. Pure but for one question to the system.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Rules of this process.
#[derive(Clone, Debug)]
pub struct Destinations {
    /// Our own listeners.
    pub own: Vec<SocketAddr>,
    /// A development exchange calls whom it likes.
    pub any: bool,
}

impl Destinations {
    /// Whether an address may be connected to.
    pub(crate) fn admit(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.any || !(is_special(ip) || self.is_own(ip, address.port()))
    }

    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        self.own.iter().filter(|own| own.port() == port).any(|own| {
            let listening = own.ip().to_canonical();
            // A listener at no address in particular listens at all of this machine.
            listening == ip || listening.is_unspecified() && is_local(ip)
        })
    }
}

/// Addresses that no provider has: this machine's, the link's, a group's.
fn is_special(ip: IpAddr) -> bool {
    let of_kind = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets().first() == Some(&0),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    of_kind || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

/// Whether an address is one of this machine's: then a socket can be bound to it.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_not_called() {
        let own = vec!["0.0.0.0:8443".parse().expect("an address"), "192.0.2.7:9000".parse().expect("one")];
        let outside = Destinations { own: own.clone(), any: false };
        let admits = |text: &str| outside.admit(text.parse().expect("an address"));
        for near in [
            "127.0.0.1:443",
            "127.9.9.9:443",
            "0.0.0.0:443",
            "0.1.2.3:443",
            "169.254.169.254:443",
            "224.0.0.1:443",
            "255.255.255.255:443",
            "[::1]:443",
            "[::]:443",
            "[fe80::1]:443",
            "[ff02::1]:443",
            "[::ffff:127.0.0.1]:443",
            "[::ffff:169.254.0.1]:443",
            "192.0.2.7:9000",
        ] {
            assert!(!admits(near), "{near}");
        }
        for far in ["192.0.2.7:443", "10.1.2.3:443", "[2001:db8::1]:443", "203.0.113.9:8443"] {
            assert!(admits(far), "{far}");
        }
        // Each address of this machine is a listener's that listens at all; loopback alone is there for certain.
        assert!(outside.is_own("127.0.0.1".parse().expect("one"), 8443));
        assert!(!outside.is_own("203.0.113.9".parse().expect("one"), 8443));
        let development = Destinations { own, any: true };
        assert!(development.admit("127.0.0.1:8443".parse().expect("an address")));
    }
}
