//! Identity assertions: who a holder or a user is, as a configured identity provider says in a signed JWT.
//!
//! Decisions alone ask. The keys are memory: a start reads or fetches them again, and until then no assertion is taken. The provider's
//! own files are never written.

mod fetch;
mod jws;
mod provider;

use std::path::Path;
use std::sync::Arc;

pub use self::fetch::{Source, follow};
pub use self::jws::KeySet;
pub use self::provider::{Asserted, Keys, MAX_LIFE_SECONDS, Provider, SKEW_SECONDS, Subject};

use self::fetch::{Place, Url};
use crate::config::{Config, ConfigError};
use crate::outgoing::Destinations;

/// Most assurance levels.
const MAX_LEVELS: usize = 100;

/// The configured provider, and where its keys come from; nothing where none is configured. Connections go where `destinations` say.
///
/// # Errors
/// [`ConfigError`]: what the configuration says of it.
pub fn configured(
    config: &Config,
    destinations: Destinations,
) -> Result<Option<(Arc<Provider>, Source)>, ConfigError> {
    let Some(identity) = &config.identity else { return Ok(None) };
    let bad = |field, why: &str| ConfigError::Value { field, why: why.to_owned(), place: None };
    if identity.issuer.is_empty() || identity.audience.is_empty() {
        return Err(bad("identity.issuer", "issuer and audience have at least one character"));
    }
    if identity.levels.len() > MAX_LEVELS {
        return Err(bad("identity.levels", "at most 100"));
    }
    let url = |field, text: &str| Url::parse(text).ok_or_else(|| bad(field, "https://HOST[:PORT]/PATH"));
    let place = match (&identity.keys, &identity.discovery) {
        (Some(keys), None) if keys.contains("://") => Place::Url(url("identity.keys", keys)?),
        (Some(keys), None) => Place::File(config.path(Path::new(keys))),
        (None, Some(discovery)) => Place::Discovery(url("identity.discovery", discovery)?),
        _ => return Err(bad("identity.keys", "either keys or discovery says where the keys are")),
    };
    let tls = match (&identity.authorities, &place) {
        (Some(authorities), _) => {
            let path = config.path(authorities);
            let read = client::Tls::from_files(&path, None);
            Some(read.map_err(|error| bad("identity.authorities", &error.to_string()))?)
        }
        (None, Place::File(_)) => None,
        (None, Place::Url(_) | Place::Discovery(_)) => {
            return Err(bad(
                "identity.authorities",
                "an https address needs the authorities of its certificate",
            ));
        }
    };
    let provider = Provider::new(identity.issuer.clone(), identity.audience.clone(), identity.levels.clone());
    let keep_seconds = u64::from(identity.keep_minutes.get()) * 60;
    let source = Source { place, tls, destinations: Arc::new(destinations), keep_seconds };
    Ok(Some((Arc::new(provider), source)))
}

#[cfg(test)]
mod tests;
