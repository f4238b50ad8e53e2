//! By what right a use is permitted: the floor, which nothing lifts, and what a caller may rest on.
//!
//! Pure functions; nothing to lose. Decisions alone call them.

pub mod floor;
pub mod mode;
pub(crate) mod right;
