//! An identity provider's word: the claims of an assertion that hold, under the keys that are in force.
//!
//! Decisions alone ask. The keys are memory, put in force by whoever reads them: a crash leaves nothing of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use schemas::codes::Reason;
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use serde::Deserialize;
use tokio::sync::Notify;

use super::jws::KeySet;
use crate::current::Current;
use crate::wire::named::holder_of;

/// Clocks may differ by this much, seconds.
pub const SKEW_SECONDS: u64 = 60;
/// Longest time for which an assertion is good, seconds.
pub const MAX_LIFE_SECONDS: u64 = 3_600;
/// Longest assertion, bytes.
pub(crate) const MAX_ASSERTION_BYTES: usize = 8 << 10;
/// Longest id of an assertion, bytes.
const MAX_ID_BYTES: usize = 256;

/// The identity provider, as it is configured.
pub struct Provider {
    issuer: String,
    audience: String,
    /// Assurance levels that are taken, the lowest first; empty: any.
    levels: Vec<String>,
    keys: Current<Keys>,
    wanted: Notify,
}

/// The provider's keys, and until when they are taken.
pub struct Keys {
    set: KeySet,
    /// Seconds since 1970: behind it nothing is taken until the provider has answered again.
    until: u64,
}

impl Keys {
    /// None yet: no assertion is taken.
    pub fn none() -> Self {
        Self { set: KeySet::default(), until: 0 }
    }

    /// Keys that are taken until a moment, seconds since 1970.
    pub fn until(set: KeySet, until: u64) -> Self {
        Self { set, until }
    }
}

/// The claims of an assertion that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asserted {
    /// Its id, which is good once where something is changed.
    pub id: String,
    /// Its assurance level, as the provider names it.
    pub level: String,
    /// The same as a number, from 1.
    pub assurance: u8,
    /// From this second on it is good no more, the skew included.
    pub ends: u64,
}

impl Asserted {
    /// The day (China Standard Time) behind which it is good no more.
    pub fn last_day(&self) -> u32 {
        let day = Date::at(i64::try_from(self.ends).unwrap_or(i64::MAX)).days();
        u32::try_from(day).unwrap_or(0).max(1)
    }
}

/// Whom an assertion is to be of.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A holder.
    Holder(&'a HolderRef),
    /// A user of the caller's organisation.
    User(&'a str),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    azp: String,
    exp: u64,
    nbf: Option<u64>,
    iat: u64,
    jti: String,
    acr: Option<String>,
    holder: Option<Holder>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    type_code: String,
    number: String,
    as_registered: Option<bool>,
}

impl Provider {
    /// A provider by its names, with no keys yet.
    pub fn new(issuer: String, audience: String, levels: Vec<String>) -> Self {
        let (keys, wanted) = (Current::new(Keys::none()), Notify::new());
        Self { issuer, audience, levels, keys, wanted }
    }

    /// The keys in force.
    pub fn keys(&self) -> &Current<Keys> {
        &self.keys
    }

    /// Until when its keys are taken, seconds since 1970; 0 where none were read yet.
    pub fn keys_until(&self) -> u64 {
        self.keys.get().until
    }

    /// Word that keys are wanted sooner.
    pub(super) fn wanted(&self) -> &Notify {
        &self.wanted
    }

    /// Checks an assertion that a caller sends of a person: of this provider, for this exchange and this caller, good now, and of
    /// nobody else.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn check(
        &self,
        assertion: &str,
        caller: &Uscc,
        subject: Subject<'_>,
        now: u64,
    ) -> Result<Asserted, Reason> {
        let keys = self.keys.get();
        if now > keys.until {
            self.wanted.notify_one();
            return Err(Reason::IdentityUnavailable);
        }
        if assertion.len() > MAX_ASSERTION_BYTES {
            return Err(Reason::AssertionMalformed);
        }
        let payload = keys.set.verify(assertion).inspect_err(|reason| {
            // The provider may have a new key.
            if *reason == Reason::AssertionKey {
                self.wanted.notify_one();
            }
        })?;
        let payload = BASE64URL.decode(payload).map_err(|_| Reason::AssertionMalformed)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Reason::AssertionMalformed)?;
        if claims.iss != self.issuer || !claims.aud.has(&self.audience) || claims.azp != caller.as_str() {
            return Err(Reason::AssertionAudience);
        }
        if claims.jti.is_empty() || claims.jti.len() > MAX_ID_BYTES {
            return Err(Reason::AssertionMalformed);
        }
        let ends = claims.exp.saturating_add(SKEW_SECONDS);
        if now >= ends || claims.exp.saturating_sub(claims.iat) > MAX_LIFE_SECONDS {
            return Err(Reason::AssertionExpired);
        }
        if claims.iat.max(claims.nbf.unwrap_or(0)) > now.saturating_add(SKEW_SECONDS) {
            return Err(Reason::AssertionEarly);
        }
        let level = claims.acr.unwrap_or_default();
        let place = self.levels.iter().position(|taken| *taken == level);
        let place = if self.levels.is_empty() { Some(0) } else { place };
        let place = place.and_then(|place| u8::try_from(place).ok()).ok_or(Reason::AssertionLevel)?;
        let is_of = match subject {
            Subject::Holder(holder) => claims.holder.is_some_and(|claimed| {
                let read = holder_of(&claimed.type_code, &claimed.number, claimed.as_registered);
                read.is_ok_and(|read| read == *holder)
            }),
            Subject::User(user) => claims.user.is_some_and(|claimed| claimed == user),
        };
        if !is_of {
            return Err(Reason::AssertionSubject);
        }
        Ok(Asserted { id: claims.jti, level, assurance: place.saturating_add(1), ends })
    }

    /// The issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}
