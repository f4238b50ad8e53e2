//! JSON of which two readers cannot read two things: no object has two members of one name.
//!
//! Documents with fixed members refuse a second one by themselves. This is for those that are read freely, where serde
//! would take the last and say nothing.
//!
//! Pure functions; nothing to lose.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, error::Category};
use std::{borrow::Cow, collections::BTreeSet, fmt};

/// Why text is not taken as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is none.
    #[error("not JSON")]
    Malformed,
    /// An object has two members of one name.
    #[error("an object has two members of one name")]
    DuplicateMember,
}

/// Reads any JSON.
///
/// # Errors
/// [`JsonError`]
pub fn read(text: &[u8]) -> Result<Value, JsonError> {
    match serde_json::from_slice::<Unique>(text) {
        Ok(Unique) => serde_json::from_slice(text).map_err(|_| JsonError::Malformed),
        Err(error) if error.classify() == Category::Data => Err(JsonError::DuplicateMember),
        Err(_) => Err(JsonError::Malformed),
    }
}

/// Any value whose objects have each member once.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::<Cow<'de, str>>::new();
        while let Some(name) = map.next_key()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member stands twice"));
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

/// How many JSON texts follow one another; `None` when anything else stands among them.
pub(crate) fn count(text: &[u8]) -> Option<usize> {
    let mut count = 0usize;
    for value in serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>() {
        value.ok()?;
        count = count.saturating_add(1);
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_stands_once_at_any_depth() {
        for good in [r#"{"a":1,"b":{"a":[null,true,-1,1.5,"x",{"a":{}}]}}"#, "[]", "3", "\"a\"", " null\n"] {
            assert_eq!(read(good.as_bytes()), Ok(serde_json::from_str(good).unwrap()), "{good}");
        }
        for twice in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"a":3}"#,
            r#"[{"b":{"a":1,"a":2}}]"#,
            // The same name in another spelling.
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert_eq!(read(twice.as_bytes()), Err(JsonError::DuplicateMember), "{twice}");
        }
        for bad in ["", "{", "{}{}", "nul", "{\"a\":1,}", "\u{feff}{}", &"[".repeat(200)] {
            assert_eq!(read(bad.as_bytes()), Err(JsonError::Malformed), "{bad}");
        }
    }

    #[test]
    fn texts_in_a_row_are_counted() {
        assert_eq!(count(b"{\n \"a\": 1\n}\n{}\n"), Some(2));
        assert_eq!(count(b""), Some(0));
        assert_eq!(count(b"{} x"), None);
    }
}
