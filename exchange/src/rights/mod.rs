//! By what right a use is permitted: the floor, which nothing lifts, and what a caller may rest on.
//!
//! Pure functions; nothing to lose. Decisions alone call them.

pub(crate) mod admission;
pub(crate) mod assertion;
pub(crate) mod code;
pub mod floor;
pub(crate) mod link;
pub mod mode;
pub(crate) mod right;
