//! Bytes in JSON members, for `#[serde(with)]`.
//!
//! Pure functions; nothing to lose.

/// Standard base64 with padding.
pub(crate) mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(d: D) -> Result<T, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(d)?).map_err(|_| D::Error::custom("not base64"))?;
        bytes.try_into().map_err(|_| D::Error::custom("wrong length"))
    }
}

/// Lower-case hex.
pub(crate) mod hex_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(d: D) -> Result<T, D::Error> {
        let text = String::deserialize(d)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(D::Error::custom("hex is lower case"));
        }
        let bytes = hex::decode(text).map_err(|_| D::Error::custom("not hex"))?;
        bytes.try_into().map_err(|_| D::Error::custom("wrong length"))
    }
}
