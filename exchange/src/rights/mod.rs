//! By what right a use is permitted: the floor, which nothing lifts, what a caller may rest on, and the policies beside them.
//!
//! Decisions alone call them. They write nothing, so a crash leaves nothing of them.

pub(crate) mod acting;
pub(crate) mod admission;
pub(crate) mod allowed;
pub(crate) mod assertion;
pub(crate) mod code;
pub mod floor;
pub mod in_force;
pub(crate) mod intended;
pub(crate) mod link;
pub mod mode;
pub mod policy;
pub(crate) mod right;
