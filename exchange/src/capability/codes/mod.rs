//! Presentation codes (亮证码): minted and ended by the portal that vouches for a holder, scanned by verifiers.
//!
//! The three routes alone write codes, as documents of journaled state. A crash leaves a code and its entry, or neither.

pub(crate) mod end;
pub(crate) mod mint;
pub(crate) mod scan;
